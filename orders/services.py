"""The verbs. The API, the jobs, the console and the commands all come through here.

Each service owns its transaction, takes the actor and a reason where a person must give one, and raises the
exceptions below. Actors read `client:alice`, `operator:olga` or `system:placement`.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from exchanges.models import Venue
from exchanges.registry import capabilities_of
from orders import doorbell, lifecycle
from orders.lifecycle import Event, Moved, NewRow, Step
from orders.models import Order, Status, new_order_id

logger = logging.getLogger(__name__)


class InvalidOrder(Exception):
    """The order cannot be accepted as it is. `field` names what to change, `detail` what is allowed."""

    def __init__(self, field: str, code: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.code = code
        self.detail = detail


class ClientOrderIdTaken(Exception):
    """The client has another order by this `client_order_id`: use a new one for a new order."""

    def __init__(self, order: Order) -> None:
        super().__init__(f"client_order_id {order.client_order_id} is taken by order {order.id}, which differs.")
        self.order = order


class CannotCancel(Exception):
    """The order is past what can be canceled here; the message says why. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrderRequest:
    """A client's order, valid in itself: FIX names, exact prices, aware UTC. `venue` None means the default."""

    client_order_id: str | None
    instrument: str
    side: str
    type: str
    quantity: int
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str = "day"
    expires_at: datetime | None = None
    venue: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    order: Order
    replayed: bool
    """The order was stored by an earlier request with the same `client_order_id` and content."""


def submit_order(request: NewOrderRequest, *, owner_id: int, actor: str) -> Submission:
    """Store an order, or find the one that an earlier request with its `client_order_id` stored.

    When this returns, the order is durable and will be placed. Raises: InvalidOrder, ClientOrderIdTaken.
    """
    row = NewRow(
        id=(order_id := new_order_id()),
        owner_id=owner_id,
        client_order_id=request.client_order_id or str(order_id),
        venue_id=_venue_for(request).code,
        instrument=request.instrument,
        side=request.side,
        type=request.type,
        quantity=request.quantity,
        limit_price=request.limit_price,
        stop_price=request.stop_price,
        time_in_force=request.time_in_force,
        expires_at=request.expires_at,
    )
    stored = lifecycle.accept([row], actor=actor)
    if order_id in stored:
        doorbell.ring()
        at = stored[order_id]
        order = Order(**asdict(row), status=Status.PENDING, next_attempt_at=at, created_at=at, updated_at=at)
        return Submission(order, replayed=False)
    order = Order.objects.get(owner_id=owner_id, client_order_id=row.client_order_id)
    if _content(order) != _content(row) or (request.venue and request.venue != order.venue_id):
        raise ClientOrderIdTaken(order)
    return Submission(order, replayed=True)


_CONTENT = ("instrument", "side", "type", "quantity", "limit_price", "stop_price", "time_in_force", "expires_at")


def _content(order: Order | NewRow) -> tuple[object, ...]:
    # Not the venue: a request that names none means the same order after the default has changed.
    return tuple(getattr(order, name) for name in _CONTENT)


def _venue_for(request: NewOrderRequest) -> Venue:
    enabled = Venue.objects.filter(enabled=True)
    if request.venue is None:
        venue = enabled.filter(is_default=True).first()
        if venue is None:
            raise InvalidOrder("venue", "required", f"Name a venue; there is no default. Known: {_codes(enabled)}.")
    else:
        venue = enabled.filter(code=request.venue).first()
        if venue is None:
            raise InvalidOrder("venue", "unknown_venue", f"No such venue. Known: {_codes(enabled)}.")
    capabilities = capabilities_of(venue.adapter, venue.settings)
    for field, value, allowed in (
        ("type", request.type, capabilities.order_types),
        ("time_in_force", request.time_in_force, capabilities.times_in_force),
    ):
        if value not in allowed:
            raise InvalidOrder(field, "not_supported", f"{venue.code} takes {', '.join(sorted(allowed))}.")
    return venue


