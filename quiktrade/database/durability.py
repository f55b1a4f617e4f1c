"""A commit whose wait for the synchronous standby was cut short is no promise.

PostgreSQL then commits locally, says so in a warning, and reports success. If the primary is lost before the
standby has caught up, the row is lost, so nobody must have been told about it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.backends.signals import connection_created

_WARNING = "01000"
_ADMIN_SHUTDOWN = "57P01"


class NotDurable(Exception):
    """The commit is on this server, and perhaps on no other. Ask the client to send the order again under its id."""


@contextmanager
def durable() -> Iterator[None]:
    """Run statements that commit by themselves. Raises: NotDurable; DatabaseError, where there is no connection."""
    wrapper: Any = connection
    wrapper.close_if_health_check_failed()
    wrapper.ensure_connection()  # first, because one from the pool may still know of an earlier cut wait
    wrapper.connection.synchronous_wait_was_cut = False
    yield
    if wrapper.connection is not None and wrapper.connection.synchronous_wait_was_cut:
        raise NotDurable("The wait for the standby was cut short.")


def confirm() -> None:
    """Wait until all that this connection can see is as durable as `synchronous_commit` demands, on standbys, too.

    Only a mark is written, in the write-ahead log, where it comes after all of that.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_logical_emit_message(true, 'quiktrade', '')")


def watch_connections() -> None:
    """Make every new connection listen for that warning."""
    connection_created.connect(_watch, dispatch_uid="quiktrade.database.durability")


def _watch(sender: Any, connection: Any, **kwargs: Any) -> None:
    raw = connection.connection
    if raw.synchronous_wait_was_cut is not None:  # Django sends this whenever one is taken from the pool
        return
    raw.synchronous_wait_was_cut = False

    def notice(diagnostic: Any) -> None:
        if diagnostic.sqlstate in (_WARNING, _ADMIN_SHUTDOWN) and "synchronous replication" in (
            diagnostic.message_primary or ""
        ):
            raw.synchronous_wait_was_cut = True

    raw.add_notice_handler(notice)
