"""The database backend. Django requires this module name in the package that `DATABASES["default"]["ENGINE"]` names."""

from types import SimpleNamespace
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from quiktrade.database import replica
from quiktrade.database.connection import Connection


class DatabaseWrapper(base.DatabaseWrapper):
    # Django connects with this, and takes the error classes from it. The bound must hold from the start: the first
    # statement, which sets the time zone, may have to wait, too.
    Database: Any = SimpleNamespace(**{**vars(psycopg), "connect": Connection.connect})

    _connection_pools: dict[str, ConnectionPool[Any]]
    _configure_connection: Any

    @property
    def pool(self) -> Any:
        """psycopg's pool, where this process has one (pool.py, replica.py), of our connections with our check.

        Django's own check would cost a round trip with every request.
        """
        options = self.settings_dict["OPTIONS"].get("pool")
        if options is None:
            return None
        if self.alias not in self._connection_pools:
            pool: ConnectionPool[Any] = ConnectionPool(
                kwargs={**self.get_connection_params(), "autocommit": True},
                connection_class=replica.Line if self.alias == replica.ALIAS else Connection,
                open=False,  # Django opens it with the first connection
                configure=self._configure_connection,
                check=_check,
                **options,
            )
            self._connection_pools.setdefault(self.alias, pool)  # another thread may have made one meanwhile
        return self._connection_pools[self.alias]

    def is_usable(self) -> bool:
        """Whether the connection still stands, as Django asks before the first statement of a request.

        If the server has disappeared without closing the connection, the next statement finds out.
        """
        if self.connection is None:
            return False
        return _seems_to_stand(self.connection) or super().is_usable()


def _seems_to_stand(connection: Any) -> bool:
    """A server that ends a connection sends a message and closes it. Reading that costs no round trip."""
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    try:
        for _ in range(2):  # its message, and then the end of the connection
            connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return True


def _check(connection: Any) -> None:
    """Raises: psycopg.Error, if the pool must make a new connection instead."""
    if not _seems_to_stand(connection):
        ConnectionPool.check_connection(connection)
