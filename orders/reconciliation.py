"""Finds out what became of an order whose attempt ended without an answer, by asking the venue.

The decision is `verdicts.conclude()`, a pure function of the venue's report and its declared capabilities. Nothing
here guesses: a venue that does not answer leaves the order as it is, and one that cannot answer leaves it to
an operator.

Each venue is asked in a worker thread with its own event loop, while this thread claims look-ups and records their
results. So no venue waits for another, whatever the other one's adapter does.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.db.models import ExpressionWrapper, F, QuerySet
from django.db.models.fields import DurationField
from django.db.models.functions import Now

from exchanges import circuit, directory
from exchanges.models import Venue as VenueRow
from exchanges.registry import open_venue
from exchanges.venue import Capabilities, ExecutionReport, NotSent, OutcomeUnknown, Report, VenueError
from orders import archive, deciding, lifecycle, metrics, recording, requests, selectors, verdicts
from orders.lifecycle import Event, LookUp, Step
from orders.models import Order, Status
from orders.reports import apply_found
from orders.requests import RequestLookUp
from orders.verdicts import Answer, Doubt, Park
from quiktrade import crash
from quiktrade.database.connection import is_gone
from quiktrade.jobs import doorbell
from quiktrade.outcomes import Outcome
from quiktrade.texts import storable
from quiktrade.tracing import spans

logger = logging.getLogger(__name__)

ACTOR = "system:reconciliation"
BATCH = 200
IN_FLIGHT = BATCH
UNUSABLE_SECONDS = 30.0
"""Orders of a venue whose settings are wrong are looked at again after this long."""
VENUE_ORDER_ID_LENGTH = 64
ASK_AGAIN_SECONDS = 5.0
"""A venue that gave no answer is asked again after this long."""
JOB_SECONDS = 15.0
"""A job takes up look-ups for this long. What is due after that is the next job's."""
BATCH_SECONDS = 30.0
"""A batch of look-ups takes at most this long, even if its calls hang: a job ends well before its time-out of 60 s."""
POLL_SECONDS = 0.25
"""While some venue is being asked, the due orders of the others are looked for this often."""

Due = Sequence[LookUp] | Sequence[RequestLookUp]
Take = Callable[[VenueRow], Due]


def reconcile_due_orders(*, stopping: Callable[[], bool] = lambda: False) -> int:
    """Look up the requests and the unconfirmed orders that are due for it, and return how many were decided.

    It ends when no more are due or its time is up; the other orders stay due. Raises: django.db.Error when the
    database is away.
    """
    end = time.monotonic() + JOB_SECONDS
    rows = list(VenueRow.objects.all())
    usable = {row.code: directory.capabilities_if_usable(row) for row in rows}

    def take(row: VenueRow) -> Due:
        if time.monotonic() >= end or stopping():
            return []
        capabilities = usable[row.code]
        # If this process dies, its look-ups are repeated after the longest call, including the wait for a connection.
        seconds = 2 * capabilities.deadline_seconds + 1 if capabilities else UNUSABLE_SECONDS
        of_requests = requests.claim_lookups(row.code, limit=BATCH, seconds=seconds)
        if of_requests and capabilities:
            return of_requests
        due = lifecycle.claim_lookups(row.code, limit=BATCH, seconds=seconds)
        return due if capabilities else []

    results = _ask_venues(rows, take, actor=ACTOR, by_itself=True)
    return sum(result.done for result in results)


def reconcile_orders(order_ids: Sequence[UUID], *, actor: str) -> list[Outcome]:
    """Look up unconfirmed orders now, parked ones too. One result each, in order.

    An order is refused while its last request may still be on its way: the venue's word proves nothing yet.
    """
    orders = {order.pk: order for order in _with_age(Order.objects.filter(pk__in=order_ids))}
    results: dict[UUID, Outcome] = {}
    due: dict[str, list[LookUp]] = {}
    rows = {order.venue_id: order.venue for order in orders.values()}
    usable = {code: directory.capabilities_if_usable(row) for code, row in rows.items()}
    for order_id in order_ids:
        order = orders.get(order_id)
        if order is None:
            results[order_id] = _not_in_use(order_id)
        elif order.status != Status.UNCONFIRMED:
            results[order_id] = Outcome(order_id, False, f"It is {order.status}, not unconfirmed.")
        elif (capabilities := usable[order.venue_id]) is None:
            results[order_id] = Outcome(order_id, False, VENUE_UNUSABLE)
        elif order.since.total_seconds() < verdicts.settle_seconds(capabilities):
            results[order_id] = Outcome(order_id, False, "Its last request may still be on its way; try again shortly.")
        else:
            canceling = order.open_cancel is not None
            look_up = LookUp(order_id, order.attempt, order.parked, canceling, order.traceparent)
            due.setdefault(order.venue_id, []).append(look_up)

    def take(row: VenueRow) -> Sequence[LookUp]:
        batch, due[row.code] = due[row.code][:BATCH], due[row.code][BATCH:]
        return batch

    asked = _ask_venues([rows[code] for code in due], take, actor=actor, by_itself=False)
    results |= {result.key: result for result in asked}
    return [results[order_id] for order_id in order_ids]