def _codes(venues: Iterable[Venue]) -> str:
    return ", ".join(sorted(venue.code for venue in venues)) or "none"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one order that an operator's or a client's request named."""

    order_id: UUID
    done: bool
    explanation: str


_WHY_NOT_CANCELED: Mapping[str, str] = {
    Status.SUBMITTING: "It is being sent to the venue at this moment.",
    Status.UNCONFIRMED: "It was sent and the venue has not confirmed it yet: it may be working there.",
    Status.PLACED: "It is at the venue; canceling there is not offered yet.",
    Status.PARTIALLY_FILLED: "It is at the venue and partly executed; canceling there is not offered yet.",
    Status.CANCELED: "It is canceled already.",
}


def cancel_orders(order_ids: Sequence[UUID], *, actor: str, reason: str) -> list[Result]:
    """Cancel orders of which nothing is at the venue: pending and failed ones. One result each, in order."""
    return _ask(order_ids, Event.CANCEL_REQUESTED, "canceled", _WHY_NOT_CANCELED, actor=actor, reason=reason)


def cancel_order(order_id: UUID, *, actor: str, reason: str) -> None:
    """Cancel one order. Raises: CannotCancel, which says why."""
    (result,) = cancel_orders([order_id], actor=actor, reason=reason)
    if not result.done:
        raise CannotCancel(result.explanation)


_WHY_NOT_REQUEUED: Mapping[str, str] = {
    Status.PENDING: "It is waiting to be placed already.",
    Status.SUBMITTING: "It is being sent to the venue at this moment.",
    Status.UNCONFIRMED: "It may be at the venue: reconcile it instead. Sending it again could place it twice.",
    Status.PLACED: "It is at the venue.",
}


def requeue_orders(order_ids: Sequence[UUID], *, actor: str, reason: str) -> list[Result]:
    """Have failed orders tried again, with a fresh count of attempts. One result each, in order."""
    results = _ask(order_ids, Event.REQUEUED, "requeued", _WHY_NOT_REQUEUED, actor=actor, reason=reason)
    doorbell.ring()
    return results


def _ask(
    order_ids: Sequence[UUID], event: Event, done: str, why_not: Mapping[str, str], *, actor: str, reason: str
) -> list[Result]:
    if not reason.strip():
        raise ValueError("A reason is required.")
    steps = [Step(order_id=order_id, event=event, reason=reason.strip()) for order_id in order_ids]
    with transaction.atomic():
        moved = {order.id for order in lifecycle.advance(steps, actor=actor).moved}
        statuses = dict(Order.objects.filter(pk__in=set(order_ids) - moved).values_list("pk", "status"))
    results = []
    for order_id in order_ids:
        if order_id in moved:
            results.append(Result(order_id, True, done))
        elif (status := statuses.get(order_id)) is None:
            results.append(Result(order_id, False, "There is no such order."))
        else:
            results.append(Result(order_id, False, why_not.get(status, f"It is {status}, which is final.")))
    logger.info("Orders %s", done, extra={"orders": len(moved), "asked": len(order_ids), "actor": actor})
    return results


def record_outcomes(steps: Sequence[Step], *, actor: str) -> list[Moved]:
    """Write what attempts or look-ups came to, and fail the orders whose attempts are spent.

    An answer that came too late for its order changes nothing and is logged.
    """
    with transaction.atomic():
        moved, stale = lifecycle.advance(steps, actor=actor)
        spent = [
            Step(
                order_id=order.id,
                event=Event.ATTEMPTS_EXHAUSTED,
                attempt=order.attempt,
                reason=f"{order.failures} attempts did not reach the venue.",
            )
            for order in moved
            if order.event == Event.NOT_SENT and order.failures >= settings.PLACEMENT_MAX_ATTEMPTS
        ]
        failed = lifecycle.advance(spent, actor=actor).moved
    _log_outcomes(moved, {step.order_id: step for step in steps})
    for order in failed:
        logger.error("Order failed", extra={"event": "order.failed", "order_id": order.id, "venue": order.venue_id})
    for step in stale:
        # An acknowledgement that finds its order final is the one answer that must not go unseen.
        level = logging.ERROR if step.event == Event.ACKNOWLEDGED else logging.WARNING
        fields = {"event": f"order.stale_{step.event}", "order_id": step.order_id, "attempt": step.attempt}
        logger.log(level, "Answer came too late for its order", extra=fields)
    return moved


_LEVELS = {Event.ACKNOWLEDGED: logging.DEBUG, Event.REJECTED_BY_VENUE: logging.INFO}


def _log_outcomes(moved: Iterable[Moved], steps: Mapping[UUID, Step]) -> None:
    for order in moved:
        level = _LEVELS.get(Event(order.event), logging.WARNING)
        if logger.isEnabledFor(level):
            fields: dict[str, Any] = {
                "event": f"order.{order.event}",
                "order_id": order.id,
                "venue": order.venue_id,
                "attempt": order.attempt,
                "status": order.status,
                "reason": steps[order.id].reason,
            }
            logger.log(level, "Order moved", extra=fields)


def sweep_orders(*, limit: int = 1000) -> int:
    """Make the orders whose attempt died or froze unconfirmed, and say how many there were."""
    count = 0
    for venue in Venue.objects.all():
        capabilities = capabilities_of(venue.adapter, venue.settings)
        delay = capabilities.settle_seconds if capabilities.finds else None
        swept = lifecycle.sweep(venue.code, delay=delay, limit=limit, actor="system:sweep")
        for order in swept:
            fields = {"event": "order.lease_expired", "order_id": order.id, "venue": venue.code}
            logger.warning("Attempt ended without a result", extra={**fields, "attempt": order.attempt})
        count += len(swept)
    return count
