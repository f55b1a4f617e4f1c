"""The doorbell: says that an order may be due. It may be lost or rung twice; nothing depends on it but speed.

It is PostgreSQL's NOTIFY. The job clusters listen and start a placement job, unless one is running; a running
one listens too.
"""

from collections.abc import Callable
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection, transaction


def ring() -> None:
    """Ring once the current transaction has committed; at once if there is none.

    A transaction of its own, which waits for no disk: a NOTIFY inside the accepting one would hold
    PostgreSQL's instance-wide notify lock across that commit (measured: 3,350 commits/s fell to 1,240).
    """
    transaction.on_commit(_notify, robust=True)


def _notify() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"BEGIN; SET LOCAL synchronous_commit = off; NOTIFY {settings.JOBS_CHANNEL}; COMMIT")


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
        heard()  # what was rung while this connection was being made
        async for _ in listener.notifies():
            heard()