def _not_in_use(order_id: UUID) -> Outcome:
    """The refusal of an order that is archived, or that there never was."""
    order = archive.orders_anywhere([order_id]).get(order_id)
    why = f"It is {order.status}, not unconfirmed." if order else "There is no such order."
    return Outcome(order_id, False, why)


VENUE_UNUSABLE = "Its venue cannot be opened: mend the venue's adapter or settings, then try again."


def _ask_venues(rows: Sequence[VenueRow], take: Take, *, actor: str, by_itself: bool) -> list[Outcome]:
    """Ask the venues about the orders that `take` returns for each, in batches, until it returns none for any venue.

    An error with one venue's orders is logged, and that venue is not asked again in this run; the others continue.
    """
    results: list[Outcome] = []
    idle = {row.code: row for row in rows}
    calls: dict[Future[Mapping[UUID, Answer]], tuple[VenueRow, Due]] = {}
    with ThreadPoolExecutor(max(1, len(rows)), "look-ups") as pool:
        while True:
            for row in list(idle.values()):
                try:
                    due = take(row)
                    first = circuit.look_ups(row.code, len(due)) if due else 0
                except Exception as error:
                    _go_on_after(error, row)
                    del idle[row.code]
                    continue
                if due:
                    contexts = {each.order_id: each.traceparent for each in due if isinstance(each, LookUp)}
                    calls[pool.submit(_answers, row, [each.order_id for each in due], first, contexts)] = row, due
                    del idle[row.code]
            if not calls:
                return results
            for call in wait(calls, POLL_SECONDS, FIRST_COMPLETED).done:
                row, due = calls.pop(call)
                try:
                    results += _record(row, due, call.result(), actor=actor, by_itself=by_itself)
                except Exception as error:
                    _go_on_after(error, row)
                    results += [Outcome(order.order_id, False, f"It was not looked up: {error}") for order in due]
                else:
                    idle[row.code] = row


def _go_on_after(error: Exception, row: VenueRow) -> None:
    """Log an error that concerns one venue. Raises it if the database is away, because that concerns all venues."""
    if is_gone(error):
        raise error
    logger.error(
        "Look-ups of a venue failed", exc_info=error, extra={"event": "lookup.venue_failed", "venue": row.code}
    )


def _record(
    row: VenueRow, looked_up: Due, answers: Mapping[UUID, Answer], *, actor: str, by_itself: bool
) -> list[Outcome]:
    """Record what became of orders. With `by_itself` nobody asked for it, so only evidence moves a parked order."""
    capabilities = directory.capabilities_if_usable(row)
    if capabilities is None:
        return [Outcome(order.order_id, False, VENUE_UNUSABLE) for order in looked_up]
    if of_requests := [each for each in looked_up if isinstance(each, RequestLookUp)]:
        crash.point("after_look_up")
        decided = deciding.record_look_ups(row.code, of_requests, answers, capabilities, actor=actor)
        circuit.record_look_ups(row.code, answers.values())
        doorbell.ring()
        return decided
    due = [each for each in looked_up if isinstance(each, LookUp)]
    doubts = selectors.doubts([order.order_id for order in due])
    steps: list[Step] = []
    results: list[Outcome] = []
    ended: list[ExecutionReport] = []
    unanswered: dict[str, list[LookUp]] = {}
    parked: dict[str, list[LookUp]] = {}
    for order in due:
        answer = answers[order.order_id]
        conclusion: verdicts.Conclusion
        if capabilities.finds:
            conclusion = verdicts.conclude(order.order_id, order.attempt, answer, capabilities, doubts[order.order_id])
        else:
            conclusion = Park("The venue cannot be asked about orders.")
        if order.canceling and _would_resend(conclusion):
            conclusion = Park("A cancel was asked for, so it is not sent again; a request of ours may still reach it.")
        if by_itself and order.parked and not verdicts.is_evidence(conclusion):
            continue  # it is looked up again later, and keeps the reason why it needs an operator
        match conclusion:
            case Step():
                metrics.LOOKUPS(row.code, conclusion.event).inc()
                steps.append(conclusion)
            case ExecutionReport():
                metrics.LOOKUPS(row.code, "ended").inc()
                ended.append(replace(conclusion, sequence=-1 - len(ended)))
            case Park(reason):
                metrics.LOOKUPS(row.code, "parked").inc()
                parked.setdefault(reason, []).append(order)
                results.append(Outcome(order.order_id, False, reason))
            case None:
                metrics.LOOKUPS(row.code, "unanswered").inc()
                unanswered.setdefault(f"Look-up failed: {answer}", []).append(order)
                results.append(Outcome(order.order_id, False, f"The venue gave no answer: {answer}"))
    if capabilities.finds:
        circuit.record_look_ups(row.code, answers.values())
    moved = recording.record_outcomes(steps, actor=actor) if steps else []
    results += [Outcome(order.id, True, order.status) for order in moved]
    results += _left_behind((step.order_id for step in steps), {order.id for order in moved})
    results += _record_ends(ended, row.code, actor=actor)
    for reason, orders in parked.items():
        lifecycle.park(orders, error=reason)
        logger.error(
            "Orders need an operator",
            extra={"event": "order.parked", "venue": row.code, "orders": len(orders), "reason": reason},
        )
    for error, orders in unanswered.items():
        lifecycle.postpone(orders, seconds=ASK_AGAIN_SECONDS, error=error)
        logger.warning(
            "Look-up failed",
            extra={"event": "lookup.unanswered", "venue": row.code, "orders": len(orders), "error": error},
        )
    doorbell.ring()
    return results


