"""What became of an order whose attempt ended without an answer: ask the venue, and decide on its word.

The decision is `conclude()`, a pure function of the venue's report and its declared capabilities. Nothing
here guesses: a venue that does not answer leaves the order as it is, and one that cannot answer leaves it to
an operator.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import ExpressionWrapper, F, QuerySet
from django.db.models.fields import DurationField
from django.db.models.functions import Now

from exchanges import directory, health
from exchanges.models import Venue as VenueRow
from exchanges.registry import capabilities_of, open_venue
from exchanges.texts import storable
from exchanges.venue import Capabilities, NotSent, Report, ReportStatus, ResendSafety, VenueError
from orders import doorbell, lifecycle, selectors, services
from orders.backoff import backoff_seconds
from orders.lifecycle import Event, Step
from orders.models import Order, Status
from orders.selectors import Doubt
from orders.services import Result

logger = logging.getLogger(__name__)

ACTOR = "system:reconciliation"
BATCH = 200
IN_FLIGHT = BATCH
UNUSABLE_SECONDS = 30.0
"""Orders of a venue whose settings are wrong are looked at again after this long."""
VENUE_ORDER_ID_LENGTH = 64
ASK_AGAIN_SECONDS = 5.0
"""A venue that gave no answer is asked again after this long."""


@dataclass(frozen=True, slots=True)
class Park:
    """No answer of the venue can decide it: an operator does."""

    reason: str


def conclude(
    order_id: UUID, attempt: int, answer: Report | VenueError | None, capabilities: Capabilities, doubt: Doubt
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
        case Report(venue_order_id=""):
            return None  # there is an order, it says, and no id of it: no answer to go by
        case Report():
            return Step(
                order_id=order_id,
                event=Event.ACKNOWLEDGED,
                detail={"found": True},
                venue_order_id=answer.venue_order_id,
            )
    if doubt.rounds >= settings.PLACEMENT_MAX_ATTEMPTS:
        return Park(f"It was sent {doubt.rounds + 1} times without an answer, and the venue does not know it.")
    resend_within: float | None = None
    in_doubt = True
    match capabilities.resend_safety:
        case ResendSafety.REFUSES_DUPLICATES:
            pass  # should both requests arrive after all, it refuses the second
        case ResendSafety.REFUSES_STALE_REQUESTS:
            in_doubt = False  # the first request is void by now
        case ResendSafety.REFUSES_RECENT_DUPLICATES:
            # The re-send must be with the venue before the window closes, and it may take as long as its lease.
            resend_within = (capabilities.duplicate_window_seconds or 0.0) - doubt.age - _longest_attempt(capabilities)
            if resend_within <= 0:
                return Park("The venue does not know the order, and would not recognise a re-send any more.")
        case ResendSafety.NOTHING:
            return Park("The venue does not know the order, but a request of ours may still reach it.")
    delay = backoff_seconds(
        doubt.rounds + 1,
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
        in_doubt=in_doubt,
        resend_within=resend_within,
    )


def _longest_attempt(capabilities: Capabilities) -> float:
    """From its claim, an attempt is with the venue within so many seconds, or not at all."""
    return settings.PLACEMENT_LEASE_SECONDS + capabilities.settle_seconds


def reconcile_due_orders() -> int:
    """Look up the unconfirmed orders that are due for it, and say how many changed their status."""
    count = 0
    for row in VenueRow.objects.all():
        capabilities = directory.capabilities_if_usable(row)
        # A look-up that dies is repeated after a call's longest time, its wait for a connection included.
        seconds = 2 * capabilities.deadline_seconds + 1 if capabilities else UNUSABLE_SECONDS
        while due := lifecycle.claim_lookups(row.code, limit=BATCH, seconds=seconds):
            if capabilities:
                count += sum(result.done for result in _reconcile(row, due, actor=ACTOR))
    return count


def reconcile_orders(order_ids: Sequence[UUID], *, actor: str) -> list[Result]:
    """Look up unconfirmed orders now, parked ones too. One result each, in order.

    An order is refused while its last request may still be on its way: the venue's word proves nothing yet.
    """
    orders = {order.pk: order for order in _with_age(Order.objects.filter(pk__in=order_ids))}
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
    for pairs in due.values():
        row = orders[pairs[0][0]].venue
        results |= {result.order_id: result for result in _reconcile(row, pairs, actor=actor)}
    return [results[order_id] for order_id in order_ids]


def settle_seconds(row: VenueRow) -> float:
    """For how long after it became unconfirmed a request for an order may still be on its way to this venue."""
    capabilities = capabilities_of(row.adapter, row.settings)
    if capabilities.resend_safety is ResendSafety.REFUSES_STALE_REQUESTS:
        return _longest_attempt(capabilities)
    return capabilities.settle_seconds


def _reconcile(row: VenueRow, due: Sequence[tuple[UUID, int]], *, actor: str) -> list[Result]:
    capabilities = capabilities_of(row.adapter, row.settings)
    order_ids = [order_id for order_id, _ in due]
    answers = _ask(row, order_ids) if capabilities.finds else None
    doubts = selectors.doubts(order_ids)
    results, steps = [], []
    unanswered: dict[str, list[tuple[UUID, int]]] = {}
    parked: dict[str, list[tuple[UUID, int]]] = {}
    for order_id, attempt in due:
        conclusion: Step | Park | None
        if answers is None:
            answer, conclusion = None, Park("The venue cannot be asked about orders.")
        else:
            answer = answers[order_id]
            conclusion = conclude(order_id, attempt, answer, capabilities, doubts[order_id])
        match conclusion:
            case Step():
                steps.append(conclusion)
            case Park(reason):
                parked.setdefault(reason, []).append((order_id, attempt))
                results.append(Result(order_id, False, reason))
            case None:
                unanswered.setdefault(f"Look-up failed: {answer}", []).append((order_id, attempt))
                results.append(Result(order_id, False, f"The venue gave no answer: {answer}"))
    moved = services.record_outcomes(steps, actor=actor) if steps else []
    results += [Result(order.id, True, order.status) for order in moved]
    results += _left_behind((step.order_id for step in steps), {order.id for order in moved})
    for reason, orders in parked.items():
        lifecycle.park(orders, error=reason)
        logger.error("Orders need an operator", extra={"venue": row.code, "orders": len(orders), "reason": reason})
    for error, orders in unanswered.items():
        lifecycle.postpone(orders, seconds=ASK_AGAIN_SECONDS, error=error)
        logger.warning("Look-up failed", extra={"venue": row.code, "orders": len(orders), "error": error})
    doorbell.ring()
    return results


def mark_placed(order_id: UUID, *, venue_order_id: str, actor: str, reason: str) -> Result:
    """Record an operator's word that a parked order is at the venue, under this id of the venue's.

    The venue is asked once more first: the word counts where the venue cannot be asked, or agrees. What it says
    otherwise is recorded instead.
    """
    venue_order_id = checked_venue_order_id(venue_order_id)
    return _settle(order_id, Event.MARKED_PLACED, venue_order_id, actor=actor, reason=reason)


def checked_venue_order_id(text: str) -> str:
    """A venue's id of an order, as a person gives it. Raises: ValueError; unlike a reason, it is exact or wrong."""
    text = text.strip()
    if not text:
        raise ValueError("The venue's order id is required.")
    if storable(text, VENUE_ORDER_ID_LENGTH) != text:
        raise ValueError(f"A venue's order id has 1 to {VENUE_ORDER_ID_LENGTH} characters, in UTF-8.")
    return text


