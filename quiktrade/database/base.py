"""Named by Django's convention: `DATABASES["default"]["ENGINE"]` is the package."""

from types import SimpleNamespace
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from quiktrade.database.connection import Connection


class DatabaseWrapper(base.DatabaseWrapper):
    # What Django connects with, and takes the kinds of error from. Not only once a connection is there: what it sends
    # first, its time zone, may have to wait too.
    Database: Any = SimpleNamespace(**{**vars(psycopg), "connect": Connection.connect})

    _connection_pools: dict[str, ConnectionPool[Any]]
    _configure_connection: Any

    @property
    def pool(self) -> Any:
        """psycopg's pool, where this process has one (see pool.py), of our connections with our check.

        Django's own would ask the server with every request whether it is there.
        """
        options = self.settings_dict["OPTIONS"].get("pool")
        if options is None:
            return None
        if self.alias not in self._connection_pools:
            self._connection_pools[self.alias] = ConnectionPool(
                kwargs={**self.get_connection_params(), "autocommit": True},
                connection_class=Connection,
                open=False,  # Django opens it with the first connection
                configure=self._configure_connection,
                check=_check,
                **options,
            )
        return self._connection_pools[self.alias]

    def is_usable(self) -> bool:
        """Whether the connection still stands, as Django asks before the first statement of a request.

        What `_seems_to_stand` cannot see, a server that is gone without a word, the next statement finds out.
        """
        if self.connection is None:
            return False
        return _seems_to_stand(self.connection) or super().is_usable()


def _seems_to_stand(connection: Any) -> bool:
    """A server that ends a connection says so and hangs up. To read that costs no round trip."""
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    try:
        for _ in range(2):  # what it says, and then that it has hung up
            connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return True


def _check(connection: Any) -> None:
    """Raises: psycopg.Error, where the pool must make a new connection instead."""
    if not _seems_to_stand(connection):
        ConnectionPool.check_connection(connection)
