"""Asks for orders to be canceled or replaced. The API, the console and the commands share these functions.

Each owns its transaction, and takes the actor and a reason. What they store is sent by the engine and decided by the
venue; an order of which nothing is at a venue is canceled at once.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from exchanges import directory
from orders import archive, lifecycle, metrics, requests
from orders.archive_models import ClientKey
from orders.lifecycle import Event, MovedOrder, Step
from orders.models import LIMIT_TYPES, MULTI_DAY, STOP_TYPES, Order, OrderRequest, Status, TimeInForce, new_order_id
from orders.requests import Changes, IdTaken
from orders.submission import InvalidOrder
from quiktrade.errors import Refusal
from quiktrade.jobs import doorbell
from quiktrade.limits import Allowance, RateLimited

logger = logging.getLogger(__name__)

MOST_CANCELS = 10_000
RESTING = (TimeInForce.DAY, TimeInForce.GTC, TimeInForce.GTD)
"""What a working order can be changed to: the others are decided at the moment an order arrives."""


class CannotCancel(Refusal):
    """The order cannot be canceled; the message says why. Nothing was changed."""

    status = 409
    kind = "cannot-cancel"


class InvalidChange(InvalidOrder):
    """The order cannot have these terms. `field` is empty where no single one is wrong."""

    def members(self) -> dict[str, Any]:
        errors = [{"pointer": f"#/{self.field}".rstrip("/"), "code": self.code, "detail": self.detail}]
        return {"detail": "The order was not changed.", "errors": errors}


class CannotReplace(Refusal):
    """The order cannot be replaced as it stands; the message says why. Nothing was changed."""

    status = 409
    kind = "cannot-replace"


class RequestIdTaken(Refusal):
    """The client has another request by this `client_order_id`: use a new one for a new request."""

    status = 409
    kind = "client-order-id-taken"


# ---- Cancel ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which orders to cancel: those that match all that is given. `owner_id` None takes the orders of all owners.

    At least one of the others is given, or `everything`, so that no mistake takes all orders.
    """

    owner_id: int | None = None
    order_ids: Sequence[UUID] | None = None
    client_order_ids: Sequence[str] | None = None
    venue: str | None = None
    instrument: str | None = None
    side: str | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        chosen = (self.order_ids, self.client_order_ids, self.venue, self.instrument, self.side)
        if not self.everything and all(each is None for each in chosen):
            raise ValueError("Say which orders to cancel, or that it is all of them.")


@dataclass(frozen=True, slots=True)
class CancelsRequested:
    """What became of the orders that were selected, by their ids. Those that have ended are in none of the lists."""

    canceled: Sequence[UUID]
    """Nothing of them is at a venue: they are canceled."""
    requested: Sequence[UUID]
    """Their venues are asked to cancel them."""
    already: Sequence[UUID]
    """A cancel of them was open before, and stays the only one."""
    more: bool
    """There may be more that match: ask again."""


def request_cancels(
    selection: Selection, *, actor: str, reason: str, client_order_id: str = "", limit: int = MOST_CANCELS
) -> CancelsRequested:
    """Cancel up to `limit` orders, here or at their venues. Their states may be such that none of them can be.

    `client_order_id` is the client's own id of the request, if it is for one order. Raises: ValueError, if there is no
    reason; RequestIdTaken.
    """
    if not reason.strip():
        raise ValueError("A reason is required.")
    limit = min(limit, MOST_CANCELS)
    try:
        with transaction.atomic():
            already = _already(selection, limit)
            moved = lifecycle.cancel(
                owner=selection.owner_id,
                ids=selection.order_ids,
                venue=selection.venue,
                instrument=selection.instrument,
                side=selection.side,
                client_order_ids=selection.client_order_ids,
                cancelers=_cancelers(),
                limit=limit,
                actor=actor,
                reason=reason.strip(),
            )
            canceled = [order.id for order in moved if order.event == Event.CANCEL_REQUESTED]
            asked = [order.id for order in moved if order.event == Event.CANCEL_ASKED]
            if asked:
                _supersede_replaces(asked, actor=actor)
                requests.store_cancels(asked, client_order_id=client_order_id, actor=actor, reason=reason.strip())
    except (IntegrityError, IdTaken):
        if not client_order_id:
            raise
        raise RequestIdTaken(f"client_order_id {client_order_id} is taken by another request of yours.") from None
    if asked:
        doorbell.ring()
    logger.info(
        "Cancels requested",
        extra={"event": "request.cancels_made", "canceled": len(canceled), "requested": len(asked), "actor": actor},
    )
    already = [order_id for order_id in already if order_id not in {order.id for order in moved}]
    return CancelsRequested(canceled, asked, already, more=len(moved) == limit)


