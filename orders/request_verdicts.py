"""What an attempt or a look-up means for a request to cancel or replace. Nothing here reads a row, a clock or a socket.

A cancel cannot be done twice, so one without an answer is sent again at once. But the answer to a repetition says how
things stand after the first: any answer but "done" is looked up. A replace could be done over a later one, so after one
without an answer nothing but a cancel is sent before the venue, asked when the replace can no longer arrive, has shown
which terms the order has. Either way evidence counts whenever it comes, and its absence only after the settle time.
"""

from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings

from exchanges.venue import (
    Capabilities,
    Done,
    ExecutionReport,
    NotSent,
    NotSupported,
    Report,
    ReportKind,
    ReportStatus,
    RequestRefused,
    ResendSafety,
    Taken,
    VenueError,
)
from orders.models import RequestStatus
from orders.requests import (
    ANSWER_SECONDS,
    CANCEL,
    LOOK_UP_LONGEST_SECONDS,
    REPLACE,
    ClaimedRequest,
    Move,
    NewTerms,
    Refusal,
    RequestLookUp,
)
from orders.verdicts import UNREACHABLE_SECONDS, backoff_seconds

CANCEL_AGAIN_SECONDS = 0.5
CANCEL_AGAIN_LONGEST_SECONDS = 5.0
"""The bounds of the wait before a cancel without an answer is sent again."""

PENDING, SENT, UNCONFIRMED = RequestStatus.PENDING, RequestStatus.SENT, RequestStatus.UNCONFIRMED
IN_QUESTION = (PENDING, SENT, UNCONFIRMED)

ENDS = {
    ReportStatus.CANCELED: ReportKind.CANCELED,
    ReportStatus.EXPIRED: ReportKind.EXPIRED,
    ReportStatus.REJECTED: ReportKind.REJECTED,
}
WORKS = (ReportStatus.WORKING, ReportStatus.PARTIALLY_FILLED, ReportStatus.DONE_FOR_DAY)


