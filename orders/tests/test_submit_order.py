"""POST /api/v1/orders."""

import re
from decimal import Decimal
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from django.db import OperationalError, connection
from hypothesis import given
from hypothesis import strategies as st
from rest_framework import serializers
from rest_framework.test import APIClient

from exchanges.models import Venue
from exchanges.venue import ReportKind
from orders import selectors
from orders.api.fields import PRICE_LENGTH, PRICE_PATTERN, PriceField
from orders.models import Order, OrderEvent
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory, report
from quiktrade.database.statements import fetch

ORDERS = "/api/v1/orders"
LIMIT = {"type": "limit", "side": "buy", "instrument": "US0378331005", "limit_price": "187.50", "quantity": 100}
MARKET = {"type": "market", "side": "sell", "instrument": "DE0007164600", "quantity": 25}


def without(order: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in order.items() if name not in names}


def post_bytes(client: APIClient, body: bytes, media_type: str = "application/json", path: str = ORDERS) -> Any:
    return client.generic("POST", path, body, content_type=media_type)  # type: ignore[arg-type]


def errors(response: Any) -> set[tuple[str, str]]:
    """(where, code) of each error; checks on the way that it is a problem."""
    problem = response.json()
    assert response["Content-Type"] == "application/problem+json"
    assert problem["status"] == response.status_code
    assert problem["type"].startswith("urn:quiktrade:problem:")
    return {
        (error.get("pointer") or error.get("parameter") or error["header"], error["code"])
        for error in problem.get("errors", [])
    }


def test_a_limit_order_is_stored_and_answered_with_its_address(alice: APIClient) -> None:
    response = alice.post(ORDERS, LIMIT, headers={"Host": "localhost"})

    assert response.status_code == 201
    body = response.json()
    assert response["Location"] == f"http://localhost/api/v1/orders/{body['id']}"
    assert without(body, "id", "client_order_id", "created_at", "updated_at", "next_attempt_at") == {
        "status": "pending",
        "version": 1,
        "venue": "XSIM",
        "instrument": "US0378331005",
        "side": "buy",
        "type": "limit",
        "quantity": 100,
        "limit_price": "187.5",
        "stop_price": None,
        "time_in_force": "day",
        "expires_at": None,
        "place_by": None,
        "filled_quantity": 0,
        "leaves_quantity": 100,
        "average_price": None,
        "venue_order_id": "",
        "attempts": 0,
        "last_error": "",
        "placed_at": None,
        "cancel_requested_at": None,
        "open_request": None,
    }
    assert body["client_order_id"] == body["id"]
    assert alice.get(response["Location"]).json() == body
    order = Order.objects.get(pk=body["id"])
    (event,) = selectors.history(order.pk)
    assert (event.sequence, event.event, event.actor, event.to_status) == (1, "accepted", "client:alice", "pending")


@pytest.mark.parametrize(
    "order",
    [
        MARKET,
        LIMIT | {"limit_price": 187.5},
        LIMIT | {"limit_price": 187},
        LIMIT | {"limit_price": "0.00000001"},
        LIMIT | {"limit_price": "9999999999.99999999"},
        LIMIT | {"limit_price": "10.250000000"},
        LIMIT | {"limit_price": "000000010.25"},
        LIMIT | {"quantity": 10**12},
        MARKET | {"type": "stop", "stop_price": "10"},
        LIMIT | {"type": "stop_limit", "stop_price": "10"},
        *(LIMIT | {"time_in_force": time_in_force} for time_in_force in ("day", "gtc", "ioc", "fok")),
        LIMIT | {"time_in_force": "gtd", "expires_at": "2100-01-31T21:00:00+02:00"},
        LIMIT | {"venue": "XSIM"},
        LIMIT | {"place_by": "2100-01-31T21:00:00Z"},
        LIMIT | {"client_order_id": "Az09._:-" * 8},
    ],
)
def test_every_kind_of_order_is_accepted(alice: APIClient, order: dict[str, Any]) -> None:
    response = alice.post(ORDERS, order)
    assert response.status_code == 201, response.content


