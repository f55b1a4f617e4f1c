"""GET /api/v1/executions, /orders/{id}/executions and /positions."""

import base64
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from exchanges.venue import ReportKind
from orders.models import Order, Position
from orders.tests.factories import OrderFactory, VenueFactory, report
from orders.tests.test_submit_order import errors

EXECUTIONS, ORDERS, POSITIONS = "/api/v1/executions", "/api/v1/orders", "/api/v1/positions"
NOON = datetime(2026, 1, 30, 12, tzinfo=UTC)


def order_of(username: str, **given: Any) -> Order:
    return OrderFactory(owner=User.objects.get(username=username), **{"status": "placed", **given})


def fill(order: Order, name: str, quantity: int = 10, price: str = "10.25", **more: Any) -> str:
    more = {"at": NOON, "execution_id": name, "quantity": quantity, "price": Decimal(price), **more}
    report(order.pk, order.venue_id, ReportKind.EXECUTED, **more)
    return name


def bust(order: Order, name: str, refers_to: str) -> None:
    report(order.pk, order.venue_id, ReportKind.BUSTED, execution_id=name, refers_to=refers_to, at=NOON)


def correct(order: Order, name: str, refers_to: str, quantity: int, price: str) -> None:
    more = {"quantity": quantity, "price": Decimal(price), "at": NOON}
    report(order.pk, order.venue_id, ReportKind.CORRECTED, execution_id=name, refers_to=refers_to, **more)


def listed(client: APIClient, url: str) -> list[str]:
    response = client.get(url)
    assert response.status_code == 200, response.content
    return [each["execution_id"] for each in response.json()["results"]]


# ---- Executions ----


def test_an_execution_is_told_exactly(alice: APIClient) -> None:
    order = order_of("alice", client_order_id="mom-1")
    fill(order, "E1", 40, "0.00000001")
    (told,) = alice.get(f"{ORDERS}/{order.pk}/executions").json()["results"]
    assert told.pop("recorded_at")
    assert told == {
        "execution_id": "E1",
        "venue": "XSIM",
        "order_id": str(order.pk),
        "client_order_id": "mom-1",
        "instrument": "US0378331005",
        "side": "buy",
        "quantity": 40,
        "price": "0.00000001",
        "corrects": None,
        "busted_by": None,
        "corrected_by": None,
        "executed_at": "2026-01-30T12:00:00Z",
    }


def test_a_client_sees_its_own_executions_and_no_others(alice: APIClient, bob: APIClient) -> None:
    mine, others = order_of("alice"), order_of("bob")
    fill(mine, "mine")
    fill(others, "others")
    assert listed(alice, EXECUTIONS) == listed(alice, f"{ORDERS}/{mine.pk}/executions") == ["mine"]
    same = {"X-Request-ID": "same"}
    response = alice.get(f"{ORDERS}/{others.pk}/executions", headers=same)
    assert response.status_code == 404
    nobodys = f"{ORDERS}/019a1c2e-7b1f-7c3d-9a55-0242ac120002/executions"
    assert response.json() == alice.get(nobodys, headers=same).json()
    assert APIClient().get(EXECUTIONS).status_code == 401


def test_what_was_taken_back_or_corrected_says_by_what(alice: APIClient) -> None:
    order = order_of("alice")
    for number, name in enumerate(("E1", "E2", "E3")):
        fill(order, name, at=NOON + timedelta(seconds=number))
    bust(order, "B", "E1")
    correct(order, "C", "E2", 5, "10.5")
    found = alice.get(f"{ORDERS}/{order.pk}/executions?ordering=executed_at").json()["results"]
    told = {each["execution_id"]: (each["busted_by"], each["corrected_by"], each["corrects"]) for each in found}
    assert told == {
        "E1": ("B", None, None),
        "E2": (None, "C", None),
        "E3": (None, None, None),
        "C": (None, None, "E2"),
    }


