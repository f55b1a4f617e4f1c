"""The console's pages of what happens at venues, and what an operator asks of a venue there."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from exchanges.models import UnmatchedReport
from exchanges.venue import ReportKind
from orders import selectors
from orders.admin.timeline import MOST_ROWS, picture
from orders.models import Order, OrderEvent, OrderRequest, Position
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory, report
from orders.tests.test_console import LIST, Login, listed, login, operator, page, send, status_of, text_of  # noqa: F401

pytestmark = pytest.mark.django_db
EXECUTIONS, POSITIONS = "/admin/orders/execution/", "/admin/orders/execution/positions/"
REQUESTS, UNMATCHED = "/admin/orders/orderrequest/", "/admin/exchanges/unmatchedreport/"


def fill(order: Order, name: str, quantity: int = 10, price: str = "10.25", **more: Any) -> None:
    more = {"execution_id": name, "quantity": quantity, "price": Decimal(price), **more}
    report(order.pk, order.venue_id, ReportKind.EXECUTED, **more)


def bust(order: Order, name: str, refers_to: str) -> None:
    report(order.pk, order.venue_id, ReportKind.BUSTED, execution_id=name, refers_to=refers_to)


def drawn(order: Order) -> str:
    return picture(Order.objects.get(pk=order.pk), list(selectors.history(order.pk)))


def said(svg: str) -> list[str]:
    """The words of the rows, from top to bottom."""
    return re.findall(r'class="said"[^>]*>([^<]*)<', svg)


# ---- The picture ----


def test_the_picture_tells_an_orders_life() -> None:
    order = OrderFactory(status="placed", attempts=2, error="connection_refused: nobody listens there")
    fill(order, "E1", 40, "10.2")
    fill(order, "E2", 60, "10.3")
    bust(order, "B", "E2")
    report(order.pk, order.venue_id, ReportKind.CANCELED, text="by the floor")
    words = [re.sub(r"\d+ ms", "n ms", each) for each in said(drawn(order))]
    assert words == [
        "Accepted",
        "Attempt 1: not sent, n ms",
        "Attempt 2: acknowledged, n ms",
        "Executed 40 at 10.2",
        "Executed 60 at 10.3",
        "E2 taken back",
        "Canceled at the venue",
        "Canceled: 40 of 100",
    ]


def test_a_bar_is_as_long_as_what_is_executed() -> None:
    order = OrderFactory(status="placed", quantity=300)
    fill(order, "E1", 100)
    fill(order, "E2", 50)
    bars = re.findall(r'<rect class="(\w+)" x="([\d.]+)%" y="\d+" width="([\d.]+)%"', drawn(order))
    assert bars == [
        ("track", "0.00", "100.00"),
        ("more", "0.00", "33.33"),
        ("track", "0.00", "100.00"),
        ("kept", "0.00", "33.33"),
        ("more", "33.33", "16.66"),
        ("track", "0.00", "100.00"),
        ("kept", "0.00", "50.00"),
    ]


def test_the_picture_has_a_text_for_who_cannot_see_it() -> None:
    order = OrderFactory(status="placed")
    fill(order, "E1", 100)
    svg = drawn(order)
    (described,) = re.findall(r'<desc id="timeline-text">([^<]*)</desc>', svg)
    assert 'role="img" aria-labelledby="timeline-title timeline-text"' in svg
    assert re.search(r"Accepted.*; .*Attempt 1: acknowledged.*Executed 100 at 10.25, 100 of 100 executed", described)


@pytest.mark.parametrize("status", ["pending", "submitting", "unconfirmed", "failed", "rejected", "expired"])
def test_an_order_with_a_short_life_has_a_picture(status: str) -> None:
    order = OrderFactory(status=status)
    assert said(drawn(order))[0] == "Accepted"
    assert said(drawn(order))[-1] == status.capitalize()


def events(count: int, kind: str) -> list[OrderEvent]:
    """A history as it may be, without rows."""
    at = datetime(2026, 1, 30, 23, 59, 50, tzinfo=UTC)
    made = [OrderEvent(sequence=1, event="accepted", attempt=0, actor="client:alice", at=at, detail={})]
    for number in range(2, count + 1):
        name, detail = "executed", {"quantity": 1, "price": "10", "filled_quantity": number, "execution_id": "E"}
        if kind == "attempts":
            name, detail = ("claimed", {}) if number % 2 == 0 else ("not_sent", {"latency_ms": 3})
        elif kind == "mixed":
            name = ("executed", "cancel_asked", "cancel_refused")[number % 3]
        event = OrderEvent(sequence=number, event=name, attempt=number // 2, actor="venue:XSIM", detail=detail)
        event.at = at + timedelta(seconds=number)
        made.append(event)
    return made


@pytest.mark.parametrize("kind", ["executions", "attempts", "mixed"])
@pytest.mark.parametrize("count", [2, 24, 26, 60, 500])
def test_a_picture_has_some_rows_however_long_a_life_is(kind: str, count: int) -> None:
    order = Order(quantity=1000, status="placed", updated_at=timezone.now(), filled_value=Decimal(0), filled_quantity=0)
    order.ended = ""
    svg = picture(order, events(count, kind))
    assert len(said(svg)) <= MOST_ROWS + 1
    assert len(svg) < 60_000
    if kind == "executions" and count == 500:
        counted = [re.search(r"(\d+) executions", each) for each in said(svg)]
        assert sum(int(each[1]) for each in counted if each) + 1 >= 499


def test_what_a_venue_says_is_text_in_the_picture() -> None:
    order = OrderFactory(status="rejected", error='"/><script>alert(1)</script>')
    assert "<script" not in drawn(order)


def test_an_orders_page_costs_the_same_queries_for_many_executions(operator: Client) -> None:  # noqa: F811
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(operator, f"{LIST}{order.pk}/change/")
        return len(captured)

    order = OrderFactory(status="placed")
    fill(order, "E1", 1)
    queries()  # the first one asks for what is kept after it
    few = queries()
    for number in range(2, 12):
        fill(order, f"E{number}", 1)
    assert queries() == few


# ---- The lists ----


def test_executions_are_listed_with_what_became_of_them(operator: Client) -> None:  # noqa: F811
    order = OrderFactory(status="placed", client_order_id="mom-1")
    fill(order, "E1", 10)
    fill(order, "E2", 20)
    bust(order, "B7", "E1")
    shown = text_of(page(operator, EXECUTIONS).encode())
    assert re.search(r"Buy 20 US0378331005 at 10.25.*Yes.*E2", shown, re.DOTALL)
    assert re.search(r"Buy 10 US0378331005.*Taken back.*B7.*E1", shown, re.DOTALL)


def test_executions_are_found_by_client_and_order(operator: Client) -> None:  # noqa: F811
    one, other = OrderFactory(status="placed"), OrderFactory(status="placed", owner=UserFactory(username="walt"))
    fill(one, "E1")
    fill(other, "E2")

    def found(query: str) -> set[str]:
        response = operator.get(f"{EXECUTIONS}?{query}")
        assert response.status_code == 200
        return {each.execution_id for each in response.context["cl"].result_list}

    assert found("client=walt") == {"E2"}
    assert found(f"order={one.pk}") == {"E1"}
    assert found("order=x") == found("client=nobody") == set()
    assert found("venue__code__exact=XSIM") == {"E1", "E2"}


def test_the_list_of_executions_costs_the_same_queries_for_many(operator: Client) -> None:  # noqa: F811
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(operator, EXECUTIONS)
        return len(captured)

    fill(OrderFactory(status="placed"), "E1")
    few = queries()
    for number in range(2, 8):
        fill(OrderFactory(status="placed"), f"E{number}")
    assert queries() == few


def test_positions_are_shown_exactly_and_found_by_client(operator: Client) -> None:  # noqa: F811
    alice = UserFactory(username="alice")
    for side, price in (("buy", "10.00000001"), ("sell", "11")):
        fill(OrderFactory(owner=alice, status="placed", side=side), side, 10 if side == "buy" else 4, price)
    fill(OrderFactory(status="placed", instrument="DE0007164600"), "E3")
    table = operator.get(POSITIONS, {"client": "alice"}).context["table"]
    ((_, _, venue, held, average, paid, realized, *_),) = table["rows"]
    assert (venue, text_of(held.encode())) == ("XSIM", "6")
    assert (average, paid, realized) == ("10.00000001", "60.00000006", "3.99999996")
    assert len(operator.get(POSITIONS).context["table"]["rows"]) == 2
    assert len(operator.get(POSITIONS, {"instrument": "de0007164600"}).context["table"]["rows"]) == 1
    assert "No positions match" in page(operator, f"{POSITIONS}?client=nobody&venue=X&instrument=-")


def test_positions_beyond_a_page_are_told_of(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("orders.admin.executions.POSITIONS_SHOWN", 1)
    for instrument in ("US0378331005", "DE0007164600"):
        fill(OrderFactory(status="placed", instrument=instrument), instrument)
    assert "These are the first 1." in page(operator, POSITIONS)
    assert Position.objects.count() == 2


def test_unmatched_reports_are_shown_as_they_came(operator: Client) -> None:  # noqa: F811
    given = {"kind": "executed", "client_order_id": "<b>x</b>", "quantity": "40"}
    kept = UnmatchedReport.objects.create(
        venue=VenueFactory(), stream="journal-1", sequence=7, reason="It is about no order of ours.", report=given
    )
    assert "It is about no order of ours." in page(operator, UNMATCHED)
    shown = page(operator, f"{UNMATCHED}{kept.pk}/change/")
    assert "&quot;quantity&quot;: &quot;40&quot;" in shown
    for url in (UNMATCHED, f"{UNMATCHED}{kept.pk}/change/"):
        assert "<b>x</b>" not in page(operator, url)


@pytest.mark.parametrize("url", [EXECUTIONS, POSITIONS, REQUESTS, UNMATCHED])
def test_the_lists_are_for_those_who_see_orders_and_nobody_changes_them(login: Login, url: str) -> None:  # noqa: F811
    assert login("Viewer").get(url).status_code == 200
    assert login(None, username="client").get(url).headers["Location"].startswith("/admin/login/")
    nobody = login(None, username="stranger", is_staff=True)
    assert nobody.get(url).status_code == 403
    root = login("Administrator", username="root", is_superuser=True)
    assert root.post(f"{url.removesuffix('positions/')}add/", {}).status_code == 403
    assert root.get(f"{url.removesuffix('positions/')}1/delete/").status_code in (302, 403)


# ---- Cancel and replace at the venue ----


def test_an_operator_has_a_venue_cancel_an_order(operator: Client) -> None:  # noqa: F811
    order = OrderFactory(status="placed")
    assert "Cancel at the venue …" in page(operator, f"{LIST}{order.pk}/change/")
    answer = send(operator, "cancel-at-venue", order, reason="client asked by telephone")
    assert "Asked to be canceled 1 order." in answer
    request = OrderRequest.objects.get()
    assert (request.kind, request.actor, request.reason) == ("cancel", "operator:olga", "client asked by telephone")
    assert status_of(order) == "pending_cancel"
    shown = page(operator, f"{LIST}{order.pk}/change/")
    assert "Cancel at the venue …" not in shown
    assert "Cancel asked for" in shown
    assert re.search(r"Cancel.*olga \(console\).*client asked", text_of(page(operator, REQUESTS).encode()), re.DOTALL)


def test_what_cannot_be_canceled_at_a_venue_is_explained(operator: Client) -> None:  # noqa: F811
    filled, placed = OrderFactory(status="filled"), OrderFactory(status="placed")
    send(operator, "cancel-at-venue", placed)
    answer = send(operator, "cancel-at-venue", filled, placed)
    assert f"<li>{filled.pk}: It is filled, which is final.</li>" in answer
    assert f"<li>{placed.pk}: A cancel of it was asked for and is not decided.</li>" in answer
    assert OrderRequest.objects.count() == 1


def test_an_operator_has_a_venue_replace_an_order(operator: Client) -> None:  # noqa: F811
    order = OrderFactory(status="placed")
    assert "Replace at the venue …" in page(operator, f"{LIST}{order.pk}/change/")
    given = {"keys": str(order.pk), "quantity": "70", "limit_price": "10.5", "reason": "less", "next": LIST}
    answer = operator.post(f"{LIST}replace/", given, follow=True).content.decode()
    assert "Asked to be replaced 1 order." in answer
    request = OrderRequest.objects.get()
    assert (request.kind, request.quantity, request.limit_price) == ("replace", 70, Decimal("10.5"))
    assert (request.stop_price, request.actor, request.reason) == (None, "operator:olga", "less")
    assert (status_of(order), Order.objects.get().quantity) == ("pending_replace", 100)
    assert "70, at 10.5" in page(operator, REQUESTS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "Name at least one term to change"),
        ({"quantity": "0"}, "greater than or equal to 1"),
        ({"limit_price": "0"}, "A price above zero is required."),
        ({"limit_price": "NaN"}, "Enter a number"),
        ({"limit_price": "1.123456789"}, "no more than 8 decimal places"),
        ({"quantity": "30"}, "Quantity: 40 are filled"),
        ({"stop_price": "9"}, "Stop price: Forbidden for type limit."),
        ({"quantity": "100"}, "It names no term that differs"),
    ],
)
def test_a_replace_that_cannot_be_is_refused_with_a_word(
    operator: Client,  # noqa: F811
    given: dict[str, str],
    said: str,
) -> None:
    order = OrderFactory(status="partially_filled")
    sent = {"keys": str(order.pk), "reason": "less", "next": LIST, **given}
    assert said in operator.post(f"{LIST}replace/", sent, follow=True).content.decode()
    assert not OrderRequest.objects.exists()


@pytest.mark.parametrize("verb", ["cancel-at-venue", "replace"])
def test_who_may_only_look_asks_nothing_of_a_venue(login: Login, verb: str) -> None:  # noqa: F811
    viewer, order = login("Viewer"), OrderFactory(status="placed")
    assert "at the venue …" not in page(viewer, f"{LIST}{order.pk}/change/")
    sent = {"keys": str(order.pk), "reason": "why", "quantity": "7"}
    assert viewer.post(f"{LIST}{verb}/", sent).status_code == 403
    assert not OrderRequest.objects.exists()


def test_nothing_is_asked_of_a_venue_without_a_reason(operator: Client) -> None:  # noqa: F811
    order = OrderFactory(status="placed")
    assert "Say why" in send(operator, "cancel-at-venue", order, reason=" ")
    assert status_of(order) == "placed"
