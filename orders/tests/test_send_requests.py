"""Cancels and replaces at the simulated exchange as a real process: sent, and decided by answers and by look-ups."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from exchanges.models import Venue
from exchanges.services import halt_venue
from exchanges.tests.running import RunningExchange, running_exchange
from orders import amendments, placement, reconciliation, request_verdicts, selectors
from orders.models import Order, OrderRequest
from orders.requests import Changes
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from orders.tests.scripted_venue import run_engine

pytestmark = pytest.mark.django_db(transaction=True)
ALICE: dict[str, Any] = {"actor": "client:alice", "reason": "Not wanted any more."}


@pytest.fixture
def exchange(tmp_path: Path, settings: Any) -> Iterator[RunningExchange]:
    settings.PLACEMENT_LEASE_SECONDS = 600.0  # no slow machine ends an attempt, nor its lease
    with running_exchange(tmp_path) as running:
        VenueFactory(settings={"url": running.url, "timeout_seconds": 30.0, "settle_seconds": 0.1})
        yield running


def placed(**given: Any) -> Order:
    order = OrderFactory(**given)
    run_engine()
    return Order.objects.get(pk=order.pk)


def cancel(order: Order) -> None:
    amendments.request_cancel(order.pk, **ALICE)


def replace(order: Order, **changes: Any) -> None:
    amendments.request_replace(order.pk, Changes(**changes), **ALICE)


def look_up() -> None:
    """Look every request up, as if its time had come."""
    past = "2020-01-01T00:00:00Z"
    OrderRequest.objects.filter(look_up_at__isnull=False).update(look_up_at=past)
    OrderRequest.objects.filter(settled_at__isnull=False).update(settled_at=past)
    reconciliation.reconcile_due_orders()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel without an answer waits until the test has it sent again."""
    monkeypatch.setattr(request_verdicts, "CANCEL_AGAIN_SECONDS", 86_400.0)
    monkeypatch.setattr(request_verdicts, "CANCEL_AGAIN_LONGEST_SECONDS", 86_400.0)


def send_again() -> None:
    """Send every request that waits for its next attempt."""
    OrderRequest.objects.filter(status="pending").update(next_attempt_at="2020-01-01T00:00:00Z")
    run_engine()


def stands(order: Order) -> tuple[str, list[tuple[str, str]]]:
    rows = OrderRequest.objects.filter(order=order).order_by("id").values_list("kind", "status")
    return Order.objects.get(pk=order.pk).status, list(rows)


def at_venue(exchange: RunningExchange, order: Order) -> dict[str, Any]:
    _, content = exchange.admin("GET", "/reports?after=0&limit=1000")
    reports = [report for report in content["reports"] if report["client_order_id"] == str(order.pk)]
    return dict(reports[-1])


# ---- Cancel ----


def test_a_cancel_is_done_at_the_venue(exchange: RunningExchange) -> None:
    order = placed()
    cancel(order)
    run_engine()
    assert stands(order) == ("canceled", [("cancel", "accepted")])
    assert at_venue(exchange, order)["status"] == "canceled"
    last = selectors.history(order.pk).last()
    assert last is not None
    assert (last.event, last.actor) == ("canceled_at_venue", "system:placement")


@pytest.mark.parametrize("fault", ["accept_then_drop", "truncate", "reset", "http_5xx"])
def test_a_cancel_without_an_answer_is_sent_again_under_its_id_and_the_answer_looked_up(
    exchange: RunningExchange, fault: str
) -> None:
    order = placed()
    cancel(order)
    exchange.set_faults(**{fault: {"count": 1}})
    run_engine()
    assert stands(order) == ("pending_cancel", [("cancel", "pending")])
    send_again()
    assert stands(order) == ("canceled", [("cancel", "accepted")])
    assert at_venue(exchange, order)["status"] == "canceled"
    assert OrderRequest.objects.get().attempt == 2


def test_the_answer_to_a_cancel_that_is_sent_again_is_not_believed_without_a_look_up(exchange: RunningExchange) -> None:
    order = placed()
    cancel(order)
    exchange.set_faults(accept_then_drop={"count": 1}, forget_duplicates=True)
    run_engine()
    send_again()  # the exchange has forgotten the first: "too_late"
    assert stands(order) == ("pending_cancel", [("cancel", "unconfirmed")])
    look_up()
    assert stands(order) == ("canceled", [("cancel", "accepted")])


def test_a_cancel_of_a_filled_order_is_refused_and_the_order_is_left_to_its_executions(
    exchange: RunningExchange,
) -> None:
    order = placed()
    placed(side="sell")
    cancel(order)
    run_engine()
    assert stands(order) == ("pending_cancel", [("cancel", "unconfirmed")])
    look_up()
    assert stands(order) == ("placed", [("cancel", "refused")])  # the stream has its executions
    assert OrderRequest.objects.get().last_error.startswith("too_late")


