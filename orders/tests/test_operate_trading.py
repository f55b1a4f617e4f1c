"""Commands about what happens at venues: show_order, show_position and cancel_orders."""

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from exchanges.venue import ReportKind
from orders import selectors
from orders.models import Order, OrderRequest
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory, report
from orders.tests.test_operate_orders import DONE, REFUSED, USAGE, run, run_json, status_of

pytestmark = pytest.mark.django_db
REASON = ("--reason", "incident 4711")


def fill(order: Order, name: str, quantity: int, price: str) -> None:
    more = {"execution_id": name, "quantity": quantity, "price": Decimal(price)}
    report(order.pk, order.venue_id, ReportKind.EXECUTED, **more)


def bust(order: Order, name: str, refers_to: str) -> None:
    report(order.pk, order.venue_id, ReportKind.BUSTED, execution_id=name, refers_to=refers_to)


# ---- show_order ----


def test_an_order_is_shown_with_what_was_executed() -> None:
    order = OrderFactory(status="placed")
    fill(order, "E1", 30, "10.2")
    fill(order, "E2", 10, "10.4")
    bust(order, "B", "E2")
    code, output, _ = run("show_order", order.pk)
    assert code == DONE
    assert "30 of 100, 70 left" in output
    assert "no: taken back by B" in output
    _, document = run_json("show_order", order.pk)
    assert (document["filled_quantity"], document["leaves_quantity"], document["average_price"]) == (30, 70, "10.2")
    told = [(each["execution_id"], each["price"], each["busted_by"]) for each in document["executions"]]
    assert told == [("E1", "10.2", None), ("E2", "10.4", "B")]


def test_what_a_venue_calls_its_executions_cannot_command_the_terminal() -> None:
    order = OrderFactory(status="placed")
    fill(order, "[red]E1[/red]", 30, "10.2")
    assert "[red]E1[/red]" in run("show_order", order.pk)[1]


# ---- show_position ----


def test_a_position_is_shown_by_venue_and_in_sum() -> None:
    alice = UserFactory(username="alice")
    here = OrderFactory(owner=alice, status="placed")
    there = OrderFactory(owner=alice, status="placed", side="sell", venue=VenueFactory(code="XOTH"))
    fill(here, "E1", 10, "10.5")
    fill(there, "E1", 4, "11")
    code, document = run_json("show_position", "alice", "US0378331005")
    assert code == DONE
    (held,) = document["positions"]
    assert (held["quantity"], held["cost"], held["realized"]) == ("6", "61", "0")
    assert {venue: told["quantity"] for venue, told in document["venues"].items()} == {"XSIM": "10", "XOTH": "-4"}
    assert run_json("show_position", "alice", "--venue", "XOTH")[1]["positions"][0]["average_cost"] == "11"
    assert "61" in run("show_position", "alice")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody"], REFUSED, "There is no user 'nobody'."),
        (["alice"], REFUSED, "'alice' has no position there."),
        (["alice", "US0378331005"], REFUSED, "'alice' has no position in US0378331005 there."),
        (["alice", "--venue", "NOPE"], USAGE, "There is no venue 'NOPE'."),
    ],
)
def test_a_position_that_is_not_there_is_not_found(arguments: list[str], code: int, said: str) -> None:
    UserFactory(username="alice")
    VenueFactory()
    ended, _, error = run("show_position", *arguments)
    assert ended == code
    assert error.startswith(said)


# ---- cancel_orders ----


def test_orders_are_canceled_here_or_at_their_venue() -> None:
    pending, placed, filled = (OrderFactory(status=status) for status in ("pending", "placed", "filled"))
    missing = uuid4()
    code, document = run_json("cancel_orders", pending.pk, placed.pk, filled.pk, missing, "--yes", *REASON)
    assert code == REFUSED
    assert [document[name] for name in ("canceled", "asked", "refused")] == [1, 1, 2]
    assert [status_of(order) for order in (pending, placed, filled)] == ["canceled", "pending_cancel", "filled"]
    told = {each["id"]: each["explanation"] for each in document["orders"]}
    assert told[str(filled.pk)] == "It is filled, which is final."
    assert told[str(missing)] == "There is no such order."
    request = OrderRequest.objects.get()
    assert (request.order_id, request.kind, request.reason) == (placed.pk, "cancel", "incident 4711")
    assert request.actor.endswith("(command)")
    event = selectors.history(placed.pk).last()
    assert event is not None
    assert (event.event, event.reason) == ("cancel_asked", "incident 4711")


def test_an_order_whose_cancel_is_open_is_not_asked_about_twice() -> None:
    order = OrderFactory(status="placed")
    run("cancel_orders", order.pk, *REASON)
    code, _, error = run("cancel_orders", order.pk, *REASON)
    assert (code, error) == (REFUSED, "1 order not canceled.")
    assert OrderRequest.objects.count() == 1


def test_orders_to_cancel_are_chosen_by_what_they_are() -> None:
    alice = UserFactory(username="alice")
    names = {
        OrderFactory(owner=alice).pk: "alice's",
        OrderFactory(status="placed", side="sell").pk: "sold",
        OrderFactory(status="failed", instrument="DE0007164600").pk: "sap",
        OrderFactory(status="unconfirmed", venue=VenueFactory(code="XOTH")).pk: "other venue",
        OrderFactory(status="partially_filled").pk: "partly",
    }
    OrderFactory(status="filled", owner=alice)
    OrderFactory(status="canceled", side="sell")

    def chosen(*selection: Any) -> set[str]:
        code, document = run_json("cancel_orders", *selection, "--dry-run")
        assert code == DONE
        return {names[order["id"]] for order in ({**each, "id": _uuid(each["id"])} for each in document["orders"])}

    assert chosen("--client", "alice") == {"alice's"}
    assert chosen("--side", "sell") == {"sold"}
    assert chosen("--instrument", "DE0007164600") == {"sap"}
    assert chosen("--venue", "XOTH") == {"other venue"}
    assert chosen("--venue", "XSIM", "--side", "buy") == {"alice's", "sap", "partly"}
    assert chosen("--all") == set(names.values())
    assert not OrderRequest.objects.exists()


def _uuid(text: str) -> Any:
    return Order._meta.pk.to_python(text)


@pytest.mark.parametrize(("typed", "code", "status"), [("y\n", DONE, "canceled"), ("\n", REFUSED, "pending")])
def test_more_than_one_is_asked_about(typed: str, code: int, status: str, capsys: pytest.CaptureFixture[str]) -> None:
    orders = [OrderFactory(), OrderFactory()]
    assert run("cancel_orders", "--all", *REASON, typed=typed)[0] == code
    assert "Cancel 2 orders?" in capsys.readouterr().out
    assert {status_of(order) for order in orders} == {status}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Name orders by id, or select them"),
        (["--all", "--venue", "XSIM", *REASON], "Name orders by id, or select them"),
        (["--all"], "--reason is needed"),
        (["--all", *REASON], "This would cancel 2 orders. Add --yes"),
        (["--venue", "NOPE", *REASON], "There is no venue 'NOPE'."),
        (["--client", "nobody", *REASON], "There is no user 'nobody'."),
    ],
)
def test_wrong_usage_cancels_nothing(arguments: list[str], said: str) -> None:
    orders = [OrderFactory(), OrderFactory()]
    code, _, error = run("cancel_orders", *arguments)
    assert code == USAGE
    assert error.startswith(said)
    assert {status_of(order) for order in orders} == {"pending"}


def test_nothing_to_cancel_is_no_failure() -> None:
    VenueFactory()
    assert run("cancel_orders", "--all", *REASON)[:2] == (DONE, "No order meets that.\n")
