"""Gauges that are read from the database when Prometheus asks, by the functions that METRICS_GAUGES names.

Every process that is asked reads the same rows, so rules and panels take the `max` over instances. The reading is
bounded in time, and kept for a few seconds: what it costs does not depend on who asks how often.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Any

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db import Error as DatabaseError
from django.utils.module_loading import import_string
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from quiktrade.database import replica
from quiktrade.database.statements import fetch, reads_from

logger = logging.getLogger(__name__)

KEPT_SECONDS = 5.0
STATEMENT_MILLISECONDS = 1000
MOST_NODES = 50
NODE_HEARD_SECONDS = 3600

_DATABASE = """
SELECT (SELECT COALESCE(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()),
    (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),
    current_setting('max_connections')::int,
    (SELECT max(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn() END,
        replay_lsn))::float8 FROM pg_stat_replication),
    (SELECT count(*) FROM (SELECT FROM django_q_ormq LIMIT %(limit)s) q)
"""
_NODES = """
SELECT name, extract(epoch FROM statement_timestamp() - heartbeat_at)::float8 FROM quiktrade_workernode
WHERE heartbeat_at > statement_timestamp() - %(heard)s * interval '1 second' ORDER BY heartbeat_at DESC LIMIT %(limit)s
"""
COUNTED_TO = 10_000
"""Counts of rows stop here, so that a large backlog costs no more than this."""


def gauge(name: str, text: str, values: Iterable[tuple[Sequence[str], float | None]], *labels: str) -> Metric:
    """A gauge with its values, each after those of its labels. A value of None is left out."""
    family = GaugeMetricFamily(f"quiktrade_{name}", text, labels=labels)
    for of, value in values:
        if value is not None:
            family.add_metric(of, float(value))
    return family


def read(statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a statement that is bounded in time, from the replica within `replica.read`."""
    alias = reads_from.get() or DEFAULT_DB_ALIAS
    with transaction.atomic(using=alias):
        with connections[alias].cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_MILLISECONDS}")
        return fetch(statement, parameters)


def database() -> list[Metric]:
    oldest, sessions, most, lag, queue = read(_DATABASE, limit=COUNTED_TO)[0]
    nodes = read(_NODES, heard=NODE_HEARD_SECONDS, limit=MOST_NODES)
    replica_in_use = replica.read(reads_from.get) == replica.ALIAS if replica.ALIAS in connections.settings else None
    return [
        gauge(
            "replica_in_use",
            "Whether lists are read from the replica now. Absent where none is configured.",
            [((), replica_in_use)],
        ),
        gauge("database_oldest_transaction_seconds", "Age of the oldest transaction.", [((), oldest)]),
        gauge("database_connections", "Connections to the database.", [((), sessions)]),
        gauge("database_connections_limit", "Connections that the server allows.", [((), most)]),
        gauge("replica_lag_bytes", "How far the slowest standby is behind. None without a standby.", [((), lag)]),
        gauge("job_queue_depth", "Rows in the queue of jobs, counted to 10,000.", [((), queue)]),
        gauge(
            "worker_heartbeat_age_seconds",
            "Time since the last heartbeat of a worker node that was heard within the last hour.",
            [((name,), age) for name, age in nodes],
            "node",
        ),
    ]


class FromRows(Collector):
    def __init__(self) -> None:
        self._lock = Lock()
        self._read_at = float("-inf")
        self._kept: list[Metric] = []
        self._failing = False

    def collect(self) -> list[Metric]:
        with self._lock:
            if time.monotonic() - self._read_at > KEPT_SECONDS:
                self._kept = self._read()
                self._read_at = time.monotonic()
            return self._kept

    def _read(self) -> list[Metric]:
        functions: list[Callable[[], list[Metric]]] = [import_string(name) for name in settings.METRICS_GAUGES]
        try:
            found = [metric for function in functions for metric in function()]
        except (DatabaseError, psycopg.Error) as error:
            if not self._failing:  # once, and not at every question
                fields = {"event": "metrics.not_read", "error": str(error).strip()}
                logger.warning("Gauges cannot be read from the database", extra=fields)
            self._failing = True
            return [_up(False)]
        finally:
            line = connections[DEFAULT_DB_ALIAS]
            if not line.in_atomic_block:
                line.close()  # this thread asks seldom; from a pool the connection goes back there
        self._failing = False
        return [_up(True), *found]


def _up(answers: Any) -> Metric:
    return gauge("database_up", "Whether the database answered with all gauges within a second each.", [((), answers)])
