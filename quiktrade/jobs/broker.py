"""django-q2's broker on PostgreSQL. It does not poll, and a lost or doubled row breaks nothing.

What to run comes from three places, in this order:

1. demand: the order rows themselves say which jobs they need (`JOBS_DEMAND`). Such a job has no row of its
   own. A doorbell (NOTIFY) makes the pusher ask at once; without one it asks once a second;
2. django-q2's own queue table, for schedules and whatever else is enqueued;
3. a heartbeat every two seconds, which passes through the pusher, a worker and the monitor, and so proves that
   all three, and the queues between them, work;
4. a look for trouble every ten seconds, of which people are told (quiktrade/alerts). Web processes look, too.

It extends the ORM broker, so the admin's pages, `qinfo` and `qmonitor` keep working.
"""

import logging
import os
import time
from collections.abc import Callable
from typing import Any

import psycopg
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection
from django.utils import timezone
from django.utils.module_loading import import_string
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.humanhash import uuid as task_id
from django_q.signing import SignedPackage

from quiktrade.alerts import watch
from quiktrade.alerts.incidents import LOOK_SECONDS
from quiktrade.database.connection import Connection, answer_within
from quiktrade.jobs import doorbell, heartbeat
from quiktrade.jobs.work import Demand
from quiktrade.metrics.names import DATABASE_TROUBLE

logger = logging.getLogger(__name__)

DEMANDED = "demanded"
"""The acknowledgement id of a job without a row: there is no row to delete when it is done."""

OUTAGE_SECONDS = 0.5

CLOCK_MARGIN_SECONDS = 60.0
"""A row that is locked this much longer than any claim locks it was written by a clock that was ahead: it is due."""

_CLAIM = """
UPDATE django_q_ormq q SET lock = statement_timestamp() + %s * interval '1 second'
FROM (SELECT id FROM django_q_ormq WHERE key = %s
      AND (lock <= statement_timestamp() OR lock > statement_timestamp() + %s * interval '1 second')
      ORDER BY lock, id LIMIT %s FOR UPDATE SKIP LOCKED) due
WHERE q.id = due.id RETURNING q.id, q.payload
"""

Package = tuple[int | str, str]


class PostgresBroker(ORM):  # type: ignore[misc]
    """Used in the process that enqueues, in the pusher, and in the monitor, which acknowledges."""

    def __init__(self, list_key: str | None = None) -> None:
        super().__init__(list_key=list_key)
        self._listener: tuple[int, Connection] | None = None  # with the process that opened it
        self._beat_at = 0.0
        self._looked_at = time.monotonic()
        self._demand: Callable[[], Demand] = import_string(settings.JOBS_DEMAND)

    def __getstate__(self) -> tuple[str, Any]:
        return self.list_key, self._info

    def __setstate__(self, state: tuple[str, Any]) -> None:
        self.__init__(state[0])  # type: ignore[misc]

    def info(self) -> str:
        return "PostgreSQL LISTEN/NOTIFY"

    def enqueue(self, task: str) -> int:
        """Add a row to the queue in the caller's transaction; the doorbell rings when that commits."""
        key: int = super().enqueue(task)
        doorbell.ring()
        return key

    def dequeue(self) -> list[Package] | None:
        """The job to run now; None if none became due while it waited. Survives an outage of the database."""
        packages: list[Package] = []
        if time.monotonic() - self._beat_at >= settings.JOBS_HEARTBEAT_SECONDS:
            self._beat_at = time.monotonic()
            packages.append(_package(heartbeat.JOB, heartbeat.ACKNOWLEDGEMENT))
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = time.monotonic()
            packages.append(_package(watch.JOB, DEMANDED))
        try:
            close_old_connections()
            answer_within(heartbeat.ANSWER_SECONDS)
            demand = self._demand()
            packages += [_package(job, DEMANDED) for job in demand.jobs]
            packages += self._rows()
            if not packages:
                self._wait(min(demand.wait, settings.JOBS_HEARTBEAT_SECONDS), demand.listen)
        except (DatabaseError, psycopg.Error) as error:
            DATABASE_TROUBLE("broker").inc()
            logger.error(
                "Job queue cannot be read, trying again",
                extra={"event": "jobs.queue_unreadable", "error": str(error).strip()},
            )
            self._hang_up()
            connection.close()
            time.sleep(OUTAGE_SECONDS)
        return packages or None

    def acknowledge(self, task_id: int | str) -> None:
        if task_id == heartbeat.ACKNOWLEDGEMENT:
            heartbeat.record()
        elif task_id != DEMANDED:
            try:
                super().acknowledge(task_id)
            except DatabaseError as error:
                # The row comes back after Conf.RETRY. An exception here would end the monitor.
                logger.error(
                    "Job not acknowledged", extra={"event": "jobs.not_acknowledged", "error": str(error).strip()}
                )
                connection.close()

    def fail(self, task_id: int | str) -> None:
        """Handle a package that cannot be read: django-q2 would hand it out again for ever."""
        self.acknowledge(task_id)

    def _rows(self) -> list[Package]:
        with connection.cursor() as cursor:
            cursor.execute(_CLAIM, [Conf.RETRY, self.list_key, Conf.RETRY + CLOCK_MARGIN_SECONDS, Conf.BULK])
            return list(cursor.fetchall())

    def _wait(self, seconds: float, listen: bool) -> None:
        if not listen:
            time.sleep(seconds)
            return
        if self._listener is None or self._listener[0] != os.getpid():
            listener = Connection.connect(**doorbell.connection_parameters(), autocommit=True)
            listener.execute(f"LISTEN {settings.JOBS_CHANNEL}")
            self._listener = (os.getpid(), listener)
            return  # a notification may have come before: ask again first
        listener = self._listener[1]
        for _ in listener.notifies(timeout=seconds, stop_after=1):
            pass
        for _ in listener.notifies(timeout=0):  # further notifications: one look at the rows answers them all
            pass

    def _hang_up(self) -> None:
        if self._listener is not None and self._listener[0] == os.getpid():
            self._listener[1].close()
        self._listener = None


def _package(job: str, acknowledgement: str) -> Package:
    """Make a task as django-q2's `async_task` does, but without a row."""
    name, identifier = task_id()
    task = {
        "id": identifier,
        "name": name,
        "func": job,
        "args": (),
        "kwargs": {},
        "ack_failure": True,
        "started": timezone.now(),
    }
    return acknowledgement, SignedPackage.dumps(task)
