"""Bounds on how long the database may keep a process waiting."""

from typing import Any

from django.db.backends.signals import connection_created

WEB = {"statement_timeout": "3s", "lock_timeout": "1s", "idle_in_transaction_session_timeout": "5s"}
"""A client waits no longer: it gets a 503 and sends its order again, under the same id."""

WORKER = {"statement_timeout": "15s", "lock_timeout": "5s", "idle_in_transaction_session_timeout": "15s"}
"""A job has more patience, but less than the lease of the orders that it holds."""


def bound_waits(bounds: dict[str, str]) -> None:
    """Have every connection that this process makes from now on give up after these times."""
    statements = "; ".join(f"SET {name} = '{value}'" for name, value in bounds.items())

    def apply(sender: Any, connection: Any, **kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statements)

    connection_created.connect(apply, weak=False, dispatch_uid="quiktrade.database")