@pytest.mark.parametrize("price", ["10.25", "10.250000000", "10.25" + "0" * 28, "00010.25"])
def test_zeros_at_either_end_do_not_change_a_price(alice: APIClient, price: str) -> None:
    order = LIMIT | {"limit_price": price, "client_order_id": "a"}
    assert alice.post(ORDERS, order).json()["limit_price"] == "10.25"
    number = post_bytes(alice, (RAW_LIMIT % price.lstrip("0")).encode())
    assert number.json()["limit_price"] == "10.25"
    assert alice.post(ORDERS, order | {"limit_price": 10.25}).status_code == 200


OPTIONAL = ("limit_price", "stop_price", "time_in_force", "expires_at", "place_by", "venue", "client_order_id")


def test_null_for_an_optional_field_is_the_same_as_leaving_it_out(alice: APIClient) -> None:
    nulls = MARKET | dict.fromkeys(OPTIONAL)
    header = {"Idempotency-Key": "desk-1"}
    first = alice.post(ORDERS, nulls, headers=header)
    again = alice.post(ORDERS, MARKET, headers=header)

    assert (first.status_code, again.status_code) == (201, 200)
    assert (first.json()["time_in_force"], first.json()["venue"]) == ("day", "XSIM")
    assert alice.post(ORDERS, nulls).json()["client_order_id"] != "desk-1"
    (stored,) = alice.post(f"{ORDERS}/batch", {"orders": [nulls | {"client_order_id": "desk-1"}]}).json()["results"]
    assert stored["status"] == 200


# Times as RFC 3339 writes them; each with what is stored.
TIMES = [
    ("2100-01-31T21:00:00Z", "2100-01-31T21:00:00Z"),
    ("2100-01-31t21:00:00z", "2100-01-31T21:00:00Z"),
    ("2100-01-31T21:00:00-00:00", "2100-01-31T21:00:00Z"),
    ("2100-01-31T21:00:00+02:00", "2100-01-31T19:00:00Z"),
    ("2100-01-31T21:00:00+23:59", "2100-01-30T21:01:00Z"),
    ("2100-01-31T21:00:00-23:59", "2100-02-01T20:59:00Z"),
    ("2100-01-31T21:00:00.5Z", "2100-01-31T21:00:00.500000Z"),
    ("2100-01-31T21:00:00.123456789Z", "2100-01-31T21:00:00.123456Z"),
    ("2096-02-29T00:00:00Z", "2096-02-29T00:00:00Z"),
    ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
]


@pytest.mark.parametrize("field", ["expires_at", "place_by"])
@pytest.mark.parametrize(("time", "stored"), TIMES)
def test_a_time_is_taken_as_rfc_3339_writes_it(alice: APIClient, field: str, time: str, stored: str) -> None:
    order = LIMIT | {field: time, "time_in_force": "gtd" if field == "expires_at" else "day"}
    assert alice.post(ORDERS, order).json()[field] == stored


# What ISO 8601, Python or a person takes for a time, and RFC 3339 does not; each with the code.
NO_TIMES = [
    ("2100-01-31T21:00:00+02:60", "invalid"),
    ("2100-01-31T21:00:00+24:00", "invalid"),
    ("2100-01-31T21:00:00+02", "invalid"),
    ("2100-01-31T21:00:00+0200", "invalid"),
    ("2100-01-31T21:00:00+2:00", "invalid"),
    ("2100-01-31T21:00:00+02:00:30", "invalid"),
    ("2100-01-31T21:00:00\u221202:00", "invalid"),  # a minus sign that is no hyphen
    ("2100-01-31T21:00:00", "invalid"),
    ("2100-01-31T21:00:00 Z", "invalid"),
    ("2100-01-31 21:00:00Z", "invalid"),
    ("2100-01-31", "invalid"),
    ("2100-01-31T21:00Z", "invalid"),
    ("2100-01-31T21Z", "invalid"),
    ("2100-01-31T9:00:00Z", "invalid"),
    ("2100-1-31T09:00:00Z", "invalid"),
    ("20100-01-31T09:00:00Z", "invalid"),
    ("21000131T210000Z", "invalid"),
    ("2100-W04-7T21:00:00Z", "invalid"),
    ("2100-031T21:00:00Z", "invalid"),
    ("2100-01-31T21:00:00,5Z", "invalid"),
    ("2100-01-31T21:00:00.Z", "invalid"),
    ("\u0662\u0661\u0660\u0660-01-31T21:00:00Z", "invalid"),  # Arabic digits
    ("2100-01-31T24:00:00Z", "invalid"),
    ("2100-01-31T21:60:00Z", "invalid"),
    ("2100-12-31T23:59:60Z", "invalid"),
    ("2100-02-29T21:00:00Z", "invalid"),
    ("2100-13-01T21:00:00Z", "invalid"),
    ("0000-01-01T00:00:00Z", "invalid"),
    (" 2100-01-31T21:00:00Z", "invalid"),
    ("2100-01-31T21:00:00Z\n", "invalid"),
    ("0001-01-01T00:00:00+00:01", "overflow"),
    ("9999-12-31T23:59:59-00:01", "overflow"),
    (4102444800, "invalid"),
    ([], "invalid"),
]


