"""GET /api/v1/orders, /orders/{id} and /orders/{id}/events."""

import base64
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from exchanges.venue import ReportKind
from orders.amendments import request_replace
from orders.api.serializers import OrderSerializer
from orders.facts import average_price
from orders.models import Order
from orders.requests import Changes
from orders.tests.factories import OrderFactory, VenueFactory, report
from orders.tests.test_submit_order import LIMIT, errors

ORDERS = "/api/v1/orders"


def make(username: str, **fields: Any) -> str:
    return str(OrderFactory(owner=User.objects.get(username=username), **fields).pk)


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.content
    return [order["id"] for order in response.json()["results"]]


def test_an_answer_has_the_fields_that_the_schema_declares(alice: APIClient) -> None:
    body = alice.post(ORDERS, LIMIT).json()
    assert list(body) == list(OrderSerializer().fields)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("pending", (0, 100, None)),
        ("submitting", (0, 100, None)),
        ("unconfirmed", (0, 100, None)),
        ("failed", (0, 0, None)),
        ("placed", (0, 100, None)),
        ("partially_filled", (40, 60, "10.25")),
        ("pending_cancel", (0, 100, None)),
        ("pending_replace", (0, 100, None)),
        ("done_for_day", (0, 0, None)),
        ("filled", (100, 0, "10.25")),
        ("canceled", (0, 0, None)),
        ("expired", (0, 0, None)),
        ("rejected", (0, 0, None)),
    ],
)
def test_an_order_says_what_was_executed_and_what_is_left(
    alice: APIClient, status: str, expected: tuple[int, int, str | None]
) -> None:
    order = make("alice", status=status)
    body = alice.get(f"{ORDERS}/{order}").json()
    assert (body["filled_quantity"], body["leaves_quantity"], body["average_price"]) == expected
    assert body["version"] == len(alice.get(f"{ORDERS}/{order}/events").json())
    assert alice.get(ORDERS).json()["results"] == [body]


def test_an_order_of_many_days_keeps_what_is_left_when_a_day_ends(alice: APIClient) -> None:
    order = make("alice", status="done_for_day", time_in_force="gtc")
    assert alice.get(f"{ORDERS}/{order}").json()["leaves_quantity"] == 100


def test_what_is_left_of_a_canceled_order_is_nothing_and_its_executions_stay(alice: APIClient) -> None:
    order = make("alice", status="partially_filled")
    report(UUID(order), "XSIM", ReportKind.CANCELED)
    body = alice.get(f"{ORDERS}/{order}").json()
    assert (body["status"], body["filled_quantity"], body["leaves_quantity"]) == ("canceled", 40, 0)


@pytest.mark.parametrize(
    ("value", "filled", "expected"),
    [
        ("0.00000003", 2, "0.00000002"),  # 0.000000015: a half goes to the even digit
        ("0.00000005", 2, "0.00000002"),  # 0.000000025
        ("0.00000007", 2, "0.00000004"),  # 0.000000035
        ("100", 3, "33.33333333"),
        ("1025", 100, "10.25"),
        # Of 28 digits, Python's default, the rest would be a half, and be rounded down.
        ("4500000000000000005000000000.00000001", 10**18, "4500000000.00000001"),
    ],
)
def test_an_average_price_is_rounded_once_and_half_to_even(value: str, filled: int, expected: str) -> None:
    assert average_price(Decimal(value), filled) == Decimal(expected)


def test_a_client_sees_its_own_orders_and_no_others(alice: APIClient, bob: APIClient) -> None:
    mine, others = make("alice"), make("bob")

    assert ids(alice.get(ORDERS)) == [mine]
    assert alice.get(f"{ORDERS}/{mine}").status_code == 200
    same = {"X-Request-ID": "same"}
    for path in ("", "/events"):
        response = alice.get(f"{ORDERS}/{others}{path}", headers=same)
        assert response.status_code == 404
        assert response.json() == alice.get(f"{ORDERS}/019a1c2e-7b1f-7c3d-9a55-0242ac120002{path}", headers=same).json()
    assert alice.post(f"{ORDERS}/{others}/cancel").status_code == 404
    assert Order.objects.get(pk=others).status == "pending"


def test_an_order_whose_instrument_would_be_refused_today_can_still_be_read(alice: APIClient) -> None:
    stored = make("alice", instrument="ZZ0378331001")

    assert ids(alice.get(f"{ORDERS}?instrument=ZZ0378331001")) == [stored]
    assert alice.get(f"{ORDERS}/{stored}").json()["instrument"] == "ZZ0378331001"


def test_pages_follow_one_another_without_gap_or_repetition(alice: APIClient) -> None:
    made = [make("alice") for _ in range(7)]
    Order.objects.filter(pk__in=made[2:5]).update(created_at="2026-01-01T00:00:00Z")  # a tie across a page's edge

    for ordering in ("-created_at", "created_at"):
        seen: list[str] = []
        url: str | None = f"{ORDERS}?limit=2&ordering={ordering}"
        while url:
            response = alice.get(url)
            seen += ids(response)
            url = response.json()["next"]
        expected = [*made[2:5], *made[:2], *made[5:]]
        assert seen == (expected if ordering == "created_at" else expected[::-1])