def test_what_was_taken_back_before_it_was_reported_is_shown_once_it_is(alice: APIClient) -> None:
    order = order_of("alice")
    bust(order, "B", "E1")
    assert listed(alice, EXECUTIONS) == []
    fill(order, "E1")
    (told,) = alice.get(EXECUTIONS).json()["results"]
    assert (told["execution_id"], told["busted_by"]) == ("E1", "B")


def test_another_orders_report_takes_nothing_back(alice: APIClient) -> None:
    order, other = order_of("alice"), order_of("alice")
    fill(order, "E1")
    bust(other, "B", "E1")
    (told,) = alice.get(EXECUTIONS).json()["results"]
    assert told["busted_by"] is None


def test_pages_of_executions_follow_one_another_without_gap_or_repetition(alice: APIClient) -> None:
    order = order_of("alice")
    times = [NOON, NOON, NOON, NOON + timedelta(seconds=1), NOON - timedelta(seconds=1)]
    for number, at in enumerate(times):
        fill(order, f"E{number}", at=at)
    for ordering, expected in (("executed_at", "40123"), ("-executed_at", "32104")):
        for path in (EXECUTIONS, f"{ORDERS}/{order.pk}/executions"):
            seen: list[str] = []
            url: str | None = f"{path}?limit=2&ordering={ordering}"
            while url:
                answer = alice.get(url)
                seen += [each["execution_id"][1:] for each in answer.json()["results"]]
                url = answer.json()["next"]
            assert "".join(seen) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("instrument=US0378331005", {"E1", "late"}),
        ("instrument=DE0007164600", {"SAP"}),
        ("venue=XOTH", {"other venue"}),
        ("from=2026-01-30T12:00:01Z", {"late"}),
        ("to=2026-01-30T12:00:01Z", {"E1", "SAP", "other venue"}),
        ("from=2026-01-30T12:00:00Z&to=2026-01-30T12:00:00Z", set()),
        ("from=2026-01-30T13:00:00%2B01:00&to=2026-01-30T13:00:01%2B01:00&venue=XSIM", {"E1", "SAP"}),
    ],
)
def test_the_list_of_executions_can_be_narrowed(alice: APIClient, query: str, expected: set[str]) -> None:
    order = order_of("alice")
    fill(order, "E1")
    fill(order, "late", at=NOON + timedelta(seconds=1))
    fill(order_of("alice", instrument="DE0007164600"), "SAP")
    fill(order_of("alice", instrument="FR0000120271", venue=VenueFactory(code="XOTH")), "other venue")
    assert set(listed(alice, f"{EXECUTIONS}?{query}")) == expected


def forged(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("query", "parameter", "code"),
    [
        ("instrument=x", "instrument", "invalid"),
        ("venue=paris", "venue", "invalid"),
        ("from=yesterday", "from", "invalid"),
        ("to=2026-01-30T12:00:00", "to", "invalid"),
        ("limit=501", "limit", "max_value"),
        ("ordering=price", "ordering", "invalid_choice"),
        ("after=x", "after", "invalid_cursor"),
        ("after=" + forged("2026-01-01T00:00:00 1"), "after", "invalid_cursor"),
        ("after=" + forged("2026-01-01T00:00:00+00:00 x"), "after", "invalid_cursor"),
        ("after=" + forged("2026-01-01T00:00:00+00:00 99999999999999999999"), "after", "invalid_cursor"),
        ("cursor=x", "cursor", "unknown"),
        ("limit=1&limit=2", "limit", "repeated"),
    ],
)
def test_a_wrong_query_of_executions_is_refused_naming_the_parameter(
    alice: APIClient, query: str, parameter: str, code: str
) -> None:
    response = alice.get(f"{EXECUTIONS}?{query}")
    assert response.status_code == 400, response.content
    assert (parameter, code) in errors(response)


def test_a_page_of_executions_is_one_statement_however_many_there_are(alice: APIClient) -> None:
    def statements() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert alice.get(EXECUTIONS).status_code == 200
        return len(captured)

    order = order_of("alice")
    fill(order, "E1")
    few = statements()
    for number in range(2, 6):
        fill(order, f"E{number}", 1)
    assert statements() == few