def mark_not_placed(order_id: UUID, *, actor: str, reason: str) -> Result:
    """Record an operator's word that a parked order is not at the venue: it is failed then, to requeue or cancel.

    The venue is asked once more first: if it knows the order, that is recorded instead.
    """
    return _settle(order_id, Event.MARKED_NOT_PLACED, "", actor=actor, reason=reason)


def _settle(order_id: UUID, event: Event, venue_order_id: str, *, actor: str, reason: str) -> Result:
    if not reason.strip():
        raise ValueError("A reason is required.")
    order = _with_age(Order.objects.filter(pk=order_id)).first()
    if order is None:
        return Result(order_id, False, "There is no such order.")
    if order.status != Status.UNCONFIRMED:
        return Result(order_id, False, f"It is {order.status}, not unconfirmed.")
    if order.next_attempt_at is not None:
        return Result(order_id, False, "It is not parked: the venue is still being asked about it.")
    capabilities = capabilities_of(order.venue.adapter, order.venue.settings)
    # Longer than for a look-up: after the operator's word there is no second question.
    if order.since.total_seconds() < _longest_attempt(capabilities):
        return Result(order_id, False, "Its last request may still be on its way; try again in a minute.")
    if capabilities.finds:
        answer = _ask(order.venue, [order_id])[order_id]
        if isinstance(answer, VenueError):
            return Result(order_id, False, f"The venue gave no answer, and is to be asked first: {answer}")
        if answer is not None and not _agrees(answer, event, venue_order_id):
            return _contradicted(order, answer, capabilities, actor=actor)
        if answer is None and event == Event.MARKED_PLACED:
            return Result(order_id, False, "The venue says that it does not know the order.")
    step = Step(
        order_id=order_id, event=event, attempt=order.attempt, reason=reason.strip(), venue_order_id=venue_order_id
    )
    moved = services.record_outcomes([step], actor=actor)
    if not moved:
        return Result(order_id, False, "It changed while the venue was asked.")
    return Result(order_id, True, moved[0].status)


