"""Compares the orders that work at a venue with what the venue says of them, and repairs what differs.

A stream whose reports are numbered loses nothing, so this finds nothing as long as all goes well. It is for what the
numbers do not show: a venue that lost its journal or began another stream, a report that it never made, a mistake of
ours. A difference is no proof by itself, because the report of it may be on its way. So it counts only once the session
has read as far as the stream reached after the venue was asked, and if the order has not changed meanwhile.

A repair is made of reports, which go through the same fold as those of the stream. Executions are fetched, never
invented: they have ids that may still come. An order ends only when all that the venue says it has executed is known.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now

from exchanges.leases import Checkpoint
from exchanges.venue import ExecutionReport, Report, ReportKind, ReportStatus, Venue, VenueError
from orders import archive
from orders.models import AT_VENUE, Order, Status
from orders.reports import repair
from orders.verdicts import OVER, ended

logger = logging.getLogger(__name__)

WINDOW = 20_000
"""Orders, by their ids, that one query looks through: an index of a venue's working orders would have to be written by
every placement."""
WINDOWS_A_ROUND = 10
MOST_ASKED = 500
"""Look-ups in a round. What else differs is asked about in the next one."""
MOST_PAGES = 100
"""Of the venue's list of open orders. Orders beyond it are asked about one by one."""
ASKED_AT_ONCE = 16
CATCH_UP_SECONDS = 10.0
LARGEST_REPAIR = 250

WORKING = tuple(status for status in AT_VENUE if status != Status.FILLED)


class Known(NamedTuple):
    """What our row says of an order."""

    id: UUID
    version: int
    status: str
    venue_order_id: str
    quantity: int
    filled_quantity: int
    ended: str
    open_replace: UUID | None


def known(order_ids: Sequence[UUID]) -> dict[UUID, Known]:
    found = {row[0]: Known(*row) for row in Order.objects.filter(pk__in=order_ids).values_list(*Known._fields)}
    if away := [order_id for order_id in order_ids if order_id not in found]:
        for order in archive.orders_anywhere(away).values():
            found[order.pk] = Known(*(getattr(order, name) for name in Known._fields))
    return found


def window(venue: str, after: UUID | None, *, quiet_seconds: float) -> tuple[list[Known], UUID | None]:
    """The working orders of a venue without news for this long, among the next orders by id; and the last of those.

    The latter is None at the end.
    """
    beyond = Q(pk__gt=after) if after else Q()
    ids = list(Order.objects.filter(beyond).order_by("pk").values_list("pk", flat=True)[WINDOW - 1 : WINDOW])
    last = ids[0] if ids else None
    within = beyond & (Q(pk__lte=last) if last else Q())
    working = Order.objects.filter(within, venue=venue, status__in=WORKING)
    if quiet_seconds:
        working = working.filter(updated_at__lt=Now() - timedelta(seconds=quiet_seconds))
    return [Known(*row) for row in working.order_by("pk").values_list(*Known._fields)], last


def differs(order: Known, report: Report) -> bool:
    """Whether the venue says something else of an order than our row does, which reports could explain."""
    if report.cumulative_quantity is not None and report.cumulative_quantity != order.filled_quantity:
        return True
    if report.status in OVER:
        return order.ended in ("", Status.DONE_FOR_DAY) and order.ended != OVER[report.status]
    if report.status is ReportStatus.REJECTED:
        return order.ended == ""
    if order.ended and report.leaves_quantity:
        return True
    return report.quantity not in (None, order.quantity) and order.open_replace is None


