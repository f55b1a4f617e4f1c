"""Orders that arrive at the same time are stored together; see quiktrade/database/batching.py.

What is promised does not change: every caller returns when its own orders are committed.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from time import perf_counter
from uuid import UUID

from django.db import connection

from orders import lifecycle, metrics
from orders.lifecycle import NewRow
from quiktrade.database import durability
from quiktrade.database.batching import Batcher
from quiktrade.tracing import spans

MOST_ROWS = 500
MOST_CONFIRMED = 1000

Stored = Mapping[UUID, datetime]


class _Rows:
    """Rows that are stored together or not at all, and those of them that were stored."""

    def __init__(self, rows: Sequence[NewRow]) -> None:
        self.rows = rows
        self.stored: Stored = {}


def accept(rows: Sequence[NewRow]) -> Stored:
    """Store orders durably, as `lifecycle.accept()` does, perhaps with those of other callers.

    Raises: NotDurable.
    """
    with spans.here("store"):
        if connection.in_atomic_block:  # the caller ends this transaction: the orders of others must not depend on it
            return _store(rows)
        given = _Rows(rows)
        batch.do(given)
    return {row.id: given.stored[row.id] for row in rows if row.id in given.stored}


def confirm() -> None:
    """Wait until everything committed before is durable. Raises: NotDurable."""
    if connection.in_atomic_block:
        _confirm([])
    else:
        _confirmations.do(None)


def _accept(group: Sequence[_Rows]) -> None:
    began = perf_counter()
    stored = _store([row for each in group for row in each.rows])
    for each in group:
        each.stored = stored
    if len(group) > 1:
        contexts = (each.rows[0].traceparent for each in group)
        spans.done("store together", contexts, perf_counter() - began, {"requests": len(group)})


def _store(rows: Sequence[NewRow]) -> Stored:
    began = perf_counter()
    with durability.durable():
        stored = lifecycle.accept(rows)
    metrics.STORE_SECONDS().observe(perf_counter() - began)
    metrics.STORE_ROWS().observe(len(rows))
    return stored


def _confirm(_: Sequence[None]) -> None:
    with durability.durable():
        durability.confirm()


batch = Batcher(_accept, most=MOST_ROWS, size=lambda given: len(given.rows))
_confirmations = Batcher(_confirm, most=MOST_CONFIRMED)
