"""What became of an order whose attempt ended without an answer: ask the venue, and decide on its word.

The decision is `conclude()`, a pure function of the venue's report and its declared capabilities. Nothing
here guesses: a venue that does not answer leaves the order as it is, and one that cannot answer leaves it to
an operator.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db.models import ExpressionWrapper, F
from django.db.models.fields import DurationField
from django.db.models.functions import Now

from exchanges.models import Venue as VenueRow
from exchanges.registry import capabilities_of, open_venue
from exchanges.venue import Capabilities, Report, ReportStatus, ResendSafety, VenueError
from orders import doorbell, lifecycle, services
from orders.backoff import backoff_seconds
from orders.lifecycle import Event, Step
from orders.models import Order, Status
from orders.services import Result

logger = logging.getLogger(__name__)

ACTOR = "system:reconciliation"
BATCH = 200
IN_FLIGHT = 50
CLAIM_SECONDS = 30.0
"""A look-up that dies is repeated after this long."""
ASK_AGAIN_SECONDS = 5.0
"""A venue that gave no answer is asked again after this long."""

RESEND_AFTER_NOT_FOUND = frozenset({ResendSafety.REFUSES_DUPLICATES, ResendSafety.REFUSES_STALE_REQUESTS})
"""Where it is safe to send again what the venue does not know: it refuses the second of two requests that both
arrive after all, or the first one can no longer arrive."""


@dataclass(frozen=True, slots=True)
class Park:
    """No answer of the venue can decide it: an operator does."""

    reason: str


def conclude(
    order_id: UUID, attempt: int, answer: Report | VenueError | None, capabilities: Capabilities
) -> Step | Park | None:
    """What the venue's answer means for an unconfirmed order; None means ask again later.

    `answer` None says that the venue has no order by that id. It must come from a look-up made after the
    settle time, or it proves nothing.
    """
    match answer:
        case VenueError():
            return None
        case Report(status=ReportStatus.REJECTED):
            reason = f"{answer.code}: {answer.text}" if answer.text else answer.code
            return Step(
                order_id=order_id,
                event=Event.REJECTED_BY_VENUE,
                attempt=attempt,
                reason=reason,
                detail={"code": answer.code, "found": True},
            )
        case Report():
            return Step(
                order_id=order_id,
                event=Event.ACKNOWLEDGED,
                detail={"found": True},
                venue_order_id=answer.venue_order_id,
            )
    if capabilities.resend_safety not in RESEND_AFTER_NOT_FOUND:
        return Park("The venue does not know the order, but a request of ours may still reach it.")
    delay = backoff_seconds(
        max(attempt, 1),
        base=settings.PLACEMENT_BACKOFF_BASE_SECONDS,
        cap=settings.PLACEMENT_BACKOFF_CAP_SECONDS,
    )
    return Step(
        order_id=order_id,
        event=Event.NOT_FOUND,
        attempt=attempt,
        reason="The venue does not know the order.",
        detail={"retry_in_seconds": round(delay, 3)},
        delay=delay,
    )


def reconcile_due_orders() -> int:
    """Look up the unconfirmed orders that are due for it, and say how many changed their status."""
    count = 0
    for row in VenueRow.objects.all():
        while due := lifecycle.claim_lookups(row.code, limit=BATCH, seconds=CLAIM_SECONDS):
            count += sum(result.done for result in _reconcile(row, due, actor=ACTOR))
    return count


def reconcile_orders(order_ids: Sequence[UUID], *, actor: str) -> list[Result]:
    """Look up unconfirmed orders now, parked ones too. One result each, in order.

    An order is refused while its last request may still be on its way: the venue's word proves nothing yet.
    """
    since = ExpressionWrapper(Now() - F("updated_at"), output_field=DurationField())
    chosen = Order.objects.filter(pk__in=order_ids).select_related("venue").annotate(since=since)
    orders = {order.pk: order for order in chosen}
    results: dict[UUID, Result] = {}
    due: dict[str, list[tuple[UUID, int]]] = {}
    for order_id in order_ids:
        order = orders.get(order_id)
        if order is None:
            results[order_id] = Result(order_id, False, "There is no such order.")
        elif order.status != Status.UNCONFIRMED:
            results[order_id] = Result(order_id, False, f"It is {order.status}, not unconfirmed.")
        elif order.since.total_seconds() < settle_seconds(order.venue):
            results[order_id] = Result(order_id, False, "Its last request may still be on its way; try again shortly.")
        else:
            due.setdefault(order.venue_id, []).append((order_id, order.attempt))
    for code, pairs in due.items():
        row = VenueRow.objects.get(pk=code)
        results |= {result.order_id: result for result in _reconcile(row, pairs, actor=actor)}
    return [results[order_id] for order_id in order_ids]


def settle_seconds(row: VenueRow) -> float:
    """For how long after it became unconfirmed a request for an order may still be on its way to this venue."""
    capabilities = capabilities_of(row.adapter, row.settings)
    if capabilities.resend_safety is ResendSafety.REFUSES_STALE_REQUESTS:
        return settings.PLACEMENT_LEASE_SECONDS + capabilities.settle_seconds
    return capabilities.settle_seconds


def _reconcile(row: VenueRow, due: Sequence[tuple[UUID, int]], *, actor: str) -> list[Result]:
    capabilities = capabilities_of(row.adapter, row.settings)
    answers = asyncio.run(_look_up(row, [order_id for order_id, _ in due])) if capabilities.finds else None
    results, steps = [], []
    unanswered: dict[str, list[UUID]] = {}
    parked: dict[str, list[UUID]] = {}
    for order_id, attempt in due:
        conclusion: Step | Park | None
        if answers is None:
            answer, conclusion = None, Park("The venue cannot be asked about orders.")
        else:
            answer = answers[order_id]
            conclusion = conclude(order_id, attempt, answer, capabilities)
        match conclusion:
            case Step():
                steps.append(conclusion)
            case Park(reason):
                parked.setdefault(reason, []).append(order_id)
                results.append(Result(order_id, False, reason))
            case None:
                unanswered.setdefault(f"Look-up failed: {answer}", []).append(order_id)
                results.append(Result(order_id, False, f"The venue gave no answer: {answer}"))
    moved = services.record_outcomes(steps, actor=actor) if steps else []
    results += [Result(order.id, True, order.status) for order in moved]
    results += _left_behind((step.order_id for step in steps), {order.id for order in moved})
    for reason, order_ids in parked.items():
        lifecycle.park(order_ids, error=reason)
        logger.error("Orders need an operator", extra={"venue": row.code, "orders": len(order_ids), "reason": reason})
    for error, order_ids in unanswered.items():
        lifecycle.postpone(order_ids, seconds=ASK_AGAIN_SECONDS, error=error)
        logger.warning("Look-up failed", extra={"venue": row.code, "orders": len(order_ids), "error": error})
    doorbell.ring()
    return results


def _left_behind(order_ids: Iterable[UUID], moved: set[UUID]) -> list[Result]:
    return [Result(i, False, "It changed while the venue was asked.") for i in order_ids if i not in moved]


async def _look_up(row: VenueRow, order_ids: Sequence[UUID]) -> dict[UUID, Report | VenueError | None]:
    venue = open_venue(row.adapter, row.settings)
    room = asyncio.Semaphore(IN_FLIGHT)

    async def find(order_id: UUID) -> Report | VenueError | None:
        async with room:
            try:
                return await venue.find(str(order_id))
            except VenueError as error:
                return error

    try:
        return dict(zip(order_ids, await asyncio.gather(*map(find, order_ids)), strict=True))
    finally:
        await venue.close()
