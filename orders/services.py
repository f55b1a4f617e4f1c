"""The verbs. The API, the jobs, the console and the commands all come through here.

Each service owns its transaction, takes the actor and a reason where a person must give one, and raises the
exceptions below. Actors read `client:alice`, `operator:olga` or `system:placement`.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from exchanges import circuit, directory
from exchanges.directory import Listing
from exchanges.models import Venue
from exchanges.venue import Capabilities, ResendSafety, VenueError
from orders import lifecycle, selectors, together
from orders.lifecycle import Event, Moved, NewRow, Step
from orders.models import Order, OrderEvent, Status, new_order_id
from orders.outcome_log import OutcomeLog
from orders.selectors import ClientOrder
from quiktrade.database.connection import is_gone
from quiktrade.errors import Refusal
from quiktrade.jobs import doorbell

logger = logging.getLogger(__name__)


class InvalidOrder(Refusal):
    """The order cannot be accepted as it is. `field` names what to change, `detail` what is allowed."""

    status = 400
    kind = "validation-error"

    def __init__(self, field: str, code: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.code = code
        self.detail = detail

    def members(self) -> dict[str, Any]:
        errors = [{"pointer": f"#/{self.field}", "code": self.code, "detail": self.detail}]
        return {"detail": "The order was not accepted.", "errors": errors}


class ClientOrderIdTaken(Refusal):
    """The client has another order by this `client_order_id`: use a new one for a new order."""

    status = 409
    kind = "client-order-id-taken"

    def __init__(self, order: ClientOrder) -> None:
        super().__init__(
            f"client_order_id {order.client_order_id} is taken by order {order.id}, which differs. Give a new order an "
            "id of its own."
        )
        self.order = order

    def members(self) -> dict[str, Any]:
        return {"detail": str(self), "order_id": str(self.order.id)}


class CannotCancel(Refusal):
    """The order is past what can be canceled here; the message says why. Nothing was changed."""

    status = 409
    kind = "cannot-cancel"


class NewOrderRequest(NamedTuple):
    """A client's order, valid in itself: FIX names, exact prices, aware UTC. `venue` None means the default."""

    instrument: str
    side: str
    type: str
    quantity: int
    client_order_id: str | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str = "day"
    expires_at: datetime | None = None
    venue: str | None = None
    place_by: datetime | None = None

    @property
    def last_time(self) -> datetime | None:
        """The order is not sent after this time: its `place_by`, or the time that it is good till."""
        if self.place_by is None or self.expires_at is None:
            return self.place_by or self.expires_at
        return min(self.place_by, self.expires_at)


@dataclass(frozen=True, slots=True)
class Submission:
    order: ClientOrder
    replayed: bool
    """The order was stored by an earlier request with the same `client_order_id` and content."""


def submit_order(request: NewOrderRequest, *, owner_id: int, actor: str) -> Submission:
    """Store an order, or find the one that an earlier request with its `client_order_id` stored.

    When this returns, the order is durable and will be placed. Raises: InvalidOrder, ClientOrderIdTaken,
    NotDurable.
    """
    (outcome,) = submit_orders([request], owner_id=owner_id, actor=actor)
    if isinstance(outcome, Submission):
        return outcome
    raise outcome


def submit_orders(
    requests: Sequence[NewOrderRequest], *, owner_id: int, actor: str
) -> list[Submission | InvalidOrder | ClientOrderIdTaken]:
    """Submit many orders in one statement; what became of each, in their order.

    Those that are accepted are durable, and will be placed, when this returns. One that is refused keeps no other
    from being accepted. Of two with the same `client_order_id` the second repeats the first. Raises: NotDurable,
    and then nothing is known of any.
    """
    outcomes: dict[int, Submission | InvalidOrder | ClientOrderIdTaken] = {}
    rows: dict[int, NewRow] = {}
    venues = directory.listings() if requests else {}
    for index, request in enumerate(requests):
        try:
            _check_times(request)
            rows[index] = _new_row(request, owner_id, _venue_for(request, venues), actor)
        except InvalidOrder as refusal:
            outcomes[index] = refusal
    accepted: Mapping[UUID, datetime] = {}
    if rows:
        accepted = together.accept(list(rows.values()))
    if accepted:
        doorbell.ring()
    for index, row in rows.items():
        if (at := accepted.get(row.id)) is not None:
            outcomes[index] = Submission(_stored(row, at), replayed=False)
    if len(accepted) < len(requests):
        _find_stored(requests, rows, outcomes, owner_id)
    return [outcomes[index] for index in range(len(requests))]