@pytest.mark.parametrize(("time", "code"), NO_TIMES)
def test_a_time_that_is_not_rfc_3339_is_refused(alice: APIClient, time: Any, code: str) -> None:
    order = LIMIT | {"time_in_force": "gtd", "expires_at": time, "place_by": time}
    response = alice.post(ORDERS, order)
    assert (response.status_code, errors(response)) == (400, {("#/expires_at", code), ("#/place_by", code)})
    query = alice.get(ORDERS, {"created_from": str(time), "created_before": str(time)})
    assert (query.status_code, errors(query)) == (400, {("created_from", code), ("created_before", code)})


@given(st.from_regex(re.compile(r"0{0,20}[0-9]{1,12}(\.[0-9]{1,10}0{0,21})?", re.ASCII), fullmatch=True))
def test_the_documented_pattern_of_a_price_is_what_is_taken(price: str) -> None:
    try:
        PriceField().run_validation(price)
        taken = True
    except serializers.ValidationError:
        taken = False
    assert taken == bool(re.search(PRICE_PATTERN, price) and len(price) <= PRICE_LENGTH)


# Everything that a confused, careless or hostile client sends; each with where the answer points, and its code.
REFUSED: list[tuple[Any, set[tuple[str, str]]]] = [
    ([], {("#", "invalid")}),
    ("text", {("#", "invalid")}),
    (7, {("#", "invalid")}),
    ({}, {(f"#/{name}", "required") for name in ("type", "side", "instrument", "quantity")}),
    (LIMIT | {"limit_price": -3}, {("#/limit_price", "not_positive")}),
    (LIMIT | {"limit_price": 0}, {("#/limit_price", "not_positive")}),
    (LIMIT | {"limit_price": "0.00"}, {("#/limit_price", "not_positive")}),
    (LIMIT | {"limit_price": "-3"}, {("#/limit_price", "invalid")}),
    (LIMIT | {"limit_price": "1e3"}, {("#/limit_price", "invalid")}),
    (LIMIT | {"limit_price": " 5"}, {("#/limit_price", "invalid")}),
    (LIMIT | {"limit_price": "٣"}, {("#/limit_price", "invalid")}),
    (LIMIT | {"limit_price": "NaN"}, {("#/limit_price", "invalid")}),
    (LIMIT | {"limit_price": ""}, {("#/limit_price", "invalid")}),
    (LIMIT | {"limit_price": True}, {("#/limit_price", "invalid")}),
    (LIMIT | {"limit_price": [1]}, {("#/limit_price", "invalid")}),
    (LIMIT | {"limit_price": None}, {("#/limit_price", "required")}),
    (LIMIT | {"limit_price": "1.000000001"}, {("#/limit_price", "max_decimal_places")}),
    (LIMIT | {"limit_price": 12345678901}, {("#/limit_price", "max_whole_digits")}),
    (LIMIT | {"limit_price": 10**30}, {("#/limit_price", "max_digits")}),
    (without(LIMIT, "limit_price"), {("#/limit_price", "required")}),
    (MARKET | {"limit_price": "5"}, {("#/limit_price", "forbidden")}),
    (LIMIT | {"stop_price": "5"}, {("#/stop_price", "forbidden")}),
    (MARKET | {"type": "stop"}, {("#/stop_price", "required")}),
    (
        MARKET | {"type": "stop_limit"},
        {("#/stop_price", "required"), ("#/limit_price", "required")},
    ),
    (LIMIT | {"quantity": 0}, {("#/quantity", "min_value")}),
    (LIMIT | {"quantity": -1}, {("#/quantity", "min_value")}),
    (LIMIT | {"quantity": 10**12 + 1}, {("#/quantity", "max_value")}),
    (LIMIT | {"quantity": 10**30}, {("#/quantity", "max_value")}),
    (LIMIT | {"quantity": "5"}, {("#/quantity", "invalid")}),
    (LIMIT | {"quantity": 5.0}, {("#/quantity", "invalid")}),
    (LIMIT | {"quantity": 1.5}, {("#/quantity", "invalid")}),
    (LIMIT | {"quantity": True}, {("#/quantity", "invalid")}),
    (LIMIT | {"quantity": None}, {("#/quantity", "null")}),
    (LIMIT | {"side": "hold"}, {("#/side", "invalid_choice")}),
    (LIMIT | {"side": "BUY"}, {("#/side", "invalid_choice")}),
    (LIMIT | {"side": {}}, {("#/side", "invalid_choice")}),
    (LIMIT | {"side": None}, {("#/side", "null")}),
    (LIMIT | {"type": "iceberg"}, {("#/type", "invalid_choice")}),
    (LIMIT | {"instrument": "US0378331006"}, {("#/instrument", "invalid_isin")}),
    (LIMIT | {"instrument": "us0378331005"}, {("#/instrument", "invalid_isin")}),
    (LIMIT | {"instrument": "AAPL"}, {("#/instrument", "invalid_isin")}),
    (LIMIT | {"instrument": "US0378331005 "}, {("#/instrument", "invalid_isin")}),
    (LIMIT | {"instrument": 123456789012}, {("#/instrument", "invalid")}),
    (LIMIT | {"instrument": "\x00"}, {("#/instrument", "null_characters_not_allowed")}),
    (LIMIT | {"time_in_force": "forever"}, {("#/time_in_force", "invalid_choice")}),
    (LIMIT | {"time_in_force": "gtd"}, {("#/expires_at", "required")}),
    (LIMIT | {"expires_at": "2100-01-01T00:00:00Z"}, {("#/expires_at", "forbidden")}),
    (LIMIT | {"time_in_force": "gtd", "expires_at": "2001-01-01T00:00:00Z"}, {("#/expires_at", "past")}),
    (LIMIT | {"time_in_force": "gtd", "expires_at": "2100-01-01T00:00:00"}, {("#/expires_at", "invalid")}),
    (LIMIT | {"time_in_force": "gtd", "expires_at": "2100-02-30T00:00:00Z"}, {("#/expires_at", "invalid")}),
    (LIMIT | {"time_in_force": "gtd", "expires_at": "9999-12-31T23:59:59-12:00"}, {("#/expires_at", "overflow")}),
    (LIMIT | {"time_in_force": "gtd", "expires_at": 4102444800}, {("#/expires_at", "invalid")}),
    (LIMIT | {"place_by": "2001-01-01T00:00:00Z"}, {("#/place_by", "past")}),
    (LIMIT | {"place_by": "tomorrow"}, {("#/place_by", "invalid")}),
    (LIMIT | {"venue": "XNYS"}, {("#/venue", "unknown_venue")}),
    (LIMIT | {"venue": ""}, {("#/venue", "blank")}),
    (LIMIT | {"client_order_id": ""}, {("#/client_order_id", "blank")}),
    (LIMIT | {"client_order_id": "x" * 65}, {("#/client_order_id", "invalid")}),
    (LIMIT | {"client_order_id": "a b"}, {("#/client_order_id", "invalid")}),
    (LIMIT | {"client_order_id": "a\n"}, {("#/client_order_id", "invalid")}),
    (LIMIT | {"client_order_id": 7}, {("#/client_order_id", "invalid")}),
    (LIMIT | {"qantity": 1}, {("#/qantity", "unknown")}),
    (LIMIT | {"a/b~c": 1}, {("#/a~1b~0c", "unknown")}),
    (LIMIT | {"id": "x", "status": "placed"}, {("#/id", "unknown"), ("#/status", "unknown")}),
    (LIMIT | {"message": "x", "code": "y"}, {("#/message", "unknown"), ("#/code", "unknown")}),
]