def request_cancel(order_id: UUID, *, actor: str, reason: str, client_order_id: str = "") -> CancelsRequested:
    """Cancel one order, here or at its venue. One whose cancel is open, or that is canceled, is left as it is.

    Raises: CannotCancel, which says why; RequestIdTaken; Order.DoesNotExist.
    """
    selection = Selection(order_ids=[order_id])
    result = request_cancels(selection, actor=actor, reason=reason, client_order_id=client_order_id)
    if result.canceled or result.requested or result.already:
        return result
    order = archive.orders_anywhere([order_id]).get(order_id)
    if order is None:
        raise Order.DoesNotExist
    if order.status != Status.CANCELED:
        raise CannotCancel(why_not_canceled(order))
    return result


def why_not_canceled(order: Order) -> str:
    """Why an order that no cancel is open for is left as it is."""
    if order.status in (Status.FILLED, Status.CANCELED, Status.EXPIRED, Status.REJECTED):
        return f"It is {order.status}, which is final."
    if order.status == Status.DONE_FOR_DAY and order.time_in_force not in MULTI_DAY:
        return "It is an order of one day, and done for the day: that is final."
    return f"It is {order.status}, and {order.venue_id} cannot be asked to cancel orders."


def _cancelers() -> list[str]:
    """The venues that can be asked to cancel. One that cannot be opened is asked when it can be."""
    every = directory.all_capabilities()
    return [code for code, capabilities in every.items() if capabilities is None or capabilities.cancels]


def _already(selection: Selection, limit: int) -> list[UUID]:
    orders = Order.objects.filter(open_cancel__isnull=False).order_by("pk")
    for name, value in (
        ("owner_id", selection.owner_id),
        ("pk__in", selection.order_ids),
        ("client_order_id__in", selection.client_order_ids),
        ("venue_id", selection.venue),
        ("instrument", selection.instrument),
        ("side", selection.side),
    ):
        if value is not None:
            orders = orders.filter(**{name: value})
    if selection.order_ids is None:  # found by the index of what is open
        orders = orders.filter(status__in=(Status.SUBMITTING, Status.UNCONFIRMED, Status.PENDING_CANCEL))
    return list(orders.values_list("pk", flat=True)[:limit])


def _supersede_replaces(orders: Sequence[UUID], *, actor: str) -> None:
    """Replaces that no venue can have are given up: the cancel says that the order is not wanted any more."""
    steps = [
        Step(
            order_id=superseded.order_id,
            event=Event.REPLACE_WITHDRAWN,
            reason="A cancel was asked for.",
            request_id=superseded.request_id,
        )
        for superseded in requests.supersede(orders)
    ]
    if steps:
        lifecycle.advance(steps, actor=actor)


# ---- Replace ----


@dataclass(frozen=True, slots=True)
class ReplaceRequested:
    request_id: UUID
    replayed: bool
    """Whether an earlier request with the same `client_order_id` and content is the one meant."""


def pay_for_replace(allowance: Allowance, client_order_id: str) -> None:
    """Have a replace count as an order, unless an earlier request with this id stored it.

    Raises: RateLimited.
    """
    try:
        allowance.spend(1)
    except RateLimited as refusal:
        if not client_order_id or not _is_stored(allowance.user_id, client_order_id):
            metrics.REFUSED(refusal.kind).inc()
            raise


def request_replace(
    order_id: UUID,
    changes: Changes,
    *,
    actor: str,
    reason: str,
    owner_id: int | None = None,
    client_order_id: str = "",
) -> ReplaceRequested:
    """Have the venue give a working order other terms. With `owner_id`, the order is one of that owner's.

    Raises: InvalidChange, naming the term that cannot be; CannotReplace; RequestIdTaken; Order.DoesNotExist.
    """
    request_id = new_order_id()
    try:
        with transaction.atomic():
            orders = Order.objects.select_for_update(no_key=True)
            order = orders.filter(pk=order_id).first()
            if order is None:
                return _replay_archived(order_id, owner_id, client_order_id, changes)
            if owner_id not in (None, order.owner_id):
                raise Order.DoesNotExist
            if client_order_id and (stored := _stored(order.owner_id, client_order_id)):
                return _replay(stored, order, changes)
            _check_state(order)
            _check_changes(order, changes)
            step = Step(
                order_id=order.pk,
                event=Event.REPLACE_ASKED,
                reason=reason.strip(),
                request_id=request_id,
                detail={"request_id": str(request_id)},
            )
            moved: list[MovedOrder] = lifecycle.advance([step], actor=actor).moved
            assert moved, "the order is locked, and its status allows it"
            requests.store_replace(
                request_id, order.pk, changes, client_order_id=client_order_id, actor=actor, reason=reason.strip()
            )
    except (IntegrityError, IdTaken):
        raise _taken(client_order_id) from None  # by a request that another transaction stored at the same time
    doorbell.ring()
    logger.info(
        "Replace requested",
        extra={"event": "request.replace_made", "order_id": order_id, "request_id": request_id, "actor": actor},
    )
    return ReplaceRequested(request_id, replayed=False)


