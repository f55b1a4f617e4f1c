"""What an attempt or a look-up means for its order. Nothing here reads a row, a clock or a socket.

Whether an order can be placed twice is decided in three places: the lifecycle says which steps exist, a venue's
capabilities say what it refuses by itself (exchanges/venue.py), and this module draws the conclusion.

Nothing is guessed. If an answer proves nothing, the order stays unconfirmed and is looked up again; if no answer can
prove anything, an operator decides.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings

from exchanges.venue import (
    Capabilities,
    ExecutionReport,
    NotSent,
    OrderRejected,
    OutcomeUnknown,
    Report,
    ReportKind,
    ReportStatus,
    ResendSafety,
    VenueError,
)
from orders.lifecycle import Event, MovedOrder, Step
from orders.models import Status

UNREACHABLE_SECONDS = 0.5
"""The longest wait of an order whose venue was unreachable or takes nothing. After that the circuit decides."""
CLOCK_MARGIN_SECONDS = 60.0
"""A time that is further ahead than the longest wait plus this margin was written by a clock that was ahead. The margin
leaves room for delays of half a minute, such as that of a venue that cannot be opened."""

Answer = Report | VenueError | None
"""The result of a look-up. None means that the venue has no order by that id."""
EVIDENCE = (Event.ACKNOWLEDGED, Event.REJECTED_BY_VENUE)
"""The events that move a parked order without an operator's request."""


# ---- An attempt ----


def failed_step(
    order: MovedOrder, error: VenueError, capabilities: Capabilities, *, lease_left: float, latency_ms: float
) -> Step:
    """What an attempt without an acknowledgement means for the order."""
    detail: dict[str, Any] = {"code": error.code, "latency_ms": latency_ms}
    in_question = order.in_doubt and not capabilities.remembers_rejections
    if isinstance(error, OrderRejected) and in_question and not error.by_content:
        # The venue refused this attempt. If an earlier one arrives later, the venue would take it for a new order. That
        # cannot happen if it refused the order's content, which is the same in every attempt.
        error = OutcomeUnknown("rejected_in_doubt", str(error), answered=True)
    delay: float | None = None
    if isinstance(error, OrderRejected):
        event = Event.REJECTED_BY_VENUE
    elif isinstance(error, NotSent) and (error.trouble or not error.answered):
        event = Event.TURNED_AWAY if error.trouble else Event.VENUE_UNREACHABLE
        # The circuit decides when to continue. The random delay keeps the first few orders from returning together.
        delay = backoff_seconds(1, base=UNREACHABLE_SECONDS, cap=UNREACHABLE_SECONDS)
    elif isinstance(error, NotSent):
        event = Event.NOT_SENT
        delay = backoff_seconds(
            order.failures + 1,
            base=settings.PLACEMENT_BACKOFF_BASE_SECONDS,
            cap=settings.PLACEMENT_BACKOFF_CAP_SECONDS,
        )
        detail["retry_in_seconds"] = round(delay, 3)
    else:
        event = Event.OUTCOME_UNKNOWN
        delay = look_up_delay(capabilities, lease_left=lease_left)
        if error.trouble:
            detail["trouble"] = error.trouble.value
    return Step(order_id=order.id, event=event, attempt=order.attempt, reason=str(error), detail=detail, delay=delay)


def spent_step(order: MovedOrder) -> Step | None:
    """The step of an order after another attempt is proved not to have arrived. None means that it is tried again."""
    if order.open_cancel is not None:
        return None  # it is not tried again
    if order.event != Event.NOT_SENT or order.failures < settings.PLACEMENT_MAX_ATTEMPTS:
        return None
    # If an earlier attempt may still arrive, no number of failures proves that it did not.
    event = Event.RESEND_GIVEN_UP if order.in_doubt else Event.ATTEMPTS_EXHAUSTED
    and_before = ", and one before them may have: it is not sent again." if order.in_doubt else "."
    reason = f"{order.failures} attempts did not reach the venue{and_before}"
    return Step(order_id=order.id, event=event, attempt=order.attempt, reason=reason)


def canceling_step(order: MovedOrder) -> Step | None:
    """The step of an order that a cancel waits for, once no attempt of it is under way. None: the cancel waits on.

    It is not sent again. Nothing of it is at the venue, so it is canceled here, unless an earlier attempt may arrive.
    """
    if order.open_cancel is None or order.status not in (Status.PENDING, Status.FAILED):
        return None
    if order.in_doubt:
        reason = "A cancel was asked for, and it may be at the venue: it is not sent again."
        return Step(order_id=order.id, event=Event.RESEND_GIVEN_UP, reason=reason, delay=0.0)
    reason = "A cancel was asked for, and nothing of it is at the venue."
    return Step(order_id=order.id, event=Event.CANCEL_REQUESTED, reason=reason)