def _record_ends(ended: Sequence[ExecutionReport], venue: str, *, actor: str) -> list[Outcome]:
    """Record that orders have ended at their venue, as it says."""
    if not ended:
        return []
    changed = apply_found(ended, venue, actor=actor)
    return [
        Outcome(UUID(report.client_order_id), True, report.kind.value)
        if report.client_order_id in changed
        else Outcome(UUID(report.client_order_id), False, "It changed while the venue was asked.")
        for report in ended
    ]


def _would_resend(conclusion: verdicts.Conclusion) -> bool:
    """Whether an order would be sent again of which an attempt may still arrive."""
    return isinstance(conclusion, Step) and conclusion.event == Event.NOT_FOUND and conclusion.in_doubt


def mark_placed(order_id: UUID, *, venue_order_id: str, actor: str, reason: str) -> Outcome:
    """Record an operator's statement that a parked order is at the venue, under this id of the venue's.

    The venue is asked once more first. The statement counts if the venue cannot be asked or agrees; otherwise the
    venue's answer is recorded instead.
    """
    venue_order_id = checked_venue_order_id(venue_order_id)
    return _settle(order_id, Event.MARKED_PLACED, venue_order_id, actor=actor, reason=reason)


def checked_venue_order_id(text: str) -> str:
    """Check a venue's order id that a person typed. Raises: ValueError; unlike a reason, it is never shortened."""
    text = text.strip()
    if not text:
        raise ValueError("The venue's order id is required.")
    if storable(text, VENUE_ORDER_ID_LENGTH) != text:
        raise ValueError(f"A venue's order id has 1 to {VENUE_ORDER_ID_LENGTH} characters, in UTF-8.")
    return text


def mark_not_placed(order_id: UUID, *, actor: str, reason: str) -> Outcome:
    """Record an operator's statement that a parked order is not at the venue. The order fails: it can be requeued.

    The venue is asked once more first: if it knows the order, that is recorded instead.
    """
    return _settle(order_id, Event.MARKED_NOT_PLACED, "", actor=actor, reason=reason)


def _settle(order_id: UUID, event: Event, venue_order_id: str, *, actor: str, reason: str) -> Outcome:
    if not reason.strip():
        raise ValueError("A reason is required.")
    order = _with_age(Order.objects.filter(pk=order_id)).first()
    if order is None:
        return _not_in_use(order_id)
    if order.status != Status.UNCONFIRMED:
        return Outcome(order_id, False, f"It is {order.status}, not unconfirmed.")
    if not order.parked:
        return Outcome(order_id, False, "It is not parked: the venue is still being asked about it.")
    capabilities = directory.capabilities_if_usable(order.venue)
    if capabilities is None:
        return Outcome(order_id, False, VENUE_UNUSABLE)
    # This is longer than for a look-up, because the venue is not asked again after the operator's statement.
    if order.since.total_seconds() < verdicts.longest_attempt(capabilities):
        return Outcome(order_id, False, "Its last request may still be on its way; try again in a minute.")
    if capabilities.finds:
        answer = _ask_now(order.venue, order_id)
        if isinstance(answer, VenueError):
            return Outcome(order_id, False, f"The venue gave no answer, and it must be asked first: {answer}")
        if answer is not None and not verdicts.agrees(answer, event, venue_order_id):
            return _contradicted(order, answer, capabilities, actor=actor)
        if answer is None and event == Event.MARKED_PLACED:
            return Outcome(order_id, False, "The venue says that it does not know the order.")
    step = Step(
        order_id=order_id, event=event, attempt=order.attempt, reason=reason.strip(), venue_order_id=venue_order_id
    )
    moved = recording.record_outcomes([step], actor=actor)
    if not moved:
        return Outcome(order_id, False, "It changed while the venue was asked.")
    return Outcome(order_id, True, moved[0].status)


