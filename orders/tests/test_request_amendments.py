"""Asking for cancels and replaces: what is stored of them, and what becomes of the orders."""

from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from exchanges import registry
from exchanges.models import Venue
from exchanges.venue import ResendSafety
from orders import amendments, lifecycle, selectors
from orders.amendments import CannotCancel, CannotReplace, InvalidChange, RequestIdTaken, Selection
from orders.lifecycle import Event, Step
from orders.models import Order, OrderRequest, Status
from orders.recording import record_outcomes
from orders.requests import Changes
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from orders.tests.scripted_venue import Book, ScriptedVenue

pytestmark = pytest.mark.django_db
ALICE: dict[str, Any] = {"actor": "client:alice", "reason": "Not wanted any more."}


def cancel(order: Order, **more: Any) -> amendments.CancelsRequested:
    return amendments.request_cancel(order.pk, **ALICE | more)


def stored(order: Order) -> list[tuple[str, str]]:
    return list(OrderRequest.objects.filter(order=order).order_by("id").values_list("kind", "status"))


def history(order: Order) -> list[str]:
    return [event.event for event in selectors.history(order.pk)]


# What becomes of an order in each status when it is canceled: what the answer says of it, its status after that, and
# the status of the request.
CANCELED = {
    Status.PENDING: ("canceled", "canceled", None),
    Status.SUBMITTING: ("requested", "submitting", "waiting"),
    Status.UNCONFIRMED: ("requested", "unconfirmed", "waiting"),
    Status.FAILED: ("canceled", "canceled", None),
    Status.PLACED: ("requested", "pending_cancel", "pending"),
    Status.PARTIALLY_FILLED: ("requested", "pending_cancel", "pending"),
    Status.PENDING_CANCEL: ("already", "pending_cancel", None),  # the factory stores no request
    Status.PENDING_REPLACE: ("requested", "pending_cancel", "pending"),
    Status.DONE_FOR_DAY: ("final", "done_for_day", None),
    Status.FILLED: ("final", "filled", None),
    Status.CANCELED: ("nothing", "canceled", None),
    Status.EXPIRED: ("final", "expired", None),
    Status.REJECTED: ("final", "rejected", None),
}


@pytest.mark.parametrize("status", Status)
def test_a_cancel_does_in_each_status_what_is_worked_out_here(status: Status) -> None:
    order, (answer, after, request) = OrderFactory(status=status), CANCELED[status]
    if answer == "final":
        with pytest.raises(CannotCancel, match="final"):
            cancel(order)
    else:
        result = cancel(order)
        assert [name for name in ("canceled", "requested", "already") if getattr(result, name)] == (
            [] if answer == "nothing" else [answer]
        )
    assert Order.objects.get(pk=order.pk).status == after
    assert stored(order) == ([("cancel", request)] if request else [])


def test_an_order_of_many_days_is_canceled_when_it_is_done_for_a_day() -> None:
    order = OrderFactory(status="done_for_day", time_in_force="gtc")
    assert cancel(order).requested == [order.pk]


def test_the_history_says_who_asked_and_why() -> None:
    order = OrderFactory(status="placed")
    cancel(order)
    event = selectors.history(order.pk).last()
    assert event is not None
    assert (event.event, event.actor, event.reason) == ("cancel_asked", "client:alice", "Not wanted any more.")
    row, after = OrderRequest.objects.get(), Order.objects.get(pk=order.pk)
    assert (row.pk, row.actor, row.reason) == (after.open_cancel, "client:alice", "Not wanted any more.")
    assert row.pk.version == 7
    assert after.cancel_requested_at is not None


def test_a_second_cancel_returns_the_first() -> None:
    order = OrderFactory(status="placed")
    cancel(order)
    assert cancel(order).already == [order.pk]
    assert stored(order) == [("cancel", "pending")]
    assert history(order).count("cancel_asked") == 1