# ---- A look-up ----


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is in doubt about an unconfirmed order."""

    age: float
    """Seconds since its first attempt that may have reached the venue."""
    rounds: int
    """How often the order was sent again because the venue did not know it."""


@dataclass(frozen=True, slots=True)
class Park:
    """No answer of the venue can decide about the order, so an operator must."""

    reason: str


OVER: Mapping[ReportStatus, ReportKind] = {
    ReportStatus.CANCELED: ReportKind.CANCELED,
    ReportStatus.EXPIRED: ReportKind.EXPIRED,
    ReportStatus.DONE_FOR_DAY: ReportKind.DONE_FOR_DAY,
}
"""The report that says the same as a status of an order at its venue that has ended."""

Conclusion = Step | Park | ExecutionReport | None


def conclude(order_id: UUID, attempt: int, answer: Answer, capabilities: Capabilities, doubt: Doubt) -> Conclusion:
    """What the venue's answer means for an unconfirmed order; None means ask again later.

    `answer` None says that the venue has no order by that id. It must come from a look-up made after the
    settle time, or it proves nothing. A report is applied to the order like one of the venue's stream.
    """
    match answer:
        case VenueError():
            return None
        case Report(status=ReportStatus.REJECTED) if not _is_final(answer, capabilities, doubt):
            return Park("The venue rejected one request for it, and would take another that may still be on its way.")
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
            return None  # the venue reports an order without its id, so this answer decides nothing
        case Report() if (end := _end_of(order_id, answer, capabilities)) is not None:
            return end
        case Report():  # what it has executed is not invented here: the venue's session brings the executions
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
            resend_within = (capabilities.duplicate_window_seconds or 0.0) - doubt.age - longest_attempt(capabilities)
            if doubt.age < 0:
                return Park("The database's clock was set back: how old the order is at the venue is not known.")
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


def is_evidence(conclusion: Conclusion) -> bool:
    """Whether it moves a parked order without an operator's request."""
    return isinstance(conclusion, ExecutionReport) or (isinstance(conclusion, Step) and conclusion.event in EVIDENCE)


def _end_of(order_id: UUID, answer: Report, capabilities: Capabilities) -> ExecutionReport | None:
    """The report of the order's end, if the venue says that it has ended and no execution is still to be heard of.

    An end that came before the executions would call them late.
    """
    kind = OVER.get(answer.status)
    if kind is None or kind is ReportKind.DONE_FOR_DAY or (capabilities.reports and answer.cumulative_quantity != 0):
        return None
    return ended(str(order_id), kind, answer, sequence=-1)


def ended(client_order_id: str, kind: ReportKind, answer: Report, *, sequence: int) -> ExecutionReport:
    """The report that an order has ended as the venue's answer says. Its number is below 0: the venue gave it none."""
    return ExecutionReport(
        sequence=sequence,
        kind=kind,
        client_order_id=client_order_id,
        venue_order_id=answer.venue_order_id,
        text=answer.text,
        cumulative_quantity=answer.cumulative_quantity,
        leaves_quantity=answer.leaves_quantity,
    )


def _is_final(rejection: Report, capabilities: Capabilities, doubt: Doubt) -> bool:
    """Whether no request of the order that is still on its way can be accepted: as in `failed_step`."""
    stamped = capabilities.resend_safety is ResendSafety.REFUSES_STALE_REQUESTS
    in_doubt = doubt.rounds > 0 and not stamped
    return not in_doubt or capabilities.remembers_rejections or rejection.by_content


def agrees(answer: Report, event: Event, venue_order_id: str) -> bool:
    """Whether the venue, which knows the order, agrees with the operator. It can never agree with "not placed"."""
    at_venue = answer.status not in (ReportStatus.REJECTED, ReportStatus.CANCELED, ReportStatus.EXPIRED)
    return event == Event.MARKED_PLACED and at_venue and answer.venue_order_id == venue_order_id


# ---- When a look-up can prove something, and how long anything waits ----


def look_up_delay(capabilities: Capabilities, *, lease_left: float) -> float | None:
    """Seconds until a look-up can prove something: no request of ours can still arrive. None if it never can."""
    if not capabilities.finds:
        return None
    if capabilities.resend_safety is ResendSafety.REFUSES_STALE_REQUESTS:
        return max(lease_left, 0.0) + capabilities.settle_seconds
    return capabilities.settle_seconds


def settle_seconds(capabilities: Capabilities) -> float:
    """For how long after it became unconfirmed a request for an order may still be on its way to this venue."""
    if capabilities.resend_safety is ResendSafety.REFUSES_STALE_REQUESTS:
        return longest_attempt(capabilities)
    return capabilities.settle_seconds


def longest_attempt(capabilities: Capabilities) -> float:
    """An attempt arrives at the venue within this many seconds of its claim, or not at all."""
    return settings.PLACEMENT_LEASE_SECONDS + capabilities.settle_seconds


def furthest_seconds(capabilities: Capabilities) -> float:
    """The longest delay, in seconds, of an order of this venue by a back-off, a lease or the wait for a look-up."""
    lease = settings.PLACEMENT_LEASE_SECONDS
    waits = (
        settings.PLACEMENT_BACKOFF_CAP_SECONDS,
        lease + capabilities.settle_seconds,
        2 * capabilities.deadline_seconds,
    )
    return max(waits) + CLOCK_MARGIN_SECONDS


def backoff_seconds(
    failures: int,
    *,
    base: float,
    cap: float,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """Exponential with full jitter: uniform over [0, min(cap, base · 2^(failures-1))], failures ≥ 1.

    Full jitter spreads the orders that failed together over the whole interval, so that a venue coming back
    is not met by all of them at once.
    """
    ceiling = min(cap, base * 2.0 ** min(failures - 1, 64))
    return uniform(0.0, ceiling)