@dataclass(frozen=True, slots=True)
class Said:
    """The venue's word on the request or its order, to be folded like a report of its stream.

    With a `refusal`, only if that decides the request.
    """

    report: ExecutionReport
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The venue does not know the order, which we hold as being there. A person must see that."""


Verdict = Said | Move


# ---- An attempt ----


def after_attempt(
    request: ClaimedRequest, answer: Done | Taken | VenueError, capabilities: Capabilities, *, lease_left: float
) -> Verdict:
    """What the answer to an attempt, or its absence, means for the request."""
    match answer:
        case Done() if request.replacing:
            return _move(request, SENT, look_up=0.0)
        case Done() if request.kind == REPLACE or not _awaits_executions(answer, request.filled, capabilities):
            return Said(_done(request, answer))
        case Done() | Taken():
            return _move(request, SENT, look_up=_wait(request))
        case RequestRefused() if request.kind == REPLACE and not request.in_doubt:
            return _refused(request, str(answer))
        case RequestRefused():
            # The order may have ended by an earlier attempt of this request, or may have been filled just now.
            wait = settle_seconds(capabilities, lease_left=0.0) if request.kind == REPLACE else 0.0
            return _move(request, UNCONFIRMED, look_up=wait, code=answer.code, error=str(answer))
        case NotSent() | NotSupported():
            return _not_sent(request, answer)
    settle = settle_seconds(capabilities, lease_left=lease_left)
    if request.kind == CANCEL:
        base, cap = CANCEL_AGAIN_SECONDS, CANCEL_AGAIN_LONGEST_SECONDS
        delay = backoff_seconds(request.attempt, base=base, cap=cap)
        return _move(request, PENDING, delay=delay, settle=settle, in_doubt=True, error=str(answer))
    return _move(request, UNCONFIRMED, look_up=settle, settle=settle, in_doubt=True, error=str(answer))


def _awaits_executions(answer: Done | Report, filled: int, capabilities: Capabilities) -> bool:
    """Whether the venue's stream has executions for us that came before this. An end before them would call them late.

    The stream brings the end, too.
    """
    return capabilities.reports and answer.cumulative_quantity not in (None, filled)


def _wait(request: ClaimedRequest) -> float:
    """Seconds until a request that the venue has taken is looked up: longer after each attempt."""
    return min(ANSWER_SECONDS * 2.0 ** min(request.attempt - 1, 10), LOOK_UP_LONGEST_SECONDS)


def _not_sent(request: ClaimedRequest, error: VenueError) -> Move:
    if isinstance(error, NotSupported):
        return _move(request, RequestStatus.FAILED, error=str(error))
    if error.trouble or not error.answered:
        # As for an order: no fault of the request, and the circuit decides when to continue.
        delay = backoff_seconds(1, base=UNREACHABLE_SECONDS, cap=UNREACHABLE_SECONDS)
        return _move(request, PENDING, delay=delay, error=str(error))
    failures = request.failures + 1
    if request.kind == REPLACE and failures >= settings.PLACEMENT_MAX_ATTEMPTS:
        if request.in_doubt:  # an attempt before these may have arrived
            return _move(request, UNCONFIRMED, look_up=ANSWER_SECONDS, failed=True, error=str(error))
        return _move(request, RequestStatus.FAILED, failed=True, error=str(error))
    base = settings.PLACEMENT_BACKOFF_BASE_SECONDS
    longest = CANCEL_AGAIN_LONGEST_SECONDS if request.kind == CANCEL else settings.PLACEMENT_BACKOFF_CAP_SECONDS
    delay = backoff_seconds(failures, base=base, cap=longest)
    return _move(request, PENDING, delay=delay, failed=True, error=str(error))


def _move(request: ClaimedRequest, status: RequestStatus, **how: Any) -> Move:
    return Move(id=request.id, attempt=request.attempt, status=status, **how)


def settle_seconds(capabilities: Capabilities, *, lease_left: float) -> float:
    """Seconds until an attempt that ended now without an answer can no longer arrive."""
    if capabilities.resend_safety is ResendSafety.REFUSES_STALE_REQUESTS:
        return max(lease_left, 0.0) + capabilities.settle_seconds
    return capabilities.settle_seconds


def _done(request: ClaimedRequest, answer: Done) -> ExecutionReport:
    kind, more = ReportKind.CANCELED, {}
    if request.terms is not None:
        kind, more = ReportKind.REPLACED, as_report(request.terms)
        more["quantity"] = answer.quantity or request.terms.quantity
    return ExecutionReport(
        sequence=0,
        kind=kind,
        client_order_id=str(request.id),
        original_client_order_id=str(request.order_id),
        venue_order_id=answer.venue_order_id,
        **more,
    )


def _refused(request: ClaimedRequest | RequestLookUp, text: str) -> Said:
    report = ExecutionReport(
        sequence=0,
        kind=ReportKind.CANCEL_REFUSED if request.kind == CANCEL else ReportKind.REPLACE_REFUSED,
        client_order_id=str(request.id),
        original_client_order_id=str(request.order_id),
        venue_order_id=request.venue_order_id,
        text=text,
    )
    looked_up = isinstance(request, RequestLookUp)
    return Said(report, Refusal(id=request.id, code=text, attempt=request.attempt, looked_up=looked_up))


def as_report(terms: NewTerms) -> dict[str, Any]:
    """Terms as a report of them has them."""
    return {
        "quantity": terms.quantity,
        "limit_price": terms.limit_price,
        "stop_price": terms.stop_price,
        "time_in_force": terms.time_in_force,
        "expires_at": terms.expires_at,
    }


# ---- A look-up ----


def after_look_up(
    request: RequestLookUp, answer: Report | VenueError | None, capabilities: Capabilities
) -> Verdict | Unknown | None:
    """What the venue's word on the order means for the request. None: it decides nothing yet, so ask again."""
    match answer:
        case VenueError() | Report(venue_order_id=""):
            return None
        case None:
            return Unknown() if request.settled else None
        case Report(status=ReportStatus.CANCELED | ReportStatus.EXPIRED | ReportStatus.REJECTED):
            if request.terms is not None and _shows_it_done(answer, request.terms, request.before):
                return Said(_replaced(request, request.terms, answer))  # it was done before the order ended
            awaits = _awaits_executions(answer, request.filled, capabilities)
            if request.replacing or (awaits and request.age < LOOK_UP_LONGEST_SECONDS):
                return None  # an open replace is looked up itself, and decides whether it was done before the end
            return Said(_ended(request, answer))
    if request.kind == CANCEL:
        return _cancel(request, answer, capabilities)
    return _replace(request, answer, capabilities)


