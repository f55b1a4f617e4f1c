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
from django.utils import timezone

from exchanges import health
from exchanges.models import Venue
from exchanges.registry import capabilities_of
from exchanges.venue import Capabilities
from orders import doorbell, lifecycle
from orders.durability import durable
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
    place_by: datetime | None = None

    @property
    def last_time(self) -> datetime | None:
        """The order is not sent after this time: its `place_by`, or the time that it is good till."""
        return min((at for at in (self.place_by, self.expires_at) if at), default=None)


@dataclass(frozen=True, slots=True)
class Submission:
    order: Order
    replayed: bool
    """The order was stored by an earlier request with the same `client_order_id` and content."""


def submit_order(request: NewOrderRequest, *, owner_id: int, actor: str) -> Submission:
    """Store an order, or find the one that an earlier request with its `client_order_id` stored.

    When this returns, the order is durable and will be placed. Raises: InvalidOrder, ClientOrderIdTaken,
    NotDurable.
    """
    try:
        venue = _venue_for(request)
        _check_times(request)
    except InvalidOrder:
        # What may be accepted changes: a venue closes, a time passes. What was accepted stays so.
        stored = Order.objects.filter(owner_id=owner_id, client_order_id=request.client_order_id).first()
        if stored is None:
            raise
        return _replay(stored, request)
    row = NewRow(
        id=(order_id := new_order_id()),
        owner_id=owner_id,
        client_order_id=request.client_order_id or str(order_id),
        venue_id=venue.code,
        instrument=request.instrument,
        side=request.side,
        type=request.type,
        quantity=request.quantity,
        limit_price=request.limit_price,
        stop_price=request.stop_price,
        time_in_force=request.time_in_force,
        expires_at=request.expires_at,
        place_by=request.last_time,
    )
    with durable():
        accepted = lifecycle.accept([row], actor=actor)
    if order_id in accepted:
        doorbell.ring()
        at = accepted[order_id]
        order = Order(**asdict(row), status=Status.PENDING, next_attempt_at=at, created_at=at, updated_at=at)
        return Submission(order, replayed=False)
    return _replay(Order.objects.get(owner_id=owner_id, client_order_id=row.client_order_id), request)


_CONTENT = ("instrument", "side", "type", "quantity", "limit_price", "stop_price", "time_in_force", "expires_at")


def _replay(order: Order, request: NewOrderRequest) -> Submission:
    """The stored order, if the request means the same. Raises: ClientOrderIdTaken.

    A request that names no venue means the same order after the default has changed.
    """
    same = all(getattr(order, name) == getattr(request, name) for name in _CONTENT)
    if not same or order.place_by != request.last_time or request.venue not in (None, order.venue_id):
        raise ClientOrderIdTaken(order)
    return Submission(order, replayed=True)


def _check_times(request: NewOrderRequest) -> None:
    for field in ("expires_at", "place_by"):
        at = getattr(request, field)
        if at is not None and at <= timezone.now():
            raise InvalidOrder(field, "past", "A time in the future is required.")


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
    capabilities = capabilities_if_usable(venue)
    if capabilities is not None:
        for field, value, allowed in (
            ("type", request.type, capabilities.order_types),
            ("time_in_force", request.time_in_force, capabilities.times_in_force),
        ):
            if value not in allowed:
                raise InvalidOrder(field, "not_supported", f"{venue.code} takes {', '.join(sorted(allowed))}.")
    return venue


