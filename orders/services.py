"""What operators and clients can do to stored orders. The API, the console and the commands share these functions.

Each owns its transaction, and takes the actor and, where a person must give one, a reason. Actors read
`client:alice`, `operator:olga` or `system:placement`.
"""

import logging
from collections.abc import Mapping, Sequence
from uuid import UUID

from django.db import transaction

from orders import archive, lifecycle
from orders.lifecycle import Event, Step
from orders.models import AT_VENUE, Status
from quiktrade.jobs import doorbell
from quiktrade.outcomes import Outcome

logger = logging.getLogger(__name__)


_WHY_NOT_CANCELED: Mapping[str, str] = {
    Status.SUBMITTING: "It is being sent to the venue at this moment.",
    Status.UNCONFIRMED: "It was sent and the venue has not confirmed it yet: it may be working there.",
    Status.PLACED: "It is at the venue.",
    Status.PARTIALLY_FILLED: "It is at the venue and partly executed.",
    Status.PENDING_CANCEL: "The venue was asked to cancel it already.",
    Status.PENDING_REPLACE: "It is at the venue.",
    Status.DONE_FOR_DAY: "It is at the venue.",
    Status.CANCELED: "It is canceled already.",
}


def cancel_orders(order_ids: Sequence[UUID], *, actor: str, reason: str) -> list[Outcome]:
    """Cancel orders that are not at the venue: pending and failed ones. Returns one result for each, in order."""
    return _ask(order_ids, Event.CANCEL_REQUESTED, "canceled", _WHY_NOT_CANCELED, actor=actor, reason=reason)


_WHY_NOT_REQUEUED: Mapping[str, str] = {
    Status.PENDING: "It is waiting to be placed already.",
    Status.SUBMITTING: "It is being sent to the venue at this moment.",
    Status.UNCONFIRMED: "It may be at the venue: reconcile it instead. Sending it again could place it twice.",
    **dict.fromkeys((status for status in AT_VENUE if status != Status.FILLED), "It is at the venue."),
}


def requeue_orders(order_ids: Sequence[UUID], *, actor: str, reason: str) -> list[Outcome]:
    """Try failed orders again, with a new count of attempts. Returns one result for each, in order."""
    results = _ask(order_ids, Event.REQUEUED, "requeued", _WHY_NOT_REQUEUED, actor=actor, reason=reason)
    doorbell.ring()
    return results


def _ask(
    order_ids: Sequence[UUID], event: Event, done: str, why_not: Mapping[str, str], *, actor: str, reason: str
) -> list[Outcome]:
    if not reason.strip():
        raise ValueError("A reason is required.")
    steps = [Step(order_id=order_id, event=event, reason=reason.strip()) for order_id in order_ids]
    with transaction.atomic():
        moved = {order.id for order in lifecycle.advance(steps, actor=actor).moved}
        left = archive.orders_anywhere(list(set(order_ids) - moved))
        stands = {pk: (order.status, order.in_doubt) for pk, order in left.items()}
    results = []
    for order_id in order_ids:
        if order_id in moved:
            results.append(Outcome(order_id, True, done))
        elif order_id not in stands:
            results.append(Outcome(order_id, False, "There is no such order."))
        else:
            status, in_doubt = stands[order_id]
            why = why_not.get(status, f"It is {status}, which is final.")
            if in_doubt and event == Event.CANCEL_REQUESTED and status == Status.PENDING:
                why = "It was sent without an answer and will be sent again under the same id: it may be at the venue."
            results.append(Outcome(order_id, False, why, status))
    logger.info(
        "Orders %s",
        done,
        extra={"event": f"orders.{event}", "orders": len(moved), "asked": len(order_ids), "actor": actor},
    )
    return results