def test_a_cancel_that_the_venue_ignores_is_sent_again_until_it_is_done(exchange: RunningExchange) -> None:
    order = placed()
    cancel(order)
    exchange.set_faults(ignore_cancel={"count": 1})
    run_engine()
    assert stands(order) == ("pending_cancel", [("cancel", "sent")])
    look_up()
    assert stands(order) == ("pending_cancel", [("cancel", "pending")])
    run_engine()
    assert stands(order) == ("canceled", [("cancel", "accepted")])


def test_a_cancel_that_does_not_reach_the_venue_is_tried_again(exchange: RunningExchange) -> None:
    order = placed()
    cancel(order)
    exchange.set_faults(refuse=True)
    run_engine()
    assert stands(order) == ("pending_cancel", [("cancel", "pending")])
    exchange.set_faults()
    send_again()
    assert stands(order) == ("canceled", [("cancel", "accepted")])


def test_a_halted_venue_gets_cancels_and_nothing_else(exchange: RunningExchange) -> None:
    first, second = placed(), placed()
    cancel(first)
    replace(second, quantity=50)
    waiting = OrderFactory()
    halt_venue("XSIM", actor="operator:olga", reason="Trouble over there.")
    run_engine()
    assert stands(first) == ("canceled", [("cancel", "accepted")])
    assert stands(second) == ("pending_replace", [("replace", "pending")])
    assert Order.objects.get(pk=waiting.pk).status == "pending"
    assert selectors.work_due().place is None


def test_a_cancel_reaches_an_order_that_is_acknowledged_while_it_waits(exchange: RunningExchange) -> None:
    order = OrderFactory()
    exchange.set_faults(accept_then_drop={"count": 1})
    run_engine()
    cancel(order)
    assert stands(order) == ("unconfirmed", [("cancel", "waiting")])
    Order.objects.update(next_attempt_at="2020-01-01T00:00:00Z")
    reconciliation.reconcile_due_orders()
    assert stands(order) == ("pending_cancel", [("cancel", "pending")])
    run_engine()
    assert stands(order) == ("canceled", [("cancel", "accepted")])


# ---- Replace ----


def test_a_replace_changes_the_terms_once_it_is_done(exchange: RunningExchange) -> None:
    order = placed()
    replace(order, quantity=80, limit_price=Decimal(11), time_in_force="gtc")
    run_engine()
    assert stands(order) == ("placed", [("replace", "accepted")])
    after, row = Order.objects.get(pk=order.pk), OrderRequest.objects.get()
    assert (after.quantity, after.limit_price, after.time_in_force) == (80, Decimal(11), "gtc")
    assert after.current_id == row.pk
    assert row.original_id == order.pk
    assert after.original_terms is not None
    assert after.original_terms["quantity"] == 100
    assert Decimal(after.original_terms["limit_price"]) == Decimal("10.25")
    last = selectors.history(order.pk).last()
    assert last is not None
    assert {name: last.detail[name] for name in ("limit_price", "limit_price_before", "quantity")} == {
        "limit_price": "11",
        "limit_price_before": "10.25",
        "quantity": 80,
    }


def test_a_second_replace_follows_the_id_that_the_venue_accepted_last(exchange: RunningExchange) -> None:
    order = placed()
    for quantity in (80, 60):
        replace(order, quantity=quantity)
        run_engine()
    first, second = OrderRequest.objects.order_by("id")
    assert (first.original_id, second.original_id) == (order.pk, first.pk)
    assert Order.objects.get(pk=order.pk).current_id == second.pk


@pytest.mark.parametrize(("fault", "done"), [("accept_then_drop", True), ("reset", False)])
def test_a_replace_without_an_answer_is_looked_up_and_sent_again_only_if_it_was_not_done(
    exchange: RunningExchange, fault: str, done: bool
) -> None:
    order = placed()
    replace(order, quantity=80)
    exchange.set_faults(**{fault: {"count": 1}})
    run_engine()
    assert stands(order) == ("pending_replace", [("replace", "unconfirmed")])
    run_engine()  # nothing is due
    assert OrderRequest.objects.get().attempt == 1
    look_up()
    assert stands(order)[1] == [("replace", "accepted" if done else "pending")]
    run_engine()
    assert stands(order) == ("placed", [("replace", "accepted")])
    assert Order.objects.get(pk=order.pk).quantity == at_venue(exchange, order)["order_quantity"] == 80


def test_a_replace_is_not_believed_undone_before_it_has_settled(exchange: RunningExchange) -> None:
    order = placed()
    replace(order, quantity=80)
    exchange.set_faults(reset={"count": 1})
    run_engine()
    OrderRequest.objects.update(look_up_at="2020-01-01T00:00:00Z", settled_at="2100-01-01T00:00:00Z")
    reconciliation.reconcile_due_orders()
    assert stands(order) == ("pending_replace", [("replace", "unconfirmed")])


def test_a_refused_replace_leaves_the_order_as_it_was(exchange: RunningExchange) -> None:
    order = placed()
    replace(order, quantity=80)
    exchange.set_faults(reject={"count": 1})
    run_engine()
    assert stands(order) == ("placed", [("replace", "refused")])
    after, row = Order.objects.get(pk=order.pk), OrderRequest.objects.get()
    assert (after.quantity, after.current_id, after.open_replace) == (100, None, None)
    assert row.last_error.startswith("trading_halted")


