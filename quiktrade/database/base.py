"""Named by Django's convention: `DATABASES["default"]["ENGINE"]` is the package."""

import select
from types import SimpleNamespace
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

from quiktrade.database.connection import Connection


class DatabaseWrapper(base.DatabaseWrapper):
    # What Django connects with, and takes the kinds of error from. Not only once a connection is there: what it sends
    # first, its time zone, may have to wait too.
    Database: Any = SimpleNamespace(**{**vars(psycopg), "connect": Connection.connect})

    def is_usable(self) -> bool:
        """Whether the connection still stands, as Django asks before the first statement of a request.

        A server that ends a connection says so, or hangs up: there is something to read. Where there is nothing,
        the question costs no round trip. What this cannot see, a server that is gone without a word, the next
        statement finds out.
        """
        if self.connection is None:
            return False
        connection = self.connection.pgconn
        if connection.transaction_status == TransactionStatus.IDLE:
            quiet = select.poll()
            quiet.register(connection.socket, select.POLLIN)
            if not quiet.poll(0):
                return True
        return super().is_usable()