@pytest.mark.parametrize(("body", "expected"), REFUSED, ids=[repr(body)[:60] for body, _ in REFUSED])
def test_a_wrong_order_is_refused_naming_the_field(alice: APIClient, body: Any, expected: set[tuple[str, str]]) -> None:
    response = alice.post(ORDERS, body)

    assert response.status_code == 400, response.content
    assert errors(response) == expected
    assert all(error["detail"] for error in response.json()["errors"])
    assert not Order.objects.exists()


SURROGATE = ("#/instrument", "surrogate_characters_not_allowed")
RAW_LIMIT = '{"type": "limit", "side": "buy", "instrument": "US0378331005", "limit_price": %s, "quantity": 1}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"null", ("#", "null")),
        (b"{", ("#", "malformed")),
        (b"quantity=5", ("#", "malformed")),
        (b"\xff\xfe", ("#", "malformed")),
        (b"[" * 60_000, ("#", "malformed")),
        ((RAW_LIMIT % "NaN").encode(), ("#", "malformed")),
        ((RAW_LIMIT % "1e9999999999999999999").encode(), ("#", "malformed")),
        ((RAW_LIMIT % "-Infinity").encode(), ("#", "malformed")),
        ((RAW_LIMIT % '1, "limit_price": 2').encode(), ("#", "malformed")),
        ((RAW_LIMIT % ("1" * 5000)).encode(), ("#", "malformed")),
        (b'{"instrument": "\\ud800", "type": "market", "side": "buy", "quantity": 1}', SURROGATE),
        ((RAW_LIMIT % "1e400").encode(), ("#/limit_price", "max_digits")),
        ((RAW_LIMIT % "1e999999999999").encode(), ("#/limit_price", "max_digits")),
        ((RAW_LIMIT % "1e-400").encode(), ("#/limit_price", "max_digits")),
        ((RAW_LIMIT % "0.1234567891").encode(), ("#/limit_price", "max_decimal_places")),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_body_that_json_or_numbers_cannot_hold_is_refused(
    alice: APIClient, body: bytes, expected: tuple[str, str]
) -> None:
    response = post_bytes(alice, body)

    assert response.status_code == 400, response.content
    assert errors(response) == {expected}
    assert not Order.objects.exists()


