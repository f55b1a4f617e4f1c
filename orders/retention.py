"""Moves orders to the archive that have had no news for long. The job and the command do it by the same function.

A batch is moved in three steps, and whatever dies between them leaves every order where it was or where it goes: the
clients' own ids are written; the statements that may not see these have ended; the rows move. Whoever comes next
begins with the first step again, which finds the ids written and waits again. Two may do it at the same time.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, connection
from psycopg.errors import QueryCanceled

from orders import archive
from orders.archive import Moved
from quiktrade.database.statements import fetch

logger = logging.getLogger(__name__)

BATCH = 250
"""Orders moved by one statement. The feed of events waits for every transaction that writes: this one takes some
hundredths of a second, and for a thousand orders it would take a tenth."""
BATCH_EVENTS = 2_500
"""A batch ends with the order that brings its events to so many: some orders have very many."""
LOOK_SECONDS = 0.005
"""Whether older statements have ended is asked this often at first, and then less and less."""
LOOK_LONGEST_SECONDS = 0.25
BEGINNING = UUID(int=0)


NOTHING = Moved()


@dataclass(slots=True)
class Run:
    """What was moved so far. `left` counts orders that were old enough and not moved, because something of them is not
    over; `waiting` says that the run ended while an older statement had not. The orders after the id `after` have not
    been looked at; it is `BEGINNING` when all were."""

    moved: Moved = NOTHING
    left: int = 0
    waiting: bool = False
    after: UUID = BEGINNING


def ended_before() -> datetime | None:
    """Orders that ended before this time are moved; None if none is."""
    if not settings.KEEP_DAYS:
        return None
    return now() - timedelta(days=settings.KEEP_DAYS)


def now() -> datetime:
    """The database's time, by which orders are dated."""
    at: datetime
    ((at,),) = fetch("SELECT statement_timestamp()", {})
    return at


def waiting(before: datetime) -> int:
    """How many orders ended before this time. This reads all of them."""
    count, after = 0, BEGINNING
    while ids := archive.candidates(after, before, limit=10 * BATCH):
        count, after = count + len(ids), ids[-1]
    return count


def move_orders(
    before: datetime,
    *,
    seconds: float,
    rate: float | None = None,
    after: UUID = BEGINNING,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Move the orders with ids above `after` that ended before this time, the oldest first, for `seconds` at most.

    With `rate`, at most so many are moved a second. Must not be called in a transaction. Raises: ValueError, if
    `before` is not long enough ago.
    """
    if before > now() - archive.LEAST_AGE:
        raise ValueError(f"Only what ended more than {archive.LEAST_AGE.days} days ago is moved.")
    run, kept = Run(after=after), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopping():
        began = time.monotonic()
        ids = archive.candidates(run.after, before, limit=BATCH, events=BATCH_EVENTS)
        if not ids:
            run.after = BEGINNING
            break
        if not _seen_by_all(archive.keep_keys(ids), end, stopping):
            run.waiting = True
            break
        kept = _analyzed(kept + len(ids))
        archive.make_partitions({archive.month_of(id_) for id_ in ids})
        moved = _move(ids, before)
        run.moved = run.moved.plus(moved)
        run.left += len(ids) - moved.orders
        run.after = ids[-1]
        progress(run)
        if rate:
            _pause(began + moved.orders / rate, end, stopping)
    if run.moved.orders:
        logger.info("Orders were moved to the archive", extra={"event": "archive.moved", **run.moved._asdict()})
    if run.left:
        text = "Orders that ended long ago stay: something of them is not over"
        logger.info(text, extra={"event": "archive.left", "orders": run.left})
    if run.waiting:
        text = "Orders are not moved to the archive while an older transaction runs"
        logger.warning(text, extra={"event": "archive.waits", "seconds": seconds})
    return run


def _move(ids: Sequence[UUID], before: datetime) -> Moved:
    try:
        return archive.move(ids, ended_before=before)
    except OperationalError as error:
        if not isinstance(error.__cause__, QueryCanceled):
            raise
        # It took longer than a statement may. Only the last order of a batch can have so many rows.
        fields = {"event": "archive.takes_too_long", "order_id": ids[-1]}
        logger.error("An order takes too long to be moved to the archive", extra=fields)
        return archive.move(ids[:-1], ended_before=before)


def _analyzed(kept: int) -> int:
    """Have the planner know of the keys when they have doubled; returns how many were kept since.

    Until then a statement that was planned while there were none, or few, would read all of them at each order. The
    server itself looks once a minute whether a table has grown.
    """
    ((known,),) = fetch("SELECT reltuples FROM pg_class WHERE oid = 'orders_clientkey'::regclass", {})
    if kept < known:
        return kept
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE orders_clientkey")
    return 0


def _seen_by_all(number: str, end: float, stopping: Callable[[], bool]) -> bool:
    """Wait until no statement runs that may not see what this transaction has written. False if time is up first."""
    pause = LOOK_SECONDS
    while archive.older_snapshots(number):
        if time.monotonic() >= end or stopping():
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, LOOK_LONGEST_SECONDS)
    return True


def _pause(until: float, end: float, stopping: Callable[[], bool]) -> None:
    while (left := min(until, end) - time.monotonic()) > 0 and not stopping():
        time.sleep(min(left, LOOK_LONGEST_SECONDS))