def test_a_cancel_under_an_id_that_another_request_has_is_refused() -> None:
    owner = UserFactory()
    first, second = OrderFactory(status="placed", owner=owner), OrderFactory(status="placed", owner=owner)
    cancel(first, client_order_id="c-1")
    with pytest.raises(RequestIdTaken):
        cancel(second, client_order_id="c-1")
    assert Order.objects.get(pk=second.pk).status == "placed"


# ---- Orders that are not known to be at the venue ----


def in_doubt(status: str = "unconfirmed") -> Order:
    """An order of which an attempt may still arrive, and that waits to be sent again."""
    order = OrderFactory(status="unconfirmed")
    if status == "pending":
        step = Step(order_id=order.pk, event=Event.NOT_FOUND, attempt=1, in_doubt=True)
        lifecycle.advance([step], actor="system:test")
    return Order.objects.get(pk=order.pk)


def test_an_order_in_doubt_is_not_sent_again_and_not_called_canceled() -> None:
    order = in_doubt("pending")
    assert cancel(order).requested == [order.pk]
    after = Order.objects.get(pk=order.pk)
    assert (after.status, after.parked) == ("unconfirmed", False)
    assert after.next_attempt_at is not None
    assert after.next_attempt_at <= timezone.now()
    assert stored(order) == [("cancel", "waiting")]


@pytest.mark.parametrize(
    ("event", "status", "request_status"),
    [
        (Event.ACKNOWLEDGED, "pending_cancel", "pending"),
        (Event.REJECTED_BY_VENUE, "rejected", "moot"),
        (Event.NOT_SENT, "canceled", "accepted"),
        (Event.VENUE_UNREACHABLE, "canceled", "accepted"),
        (Event.TURNED_AWAY, "canceled", "accepted"),
        (Event.OUTCOME_UNKNOWN, "unconfirmed", "waiting"),
    ],
)
def test_a_cancel_waits_for_the_attempt_that_is_under_way(event: Event, status: str, request_status: str) -> None:
    order = OrderFactory(status="submitting")
    cancel(order)
    step = Step(order_id=order.pk, event=event, attempt=1, venue_order_id="V1", delay=1.0, reason="x")

    record_outcomes([step], actor="system:test")

    assert Order.objects.get(pk=order.pk).status == status
    assert stored(order) == [("cancel", request_status)]


@pytest.mark.parametrize(
    ("doubtful", "status", "request_status"), [(False, "canceled", "accepted"), (True, "unconfirmed", "waiting")]
)
def test_an_order_that_is_not_found_is_canceled_only_where_no_attempt_may_arrive(
    doubtful: bool, status: str, request_status: str
) -> None:
    order = OrderFactory(status="unconfirmed")
    cancel(order)
    step = Step(order_id=order.pk, event=Event.NOT_FOUND, attempt=1, in_doubt=doubtful, delay=1.0)

    record_outcomes([step], actor="system:test")

    assert Order.objects.get(pk=order.pk).status == status
    assert stored(order) == [("cancel", request_status)]


def test_a_failed_attempt_of_an_order_in_doubt_leaves_it_to_look_ups() -> None:
    order = in_doubt("pending")
    lifecycle.claim("XSIM", limit=1, in_flight=9, lease=30.0, actor="system:test")
    cancel(order)
    record_outcomes([Step(order_id=order.pk, event=Event.NOT_SENT, attempt=2)], actor="system:test")
    after = Order.objects.get(pk=order.pk)
    assert (after.status, after.parked, stored(order)) == ("unconfirmed", False, [("cancel", "waiting")])


def test_an_operators_word_that_it_is_not_there_cancels_it() -> None:
    order = OrderFactory(status="unconfirmed", parked=True)
    cancel(order)
    step = Step(order_id=order.pk, event=Event.MARKED_NOT_PLACED, attempt=1, reason="not on the screen")
    record_outcomes([step], actor="operator:olga")
    assert Order.objects.get(pk=order.pk).status == "canceled"
    assert stored(order) == [("cancel", "accepted")]


# ---- Many ----