def test_a_number_is_stored_exactly_as_it_was_written(alice: APIClient) -> None:
    body = (RAW_LIMIT % "0.1").encode()
    response = post_bytes(alice, body)
    assert response.json()["limit_price"] == "0.1"
    assert str(Order.objects.get().limit_price) == "0.10000000"


def test_a_body_that_is_too_large_is_refused(alice: APIClient) -> None:
    response = post_bytes(alice, b" " * 5_000_000)
    assert response.status_code == 413
    assert response.json()["type"] == "urn:quiktrade:problem:payload-too-large"


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_another_media_type_is_refused(alice: APIClient, media_type: str) -> None:
    response = post_bytes(alice, b"x", media_type)
    assert response.status_code == 415
    assert response.json()["type"] == "urn:quiktrade:problem:unsupported-media-type"


def test_one_setting_admits_a_venues_own_codes(alice: APIClient, settings: Any) -> None:
    settings.ORDER_ISIN_CHECK = False
    assert alice.post(ORDERS, LIMIT | {"instrument": "BTCUSD000001"}).status_code == 201
    response = alice.post(ORDERS, LIMIT | {"instrument": "btcusd000001"})
    assert errors(response) == {("#/instrument", "invalid_instrument")}


def test_a_type_that_the_venue_does_not_take_is_refused(alice: APIClient) -> None:
    from exchanges.adapters import simulator

    with patch.object(simulator, "ORDER_TYPES", frozenset({"limit"})):
        response = alice.post(ORDERS, MARKET)
    assert errors(response) == {("#/type", "not_supported")}


