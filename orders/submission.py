"""Submission: checks a client's new order and stores it before the 201.

Only the API uses this module.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.utils import timezone

from exchanges import directory
from exchanges.directory import Listing
from exchanges.venue import Terms
from orders import metrics, selectors, together
from orders.lifecycle import NewRow
from orders.models import Status, new_order_id
from orders.selectors import ClientOrder, Submitted
from quiktrade.errors import Refusal
from quiktrade.jobs import doorbell
from quiktrade.limits import Allowance, RateLimited
from quiktrade.tracing import spans


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

    def __init__(self, client_order_id: str, order_id: UUID, how: str = "which differs") -> None:
        super().__init__(
            f"client_order_id {client_order_id} is taken by order {order_id}, {how}. Give a new order an id of its own."
        )
        self.order_id = order_id

    def members(self) -> dict[str, Any]:
        return {"detail": str(self), "order_id": str(self.order_id)}


@dataclass(slots=True)
class NewOrderRequest(Terms):
    """A client's order, valid by itself; optional terms may be missing. `venue` None means the default venue."""

    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str = "day"
    expires_at: datetime | None = None
    client_order_id: str | None = None
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
    """Whether an earlier request with the same `client_order_id` and content stored the order."""


Outcome = Submission | InvalidOrder | ClientOrderIdTaken | RateLimited


def submit_order(
    request: NewOrderRequest, *, owner_id: int, actor: str, allowance: Allowance | None = None
) -> Submission:
    """Store an order, or find the one that an earlier request with its `client_order_id` stored.

    When this returns, the order is durable and will be placed. Raises: InvalidOrder, ClientOrderIdTaken,
    RateLimited, NotDurable.
    """
    (outcome,) = submit_orders([request], owner_id=owner_id, actor=actor, allowance=allowance)
    if isinstance(outcome, Submission):
        return outcome
    raise outcome


def submit_orders(
    requests: Sequence[NewOrderRequest], *, owner_id: int, actor: str, allowance: Allowance | None = None
) -> list[Outcome]:
    """Submit many orders in one statement; what became of each, in their order.

    Those that are accepted are durable, and will be placed, when this returns. One that is refused keeps no other
    from being accepted. Of two with the same `client_order_id` the second repeats the first. If the client's allowance
    is not enough for all that could be accepted, none is, but those that are stored already are found. Raises:
    NotDurable, and then nothing is known of any.
    """
    outcomes = _submit(requests, owner_id, actor, allowance)
    # An id may have been freed after it was the reason that an order was not stored, and before it was looked for.
    if left := [index for index in range(len(requests)) if index not in outcomes]:
        again = _submit([requests[index] for index in left], owner_id, actor, None)
        outcomes |= {left[number]: outcome for number, outcome in again.items()}
    return [outcomes[index] for index in range(len(requests))]


def _submit(
    requests: Sequence[NewOrderRequest], owner_id: int, actor: str, allowance: Allowance | None
) -> dict[int, Outcome]:
    outcomes: dict[int, Outcome] = {}
    rows: dict[int, NewRow] = {}
    venues = directory.listings() if requests else {}
    traceparent = spans.current()
    for index, request in enumerate(requests):
        try:
            _check_times(request)
            rows[index] = _new_row(request, owner_id, _venue_for(request, venues), actor, traceparent)
        except InvalidOrder as refusal:
            outcomes[index] = refusal
    accepted: Mapping[UUID, datetime] = {}
    if rows and allowance is not None:
        try:
            allowance.spend(len(rows))
        except RateLimited as refusal:
            outcomes |= dict.fromkeys(rows, refusal)
            rows = {}
    if rows:
        accepted = together.accept(list(rows.values()))
    if accepted:
        doorbell.ring()
    for index, row in rows.items():
        if (at := accepted.get(row.id)) is not None:
            outcomes[index] = Submission(_stored(row, at), replayed=False)
    if len(accepted) < len(requests):
        _find_stored(requests, rows, outcomes, owner_id)
    _count(outcomes.values())
    return outcomes


def _count(outcomes: Iterable[Outcome]) -> None:
    for outcome in outcomes:
        match outcome:
            case Submission(order, replayed):
                metrics.ACCEPTED(order.venue_id, "replayed" if replayed else "stored").inc()
            case InvalidOrder():
                metrics.REFUSED(outcome.code).inc()
            case ClientOrderIdTaken() | RateLimited():
                metrics.REFUSED(outcome.kind).inc()


def _new_row(request: NewOrderRequest, owner_id: int, venue: str, actor: str, traceparent: str | None) -> NewRow:
    order_id = new_order_id()
    return NewRow(
        **request.terms(),
        actor=actor,
        id=order_id,
        owner_id=owner_id,
        client_order_id=request.client_order_id or str(order_id),
        venue_id=venue,
        place_by=request.last_time,
        traceparent=traceparent,
    )


def _stored(row: NewRow, at: datetime) -> ClientOrder:
    """Build the order as it was just written, without reading it again."""
    return ClientOrder(
        **row.terms(),
        id=row.id,
        owner_id=row.owner_id,
        client_order_id=row.client_order_id,
        venue_id=row.venue_id,
        place_by=row.place_by,
        status=Status.PENDING.value,
        attempt=0,
        next_attempt_at=at,
        venue_order_id="",
        last_error="",
        created_at=at,
        updated_at=at,
        placed_at=None,
        version=1,
        filled_quantity=0,
        filled_value=Decimal(0),
        ended="",
        cancel_requested_at=None,
        open_request=None,
    )


def _find_stored(
    requests: Sequence[NewOrderRequest],
    rows: Mapping[int, NewRow],
    outcomes: dict[int, Outcome],
    owner_id: int,
) -> None:
    """Fill in what earlier requests stored.

    That holds for requests that are refused now, too. Whether an order can be accepted changes, because a venue closes
    or a time passes. An order that was accepted stays accepted.
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
    if stored:  # the request that stored them may have been told that no standby has them
        together.confirm()
    for index, client_order_id in ids.items():
        if client_order_id in stored:
            outcomes[index] = _replay(stored[client_order_id], requests[index])
    # What is left of an order that was removed from the archive is its id, which stays taken.
    left = [client_order_id for index, client_order_id in ids.items() if client_order_id and index not in outcomes]
    for client_order_id, order_id in selectors.removed(owner_id, left).items() if left else ():
        for index in (index for index, id_ in ids.items() if id_ == client_order_id):
            outcomes[index] = ClientOrderIdTaken(client_order_id, order_id, "which is not stored any more")


def _replay(stored: Submitted, request: NewOrderRequest) -> Submission | ClientOrderIdTaken:
    """The stored order, if the request means the same as the one that stored it.

    A request that names no venue means the same order after the default has changed.
    """
    order = stored.order
    same = stored.terms == request.terms()
    if same and order.place_by == request.last_time and request.venue in (None, order.venue_id):
        return Submission(order, replayed=True)
    return ClientOrderIdTaken(order.client_order_id, order.id)


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
