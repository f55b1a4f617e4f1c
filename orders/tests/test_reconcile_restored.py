"""A database that was restored to an earlier time: what it does not know is found out before anything is sent."""

import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models.functions import Now

from exchanges.models import Venue
from exchanges.tests.running import RunningExchange, running_exchange
from exchanges.venue import ReportKind
from orders import selectors
from orders.models import Order, new_order_id
from orders.tests.factories import OrderFactory, VenueFactory, report
from orders.tests.scripted_venue import answering

pytestmark = pytest.mark.django_db

REASON = "restored to 09:30"
NOTHING_LEFT, LEFT_TO_YOU = 0, 1


@pytest.fixture
def exchange(tmp_path: Path, settings: Any) -> Iterator[RunningExchange]:
    settings.PLACEMENT_LEASE_SECONDS = 0.05
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url, "settle_seconds": 0.000_001})
        halt()
        yield exchange


def halt() -> None:
    Venue.objects.update(halted_at=Now(), halted_by="operator:olga", halt_reason=REASON)


def reconcile(*arguments: str) -> tuple[int, Any]:
    output = io.StringIO()
    try:
        call_command("reconcile_restored", "--reason", REASON, "--json", *arguments, stdout=output)
    except CommandError as error:
        return error.returncode, json.loads(output.getvalue() or "null")
    return NOTHING_LEFT, json.loads(output.getvalue())


def test_an_order_that_was_sent_since_is_found_and_not_sent_again(exchange: RunningExchange) -> None:
    order = OrderFactory()
    exchange.place(client_order_id=str(order.pk))

    code, told = reconcile()

    assert (code, told["doubted"], told["undecided"]) == (NOTHING_LEFT, 1, [])
    assert Order.objects.get(pk=order.pk).status == "placed"
    assert len(exchange.orders()) == 1
    event = selectors.history(order.pk).get(event="claimed")
    assert event.reason == REASON


def test_an_order_that_was_not_sent_waits_again_for_its_venue_to_be_resumed(exchange: RunningExchange) -> None:
    order = OrderFactory()

    code, told = reconcile()

    assert (code, told["orphans"]) == (NOTHING_LEFT, [])
    assert Order.objects.get(pk=order.pk).status == "pending"
    assert exchange.orders() == []


def test_an_order_that_was_sent_does_not_expire_because_its_time_has_passed_since(exchange: RunningExchange) -> None:
    order = OrderFactory()
    exchange.place(client_order_id=str(order.pk))
    Order.objects.update(place_by="2020-01-01T00:00:00Z")

    reconcile()

    assert Order.objects.get(pk=order.pk).status == "placed"


def test_what_a_venue_has_without_a_row_here_is_listed(exchange: RunningExchange) -> None:
    opened, bought, sold = (str(new_order_id()) for _ in range(3))
    known = str(OrderFactory().pk)
    exchange.place(client_order_id=known, limit_price="10.00")
    exchange.place(client_order_id=opened, limit_price="11.00")
    exchange.place(client_order_id=bought, limit_price="187.25", quantity=40)
    exchange.place(client_order_id=sold, side="sell", limit_price="187.25", quantity=40)
    exchange.place(client_order_id="desk-7", limit_price="9.00")

    code, told = reconcile()

    assert code == LEFT_TO_YOU
    found = {orphan["order_id"]: (orphan["works"], orphan["executed"]) for orphan in told["orphans"]}
    assert found == {opened: (True, 0), bought: (False, 40), sold: (False, 40)}
    assert told["of_others"] == {"XSIM": 1}


def test_a_person_is_told_what_is_left(exchange: RunningExchange) -> None:
    missing = str(new_order_id())
    exchange.place(client_order_id=missing)
    output = io.StringIO()

    with pytest.raises(CommandError, match="Left to you: 1 without a row"):
        call_command("reconcile_restored", "--reason", REASON, stdout=output)

    told = output.getvalue()
    assert "XSIM: 1 order there has no row here." in told
    assert missing in told


def test_an_order_whose_reports_a_session_has_read_since_is_listed_too(exchange: RunningExchange) -> None:
    missing, order = new_order_id(), OrderFactory()
    for executed in (5, 8):
        report(
            order.pk,
            "XSIM",
            ReportKind.EXECUTED,
            client_order_id=str(missing),
            venue_order_id="V-9",
            quantity=5,
            price=Decimal("10.00"),
            cumulative_quantity=executed,
        )

    _, told = reconcile()

    assert [(orphan["order_id"], orphan["executed"]) for orphan in told["orphans"]] == [(str(missing), 8)]


def test_nothing_is_done_while_a_venue_may_be_sent_to(exchange: RunningExchange) -> None:
    Venue.objects.update(halted_at=None, halted_by="", halt_reason="")
    order = OrderFactory()
    code, told = reconcile()
    assert (code, told) == (LEFT_TO_YOU, None)
    assert Order.objects.get(pk=order.pk).status == "pending"


def test_the_command_ends_in_time_and_says_what_is_not_decided(settings: Any) -> None:
    settings.PLACEMENT_LEASE_SECONDS = 0.05
    VenueFactory()  # nobody answers there
    halt()
    order = OrderFactory()
    code, told = reconcile("--seconds", "1")
    assert (code, told["undecided"]) == (LEFT_TO_YOU, [str(order.pk)])
    assert list(told["not_listed"]) == ["XSIM"]


def test_a_venue_that_lists_no_orders_is_left_to_a_person() -> None:
    async def place(order: Any) -> Any:
        raise AssertionError("nothing is sent")

    with answering(place):
        halt()
        code, told = reconcile()
    assert (code, told["not_listed"]) == (LEFT_TO_YOU, {"XSIM": "reports: this venue's adapter has no report stream"})
