"""Submission: checks a client's new order and stores it before the 201.

Only the API uses this module.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.utils import timezone

from exchanges import directory
from exchanges.directory import Listing
from exchanges.venue import Terms
from orders import selectors, together
from orders.lifecycle import NewRow
from orders.models import Status, new_order_id
from orders.selectors import ClientOrder
from quiktrade.errors import Refusal
from quiktrade.jobs import doorbell


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
        **request.terms(),
        actor=actor,
        id=order_id,
        owner_id=owner_id,
        client_order_id=request.client_order_id or str(order_id),
        venue_id=venue,
        place_by=request.last_time,
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
    )


def _find_stored(
    requests: Sequence[NewOrderRequest],
    rows: Mapping[int, NewRow],
    outcomes: dict[int, Submission | InvalidOrder | ClientOrderIdTaken],
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


def _replay(order: ClientOrder, request: NewOrderRequest) -> Submission | ClientOrderIdTaken:
    """The stored order, if the request means the same.

    A request that names no venue means the same order after the default has changed.
    """
    same = order.terms() == request.terms()
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