def test_only_orders_that_match_all_that_is_given_are_canceled() -> None:
    alice, bob = UserFactory(), UserFactory()
    match = {"owner": alice, "side": "sell", "instrument": "US5949181045"}
    there, here = OrderFactory(status="placed", **match), OrderFactory(status="pending", **match)
    others = [
        OrderFactory(status="placed", **match | {"owner": bob}),
        OrderFactory(status="placed", **match | {"side": "buy"}),
        OrderFactory(status="placed", **match | {"instrument": "US0378331005"}),
        OrderFactory(status="placed", **match | {"venue": VenueFactory(code="XOTH")}),
        OrderFactory(status="filled", **match),
    ]
    selection = Selection(owner_id=alice.pk, venue="XSIM", side="sell", instrument="US5949181045")

    result = amendments.request_cancels(selection, **ALICE)

    assert (result.canceled, result.requested, result.already, result.more) == ([here.pk], [there.pk], [], False)
    assert {Order.objects.get(pk=order.pk).status for order in others} == {"placed", "filled"}
    again = amendments.request_cancels(selection, **ALICE)
    assert (again.canceled, again.requested, again.already) == ([], [], [there.pk])


def test_orders_are_chosen_by_their_clients_ids_or_all_together() -> None:
    alice = UserFactory()
    orders = [OrderFactory(status="placed", owner=alice, client_order_id=f"a{n}") for n in range(3)]
    some = amendments.request_cancels(Selection(owner_id=alice.pk, client_order_ids=["a0", "b0"]), **ALICE)
    rest = amendments.request_cancels(Selection(owner_id=alice.pk, everything=True), **ALICE)
    assert some.requested == [orders[0].pk]
    assert set(rest.requested) == {order.pk for order in orders[1:]}


def test_more_than_the_limit_are_canceled_in_parts() -> None:
    alice = UserFactory()
    for _ in range(3):
        OrderFactory(status="placed", owner=alice)
    selection = Selection(owner_id=alice.pk, everything=True)
    parts = [amendments.request_cancels(selection, limit=2, **ALICE) for _ in range(2)]
    assert [(len(part.requested), part.more) for part in parts] == [(2, True), (1, False)]


def test_no_selection_is_not_all() -> None:
    with pytest.raises(ValueError, match="which orders"):
        Selection(owner_id=1)


def test_a_venue_that_cannot_cancel_is_not_asked() -> None:
    registry.ADAPTERS["scripted"] = lambda values: ScriptedVenue(Book(ResendSafety.REFUSES_DUPLICATES), values)
    try:
        order = OrderFactory(status="placed", venue=VenueFactory(code="XSCR", adapter="scripted", settings={}))
        with pytest.raises(CannotCancel, match="XSCR cannot be asked"):
            cancel(order)
        with pytest.raises(CannotReplace, match="XSCR cannot replace"):
            replace(order, quantity=50)
    finally:
        del registry.ADAPTERS["scripted"]
    assert Order.objects.get(pk=order.pk).status == "placed"


# ---- Replace ----


def replace(order: Order, client_order_id: str = "", **changes: Any) -> amendments.ReplaceRequested:
    return amendments.request_replace(order.pk, Changes(**changes), client_order_id=client_order_id, **ALICE)


def test_a_replace_is_stored_and_the_order_keeps_its_terms_until_it_is_done() -> None:
    order = OrderFactory(status="partially_filled")
    asked = replace(order, quantity=80, limit_price=Decimal(11))
    row, after = OrderRequest.objects.get(), Order.objects.get(pk=order.pk)
    assert (row.pk, row.status, row.quantity, row.limit_price) == (asked.request_id, "pending", 80, Decimal(11))
    assert (after.status, after.open_replace, after.quantity) == ("pending_replace", row.pk, 100)
    assert history(order)[-1] == "replace_asked"


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("pending", "works at its venue"),
        ("submitting", "works at its venue"),
        ("unconfirmed", "works at its venue"),
        ("failed", "works at its venue"),
        ("pending_cancel", "A cancel of it"),
        ("pending_replace", "One at a time"),
        ("done_for_day", "done for the day"),
        ("filled", "filled, which is final"),
        ("canceled", "canceled, which is final"),
        ("expired", "expired, which is final"),
        ("rejected", "rejected, which is final"),
    ],
)
def test_an_order_that_cannot_be_replaced_is_left_as_it_is(status: str, why: str) -> None:
    order = OrderFactory(status=status)
    with pytest.raises(CannotReplace, match=why):
        replace(order, quantity=50)
    assert Order.objects.get(pk=order.pk).version == order.version