def test_a_replace_that_cannot_reach_the_venue_fails_and_the_order_is_unharmed(
    exchange: RunningExchange, settings: Any
) -> None:
    settings.PLACEMENT_MAX_ATTEMPTS = 2
    settings.PLACEMENT_BACKOFF_BASE_SECONDS = 0.001
    order = placed()
    replace(order, quantity=80)
    exchange.set_faults(enforce_valid_until={"clock_ahead": 3600})  # every request comes too late for it
    run_engine(linger=0.3)
    assert stands(order) == ("placed", [("replace", "failed")])
    last = selectors.history(order.pk).last()
    assert last is not None
    assert last.event == "replace_withdrawn"


def test_a_cancel_is_sent_at_once_while_a_replace_is_unconfirmed(exchange: RunningExchange) -> None:
    order = placed()
    replace(order, quantity=80)
    exchange.set_faults(reset={"count": 1})
    run_engine()
    cancel(order)
    run_engine()
    assert stands(order) == ("pending_cancel", [("replace", "unconfirmed"), ("cancel", "sent")])
    assert at_venue(exchange, order)["status"] == "canceled"
    look_up()  # what came of the replace is known first
    assert stands(order) == ("canceled", [("replace", "moot"), ("cancel", "accepted")])


def test_a_replace_that_was_done_before_the_cancel_is_known_to_be(exchange: RunningExchange) -> None:
    order = placed()
    replace(order, quantity=80)
    exchange.set_faults(accept_then_drop={"count": 1})
    run_engine()
    cancel(order)
    run_engine()
    for _ in range(2):
        look_up()
    assert stands(order) == ("canceled", [("replace", "accepted"), ("cancel", "accepted")])
    assert Order.objects.get(pk=order.pk).quantity == 80


# ---- Order and room ----


def test_cancels_come_before_replaces_and_these_before_orders(exchange: RunningExchange) -> None:
    owner = UserFactory()
    first, second = placed(owner=owner), placed(owner=owner)
    OrderFactory(owner=owner)
    replace(first, quantity=50)
    cancel(second)
    kinds = []
    for _ in range(3):
        claim = placement.claim_orders("XSIM", wanted=1, cancels=1, actor="system:test")
        kinds.append([request.kind for request in claim.requests] or [order.event for order in claim.orders])
        OrderRequest.objects.filter(status="submitting").update(status="waiting", lease_expires_at=None)
    assert kinds == [["cancel"], ["replace"], ["claimed"]]


def test_a_part_of_what_may_be_in_flight_is_kept_for_cancels(exchange: RunningExchange) -> None:
    owner = UserFactory()
    working = placed(owner=owner)
    Venue.objects.update(max_in_flight=8)
    for _ in range(9):
        OrderFactory(owner=owner)
    claimed = placement.claim_orders("XSIM", wanted=9, reserve=True, actor="system:test")
    assert len(claimed.orders) == 7
    cancel(working)
    claimed = placement.claim_orders("XSIM", wanted=0, cancels=1, reserve=True, actor="system:test")
    assert [request.order_id for request in claimed.requests] == [working.pk]


def test_a_request_whose_worker_died_is_taken_back_by_the_sweep(exchange: RunningExchange) -> None:
    first, second = placed(), placed()
    cancel(first)
    replace(second, quantity=80)
    assert len(placement.claim_orders("XSIM", wanted=9, cancels=9, actor="system:test").requests) == 2
    placement.sweep_orders()
    assert (stands(first)[1], stands(second)[1]) == ([("cancel", "submitting")], [("replace", "submitting")])
    OrderRequest.objects.update(lease_expires_at="2020-01-01T00:00:00Z")
    placement.sweep_orders()
    assert (stands(first)[1], stands(second)[1]) == ([("cancel", "pending")], [("replace", "unconfirmed")])
    run_engine()
    look_up()
    run_engine()
    assert (stands(first)[0], stands(second)[0]) == ("canceled", "placed")
    assert Order.objects.get(pk=second.pk).quantity == 80


@pytest.mark.parametrize("kind", ["cancel", "replace"])
def test_a_request_that_was_done_and_not_recorded_is_done_once(
    exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    order = placed()
    cancel(order) if kind == "cancel" else replace(order, quantity=80)
    with monkeypatch.context() as dying:  # as a worker that is killed between the reply and the record
        dying.setattr("orders.placement.record_requests", lambda attempts, *, actor: None)
        run_engine()
    assert stands(order)[1] == [(kind, "submitting")]
    OrderRequest.objects.update(lease_expires_at="2020-01-01T00:00:00Z")
    placement.sweep_orders()
    look_up()
    run_engine()
    assert stands(order) == ("canceled" if kind == "cancel" else "placed", [(kind, "accepted")])
    _, content = exchange.admin("GET", "/reports?after=0&limit=1000")
    assert [r["kind"] for r in content["reports"]] == ["new", "canceled" if kind == "cancel" else "replaced"]