def test_the_next_page_keeps_every_status_that_was_asked_for(alice: APIClient) -> None:
    made = [make("alice", status=status) for status in ("failed", "placed", "failed", "rejected")]
    first = alice.get(f"{ORDERS}?limit=1&status=failed&status=placed")
    second = alice.get(first.json()["next"])
    third = alice.get(second.json()["next"])
    assert ids(first) + ids(second) + ids(third) == [made[2], made[1], made[0]]
    assert third.json()["next"] is None


def test_orders_that_arrive_meanwhile_do_not_shift_the_next_page(alice: APIClient) -> None:
    made = [make("alice") for _ in range(4)]
    first = alice.get(f"{ORDERS}?limit=2")
    make("alice")

    assert ids(first) + ids(alice.get(first.json()["next"])) == made[::-1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=failed", {"failed"}),
        ("status=failed,placed", {"failed", "placed"}),
        ("status=failed&status=placed", {"failed", "placed"}),
        ("side=sell", {"sell"}),
        ("type=market", {"market"}),
        ("instrument=DE0007164600", {"sap"}),
        ("venue=XOTH", {"other venue"}),
        ("client_order_id=abc", {"abc"}),
        ("status=failed&side=sell", set()),
        ("created_from=2030-01-01T00:00:00Z", {"future"}),
        ("created_before=2020-01-01T00:00:00%2B00:00", {"past"}),
        ("created_from=2010-01-01T00:00:00Z&created_before=2020-01-01T00:00:00Z", {"past"}),
    ],
)
def test_the_list_can_be_narrowed(alice: APIClient, query: str, expected: set[str]) -> None:
    names = {
        make("alice", status="failed"): "failed",
        make("alice", status="placed"): "placed",
        make("alice", side="sell"): "sell",
        make("alice", type="market"): "market",
        make("alice", instrument="DE0007164600"): "sap",
        make("alice", venue=VenueFactory(code="XOTH")): "other venue",
        make("alice", client_order_id="abc"): "abc",
        (future := make("alice")): "future",
        (past := make("alice")): "past",
    }
    Order.objects.filter(pk=future).update(created_at="2030-06-01T00:00:00Z")
    Order.objects.filter(pk=past).update(created_at="2015-06-01T00:00:00Z")

    assert {names[order] for order in ids(alice.get(f"{ORDERS}?{query}"))} == expected


def test_an_order_is_found_by_the_id_of_a_request_to_replace_it(alice: APIClient) -> None:
    order, bobs = make("alice", status="placed", client_order_id="abc"), OrderFactory(status="placed")
    change = {"quantity": 50, "client_order_id": "abc-2"}
    assert alice.post(f"{ORDERS}/{order}/replace", change).status_code == 202
    request_replace(bobs.pk, Changes(quantity=50), actor="client:bob", reason="Less.", client_order_id="abc-3")
    found = {name: ids(alice.get(f"{ORDERS}?client_order_id={name}")) for name in ("abc", "abc-2", "abc-3")}
    assert found == {"abc": [order], "abc-2": [order], "abc-3": []}


def forged(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=lost", ("status", "invalid_choice")),
        ("status=", ("status", "blank")),
        ("side=hold", ("side", "invalid_choice")),
        ("type=x", ("type", "invalid_choice")),
        ("instrument=x", ("instrument", "invalid")),
        ("venue=%00", ("venue", "invalid")),
        ("limit=0", ("limit", "min_value")),
        ("limit=501", ("limit", "max_value")),
        ("limit=x", ("limit", "invalid")),
        ("ordering=price", ("ordering", "invalid_choice")),
        ("created_from=yesterday", ("created_from", "invalid")),
        ("created_before=2026-01-01", ("created_before", "invalid")),
        ("cursor=x", ("cursor", "invalid_cursor")),
        ("cursor=é", ("cursor", "invalid_cursor")),
        ("cursor=" + forged("2026-01-01T00:00:00+00:00 x"), ("cursor", "invalid_cursor")),
        ("cursor=" + forged("2026-01-01T00:00:00 019a1c2e-7b1f-7c3d-9a55-0242ac120002"), ("cursor", "invalid_cursor")),
        ("colour=red", ("colour", "unknown")),
        ("status=failed&status=lost", ("status", "invalid_choice")),
        ("side=buy&side=sell", ("side", "repeated")),
        ("limit=1&limit=1", ("limit", "repeated")),
        ("cursor=x&cursor=y", ("cursor", "repeated")),
    ],
)
def test_a_wrong_query_is_refused_naming_the_parameter(alice: APIClient, query: str, expected: tuple[str, str]) -> None:
    response = alice.get(f"{ORDERS}?{query}")
    assert response.status_code == 400, response.content
    assert expected in errors(response)
    assert response.json()["detail"].startswith("The query has ")


def test_the_history_is_told_without_naming_our_people(alice: APIClient) -> None:
    order = make("alice", status="failed", attempts=2)

    history = alice.get(f"{ORDERS}/{order}/events").json()

    assert [(event["sequence"], event["event"], event["to_status"]) for event in history] == [
        (1, "accepted", "pending"),
        (2, "claimed", "submitting"),
        (3, "not_sent", "pending"),
        (4, "claimed", "submitting"),
        (5, "not_sent", "pending"),
        (6, "attempts_exhausted", "failed"),
    ]
    assert [history[0]["by"], history[1]["by"]] == ["client", "system"]


def test_an_id_that_is_none_is_not_found(alice: APIClient) -> None:
    response = alice.get(f"{ORDERS}/17")
    assert response.status_code == 404
    assert "not a UUID" in response.json()["detail"]
