"""Finds out what a restored database does not know, before anything is sent from it.

Between the time that it was restored to and its loss the database knew more. An order that waits here may have been
sent since, and a venue may have orders that have no row here. Nothing is guessed: what may have been sent is taken for
an attempt that is under way and that nobody answers for. So its lease runs out, it is looked up, and it is sent again
only where the venue's class makes that safe, as after the death of a worker.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet

from exchanges.models import ReportSession, UnmatchedReport
from exchanges.models import Venue as VenueRow
from exchanges.registry import open_venue
from exchanges.venue import ReportKind, VenueError
from orders import archive, lifecycle
from orders.lifecycle import Event, Step
from orders.models import Order, OrderRequest, Status
from orders.reports import NO_ORDER

logger = logging.getLogger(__name__)

BATCH = 1000
LIST_SECONDS = 120.0
"""A venue that has not listed its orders by then is not waited for."""


def doubt_orders(*, actor: str, reason: str) -> int:
    """Take every order that waits to be sent for one that may be at its venue. Returns how many they were.

    All venues must be halted: whoever claims an order sends it.
    """
    lease, doubted = settings.PLACEMENT_LEASE_SECONDS, 0
    pending = Order.objects.filter(status=Status.PENDING).order_by("pk").values_list("pk", flat=True)
    batch = list(pending[:BATCH])
    while batch:
        steps = [Step(order_id=id_, event=Event.CLAIMED, reason=reason, delay=lease) for id_ in batch]
        doubted += len(lifecycle.advance(steps, actor=actor).moved)
        batch = list(pending.filter(pk__gt=batch[-1])[:BATCH])
    logger.warning("Orders may have been sent since", extra={"event": "orders.doubted", "orders": doubted})
    return doubted


def undecided() -> QuerySet[Order]:
    """Orders that may be at their venues, and are not left to an operator."""
    return Order.objects.filter(status__in=(Status.SUBMITTING, Status.UNCONFIRMED), parked_at__isnull=True)


class Orphan(NamedTuple):
    """An order that a venue has and that has no row here."""

    venue: str
    order_id: str
    """Under which it was placed."""
    venue_order_id: str
    works: bool
    """It is open at the venue; otherwise it was executed there."""
    executed: int | None
    """None where the venue does not say."""


@dataclass(frozen=True, slots=True)
class Listed:
    """`foreign` counts orders under ids that QuikTrade does not give: others use the same account. `error` says why the
    list is not whole."""

    orphans: Sequence[Orphan] = ()
    foreign: int = 0
    error: str = ""


def list_orphans(row: VenueRow) -> Listed:
    """Ask a venue for its open orders and for what was executed since its reports were read last."""
    read = {session.stream: session.next_sequence - 1 for session in ReportSession.objects.filter(venue=row)}
    try:
        listed = asyncio.run(_listed(row, read))
    except VenueError as error:
        return Listed(error=str(error))
    except TimeoutError:
        return Listed(error=f"it did not list its orders within {LIST_SECONDS:.0f} s")
    except Exception as error:
        logger.exception("Adapter failed", extra={"event": "restore.adapter_failed", "venue": row.code})
        return Listed(error=f"its adapter failed: {error!r}")
    return _without_row(row.code, list((_kept(row.code) | listed).values()))


def _kept(code: str) -> dict[str, Orphan]:
    """What was executed of orders without a row by reports that a session has read since the restore, or before."""
    found: dict[str, Orphan] = {}
    kept = UnmatchedReport.objects.filter(venue_id=code, reason=NO_ORDER, report__kind=ReportKind.EXECUTED)
    for report in kept.order_by("pk").values_list("report", flat=True):
        name = report.get("original_client_order_id") or report["client_order_id"]
        venue_order_id, executed = report.get("venue_order_id") or "", report.get("cumulative_quantity")
        orphan = Orphan(code, name, venue_order_id, False, None if executed is None else int(executed))
        found[venue_order_id or name] = orphan
    return found


async def _listed(row: VenueRow, read: Mapping[str, int]) -> dict[str, Orphan]:
    """What the venue has, by its own ids."""
    found: dict[str, Orphan] = {}
    venue = open_venue(row.adapter, row.settings)
    try:
        async with asyncio.timeout(LIST_SECONDS):
            end = await venue.stream_end()
            async for reports in venue.executions(end.stream, read.get(end.stream, 0)):
                for report in reports:
                    name = report.original_client_order_id or report.client_order_id
                    executed = report.cumulative_quantity
                    orphan = Orphan(row.code, name, report.venue_order_id, False, executed)
                    found[report.venue_order_id or name] = orphan
            async for page in venue.open_orders():
                for order in page:
                    name, executed = order.client_order_id, order.cumulative_quantity
                    found[order.venue_order_id or name] = Orphan(row.code, name, order.venue_order_id, True, executed)
    finally:
        await venue.close()
    return found


def _without_row(code: str, found: Sequence[Orphan]) -> Listed:
    orphans: list[Orphan] = []
    foreign = 0
    for start in range(0, len(found), BATCH):
        batch = found[start : start + BATCH]
        ids = {order.order_id: id_ for order in batch if (id_ := _as_id(order.order_id))}
        known: set[object] = set(Order.objects.filter(pk__in=ids.values()).values_list("pk", flat=True))
        known |= archive.known(list(ids.values()))
        known |= set(OrderRequest.objects.filter(pk__in=ids.values()).values_list("pk", flat=True))
        names = [order.venue_order_id for order in batch if order.venue_order_id]
        of_venue = Order.objects.filter(venue_id=code, venue_order_id__in=names)
        known |= set(of_venue.values_list("venue_order_id", flat=True))
        known |= archive.known_at_venue(code, names)
        for order in batch:
            if order.order_id not in ids:
                foreign += order.venue_order_id not in known
            elif not {ids[order.order_id], order.venue_order_id} & known:
                orphans.append(order)
    return Listed(sorted(orphans, key=lambda order: order[:3]), foreign)


def _as_id(text: str) -> UUID | None:
    """The id, if it may be one of ours."""
    try:
        id_ = UUID(text)
    except ValueError:
        return None
    return id_ if str(id_) == text else None
