"""Bounds on how long the database may keep a process waiting.

The server cancels a statement after `statement_timeout`. But a server that is frozen, or behind a network that drops
packets, cancels nothing and answers nothing; and that limit does not apply to a commit, however long its standby
takes. So every wait for an answer has a bound on this side as well, a little longer. The connection is then closed,
because nobody knows what the server did with the statement, or will do.

A server may also answer that it cannot work: it is a standby, was made read-only, is shutting down, or its disk is
full. Such a connection is closed, too, so that the next one may lead to a server that can; and the error is
an OperationalError, whatever class it has in psycopg. So code that asks whether the database is away checks for
OperationalError and InterfaceError, and need not know the states.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import InterfaceError, OperationalError
from django.db import connection as django_connection
from django.db.backends.signals import connection_created
from psycopg import waiting
from psycopg.abc import RV, PQGen
from psycopg.errors import _WaitTimeout

_CANNOT_WORK = (
    "08",  # connection exceptions
    "25006",  # read_only_sql_transaction: a standby, or default_transaction_read_only
    "25P03",  # idle_in_transaction_session_timeout
    "25P04",  # transaction_timeout
    "53",  # insufficient resources: a full disk, no memory
    "57P",  # shutting down, starting up; not 57014, a statement that took too long
    "58",  # system errors: the server cannot read or write its files
)
"""Beginnings of SQLSTATEs that are about the server or the session, and not about the statement."""


@dataclass(frozen=True)
class Bounds:
    server: Mapping[str, str]
    """PostgreSQL's time-outs, by the names of its settings."""
    answer_seconds: float
    """Longer than `statement_timeout`, so that the server's own error, which says more, comes first."""


WEB = Bounds({"statement_timeout": "3s", "lock_timeout": "1s", "idle_in_transaction_session_timeout": "5s"}, 4.0)
"""A client waits at most this long: then it gets a 503 and sends its order again, under the same id."""

WORKER = Bounds({"statement_timeout": "15s", "lock_timeout": "5s", "idle_in_transaction_session_timeout": "15s"}, 20.0)
"""A job waits longer, but less than the lease of the orders that it holds."""

SESSION = Bounds({"statement_timeout": "5s", "lock_timeout": "2s", "idle_in_transaction_session_timeout": "5s"}, 6.0)
"""What a session that reads a venue's reports holds locked is free again about when its lease has ended."""

OPTIONS = {
    "connect_timeout": "3",
    # A connection that only listens sends nothing that could stay unanswered, so TCP must find out that the server is
    # gone: within half a minute, instead of two hours. Until then only the doorbell is missing.
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""Options of libpq. Those about TCP do nothing on a Unix socket."""


class Connection(psycopg.Connection[Any]):
    """Closes itself, and raises OperationalError, when an answer takes too long or the server cannot work."""

    answer_seconds: float | None = None
    """The class's attribute is for this process; a connection's own attribute is for that connection."""
    bounds: Bounds | None = None
    """The bounds that were set on the server for this connection."""
    synchronous_wait_was_cut: bool | None = None
    """See durability.py; None until it listens for that."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        try:
            return self._wait(gen, interval, timeout)
        except psycopg.Error as error:
            if not (error.sqlstate or "").startswith(_CANNOT_WORK):
                raise
            self.pgconn.finish()
            if isinstance(error, psycopg.OperationalError):
                raise
            raise psycopg.OperationalError(str(error)) from error

    def _wait(self, gen: PQGen[RV], interval: float, timeout: float | None) -> RV:
        seconds = self.answer_seconds
        if timeout is not None or seconds is None:
            return super().wait(gen, interval, timeout)
        try:  # without psycopg's handling of Ctrl-C, which costs as much as this; no bounded process gets a Ctrl-C
            return waiting.wait(gen, self.pgconn.socket, interval, seconds)
        except _WaitTimeout:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server has not answered for {seconds:g} s") from None


_ONE_PROCESS = {"max_parallel_workers_per_gather": "0"}
"""A statement gets one process of the server. To start further ones takes longer than to read a page of a client's
rows, which the planner takes for hundreds of thousands in a large table (500 events of 30 million: 6 ms with them, 2.8
ms without); and one client's request must not take the cores of others."""


def bound_waits(bounds: Bounds) -> None:
    """Have every connection that this process makes from now on give up after these times."""
    Connection.answer_seconds = bounds.answer_seconds
    statements = "; ".join(f"SET {name} = '{value}'" for name, value in {**bounds.server, **_ONE_PROCESS}.items())

    def apply(sender: Any, connection: Any, **kwargs: Any) -> None:
        if connection.connection.bounds is not bounds:  # Django sends this whenever one is taken from the pool
            with connection.cursor() as cursor:
                cursor.execute(statements)
            connection.connection.bounds = bounds

    connection_created.connect(apply, weak=False, dispatch_uid="quiktrade.database.connection")


def is_gone(error: BaseException) -> bool:
    """Whether this error says that this thread's connection is lost, and not only a statement on it."""
    return isinstance(error, InterfaceError | OperationalError) and not django_connection.is_usable()


def answer_within(seconds: float) -> None:
    """Have this thread's connection give up after this many seconds, rather than after its process's bound."""
    django_connection.ensure_connection()
    raw: Any = django_connection.connection
    raw.answer_seconds = seconds
