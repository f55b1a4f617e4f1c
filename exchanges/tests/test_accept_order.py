"""What the simulated exchange takes, refuses and shows."""

import json
from typing import Any

import pytest

from exchanges.simulator.validation import Refusal, read_order
from exchanges.tests.running import ORDER, RunningExchange, call


def body(**changes: Any) -> bytes:
    return json.dumps(ORDER | changes).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"type": "market", "limit_price": None},
        {"type": "stop", "limit_price": None, "stop_price": "0.0001"},
        {"type": "stop_limit", "stop_price": "190"},
        {"side": "sell", "time_in_force": "fok"},
        {"time_in_force": "gtd", "expires_at": "2099-12-31T20:00:00+00:00"},
        {"time_in_force": "gtd", "expires_at": "2099-12-31T20:00:00Z"},
        {"valid_until": "2099-12-31T20:00:00.123456+02:00"},
        {"quantity": 10**15},
        {"limit_price": "123456789012345.123456789012345"},
    ],
)
def test_read_order_keeps_every_field_as_it_came(changes: dict[str, Any]) -> None:
    order = read_order(body(**changes))
    assert {name: getattr(order, name) for name in ORDER} == ORDER | changes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client_order_id", None),
        ("client_order_id", ""),
        ("client_order_id", 5),
        ("client_order_id", "a" * 65),
        ("client_order_id", "a/b"),
        ("client_order_id", "größe"),
        ("client_order_id", "a\n"),
        ("instrument", "US037833100"),
        ("instrument", "us0378331005"),
        ("side", "hold"),
        ("side", None),
        ("side", ["buy"]),
        ("type", "iceberg"),
        ("type", {}),
        ("quantity", 0),
        ("quantity", -1),
        ("quantity", "5"),
        ("quantity", 5.0),
        ("quantity", True),
        ("quantity", None),
        ("quantity", 10**15 + 1),
        ("limit_price", None),
        ("limit_price", 187.25),
        ("limit_price", 187),
        ("limit_price", "-3"),
        ("limit_price", "0"),
        ("limit_price", "0.00"),
        ("limit_price", "1e5"),
        ("limit_price", "NaN"),
        ("limit_price", "1."),
        ("limit_price", "١"),
        ("stop_price", "5"),
        ("time_in_force", "someday"),
        ("expires_at", "2099-12-31T20:00:00+00:00"),
        ("valid_until", "2099-12-31T20:00:00"),
        ("valid_until", "tomorrow"),
        ("valid_until", 4102444800),
        ("unheard_of", 1),
    ],
)
def test_read_order_names_the_field_that_is_wrong(field: str, value: Any) -> None:
    with pytest.raises(Refusal, match=field) as raised:
        read_order(body(**{field: value}))
    assert (raised.value.status, raised.value.code) == (422, "invalid_field")


def test_read_order_wants_an_expiry_for_good_till_date() -> None:
    with pytest.raises(Refusal, match="expires_at"):
        read_order(body(time_in_force="gtd"))


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe{", b"[" * 90_000, b"9" * 5_000])
def test_read_order_refuses_what_is_not_an_object(raw: bytes) -> None:
    with pytest.raises(Refusal) as raised:
        read_order(raw)
    assert (raised.value.status, raised.value.code) == (400, "malformed_request")


def test_an_accepted_order_works_and_can_be_found(exchange: RunningExchange) -> None:
    status, accepted = exchange.place(client_order_id="works")
    assert status == 201
    assert (accepted["client_order_id"], accepted["status"]) == ("works", "working")
    assert exchange.find("works") == (200, accepted | {"code": "", "text": ""})


def test_a_known_identifier_is_refused_whatever_the_order(exchange: RunningExchange) -> None:
    _, first = exchange.place(client_order_id="twice")
    status, refused = exchange.place(client_order_id="twice", quantity=5)
    assert (status, refused["code"]) == (409, "duplicate_client_order_id")
    assert first["venue_order_id"] in refused["text"]


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("instrument_not_tradable", {"instrument": "US5949181045"}),
        ("quantity_above_maximum", {"quantity": 10_001}),
    ],
)
def test_an_order_against_the_rules_is_refused_and_remembered(
    exchange: RunningExchange, code: str, changes: dict[str, Any]
) -> None:
    status, refused = exchange.place(client_order_id=code, **changes)
    assert (status, refused["code"]) == (422, code)
    _, report = exchange.find(code)
    assert (report["status"], report["code"], report["text"]) == ("rejected", code, refused["text"])
    assert exchange.place(client_order_id=code)[0] == 409


def test_a_malformed_order_leaves_no_trace(exchange: RunningExchange) -> None:
    assert exchange.place(client_order_id="malformed", quantity=-1)[0] == 422
    assert exchange.find("malformed")[0] == 404


def test_an_unknown_order_is_told_from_a_wrong_path(exchange: RunningExchange) -> None:
    for client_order_id in ("nobody", "", "a%2Fb", "%FF", "gr%C3%B6%C3%9Fe"):
        status, content = exchange.find(client_order_id)
        assert (status, content["code"]) == (404, "unknown_order")
    for path in ("/", "/order/nobody", "/v1/orders/nobody"):
        status, content = call(exchange.url, "GET", path)
        assert (status, content["code"]) == (404, "no_such_path")
    assert call(exchange.url, "PUT", "/orders", {})[0] == 405
    assert call(exchange.url, "DELETE", "/orders/nobody")[0] == 404


def test_an_endless_body_is_refused(exchange: RunningExchange) -> None:
    status, content = call(exchange.url, "POST", "/orders", raw=b" " * 1_100_000)
    assert (status, content["code"]) == (413, "request_too_large")


def test_the_ledger_is_paged_in_the_order_of_arrival(exchange: RunningExchange) -> None:
    start = exchange.stats()["orders"]
    for number in range(5):
        exchange.place(client_order_id=f"paged-{number}")
    seen, after, pages = [], start, 0
    while after is not None:
        status, page = call(exchange.url, "GET", f"/orders?after={after}&limit=2")
        assert status == 200
        seen += [order["client_order_id"] for order in page["orders"]]
        after, pages = page["next"], pages + 1
    assert (seen, pages) == ([f"paged-{number}" for number in range(5)], 3)
    assert call(exchange.url, "GET", f"/orders?after={start + 5}")[1] == {"orders": [], "next": None}


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=x", "after=-1", "after=%D9%A1"])
def test_a_bad_page_is_refused(exchange: RunningExchange, query: str) -> None:
    status, content = call(exchange.url, "GET", f"/orders?{query}")
    assert (status, content["code"]) == (400, "invalid_field")


def test_both_ports_answer_for_health_and_statistics(exchange: RunningExchange) -> None:
    for url in (exchange.url, exchange.admin_url):
        assert call(url, "GET", "/health")[1]["status"] == "ok"
        statistics = call(url, "GET", "/stats")[1]
        assert statistics["orders"] == statistics["working"] + statistics["rejected"]