def test_a_disabled_venue_takes_no_orders_and_a_halted_one_does(alice: APIClient, venue: Venue) -> None:
    VenueFactory(code="XOFF", enabled=False)
    VenueFactory(code="XHLT", halted_at="2026-01-01T00:00:00Z", halted_by="operator:olga", halt_reason="drill")

    assert errors(alice.post(ORDERS, LIMIT | {"venue": "XOFF"})) == {("#/venue", "unknown_venue")}
    assert alice.post(ORDERS, LIMIT | {"venue": "XHLT"}).status_code == 201


def test_without_a_default_a_venue_must_be_named(alice: APIClient) -> None:
    Venue.objects.update(is_default=False)
    response = alice.post(ORDERS, LIMIT)
    assert errors(response) == {("#/venue", "required")}
    assert "XSIM" in response.json()["errors"][0]["detail"]


# ---- Idempotency ----


def test_the_same_order_again_is_answered_with_the_stored_one(alice: APIClient) -> None:
    order = LIMIT | {"client_order_id": "desk-1"}
    first = alice.post(ORDERS, order)

    again = alice.post(ORDERS, order | {"limit_price": 187.5, "venue": "XSIM", "time_in_force": "day"})

    assert (first.status_code, again.status_code) == (201, 200)
    assert again["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first
    assert again.json() == first.json()
    assert Order.objects.count() == OrderEvent.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"quantity": 101},
        {"limit_price": "187.51"},
        {"side": "sell"},
        {"instrument": "DE0007164600"},
        {"time_in_force": "gtc"},
        {"venue": "XOTH"},
    ],
)
def test_another_order_under_the_same_id_is_a_conflict(alice: APIClient, change: dict[str, Any]) -> None:
    VenueFactory(code="XOTH")
    order = LIMIT | {"client_order_id": "desk-1"}
    first = alice.post(ORDERS, order)

    response = alice.post(ORDERS, order | change)

    assert response.status_code == 409
    assert response.json()["type"] == "urn:quiktrade:problem:client-order-id-taken"
    assert response.json()["order_id"] == first.json()["id"]
    assert Order.objects.count() == 1


@pytest.mark.parametrize("header", ["desk-1", '"desk-1"'])
def test_the_header_means_the_same_as_the_field(alice: APIClient, header: str) -> None:
    first = alice.post(ORDERS, LIMIT, headers={"Idempotency-Key": header})
    again = alice.post(ORDERS, LIMIT | {"client_order_id": "desk-1"})
    both = alice.post(ORDERS, LIMIT | {"client_order_id": "desk-1"}, headers={"Idempotency-Key": header})

    assert first.json()["client_order_id"] == "desk-1"
    assert (again.status_code, both.status_code) == (200, 200)


def test_a_header_and_a_field_that_differ_are_refused(alice: APIClient) -> None:
    response = alice.post(ORDERS, LIMIT | {"client_order_id": "a"}, headers={"Idempotency-Key": "b"})
    assert response.status_code == 400
    assert errors(response) == {("#/client_order_id", "differs")}


@pytest.mark.parametrize("header", ["", "a b", "x" * 65, "é"])
def test_a_header_that_is_no_id_is_refused(alice: APIClient, header: str) -> None:
    response = alice.post(ORDERS, LIMIT, headers={"Idempotency-Key": header})
    assert response.status_code == 400
    assert {where for where, _ in errors(response)} == {"Idempotency-Key"}


def test_an_order_is_found_again_after_its_time_has_passed_and_its_venue_closed(alice: APIClient) -> None:
    order = LIMIT | {"client_order_id": "a", "place_by": "2100-01-01T00:00:00Z", "venue": "XSIM"}
    stored = alice.post(ORDERS, order).json()
    Order.objects.update(place_by="2020-01-01T00:00:00Z")
    Venue.objects.update(enabled=False)

    again = alice.post(ORDERS, order | {"place_by": "2020-01-01T00:00:00Z"})

    assert (again.status_code, again.json()["id"]) == (200, stored["id"])
    assert alice.post(ORDERS, order | {"client_order_id": "b"}).status_code == 400


