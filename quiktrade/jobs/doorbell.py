"""The doorbell: a notification that an order may be due. It may be lost or doubled; nothing depends on it but speed.

It is PostgreSQL's NOTIFY. The job clusters listen and start a placement job, unless one is running; a running
one listens too. Another channel says that orders have new events, for those who follow them.

A thread rings, so that no request waits for it, and it rings once for all that comes within a few milliseconds:
1,000 orders a second are 100 rings. Never inside the accepting transaction: NOTIFY would hold PostgreSQL's
instance-wide notify lock across that commit (measured: 3,350 commits/s fell to 1,240).
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection, transaction

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.01


class _Ringer:
    """Rings, in a thread that lives as long as the process. The first ring after a silence goes out at once."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._channels: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._connection: psycopg.Connection[Any] | None = None

    def ring(self, channel: str) -> None:
        self._channels.add(channel)
        self._wanted.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._serve, name="doorbell", daemon=True)
                    try:
                        thread.start()
                    except RuntimeError as error:  # no thread can be started; the orders are stored all the same
                        logger.error(
                            "Doorbell not rung: the worker will look by itself",
                            extra={"event": "doorbell.no_thread", "error": error},
                        )
                    else:
                        self._thread = thread

    def finish(self) -> None:
        """Ring if that has still to be done, and close the connection."""
        with self._lock:
            self._ring_now()
            self._disconnect()

    def _serve(self) -> None:
        while self._wanted.wait():
            with self._lock:
                try:
                    self._ring_now()
                except Exception:
                    logger.exception(
                        "Doorbell not rung: the worker will look by itself", extra={"event": "doorbell.failed"}
                    )
                    self._disconnect()
            time.sleep(PAUSE_SECONDS)

    def _ring_now(self) -> None:
        if not self._wanted.is_set():
            return
        self._wanted.clear()
        channels = []
        while self._channels:
            channels.append(self._channels.pop())
        try:
            if self._connection is None:
                database: Any = connection  # as Django connects, with its bounds on every wait
                self._connection = database.Database.connect(**connection_parameters(), autocommit=True)
                self._connection.execute("SET synchronous_commit = off")  # a ring waits for no disk
            self._connection.execute("; ".join(f"NOTIFY {channel}" for channel in channels))
        except psycopg.Error as error:
            logger.warning(
                "Doorbell not rung: the worker will look by itself",
                extra={"event": "doorbell.no_connection", "error": str(error).strip()},
            )
            self._disconnect()

    def _disconnect(self) -> None:
        line, self._connection = self._connection, None
        if line is not None:
            line.close()


_ringer = _Ringer()


def ring(channel: str = settings.JOBS_CHANNEL) -> None:
    """Ring once the current transaction has committed; at once if there is none."""
    if connection.in_atomic_block:
        transaction.on_commit(lambda: _ringer.ring(channel), robust=True)
    else:
        _ringer.ring(channel)


def hang_up() -> None:
    """Ring if that has still to be done, and close the connection until the next ring."""
    _ringer.finish()


def _forget_the_parents() -> None:
    global _ringer
    _ringer = _Ringer()


atexit.register(hang_up)
os.register_at_fork(after_in_child=_forget_the_parents)


def connection_parameters() -> dict[str, Any]:
    """What psycopg needs to connect to the orders' database on its own, outside Django's connections."""
    parameters = connection.get_connection_params()
    for name in ("cursor_factory", "context", "prepare_threshold", "pool"):
        parameters.pop(name, None)
    return parameters


async def listen(heard: Callable[[], None]) -> None:
    """Call `heard` at every ring, until cancelled. Raises psycopg.Error when the database goes away."""
    listener = await psycopg.AsyncConnection.connect(**connection_parameters(), autocommit=True)
    async with listener:
        await listener.execute(f"LISTEN {settings.JOBS_CHANNEL}")
        heard()  # notifications that came while this connection was being made
        async for _ in listener.notifies():
            heard()