def capabilities_if_usable(venue: Venue) -> Capabilities | None:
    """What the venue can do; None where its row names no adapter that works: its orders wait for an operator,
    and no other venue's do."""
    try:
        return capabilities_of(venue.adapter, venue.settings)
    except (LookupError, ValueError) as error:
        logger.error("Venue cannot be opened", extra={"venue": venue.code, "error": error})
        return None


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
        left = Order.objects.filter(pk__in=set(order_ids) - moved).values_list("pk", "status", "in_doubt")
        stands = {pk: (status, in_doubt) for pk, status, in_doubt in left}
    results = []
    for order_id in order_ids:
        if order_id in moved:
            results.append(Result(order_id, True, done))
        elif order_id not in stands:
            results.append(Result(order_id, False, "There is no such order."))
        else:
            status, in_doubt = stands[order_id]
            why = why_not.get(status, f"It is {status}, which is final.")
            if in_doubt and event == Event.CANCEL_REQUESTED and status == Status.PENDING:
                why = "It was sent without an answer and is to be sent again under the same id: it may be at the venue."
            results.append(Result(order_id, False, why))
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
                # Where an earlier attempt may still arrive, no number of failures says that it did not.
                event=Event.RESEND_GIVEN_UP if order.in_doubt else Event.ATTEMPTS_EXHAUSTED,
                attempt=order.attempt,
                reason=f"{order.failures} attempts did not reach the venue.",
            )
            for order in moved
            if order.event == Event.NOT_SENT and order.failures >= settings.PLACEMENT_MAX_ATTEMPTS
        ]
        given_up = lifecycle.advance(spent, actor=actor).moved
    _log_outcomes(moved, {step.order_id: step for step in steps})
    for order in given_up:
        fields = {"event": f"order.{order.event}", "order_id": order.id, "venue": order.venue_id}
        logger.error("Order needs an operator", extra={**fields, "status": order.status})
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


@dataclass(frozen=True, slots=True)
class Claim:
    orders: list[Moved]
    permit: health.Permit


def claim_orders(code: str, *, wanted: int, actor: str) -> Claim:
    """Take up to `wanted` due orders for an attempt each, as many as the venue's circuit and limits admit.

    Claims for one venue follow one another: what is under way is counted with no other claim in between.
    """
    orders: list[Moved] = []
    with transaction.atomic():
        permit = health.permit(code, wanted)
        if permit.sends > 0:
            room = permit.in_flight - Order.objects.filter(venue_id=code, status=Status.SUBMITTING).count()
            if (limit := min(permit.sends, room)) > 0:
                orders = lifecycle.claim(code, limit=limit, lease=settings.PLACEMENT_LEASE_SECONDS, actor=actor)
            if permit.rated and orders:
                health.spend(code, len(orders))
    return Claim(orders, permit)


def shut_out(code: str, *, error: str) -> None:
    """Have the orders of a venue wait whose row names no adapter that works; it is tried again now and then."""
    logger.error("Venue cannot be opened: its orders wait", extra={"venue": code, "error": error})
    with transaction.atomic():
        health.permit(code, 0)
        health.record_silence(code, requests=health.SILENCES_TO_OPEN, probe=True, error=error)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt came to: the step for its order, and what it says about the venue."""

    step: Step
    venue: str
    answered: bool
    permit: health.Permit


def record_attempts(attempts: Sequence[Attempt], *, actor: str) -> list[Moved]:
    """Write what attempts came to, for their orders and for their venues' circuits."""
    with transaction.atomic():
        moved = record_outcomes([attempt.step for attempt in attempts], actor=actor)
        for code in sorted({attempt.venue for attempt in attempts}):
            _record_health(code, [attempt for attempt in attempts if attempt.venue == code])
    return moved


def _record_health(code: str, attempts: Sequence[Attempt]) -> None:
    """One answer among them says that the venue is alive."""
    silent = [attempt for attempt in attempts if not attempt.answered]
    if len(silent) == len(attempts):
        probe = any(attempt.permit.probe for attempt in silent)
        health.record_silence(code, requests=len(silent), probe=probe, error=silent[-1].step.reason)
    elif silent or any(attempt.permit.troubled for attempt in attempts):
        health.record_answer(code)


def sweep_orders(*, limit: int = 1000) -> int:
    """Make the orders whose attempt died or froze unconfirmed, and take those that time overtook out of the queue.

    Returns how many there were.
    """
    overtaken = lifecycle.overtake(limit=limit, actor="system:sweep")
    for order in overtaken:
        fields = {"event": f"order.{order.event}", "order_id": order.id, "venue": order.venue_id}
        logger.warning("Order overtaken by time", extra={**fields, "status": order.status})
    count = len(overtaken)
    for venue in Venue.objects.all():
        capabilities = capabilities_if_usable(venue)
        delay = capabilities.settle_seconds if capabilities and capabilities.finds else None
        swept = lifecycle.sweep(venue.code, delay=delay, limit=limit, actor="system:sweep")
        for order in swept:
            fields = {"event": "order.lease_expired", "order_id": order.id, "venue": venue.code}
            logger.warning("Attempt ended without a result", extra={**fields, "attempt": order.attempt})
        count += len(swept)
    return count
