"""Runs the statements of the hot path in the form that costs PostgreSQL least."""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from time import monotonic, perf_counter
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections

reads_from: ContextVar[str | None] = ContextVar("reads_from", default=None)
"""The alias of the database that replica.py has chosen; None: it was not asked to."""

logger = logging.getLogger(__name__)

SLOW_SECONDS = 0.25
TELL_AGAIN_SECONDS = 1.0
"""A database in trouble makes thousands of statements slow; each process tells of each of them once in this time."""
_told_at: dict[str, float] = {}


def fetch(statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows. The server keeps it, and soon its plan, as long as the connection lasts.

    Django's own cursor sends the text with the values in it, to be parsed and planned every time. A status that an
    order must have belongs in the text, because a plan for an unknown value could not use a partial index.

    Values come in PostgreSQL's binary form: reading a page of orders takes a fifth of the time that their text takes.
    """
    connection: Any = connections[reads_from.get() or DEFAULT_DB_ALIAS]
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        began = perf_counter()
        rows = cursor.execute(statement, parameters, prepare=True, binary=True).fetchall()
        seconds = perf_counter() - began
    if seconds >= SLOW_SECONDS:
        _tell_slow(statement, seconds)
    return rows


def _tell_slow(statement: str, seconds: float) -> None:
    """Log a statement without its values, which are the clients'."""
    now = monotonic()
    if now - _told_at.get(statement, float("-inf")) < TELL_AGAIN_SECONDS:
        return
    _told_at[statement] = now
    fields = {"event": "database.slow", "seconds": round(seconds, 3), "statement": " ".join(statement.split())[:200]}
    logger.warning("A statement took long", extra=fields)