def _ended(request: RequestLookUp, answer: Report) -> ExecutionReport:
    return ExecutionReport(
        sequence=0,
        kind=ENDS[answer.status],
        client_order_id=str(request.order_id),
        venue_order_id=answer.venue_order_id,
        text=f"{answer.code}: {answer.text}" if answer.code and answer.text else answer.code or answer.text,
    )


def _cancel(request: RequestLookUp, answer: Report, capabilities: Capabilities) -> Verdict | None:
    if answer.status is ReportStatus.FILLED:
        return _refused(request, "too_late: the order is filled")
    if not request.settled:
        return None  # an attempt may still arrive and cancel it
    if request.code and request.status == SENT:
        return _wait_out(request, request.code, capabilities)
    if request.code:
        return _refused(request, request.code)
    if request.status == UNCONFIRMED:
        return _again(request)
    if request.status == SENT:  # what the venue has taken may be done, so the answer to a repetition proves nothing
        return _again(request, in_doubt=True, settle=capabilities.settle_seconds)
    return None  # it is sent again already


def _replace(request: RequestLookUp, answer: Report, capabilities: Capabilities) -> Verdict | None:
    assert request.terms is not None, "a replace is looked up only after it was claimed"
    if _shows_it_done(answer, request.terms, request.before):
        return Said(_replaced(request, request.terms, answer))
    if not request.settled or request.status == PENDING:
        return None  # an attempt of it may still arrive
    if request.canceling:
        return None  # nothing but the cancel is sent
    if not shows(answer, request.before):
        # Neither terms: nobody can say whether it was done, nor what a repetition would change. A person must see it.
        return None
    filled = "too_late: the order is filled" if answer.status is ReportStatus.FILLED else ""
    if why := filled or request.code:
        return _refused(request, why) if request.status != SENT else _wait_out(request, why, capabilities)
    if request.status == SENT:
        return None  # the venue has it, and decides when it likes
    if request.attempt >= settings.PLACEMENT_MAX_ATTEMPTS:
        return None  # a person must see it: it is among what is not answered
    window = capabilities.duplicate_window_seconds
    if capabilities.resend_safety is ResendSafety.REFUSES_RECENT_DUPLICATES and (
        window is None or request.age >= window
    ):
        return None
    return _again(request)


def _replaced(request: RequestLookUp, terms: NewTerms, answer: Report) -> ExecutionReport:
    more = as_report(terms) | {"quantity": answer.quantity or terms.quantity}
    return ExecutionReport(
        sequence=0,
        kind=ReportKind.REPLACED,
        client_order_id=str(request.id),
        original_client_order_id=str(request.order_id),
        venue_order_id=answer.venue_order_id,
        **more,
    )


def _wait_out(request: RequestLookUp, why: str, capabilities: Capabilities) -> Move:
    """One attempt was refused, or the order is filled, while the venue may still consider an attempt that it has
    taken. The request counts as refused if the venue shows no more than that after the settle time."""
    wait = capabilities.settle_seconds
    return Move(
        id=request.id,
        attempt=request.attempt,
        status=UNCONFIRMED,
        leaving=(SENT,),
        look_up=wait,
        settle=wait,
        code=why,
        error=why,
    )


def _again(request: RequestLookUp, **how: Any) -> Move:
    return Move(
        id=request.id,
        attempt=request.attempt,
        status=PENDING,
        leaving=(SENT, UNCONFIRMED),
        delay=0.0,
        error="The venue does not show what was asked for.",
        **how,
    )


def _shows_it_done(answer: Report, terms: NewTerms, before: NewTerms) -> bool:
    """Whether the order has the terms that a replace asked for. One that shows the terms from before proves nothing.

    A venue amends a quantity below what is filled to what is filled. An order that was filled before it could be
    replaced shows its old quantity, which is not less.
    """
    if shows(answer, before):
        return False
    filled = answer.cumulative_quantity or 0
    if terms.quantity < filled < before.quantity:
        terms = replace(terms, quantity=filled)
    return shows(answer, terms)


def shows(answer: Report, terms: NewTerms) -> bool:
    """Whether the order stands at the venue with these terms.

    What the venue does not say counts as equal, but it must say the quantity.
    """
    if answer.quantity != terms.quantity:
        return False
    if answer.time_in_force and (answer.time_in_force, answer.expires_at) != (terms.time_in_force, terms.expires_at):
        return False
    return all(
        said is None or said == asked
        for said, asked in ((answer.limit_price, terms.limit_price), (answer.stop_price, terms.stop_price))
    )
