"""What an operator may do to orders. Each is a service; what it refuses, it explains row by row."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from exchanges.console.intents import Intent, Outcome
from orders.lifecycle import TRANSITIONS, Event
from orders.models import Order, Status
from orders.reconciliation import reconcile_orders
from orders.services import Result, cancel_orders, requeue_orders


def _outcomes(results: Iterable[Result]) -> list[Outcome]:
    return [Outcome(str(result.order_id), result.done, result.explanation) for result in results]


def _requeue(keys: Sequence[str], actor: str, reason: str) -> list[Outcome]:
    return _outcomes(requeue_orders([UUID(key) for key in keys], actor=actor, reason=reason))


def _cancel(keys: Sequence[str], actor: str, reason: str) -> list[Outcome]:
    return _outcomes(cancel_orders([UUID(key) for key in keys], actor=actor, reason=reason))


def _reconcile(keys: Sequence[str], actor: str, reason: str) -> list[Outcome]:
    # The history tells who asked and what the venue said; why it was asked is kept in the console's own log.
    return _outcomes(reconcile_orders([UUID(key) for key in keys], actor=actor))


REQUEUE = Intent(
    name="requeue",
    verb="Requeue",
    done="requeued",
    icon="replay",
    permission="orders.operate_order",
    explanation="Failed orders are tried again at once, with a fresh count of attempts. That is safe: all their "
    "attempts are proved not to have reached the venue. Orders that have not failed are left as they are.",
    act=_requeue,
)
CANCEL = Intent(
    name="cancel",
    verb="Cancel",
    done="canceled",
    icon="block",
    permission="orders.operate_order",
    explanation="Pending and failed orders are canceled for good; nothing of them is at the venue. Orders that have "
    "been sent are left as they are.",
    act=_cancel,
    grave=True,
)
RECONCILE = Intent(
    name="reconcile",
    verb="Reconcile",
    done="reconciled",
    icon="travel_explore",
    permission="orders.operate_order",
    explanation="The venue is asked now what became of these unconfirmed orders, parked ones too. They move only on "
    "its word; without it they stay unconfirmed.",
    act=_reconcile,
    most=100,  # each may wait for as long as the venue may take, and the page waits for all
)
INTENTS = (REQUEUE, RECONCILE, CANCEL)


def applies(intent: Intent, order: Order) -> bool:
    """Whether the order as it stands would not be refused."""
    if intent is RECONCILE:
        return order.status == Status.UNCONFIRMED
    event = Event.REQUEUED if intent is REQUEUE else Event.CANCEL_REQUESTED
    return (Status(order.status), event) in TRANSITIONS