@pytest.mark.parametrize(
    ("given", "changes", "field", "code"),
    [
        ({}, {"quantity": 39}, "quantity", "below_filled"),
        ({}, {"quantity": 100, "limit_price": Decimal("10.250")}, "", "unchanged"),
        ({}, {}, "", "unchanged"),
        ({}, {"stop_price": Decimal(9)}, "stop_price", "forbidden"),
        ({"type": "stop"}, {"limit_price": Decimal(9)}, "limit_price", "forbidden"),
        ({}, {"time_in_force": "ioc"}, "time_in_force", "not_supported"),
        ({}, {"time_in_force": "gtd"}, "expires_at", "required"),
        ({}, {"expires_at": timezone.now()}, "expires_at", "forbidden"),
        ({}, {"time_in_force": "gtd", "expires_at": timezone.now()}, "expires_at", "past"),
    ],
)
def test_terms_that_cannot_be_are_refused_by_name(
    given: dict[str, Any], changes: dict[str, Any], field: str, code: str
) -> None:
    order = OrderFactory(status="partially_filled", **given)
    with pytest.raises(InvalidChange) as refused:
        replace(order, **changes)
    assert (refused.value.field, refused.value.code) == (field, code)
    assert Order.objects.get(pk=order.pk).version == order.version


def test_a_quantity_of_what_is_filled_is_taken() -> None:
    assert replace(OrderFactory(status="partially_filled"), quantity=40)


def test_a_repeated_replace_is_the_one_before_and_another_content_is_refused() -> None:
    owner = UserFactory()
    order, other = (OrderFactory(status="placed", owner=owner) for _ in range(2))
    first = replace(order, "r-1", limit_price=Decimal("11.50"))

    again = replace(order, "r-1", limit_price=Decimal("11.5"))

    assert (again.request_id, again.replayed, first.replayed) == (first.request_id, True, False)
    for target, changes in ((order, {"limit_price": Decimal(12)}), (other, {"limit_price": Decimal("11.5")})):
        with pytest.raises(RequestIdTaken):
            replace(target, "r-1", **changes)
    assert OrderRequest.objects.count() == 1


# ---- A cancel while a replace is open ----


@pytest.mark.parametrize(
    ("request_status", "doubtful", "replace_status", "cancel_status"),
    [
        ("pending", False, "superseded", "pending"),
        ("pending", True, "unconfirmed", "pending"),
        ("submitting", False, "submitting", "waiting"),
        ("sent", False, "sent", "pending"),
        ("unconfirmed", True, "unconfirmed", "pending"),
    ],
)
def test_a_cancel_gives_up_a_replace_that_was_not_sent_and_waits_for_one_on_the_wire(
    request_status: str, doubtful: bool, replace_status: str, cancel_status: str
) -> None:
    order = OrderFactory(status="placed")
    replace(order, quantity=50)
    times = {"lease_expires_at": timezone.now()} if request_status == "submitting" else {"look_up_at": timezone.now()}
    OrderRequest.objects.update(status=request_status, in_doubt=doubtful, **times)

    cancel(order)

    assert stored(order) == [("replace", replace_status), ("cancel", cancel_status)]
    after = Order.objects.get(pk=order.pk)
    assert (after.status, after.open_replace is None) == ("pending_cancel", replace_status == "superseded")
    assert ("replace_withdrawn" in history(order)) == (replace_status == "superseded")


def test_orders_of_a_disabled_venue_are_canceled() -> None:
    order = OrderFactory(status="placed")
    Venue.objects.update(enabled=False)
    assert cancel(order).requested == [order.pk]