def _stored(owner_id: int, client_order_id: str) -> OrderRequest | None:
    return OrderRequest.objects.filter(owner_id=owner_id, client_order_id=client_order_id).first()


def _is_stored(owner_id: int, client_order_id: str) -> bool:
    """Whether the client has a request by this id, of an order that is in use or archived."""
    if _stored(owner_id, client_order_id) is not None:
        return True
    return bool(archive.orders_by_key(owner_id, [client_order_id], ClientKey.Of.REQUEST))


def _replay(stored: OrderRequest, order: Order, changes: Changes) -> ReplaceRequested:
    asked = asdict(changes) | {"time_in_force": changes.time_in_force or ""}
    same = stored.kind == OrderRequest.Kind.REPLACE and stored.order_id == order.pk
    if same and all(getattr(stored, name) == value for name, value in asked.items()):
        return ReplaceRequested(stored.pk, replayed=True)
    raise _taken(stored.client_order_id)


def _replay_archived(order_id: UUID, owner_id: int | None, client_order_id: str, changes: Changes) -> ReplaceRequested:
    """The request that this one repeats, of an order that ended long ago. Raises as `request_replace` does."""
    order = archive.orders_anywhere([order_id]).get(order_id)
    if order is None or owner_id not in (None, order.owner_id):
        raise Order.DoesNotExist
    for stored in archive.requests_anywhere(order_id):
        if client_order_id and stored.client_order_id == client_order_id:
            return _replay(stored, order, changes)
    _check_state(order)
    raise CannotReplace("It changed at this moment. Send the request again.")


def _taken(client_order_id: str) -> RequestIdTaken:
    return RequestIdTaken(
        f"client_order_id {client_order_id} is taken by another request of yours, which differs. Give a new request an "
        "id of its own."
    )


_NOT_AT_VENUE = "It is {status}: only an order that works at its venue is replaced. Cancel it, or wait until it does."


def _check_state(order: Order) -> None:
    """Raises: CannotReplace."""
    if order.open_cancel is not None:
        raise CannotReplace("A cancel of it was asked for and is not decided.")
    if order.open_replace is not None:
        raise CannotReplace("A replace of it was asked for and is not decided. One at a time is taken.")
    match order.status:
        case Status.PENDING | Status.SUBMITTING | Status.UNCONFIRMED | Status.FAILED:
            raise CannotReplace(_NOT_AT_VENUE.format(status=order.status))
        case Status.FILLED | Status.CANCELED | Status.EXPIRED | Status.REJECTED:
            raise CannotReplace(f"It is {order.status}, which is final.")
        case Status.DONE_FOR_DAY if order.time_in_force not in MULTI_DAY:
            raise CannotReplace("It is an order of one day, and done for the day: that is final.")
    capabilities = directory.all_capabilities().get(order.venue_id)
    if capabilities is not None and not capabilities.replaces:
        raise CannotReplace(f"{order.venue_id} cannot replace orders: cancel it and submit another.")


def _check_changes(order: Order, changes: Changes) -> None:
    """Raises: InvalidChange."""
    prices = (("limit_price", changes.limit_price, LIMIT_TYPES), ("stop_price", changes.stop_price, STOP_TYPES))
    for field, price, types in prices:
        if price is not None and order.type not in types:
            raise InvalidChange(field, "forbidden", f"Forbidden for type {order.type}.")
    if changes.quantity is not None and changes.quantity < order.filled_quantity:
        detail = f"{order.filled_quantity} are filled, and the quantity is the total: at least that is required."
        raise InvalidChange("quantity", "below_filled", detail)
    lasts = changes.time_in_force or order.time_in_force
    if changes.time_in_force is not None:
        _check_time_in_force(order, lasts)
    if lasts == TimeInForce.GTD:
        if changes.expires_at is None and order.expires_at is None:
            raise InvalidChange("expires_at", "required", "Required for time_in_force gtd.")
        if changes.expires_at is not None and changes.expires_at <= timezone.now():
            raise InvalidChange("expires_at", "past", "A time in the future is required.")
    elif changes.expires_at is not None:
        raise InvalidChange("expires_at", "forbidden", f"Forbidden for time_in_force {lasts}.")
    if all(value in (None, getattr(order, name)) for name, value in asdict(changes).items()):
        raise InvalidChange("", "unchanged", "It names no term that differs from the order's.")


def _check_time_in_force(order: Order, wanted: str) -> None:
    capabilities = directory.all_capabilities().get(order.venue_id)
    allowed = [each.value for each in RESTING if capabilities is None or each in capabilities.times_in_force]
    if wanted not in allowed:
        detail = f"{order.venue_id} changes a working order to {', '.join(allowed) or 'none'}."
        raise InvalidChange("time_in_force", "not_supported", detail)