def test_two_clients_may_use_the_same_id(alice: APIClient, bob: APIClient) -> None:
    order = LIMIT | {"client_order_id": "order-1"}
    assert alice.post(ORDERS, order).status_code == 201
    assert bob.post(ORDERS, order).status_code == 201


def test_a_repeat_finds_no_order_of_another_client(alice: APIClient, bob: APIClient, venue: Venue) -> None:
    """Not even if the request itself is refused by now, and the other client's order would fit."""
    order = LIMIT | {"client_order_id": "order-1", "venue": "XSIM"}
    hers = alice.post(ORDERS, order).json()
    assert bob.post(ORDERS, order | {"quantity": 7}).status_code == 201

    again = alice.post(ORDERS, order)
    assert (again.status_code, again.json()["id"]) == (200, hers["id"])

    alice.post(ORDERS, order | {"client_order_id": "only-alices"})
    Venue.objects.update(enabled=False)
    assert bob.post(ORDERS, order | {"client_order_id": "only-alices"}).status_code == 400


def test_the_statement_that_looks_an_order_up_yields_none_of_another_client(venue: Venue) -> None:
    order, stranger = OrderFactory(), UserFactory()
    ids = {"ids": [order.pk], "owners": [stranger.pk]}
    assert fetch(selectors._LOOK_UP, ids) == []
    assert len(fetch(selectors._LOOK_UP, ids | {"owners": [order.owner_id]})) == 1


def test_a_repeat_with_another_place_by_is_a_conflict(alice: APIClient) -> None:
    order = LIMIT | {"client_order_id": "a", "place_by": "2100-01-01T00:00:00Z"}
    assert alice.post(ORDERS, order).status_code == 201
    assert alice.post(ORDERS, order | {"place_by": "2100-01-01T00:00:01Z"}).status_code == 409
    assert alice.post(ORDERS, LIMIT | {"client_order_id": "a"}).status_code == 409


def test_a_repeat_is_compared_with_what_was_submitted_and_not_with_what_the_venue_made_of_it(alice: APIClient) -> None:
    more = {
        "type": "stop_limit",
        "stop_price": "9.5",
        "time_in_force": "gtd",
        "expires_at": "2100-01-01T12:00:00+02:00",
    }
    order = LIMIT | more | {"client_order_id": "a"}
    stored = alice.post(ORDERS, order).json()
    report(UUID(stored["id"]), "XSIM", ReportKind.EXECUTED, quantity=1, price=Decimal(10))
    report(UUID(stored["id"]), "XSIM", ReportKind.RESTATED, quantity=2)

    again = alice.post(ORDERS, order)

    assert (again.status_code, again.json()["quantity"]) == (200, 2)
    assert alice.post(ORDERS, order | {"quantity": 2}).status_code == 409


# ---- When something of ours fails ----


def test_an_unexpected_error_is_a_500_and_nothing_is_half_stored(alice: APIClient) -> None:
    alice.raise_request_exception = False
    with patch("orders.together.lifecycle.accept", side_effect=RuntimeError("boom")):
        response = alice.post(ORDERS, LIMIT)

    assert response.status_code == 500
    problem = response.json()
    assert problem["message"] == "Internal server error while placing the order"
    assert problem["type"] == "urn:quiktrade:problem:internal-error"
    assert problem["incident"]
    assert "boom" not in response.content.decode()
    assert not Order.objects.exists()
    assert not OrderEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_an_event_that_cannot_be_written_takes_its_order_with_it(alice: APIClient) -> None:
    alice.raise_request_exception = False
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE orders_orderevent ADD CONSTRAINT nothing_goes CHECK (false) NOT VALID")
    try:
        response = alice.post(ORDERS, LIMIT)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE orders_orderevent DROP CONSTRAINT nothing_goes")

    assert response.status_code == 500
    assert response.json()["message"] == "Internal server error while placing the order"
    assert not Order.objects.exists()


def test_a_database_that_is_away_is_a_503_that_says_when_to_try_again(alice: APIClient) -> None:
    with patch("orders.together.lifecycle.accept", side_effect=OperationalError("server closed the connection")):
        response = alice.post(ORDERS, LIMIT)

    assert response.status_code == 503
    assert response["Retry-After"] == "2"
    assert "server closed" not in response.content.decode()