# ---- Positions ----


def positions(client: APIClient, query: str = "") -> list[dict[str, Any]]:
    response = client.get(f"{POSITIONS}{query}")
    assert response.status_code == 200, response.content
    return [{**each, "as_of": bool(each["as_of"])} for each in response.json()["results"]]


def test_a_position_is_what_the_executions_that_count_come_to(alice: APIClient, bob: APIClient) -> None:
    buy, sell = order_of("alice"), order_of("alice", side="sell")
    fill(buy, "E1", 30, "10")
    fill(buy, "E2", 30, "12")
    fill(sell, "E3", 20, "13")
    fill(buy, "E4", 7, "99")
    bust(buy, "B", "E4")
    fill(order_of("bob"), "E5")
    assert positions(alice) == [
        {
            "instrument": "US0378331005",
            "quantity": "40",
            "average_cost": "11",
            "cost": "440",
            "realized": "40",
            "bought_quantity": "60",
            "sold_quantity": "20",
            "as_of": True,
        }
    ]


def test_positions_are_added_up_over_venues_or_those_of_one(alice: APIClient) -> None:
    here, there = order_of("alice", side="sell"), order_of("alice", venue=VenueFactory(code="XOTH"))
    fill(here, "E1", 3, "10")
    fill(there, "E1", 10, "1.00000001")

    def numbers(query: str) -> list[tuple[str, ...]]:
        names = ("quantity", "cost", "average_cost", "realized")
        return [tuple(each[name] for name in names) for each in positions(alice, query)]

    assert numbers("?venue=XSIM") == [("-3", "-30", "10", "0")]
    assert numbers("?venue=XOTH") == [("10", "10.0000001", "1.00000001", "0")]
    assert numbers("") == [("7", "-19.9999999", "-2.85714284", "0")]  # -2.857142842…


def test_a_position_that_was_closed_has_no_average_cost(alice: APIClient) -> None:
    fill(order_of("alice"), "E1", 3, "10")
    fill(order_of("alice", side="sell"), "E2", 3, "11")
    (held,) = positions(alice)
    assert (held["quantity"], held["average_cost"], held["cost"], held["realized"]) == ("0", None, "0", "3")


def test_the_largest_numbers_of_a_position_are_told_to_the_last_digit(alice: APIClient) -> None:
    row = {"owner": User.objects.get(username="alice"), "venue": VenueFactory(), "instrument": "US0378331005"}
    value = Decimal("1" * 40 + ".12345678")
    Position.objects.create(
        **row, bought_quantity=10**29 + 1, bought_value=value, sold_quantity=0, sold_value=0, realized=-1
    )
    (held,) = positions(alice)
    assert held["quantity"] == "100000000000000000000000000001"
    assert held["cost"] == "1111111111111111111111111111111111111110.12345678"


def test_pages_of_positions_follow_one_another(alice: APIClient) -> None:
    for number, instrument in enumerate(("US0378331005", "DE0007164600", "FR0000120271")):
        fill(order_of("alice", instrument=instrument), f"E{number}")
    first = alice.get(f"{POSITIONS}?limit=2").json()
    second = alice.get(first["next"]).json()
    found = [each["instrument"] for page in (first, second) for each in page["results"]]
    assert found == ["DE0007164600", "FR0000120271", "US0378331005"]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("query", "parameter", "code"),
    [("venue=x", "venue", "invalid"), ("after=%00", "after", "invalid"), ("limit=0", "limit", "min_value")],
)
def test_a_wrong_query_of_positions_is_refused_naming_the_parameter(
    alice: APIClient, query: str, parameter: str, code: str
) -> None:
    response = alice.get(f"{POSITIONS}?{query}")
    assert response.status_code == 400
    assert (parameter, code) in errors(response)


def test_an_id_that_is_none_has_no_executions(alice: APIClient) -> None:
    assert alice.get(f"{ORDERS}/17/executions").status_code == 404
    assert alice.get(f"{ORDERS}/{UUID(int=0)}/executions?limit=0").status_code == 400