def _new_row(request: NewOrderRequest, owner_id: int, venue: str, actor: str) -> NewRow:
    order_id = new_order_id()
    return NewRow(
        actor=actor,
        id=order_id,
        owner_id=owner_id,
        client_order_id=request.client_order_id or str(order_id),
        venue_id=venue,
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


def _stored(row: NewRow, at: datetime) -> ClientOrder:
    """The order as it was written just now, without reading it again."""
    given = row._asdict()
    del given["actor"]
    return ClientOrder(
        **given,
        status=Status.PENDING.value,
        attempt=0,
        next_attempt_at=at,
        venue_order_id="",
        last_error="",
        created_at=at,
        updated_at=at,
        placed_at=None,
    )


def _find_stored(
    requests: Sequence[NewOrderRequest],
    rows: Mapping[int, NewRow],
    outcomes: dict[int, Submission | InvalidOrder | ClientOrderIdTaken],
    owner_id: int,
) -> None:
    """Fill in what earlier requests stored.

    That holds for requests that are refused now, too. What may be accepted changes: a venue closes, a time
    passes. What was accepted stays so.
    """
    ids = {
        index: rows[index].client_order_id if index in rows else request.client_order_id
        for index, request in enumerate(requests)
        if not isinstance(outcomes.get(index), Submission)
    }
    given = [id_ for id_ in ids.values() if id_]
    if not given:
        return
    stored = selectors.submitted(owner_id, given)
    if stored:  # whoever stored them may have been told that no standby has them
        together.confirm()
    for index, client_order_id in ids.items():
        if client_order_id in stored:
            outcomes[index] = _replay(stored[client_order_id], requests[index])


_CONTENT = ("instrument", "side", "type", "quantity", "limit_price", "stop_price", "time_in_force", "expires_at")


def _replay(order: ClientOrder, request: NewOrderRequest) -> Submission | ClientOrderIdTaken:
    """The stored order, if the request means the same.

    A request that names no venue means the same order after the default has changed.
    """
    same = all(getattr(order, name) == getattr(request, name) for name in _CONTENT)
    if same and order.place_by == request.last_time and request.venue in (None, order.venue_id):
        return Submission(order, replayed=True)
    return ClientOrderIdTaken(order)


def _check_times(request: NewOrderRequest) -> None:
    for field in ("expires_at", "place_by"):
        at = getattr(request, field)
        if at is not None and at <= timezone.now():
            raise InvalidOrder(field, "past", "A time in the future is required.")


def _venue_for(request: NewOrderRequest, venues: Mapping[str, Listing]) -> str:
    """The code of the venue that the order goes to. Raises: InvalidOrder, where it does not take the order."""
    if request.venue is None:
        venue = next((venue for venue in venues.values() if venue.is_default), None)
    else:
        venue = venues.get(request.venue)
    if venue is None:
        known = ", ".join(venues) or "none"
        if request.venue is None:
            raise InvalidOrder("venue", "required", f"Name a venue; there is no default. Known: {known}.")
        raise InvalidOrder("venue", "unknown_venue", f"No such venue. Known: {known}.")
    if venue.capabilities is not None:
        for field, value, allowed in (
            ("type", request.type, venue.capabilities.order_types),
            ("time_in_force", request.time_in_force, venue.capabilities.times_in_force),
        ):
            if value not in allowed:
                raise InvalidOrder(field, "not_supported", f"{venue.code} takes {', '.join(sorted(allowed))}.")
    return venue.code


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one order that an operator's or a client's request named."""

    order_id: UUID
    done: bool
    explanation: str
    status: str | None = None
    """Where it stands instead, if it was not done."""


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
    """Have one order canceled. One that is so already is left alone: the request may be a repeat whose first answer
    was lost. Raises: CannotCancel, which says why.
    """
    (result,) = cancel_orders([order_id], actor=actor, reason=reason)
    if not result.done and result.status != Status.CANCELED:
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
            results.append(Result(order_id, False, why, status))
    logger.info("Orders %s", done, extra={"orders": len(moved), "asked": len(order_ids), "actor": actor})
    return results


def record_outcomes(steps: Sequence[Step], *, actor: str) -> list[Moved]:
    """Write what look-ups came to, or an operator's word on it.

    An answer that came too late for its order changes nothing and is logged. So is one that cannot be written:
    its order stays as it is, and the others are written.
    """
    try:
        with transaction.atomic():
            recorded = _record(steps, actor=actor)
    except (OperationalError, InterfaceError):
        raise  # the database's trouble, and not that of one outcome
    except Exception as error:
        if len(steps) > 1:
            half = len(steps) // 2
            return record_outcomes(steps[:half], actor=actor) + record_outcomes(steps[half:], actor=actor)
        for step in steps:
            fields = {"event": f"order.unwritable_{step.event}", "order_id": step.order_id, "error": str(error).strip()}
            logger.error("An outcome cannot be written: its order stays as it is", extra=fields)
        return []
    _log_recorded(recorded, steps)
    return recorded.moved


class Recorded(NamedTuple):
    """What was written of steps, and what was not."""

    moved: list[Moved]
    given_up: list[Moved]
    stale: list[Step]


def _record(steps: Sequence[Step], *, actor: str) -> Recorded:
    """Move orders, and fail those whose attempts are spent.

    Inside a transaction. Nothing is logged here: its commit may fail, and then all of this is done again.
    """
    moved, stale = lifecycle.advance(steps, actor=actor)
    spent = [
        Step(
            order_id=order.id,
            # Where an earlier attempt may still arrive, no number of failures says that it did not.
            event=Event.RESEND_GIVEN_UP if order.in_doubt else Event.ATTEMPTS_EXHAUSTED,
            attempt=order.attempt,
            reason=f"{order.failures} attempts did not reach the venue"
            + (", and one before them may have: it is not sent again." if order.in_doubt else "."),
        )
        for order in moved
        if order.event == Event.NOT_SENT and order.failures >= settings.PLACEMENT_MAX_ATTEMPTS
    ]
    given_up = lifecycle.advance(spent, actor=actor).moved
    return Recorded(moved, given_up, _not_recorded_before(stale) if stale else [])


def _not_recorded_before(stale: Sequence[Step]) -> list[Step]:
    """Leave out the steps that the history has already: a commit whose answer was lost, and which is done again."""
    order_ids = [step.order_id for step in stale]
    placed_as = dict(Order.objects.filter(pk__in=order_ids).values_list("pk", "venue_order_id"))
    written = OrderEvent.objects.filter(order_id__in=order_ids, event__in={step.event for step in stale})
    history = list(written.values_list("order_id", "event", "attempt", "detail"))

    def recorded(step: Step) -> bool:
        return (not step.venue_order_id or step.venue_order_id == placed_as.get(step.order_id)) and any(
            (order_id, event, detail) == (step.order_id, step.event, step.detail) and step.attempt in (None, attempt)
            for order_id, event, attempt, detail in history
        )

    return [step for step in stale if not recorded(step)]


_outcome_log = OutcomeLog()


def _log_recorded(recorded: Recorded, steps: Sequence[Step]) -> None:
    _outcome_log.tell(recorded.moved, {step.order_id: step for step in steps})
    _log_counted(logging.ERROR, "Orders need an operator", recorded.given_up)
    for step in recorded.stale:
        # An acknowledgement that finds its order final is the one answer that must not go unseen.
        level = logging.ERROR if step.event == Event.ACKNOWLEDGED else logging.WARNING
        fields = {"event": f"order.stale_{step.event}", "order_id": step.order_id, "attempt": step.attempt}
        logger.log(level, "Answer came too late for its order", extra=fields)


def _log_counted(level: int, text: str, orders: Iterable[Moved]) -> None:
    """One line for all orders of a venue to which the same happened, with the ids of one of them."""
    alike: dict[tuple[str, str], list[Moved]] = {}
    for order in orders:
        alike.setdefault((order.venue_id, order.event), []).append(order)
    for (venue, event), same in alike.items():
        fields = {"event": f"order.{event}", "venue": venue, "orders": len(same), "status": same[0].status}
        first = {"order_id": same[0].id, "client_order_id": same[0].client_order_id}
        logger.log(level, text, extra={**fields, **first})


@dataclass(frozen=True, slots=True)
class Claim:
    orders: list[Moved]
    permit: circuit.Permit


NO_CLAIM = Claim([], circuit.NONE)


def claim_orders(code: str, *, wanted: int, actor: str) -> Claim:
    """Take up to `wanted` due orders for an attempt each, as many as the venue's circuit and limits admit.

    Claims for one venue follow one another: what is under way is counted with no other claim in between.
    """
    orders: list[Moved] = []
    with transaction.atomic():
        permit = circuit.permit(code, wanted)
        if permit.sends > 0:
            limits = {"limit": permit.sends, "in_flight": permit.in_flight}
            orders = lifecycle.claim(code, **limits, lease=settings.PLACEMENT_LEASE_SECONDS, actor=actor)
            if permit.rated and orders:
                circuit.spend(code, len(orders))
    return Claim(orders, permit)


def shut_out(code: str, *, error: str) -> None:
    """Have the orders of a venue wait whose row names no adapter that works; it is tried again now and then."""
    logger.error("Venue cannot be opened: its orders wait", extra={"venue": code, "error": error})
    with transaction.atomic():
        circuit.permit(code, 0)
        circuit.record_silence(code, requests=circuit.SILENCES_TO_OPEN, probe=True, error=error)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt came to: the step for its order, and what it says about the venue.

    `number` is the order's attempt, also where the step itself applies to any. `answered` None: it was not sent.
    """

    step: Step
    venue: str
    answered: bool | None
    permit: circuit.Permit
    number: int | None = None
    error: VenueError | None = None


def record_attempts(attempts: Sequence[Attempt], *, actor: str) -> list[Moved]:
    """Write what attempts came to, for their orders and for their venues' circuits: all of them or, if one cannot
    be written, none."""
    steps = [attempt.step for attempt in attempts]
    with transaction.atomic():
        recorded = _record(steps, actor=actor)
        for code in sorted({attempt.venue for attempt in attempts}):
            _record_health(code, [attempt for attempt in attempts if attempt.venue == code])
    _log_recorded(recorded, steps)
    return recorded.moved


def _record_health(code: str, attempts: Sequence[Attempt]) -> None:
    """The venue's own word that it takes nothing counts most; else one answer says that it is alive."""
    sent = [attempt for attempt in attempts if attempt.answered is not None]
    answered = [attempt for attempt in sent if attempt.answered]
    probe = any(attempt.permit.probe for attempt in sent)
    if errors := [attempt.error for attempt in sent if attempt.error and attempt.error.trouble]:
        circuit.record_trouble(code, errors, probe=probe)
    elif sent and not answered:
        circuit.record_silence(code, requests=len(sent), probe=probe, error=sent[-1].step.reason)
    elif len(answered) < len(sent) or any(attempt.permit.troubled for attempt in sent):
        circuit.record_answer(code, probe=any(attempt.permit.probe for attempt in answered))


def sweep_orders(*, limit: int = 1000) -> int:
    """Make the orders whose attempt died or froze unconfirmed, and take those that time overtook out of the queue.

    What a clock that was ahead has put off beyond all bounds is put right. Returns how many orders were moved.
    """
    overtaken = lifecycle.overtake(limit=limit, actor="system:sweep")
    _log_counted(logging.WARNING, "Orders overtaken by time", overtaken)
    count = len(overtaken)
    for venue in Venue.objects.all():
        try:
            count += _sweep(venue, limit)
        except Exception as error:
            if is_gone(error):
                raise
            logger.exception("Sweep of a venue failed", extra={"venue": venue.code})
    return count


def _sweep(venue: Venue, limit: int) -> int:
    capabilities = directory.capabilities_if_usable(venue)
    delay = capabilities.settle_seconds if capabilities and capabilities.finds else None
    swept = lifecycle.sweep(venue.code, delay=delay, limit=limit, actor="system:sweep")
    _log_counted(logging.WARNING, "Attempts ended without a result: their leases ran out", swept)
    if capabilities:
        _pull_back(venue.code, capabilities, limit)
    return len(swept)


CLOCK_MARGIN_SECONDS = 60.0
"""A time further ahead than the longest wait there is, and this much more, was written by a clock that was ahead. The
margin spares what is put off for reasons of half a minute, such as a venue that cannot be opened."""


def furthest_seconds(capabilities: Capabilities) -> float:
    """The most seconds that a back-off, a lease or the wait for a look-up puts an order of this venue off."""
    lease = settings.PLACEMENT_LEASE_SECONDS
    waits = (
        settings.PLACEMENT_BACKOFF_CAP_SECONDS,
        lease + capabilities.settle_seconds,
        2 * capabilities.deadline_seconds,
    )
    return max(waits) + CLOCK_MARGIN_SECONDS


def _pull_back(code: str, capabilities: Capabilities, limit: int) -> None:
    orders = lifecycle.pull_back(
        code,
        furthest=furthest_seconds(capabilities),
        settle=capabilities.settle_seconds,
        lease=settings.PLACEMENT_LEASE_SECONDS,
        stamped=capabilities.resend_safety is ResendSafety.REFUSES_STALE_REQUESTS,
        limit=limit,
    )
    if orders or circuit.pull_back(code):
        logger.error("Times far in the future put right: was the database's clock set back?", extra={"orders": orders})