def _contradicted(order: Order, answer: Report, capabilities: Capabilities, *, actor: str) -> Outcome:
    found = verdicts.conclude(order.pk, order.attempt, answer, capabilities, Doubt(0.0, 0))
    if isinstance(found, Step):
        recording.record_outcomes([found], actor=actor)
    elif isinstance(found, ExecutionReport):
        _record_ends([found], order.venue_id, actor=actor)
    else:
        return Outcome(order.pk, False, "The venue says that it knows the order, and not under which id.")
    said = f"{answer.status.value} as {answer.venue_order_id}" if answer.venue_order_id else answer.status.value
    return Outcome(order.pk, False, f"The venue knows the order: {said}. That was recorded instead.")


def _with_age(orders: QuerySet[Order]) -> QuerySet[Order, Any]:
    """Add each order's venue, and `since`: how long the order has not changed, by the database's clock."""
    since = ExpressionWrapper(Now() - F("updated_at"), output_field=DurationField())
    return orders.select_related("venue").annotate(since=since)


def _left_behind(order_ids: Iterable[UUID], moved: set[UUID]) -> list[Outcome]:
    return [Outcome(i, False, "It changed while the venue was asked.") for i in order_ids if i not in moved]


def _ask_now(row: VenueRow, order_id: UUID) -> Answer:
    """Ask the venue about one order, and record in its circuit what the answer says about the venue."""
    answers = _answers(row, [order_id], circuit.look_ups(row.code, 1))
    circuit.record_look_ups(row.code, answers.values())
    return answers[order_id]


def _answers(
    row: VenueRow, order_ids: Sequence[UUID], first: int, contexts: Mapping[UUID, str | None] = MappingProxyType({})
) -> Mapping[UUID, Answer]:
    """Ask the venue about each order. An error of a call is returned as the answer and not raised.

    A venue in trouble is not asked before its next probe is due (`first` is 0), and then about one order first.
    `contexts` are those of the orders' traces.
    """
    answers: dict[UUID, Answer] = {}
    end = time.monotonic() + BATCH_SECONDS  # of both together
    for chosen in (order_ids[:first], order_ids[first:] if first else []):
        if any(isinstance(answer, VenueError) and answer.trouble for answer in answers.values()):
            break
        if chosen:
            answers |= asyncio.run(_look_up(row, chosen, end - time.monotonic(), contexts))
    closed = NotSent("venue_closed", "The venue takes nothing from us now; it is asked later.")
    return dict.fromkeys(order_ids, closed) | answers


async def _look_up(
    row: VenueRow, order_ids: Sequence[UUID], seconds: float, contexts: Mapping[UUID, str | None]
) -> dict[UUID, Answer]:
    venue = open_venue(row.adapter, row.settings)
    if not venue.capabilities.finds:
        return dict.fromkeys(order_ids)
    answers: dict[UUID, Answer] = dict.fromkeys(order_ids, OutcomeUnknown("timeout", "no answer in time"))
    room = asyncio.Semaphore(min(IN_FLIGHT, venue.capabilities.in_flight))

    async def find(order_id: UUID) -> None:
        about = {"order.id": str(order_id), "venue": row.code}
        async with room:
            try:
                with spans.child("look up", contexts.get(order_id), about, call=True):
                    answers[order_id] = await venue.find(str(order_id))
            except VenueError as error:
                answers[order_id] = error
            except Exception as error:
                logger.exception(
                    "Adapter failed", extra={"event": "lookup.adapter_failed", "venue": row.code, "order_id": order_id}
                )
                answers[order_id] = OutcomeUnknown("adapter_error", repr(error))

    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*map(find, order_ids))
    except TimeoutError:
        logger.error(
            "A venue's look-ups took too long",
            extra={"event": "lookup.too_slow", "venue": row.code, "orders": len(order_ids)},
        )
    try:
        await venue.close()
    except Exception:
        logger.exception("Adapter failed", extra={"event": "lookup.adapter_not_closed", "venue": row.code})
    return answers