def _agrees(answer: Report, event: Event, venue_order_id: str) -> bool:
    """Whether the venue, which knows the order, says what the operator says. "Not placed" it cannot agree with."""
    at_venue = answer.status is not ReportStatus.REJECTED
    return event == Event.MARKED_PLACED and at_venue and answer.venue_order_id == venue_order_id


def _contradicted(order: Order, answer: Report, capabilities: Capabilities, *, actor: str) -> Result:
    step = conclude(order.pk, order.attempt, answer, capabilities, Doubt(0.0, 0))
    if not isinstance(step, Step):
        return Result(order.pk, False, "The venue says that it knows the order, and not under which id.")
    services.record_outcomes([step], actor=actor)
    said = f"{answer.status.value} as {answer.venue_order_id}" if answer.venue_order_id else answer.status.value
    return Result(order.pk, False, f"The venue knows the order: {said}. That was recorded instead.")


def _with_age(orders: QuerySet[Order]) -> QuerySet[Order, Any]:
    """Each with its venue, and with `since`: how long it has been as it is, by the database's clock."""
    since = ExpressionWrapper(Now() - F("updated_at"), output_field=DurationField())
    return orders.select_related("venue").annotate(since=since)


def _left_behind(order_ids: Iterable[UUID], moved: set[UUID]) -> list[Result]:
    return [Result(i, False, "It changed while the venue was asked.") for i in order_ids if i not in moved]


def _ask(row: VenueRow, order_ids: Sequence[UUID]) -> dict[UUID, Report | VenueError | None]:
    """The venue's answers, which also tell how it stands. One in trouble is not asked before its time, and then
    about one order first."""
    answers: dict[UUID, Report | VenueError | None] = {}
    for chosen in (order_ids[: health.look_ups(row.code, len(order_ids))], order_ids):
        left = [order_id for order_id in chosen if order_id not in answers]
        if not left or any(isinstance(answer, VenueError) and answer.trouble for answer in answers.values()):
            break
        found = asyncio.run(_look_up(row, left))
        health.record_look_ups(row.code, found.values())
        answers |= found
    closed = NotSent("venue_closed", "The venue takes nothing from us now; it is asked later.")
    return dict.fromkeys(order_ids, closed) | answers


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
