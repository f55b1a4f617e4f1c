"""Runs the statements of the hot path in the form that costs PostgreSQL least."""

from collections.abc import Mapping
from typing import Any

import psycopg
from django.db import connection


def fetch(statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows. The server keeps it, and soon its plan, as long as the connection lasts.

    Django's own cursor sends the text with the values in it, to be parsed and planned every time. A status that an
    order must have belongs in the text, because a plan for an unknown value could not use a partial index.

    Values come in PostgreSQL's binary form: reading a page of orders takes a fifth of the time that their text takes.
    """
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        return cursor.execute(statement, parameters, prepare=True, binary=True).fetchall()
