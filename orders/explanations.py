"""What clients are told about an order's trouble: a stable code and a sentence, or the venue's own refusal.

A row and its history hold more, for operators: addresses, a library's messages, what an operator noted. Clients must
not see that, so only the texts in this module are passed on.
"""

from collections.abc import Mapping

from orders.lifecycle import Event
from orders.models import Status

NOT_PLACED_YET = "not_placed_yet", "Its last attempt did not place it. It is tried again at next_attempt_at."
BY_STATUS: Mapping[str, tuple[str, str]] = {
    Status.PENDING: NOT_PLACED_YET,
    Status.SUBMITTING: ("not_placed_yet", "An earlier attempt did not place it. It is being sent again."),
    Status.UNCONFIRMED: (
        "outcome_unknown",
        "It was sent, and the venue has not confirmed it: it may be working there. The venue is being asked.",
    ),
    Status.FAILED: ("not_placed", "Nothing of it is at the venue. Our operators try it again or cancel it."),
    Status.EXPIRED: ("place_by_passed", "Its time ran out before it could be placed."),
}
REJECTED = "rejected_by_venue"
CODES = (*dict.fromkeys(code for code, _ in BY_STATUS.values()), REJECTED)

BY_EVENT: Mapping[str, str] = {
    Event.NOT_SENT: "The attempt did not place it; it is tried again.",
    Event.VENUE_UNREACHABLE: "The venue could not be reached; it is tried again.",
    Event.TURNED_AWAY: "The venue takes no orders at this moment; it is tried again.",
    Event.OUTCOME_UNKNOWN: "It was sent, and the venue's answer is missing; the venue is asked.",
    Event.NOT_FOUND: "The venue does not know the order; it is sent again under the same id.",
    Event.ATTEMPTS_EXHAUSTED: "Its attempts are spent, and none of them placed it.",
    Event.REQUEUED: "An operator has it tried again.",
    Event.CANCEL_REQUESTED: "An operator canceled it.",
    Event.PLACE_BY_PASSED: "Its time ran out before it could be placed.",
    Event.RESEND_WINDOW_PASSED: "It is too late to send it again; the venue is asked.",
    Event.RESEND_GIVEN_UP: "It is not sent again, and may be at the venue; the venue is asked.",
    Event.MARKED_PLACED: "An operator found it at the venue.",
    Event.MARKED_NOT_PLACED: "An operator found that it is not at the venue.",
    Event.CANCEL_ASKED: "The venue was asked to cancel it.",
    Event.CANCEL_WITHDRAWN: "The venue is no longer asked to cancel it.",
    Event.REPLACE_ASKED: "The venue was asked to change it.",
    Event.REPLACE_WITHDRAWN: "The venue is no longer asked to change it.",
    Event.EXECUTED: "The venue executed some or all of it.",
    Event.EXECUTION_BUSTED: "The venue took an execution back.",
    Event.EXECUTION_CORRECTED: "The venue corrected an execution.",
    Event.CANCELED_AT_VENUE: "The venue canceled what was left of it.",
    Event.EXPIRED_AT_VENUE: "Its time ran out at the venue.",
    Event.DONE_FOR_DAY_AT_VENUE: "The venue does no more of it today.",
    Event.RESTATED: "The venue changed or renewed it.",
    Event.REPLACED: "The venue changed it as asked.",
    Event.CANCEL_REFUSED: "The venue refused to cancel it.",
    Event.REPLACE_REFUSED: "The venue refused to change it.",
}


def last_error(status: str, stored: str) -> str:
    """`code: sentence` for what a row holds as its last error; empty where there is nothing a client has to know."""
    if not stored:
        return ""
    if status == Status.REJECTED:
        return f"{REJECTED}: {stored}"
    return ": ".join(BY_STATUS.get(status, ()))


def reason(event: str, actor: str, stored: str) -> str:
    """A sentence for a step of the history; its code is the name of the step. A client's own reason is not changed."""
    if event == Event.REJECTED_BY_VENUE or actor.startswith("client:"):
        return stored
    return BY_EVENT.get(event, "")