@dataclass
class Watch:
    """The comparison for one venue, for as long as its session lasts.

    `position` gives the session's checkpoint, and `database` calls a function in the session's thread of the database:
    so what it writes is never written at the same time as a batch of the stream.
    """

    code: str
    venue: Venue
    position: Callable[[], Checkpoint]
    database: Callable[..., Awaitable[Any]]
    lease: float
    _after: UUID | None = None
    _told: set[tuple[UUID, int]] = field(default_factory=set)

    async def compare(self, *, quiet_seconds: float = 0.0, everything: bool = False) -> int:
        """Compare the orders that have had no news for so long; returns how many were repaired.

        Everything, or as many as one round may take. Raises: VenueError, LeaseLost, django.db.Error.
        """
        open_orders = await self._open_orders()
        repaired, windows = 0, 0
        if everything:
            self._after = None
            repaired += await self._check(await self._unexpected(open_orders))
        while True:
            orders, self._after = await self.database(window, self.code, self._after, quiet_seconds=quiet_seconds)
            windows += 1
            suspects = [o for o in orders if (said := open_orders.get(str(o.id))) is None or differs(o, said)]
            for start in range(0, len(suspects), MOST_ASKED):
                repaired += await self._check(suspects[start : start + MOST_ASKED])
                if not everything:
                    return repaired
            if self._after is None or (windows >= WINDOWS_A_ROUND and not everything):
                return repaired

    async def _open_orders(self) -> dict[str, Report]:
        found: dict[str, Report] = {}
        pages = 0
        async for page in self.venue.open_orders():
            found |= {report.client_order_id: report for report in page}
            pages += 1
            if pages == MOST_PAGES:
                break
        return found

    async def _unexpected(self, open_orders: dict[str, Report]) -> list[Known]:
        """Orders that are open at the venue and not at work here. What is not of ours is left alone."""
        named = {UUID(name) for name in open_orders if len(name) == len(str(UUID(int=0))) and _is_uuid(name)}
        rows: dict[UUID, Known] = await self.database(known, list(named))
        at_rest = (Status.FILLED, Status.CANCELED, Status.EXPIRED, Status.REJECTED)
        return [row for row in rows.values() if row.status in at_rest][:MOST_ASKED]

    async def _check(self, orders: Sequence[Known]) -> int:
        """Ask the venue about each order, and repair those that differ once its stream has been read so far."""
        if not orders:
            return 0
        answers = await self._ask(orders)
        end = await self.venue.stream_end()
        if not await self._caught_up(end.stream, end.last):
            return 0
        now: dict[UUID, Known] = await self.database(known, [order.id for order in orders])
        unchanged = [order for order in orders if now[order.id].version == order.version and order.id in answers]
        differing = [(order, said) for order in unchanged if (said := answers[order.id]) and differs(order, said)]
        for order in unchanged:
            if answers[order.id] is None:
                self._tell(order, "A venue does not know an order that it has acknowledged", "order.unknown_at_venue")
        return await self._repair(differing, end.stream) if differing else 0

    async def _ask(self, orders: Sequence[Known]) -> dict[UUID, Report | None]:
        answers: dict[UUID, Report | None] = {}
        room = asyncio.Semaphore(ASKED_AT_ONCE)

        async def ask(order: Known) -> None:
            async with room:
                try:
                    answers[order.id] = await self.venue.find(str(order.id))
                except VenueError as error:
                    logger.info(
                        "Look-up failed",
                        extra={
                            "event": "session.lookup_failed",
                            "venue": self.code,
                            "order_id": order.id,
                            "error": error,
                        },
                    )

        await asyncio.gather(*map(ask, orders))
        return answers

    async def _caught_up(self, stream: str, last: int) -> bool:
        """Whether the session has read the stream up to this number, or does so soon."""
        clock = asyncio.get_running_loop().time
        end = clock() + CATCH_UP_SECONDS
        while True:
            at = self.position()
            if at.stream == stream and at.next_sequence > last:
                return True
            if at.stream != stream or clock() > end:
                return False
            await asyncio.sleep(0.05)

    async def _repair(self, differing: Sequence[tuple[Known, Report]], stream: str) -> int:
        short = {str(o.id) for o, said in differing if said.cumulative_quantity not in (None, o.filled_quantity)}
        fetched: dict[str, list[ExecutionReport]] = {}
        if short:
            async for page in self.venue.executions(stream, 0):
                for report in page:
                    if report.client_order_id in short and report.sequence < self.position().next_sequence:
                        fetched.setdefault(report.client_order_id, []).append(report)
        reports: list[ExecutionReport] = []
        for order, _ in differing:
            reports += fetched.get(str(order.id), [])
        versions = {order.id: order.version for order, _ in differing}
        repaired = await self._write(reports, versions)
        rows: dict[UUID, Known] = await self.database(known, list(versions))
        ends: list[ExecutionReport] = []
        for order, said in differing:
            row = rows[order.id]
            if said.cumulative_quantity not in (None, row.filled_quantity):
                text = "What a venue says that an order has executed is not what its executions come to"
                self._tell(
                    row, text, "order.executions_differ", said=said.cumulative_quantity, known=row.filled_quantity
                )
            elif differs(row, said):
                if (closing := _closing(row, said, -1 - len(ends))) is not None:
                    ends.append(closing)
                else:
                    self._tell(row, "An order that has ended here works at its venue", "order.works_at_venue")
        repaired += await self._write(ends, {id_: row.version for id_, row in rows.items()})
        return repaired

    async def _write(self, reports: Sequence[ExecutionReport], versions: dict[UUID, int]) -> int:
        """Apply reports to their orders, all of one order in one transaction."""
        written = 0
        while reports:
            end = LARGEST_REPAIR
            while end < len(reports) and reports[end].client_order_id == reports[end - 1].client_order_id:
                end += 1
            written += await self.database(self._put, reports[:end], versions)
            reports = reports[end:]
        return written

    def _put(self, reports: Sequence[ExecutionReport], versions: dict[UUID, int]) -> int:
        # The checkpoint is read here, in the thread that moves it on.
        changed = repair(reports, self.position(), versions=versions, lease=self.lease)
        if changed:
            text = "Orders differed from what their venue says, and were repaired"
            fields = {"event": "order.repaired", "venue": self.code, "orders": changed, "reports": len(reports)}
            logger.warning(text, extra=fields)
        return changed

    def _tell(self, order: Known, text: str, event: str, **fields: Any) -> None:
        """Tell people once that an order, as it is, cannot be repaired."""
        if (order.id, order.version) not in self._told:
            self._told.add((order.id, order.version))
            about = {"venue": self.code, "order_id": order.id, "status": order.status, **fields}
            logger.error(text, extra={"event": event, **about})


def _closing(order: Known, said: Report, sequence: int) -> ExecutionReport | None:
    """The report that makes the row say what the venue says, once its executions do."""
    if said.status in OVER and order.ended in ("", Status.DONE_FOR_DAY):
        return ended(str(order.id), OVER[said.status], said, sequence=sequence)
    if said.status is ReportStatus.REJECTED and not order.ended:
        return ended(str(order.id), ReportKind.REJECTED, said, sequence=sequence)
    if order.ended not in ("", Status.DONE_FOR_DAY):
        return None
    return ExecutionReport(
        sequence=sequence,
        kind=ReportKind.RESTATED,
        client_order_id=str(order.id),
        venue_order_id=said.venue_order_id,
        quantity=said.quantity or 0,
        limit_price=said.limit_price,
        stop_price=said.stop_price,
    )


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
