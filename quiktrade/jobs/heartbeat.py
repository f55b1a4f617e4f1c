"""The proof that a job cluster works and does not merely run. `broker` describes the way of a heartbeat."""

import logging
import os
from pathlib import Path

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection

from quiktrade.database.connection import answer_within
from quiktrade.jobs.watchdog import HEARTBEAT_FILE
from quiktrade.metrics.names import DATABASE_TROUBLE

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 4.0
"""The pusher and the monitor wait at most this long for the database, because heartbeats pass through both."""

JOB = "quiktrade.jobs.heartbeat.beat"
ACKNOWLEDGEMENT = "heartbeat"
_RECORD = """
INSERT INTO quiktrade_workernode (name, started_at, heartbeat_at)
VALUES (%(node)s, statement_timestamp(), statement_timestamp())
ON CONFLICT (name) DO UPDATE SET heartbeat_at = excluded.heartbeat_at,
    started_at = CASE WHEN quiktrade_workernode.heartbeat_at < excluded.heartbeat_at - %(stale)s * interval '1 second'
        THEN excluded.started_at ELSE quiktrade_workernode.started_at END
RETURNING started_at = heartbeat_at
"""
_FORGET = """
DELETE FROM quiktrade_workernode WHERE heartbeat_at < statement_timestamp() - interval '1 day'
"""
"""Containers have a new name with each deployment."""


def beat() -> None:
    """Runs in a worker and does nothing: it proves that tasks leave one queue and results reach the other."""


def record() -> None:
    """Runs in the monitor. Reports the heartbeat to the watchdog in a file, and to everyone else in a row."""
    if path := os.environ.get(HEARTBEAT_FILE):
        Path(path).touch()
    try:
        close_old_connections()
        answer_within(ANSWER_SECONDS)
        with connection.cursor() as cursor:
            cursor.execute(_RECORD, {"node": settings.NODE_NAME, "stale": settings.JOBS_STALE_SECONDS})
            if cursor.fetchone() == (True,):  # a node that has just started deletes the rows of nodes that are gone
                cursor.execute(_FORGET)
    except DatabaseError as error:
        DATABASE_TROUBLE("heartbeat").inc()
        logger.error(
            "Heartbeat not recorded", extra={"event": "cluster.heartbeat_unrecorded", "error": str(error).strip()}
        )
        connection.close()
