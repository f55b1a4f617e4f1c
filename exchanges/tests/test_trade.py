"""The simulated exchange as a market: what its member's orders come to, and what it remembers of that."""

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exchanges.simulator.exchange import Exchange, Rules
from exchanges.simulator.journal import open_journal
from exchanges.simulator.market import Market, to_price, to_steps
from exchanges.simulator.validation import CancelRequest, Refusal, read_order, read_replace
from exchanges.tests.running import ORDER, RunningExchange, call, running_exchange

INSTRUMENTS = iter(f"XS{number:010}" for number in range(1_000))


@pytest.fixture
def instrument() -> str:
    """One that no other test of this module trades in."""
    return next(INSTRUMENTS)


def reports(exchange: RunningExchange, instrument: str) -> list[dict[str, Any]]:
    return [report for report in all_reports(exchange) if report["instrument"] == instrument]


def all_reports(exchange: RunningExchange) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        _, page = call(exchange.url, "GET", f"/reports?after={after}")
        found += page["reports"]
        after = page["next"]
    return found


def told(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(r["client_order_id"], r["kind"], r["cumulative_quantity"], r["leaves_quantity"]) for r in found]


def send(exchange: RunningExchange, client_order_id: str, kind: str, request_id: str, **terms: Any) -> tuple[int, Any]:
    return call(exchange.url, "POST", f"/orders/{client_order_id}/{kind}", {"request_id": request_id} | terms)


def state(exchange: RunningExchange, client_order_id: str) -> Any:
    status, content = call(exchange.url, "GET", f"/orders/{client_order_id}/state")
    assert status == 200
    return content


def place(exchange: RunningExchange, client_order_id: str, instrument: str, quantity: int, **changes: Any) -> None:
    order = {"client_order_id": client_order_id, "instrument": instrument, "quantity": quantity} | changes
    assert exchange.place(**order)[0] == 201


def test_two_orders_trade_at_the_price_of_the_one_that_was_there(exchange: RunningExchange, instrument: str) -> None:
    place(exchange, "t-bid", instrument, 100, limit_price="187.250")
    place(exchange, "t-ask", instrument, 40, side="sell", limit_price="180")
    found = reports(exchange, instrument)
    assert told(found) == [
        ("t-bid", "new", 0, 100),
        ("t-ask", "new", 0, 40),
        ("t-bid", "fill", 40, 60),
        ("t-ask", "fill", 40, 0),
    ]
    assert [(r["quantity"], r["price"], r["status"]) for r in found[2:]] == [
        (40, "187.25", "partially_filled"),
        (40, "187.25", "filled"),
    ]
    assert [r["sequence"] for r in all_reports(exchange)] == list(range(1, len(all_reports(exchange)) + 1))
    assert len({r["execution_id"] for r in found[2:]}) == 2
    assert {r["venue_order_id"] for r in found} == {
        exchange.find(name)[1]["venue_order_id"] for name in ("t-bid", "t-ask")
    }


def test_a_market_order_without_a_counterparty_is_canceled(exchange: RunningExchange, instrument: str) -> None:
    place(exchange, "m-alone", instrument, 5, type="market", limit_price=None)
    assert told(reports(exchange, instrument)) == [("m-alone", "new", 0, 5), ("m-alone", "canceled", 0, 0)]
    assert exchange.find("m-alone")[1]["status"] == "working", "that it was accepted is not taken back"
    assert state(exchange, "m-alone")["status"] == "canceled"


def test_a_refused_order_is_reported_as_rejected(exchange: RunningExchange, instrument: str) -> None:
    assert exchange.place(client_order_id="too-big", instrument=instrument, quantity=10_001)[0] == 422
    (report,) = reports(exchange, instrument)
    assert (report["kind"], report["status"], report["code"]) == ("rejected", "rejected", "quantity_above_maximum")
    assert state(exchange, "too-big")["status"] == "rejected"


def test_a_stop_that_is_reached_is_restated_and_then_trades(exchange: RunningExchange, instrument: str) -> None:
    place(exchange, "s-stop", instrument, 5, type="stop", limit_price=None, stop_price="190")
    place(exchange, "s-ask", instrument, 10, side="sell", limit_price="191")
    place(exchange, "s-bid", instrument, 1, limit_price="191")
    found = reports(exchange, instrument)
    assert told(found)[5:] == [("s-stop", "restated", 0, 5), ("s-ask", "fill", 6, 4), ("s-stop", "fill", 5, 0)]
    assert found[5]["code"] == "triggered"


def test_a_cancel_ends_the_order_and_is_answered_alike_when_repeated(
    exchange: RunningExchange, instrument: str
) -> None:
    place(exchange, "c-1", instrument, 5)
    first = send(exchange, "c-1", "cancel", "c-1-cancel")
    assert (first[0], first[1]["status"], first[1]["leaves_quantity"]) == (200, "canceled", 0)
    assert send(exchange, "c-1", "cancel", "c-1-cancel") == first
    found = reports(exchange, instrument)
    assert told(found) == [("c-1", "new", 0, 5), ("c-1", "canceled", 0, 0)]
    assert found[-1]["request_id"] == "c-1-cancel"


def test_a_cancel_that_comes_too_late_is_refused_and_stays_refused(exchange: RunningExchange, instrument: str) -> None:
    place(exchange, "l-1", instrument, 5)
    place(exchange, "l-2", instrument, 5, side="sell")
    for _ in range(2):
        status, content = send(exchange, "l-1", "cancel", "l-1-cancel")
        assert (status, content["code"]) == (409, "too_late")
    last = reports(exchange, instrument)[-1]
    assert (last["kind"], last["status"], last["request_id"]) == ("cancel_refused", "filled", "l-1-cancel")
    assert len(reports(exchange, instrument)) == 5
    assert state(exchange, "l-1")["cumulative_quantity"] == 5
    assert "code" not in state(exchange, "l-1")


def test_a_request_id_means_one_request(exchange: RunningExchange, instrument: str) -> None:
    place(exchange, "i-1", instrument, 5)
    assert send(exchange, "i-1", "replace", "i-id", quantity=4)[0] == 200
    for kind, terms in (("replace", {"quantity": 3}), ("cancel", {})):
        status, content = send(exchange, "i-1", kind, "i-id", **terms)
        assert (status, content["code"]) == (409, "duplicate_request_id")
    assert state(exchange, "i-1")["order_quantity"] == 4


def test_an_unknown_order_cannot_be_canceled_and_the_request_id_stays_free(
    exchange: RunningExchange, instrument: str
) -> None:
    status, content = send(exchange, "u-1", "cancel", "u-cancel")
    assert (status, content["code"]) == (404, "unknown_order")
    place(exchange, "u-1", instrument, 5)
    assert send(exchange, "u-1", "cancel", "u-cancel")[0] == 200


def test_a_replaced_order_has_the_new_terms_and_those_it_had(exchange: RunningExchange, instrument: str) -> None:
    place(exchange, "r-1", instrument, 100, limit_price="10")
    place(exchange, "r-2", instrument, 30, side="sell", limit_price="10")
    status, content = send(exchange, "r-1", "replace", "r-1-a", quantity=80, limit_price="11.5")
    assert (status, content["status"], content["leaves_quantity"]) == (200, "partially_filled", 50)
    assert send(exchange, "r-1", "replace", "r-1-b", time_in_force="gtd", expires_at="2099-01-01T00:00:00Z")[0] == 200
    now = state(exchange, "r-1")
    assert [now[name] for name in ("order_quantity", "limit_price", "time_in_force")] == [80, "11.5", "gtd"]
    assert send(exchange, "r-1", "replace", "r-1-c", quantity=20)[1]["status"] == "filled"
    assert state(exchange, "r-1")["order_quantity"] == 30, "not below what is filled"


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({}, "invalid_field"),
        ({"quantity": 0}, "invalid_field"),
        ({"quantity": 10_001}, "quantity_above_maximum"),
        ({"stop_price": "5"}, "invalid_field"),
        ({"limit_price": 5}, "invalid_field"),
        ({"time_in_force": "ioc"}, "invalid_field"),
        ({"time_in_force": "gtd"}, "invalid_field"),
        ({"expires_at": "2099-01-01T00:00:00Z"}, "invalid_field"),
        ({"side": "sell"}, "invalid_field"),
    ],
)
def test_a_replacement_that_does_not_fit_changes_nothing(
    exchange: RunningExchange, instrument: str, terms: dict[str, Any], code: str
) -> None:
    name = f"f-{instrument}"
    place(exchange, name, instrument, 5)
    before = state(exchange, name)
    status, content = send(exchange, name, "replace", f"{name}-r", **terms)
    assert (status, content["code"]) == (422, code)
    assert state(exchange, name) == before


def test_the_executions_are_to_be_had_after_a_number(exchange: RunningExchange, instrument: str) -> None:
    before = call(exchange.url, "GET", "/executions")[1]["last"]
    place(exchange, "e-1", instrument, 5)
    place(exchange, "e-2", instrument, 5, side="sell")
    _, page = call(exchange.url, "GET", f"/executions?after={before}&limit=2")
    assert (page["reports"], page["next"]) == ([], before + 2)
    _, page = call(exchange.url, "GET", f"/executions?after={before + 2}")
    assert [(r["client_order_id"], r["quantity"]) for r in page["reports"]] == [("e-1", 5), ("e-2", 5)]
    assert (page["next"], page["last"]) == (None, before + 4)


def test_the_working_orders_are_listed_in_the_order_of_arrival(exchange: RunningExchange, instrument: str) -> None:
    start = exchange.stats()["orders"]
    for number in range(3):
        place(exchange, f"o-{number}", instrument, 5)
    send(exchange, "o-1", "cancel", "o-1-cancel")
    _, page = call(exchange.url, "GET", f"/orders?open=1&after={start}&limit=1")
    assert [order["client_order_id"] for order in page["orders"]] == ["o-0"]
    _, page = call(exchange.url, "GET", f"/orders?open=1&after={page['next']}")
    assert [(order["client_order_id"], order["leaves_quantity"]) for order in page["orders"]] == [("o-2", 5)]


def test_a_date_that_comes_ends_an_order_though_nobody_asks(exchange: RunningExchange, instrument: str) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    place(exchange, "gtd-1", instrument, 5, time_in_force="gtd", expires_at=soon)
    while len(found := reports(exchange, instrument)) < 2:
        pass
    assert told(found)[1] == ("gtd-1", "expired", 0, 0)


def test_faults_of_what_is_placed_strike_a_cancel_too(exchange: RunningExchange, instrument: str) -> None:
    place(exchange, "q-1", instrument, 5)
    exchange.set_faults(http_5xx={"count": 1, "recorded": True, "on": "place"})
    assert send(exchange, "q-1", "cancel", "q-1-cancel")[0] == 503
    assert state(exchange, "q-1")["status"] == "canceled"
    assert send(exchange, "q-1", "cancel", "q-1-cancel")[0] == 200


def test_an_ignored_cancel_is_answered_and_nothing_comes_of_it(exchange: RunningExchange, instrument: str) -> None:
    place(exchange, "g-1", instrument, 5)
    exchange.set_faults(ignore_cancel={"count": 1})
    assert send(exchange, "g-1", "cancel", "g-1-cancel")[0] == 202
    assert state(exchange, "g-1")["status"] == "new"
    assert send(exchange, "g-1", "cancel", "g-1-cancel")[0] == 200


def test_sigkill_loses_no_report_and_nobodys_place(tmp_path: Path, instrument: str) -> None:
    with running_exchange(tmp_path) as exchange:
        for name in ("first", "second", "third"):
            place(exchange, name, instrument, 10, limit_price="10")
        assert send(exchange, "first", "replace", "more", quantity=11)[0] == 200  # so it is last now
        place(exchange, "taker", instrument, 4, side="sell", limit_price="10")
        refused = send(exchange, "taker", "cancel", "too-late")
        before = all_reports(exchange)
        exchange.kill()
        exchange.start()
        assert all_reports(exchange) == before
        assert send(exchange, "taker", "cancel", "too-late") == refused
        place(exchange, "rest", instrument, 25, side="sell", limit_price="10")
        fills = [r for r in all_reports(exchange)[len(before) :] if r["kind"] == "fill"]
        assert [(r["client_order_id"], r["quantity"]) for r in fills[::2]] == [
            ("second", 6),
            ("third", 10),
            ("first", 9),
        ]


@pytest.mark.exhaustive
def test_orders_of_a_time_without_a_market_get_into_it(tmp_path: Path, instrument: str) -> None:
    with running_exchange(tmp_path, "--no-matching") as exchange:
        place(exchange, "old", instrument, 10)
        place(exchange, "old-too", instrument, 4, side="sell")
        status, content = send(exchange, "old", "cancel", "c")
        assert (status, content["code"]) == (422, "no_market")
        assert all_reports(exchange) == []
        exchange.stop()
    with running_exchange(tmp_path) as exchange:
        assert told(all_reports(exchange))[2:] == [("old", "fill", 4, 6), ("old-too", "fill", 4, 0)]
        before = all_reports(exchange)
        exchange.stop()
        exchange.start()
        assert all_reports(exchange) == before


@contextmanager
def opened(path: Path) -> Iterator[Exchange]:
    market = Market()
    journal, ledger = open_journal(path, fsync=False, observe=market.observe)
    try:
        yield Exchange(journal, ledger, Rules(), market)
    finally:
        ledger.close()
        journal.close()


async def trade_at_random(exchange: Exchange, dice: random.Random, count: int) -> None:
    for number in range(count):
        name, other = f"o{number}", f"o{dice.randrange(max(number, 1))}"
        side = dice.choice(("buy", "sell"))
        price = str(dice.randint(85, 101) if side == "buy" else dice.randint(99, 115))
        try:
            match dice.choices(("place", "cancel", "replace", "close"), (760, 100, 137, 3))[0]:
                case "place":
                    kind = dice.choice(("limit", "limit", "market", "stop", "stop_limit"))
                    terms = {
                        "client_order_id": name,
                        "instrument": dice.choice(("XS0000000001", "XS0000000002")),
                        "side": side,
                        "type": kind,
                        "quantity": dice.randint(1, 50),
                        "limit_price": price if "limit" in kind else None,
                        "stop_price": str(dice.randint(95, 105)) if "stop" in kind else None,
                        "time_in_force": dice.choice(("day", "gtc", "gtc", "gtc", "ioc", "fok")),
                    }
                    await exchange.accept(read_order(json.dumps(ORDER | terms).encode()))
                case "cancel":
                    await exchange.cancel(other, CancelRequest(request_id=f"c{number}", valid_until=None))
                case "replace":
                    terms = {"request_id": f"r{number}", "quantity": dice.randint(1, 60), "limit_price": price}
                    await exchange.replace(other, read_replace(json.dumps(terms).encode()))
                case "close":
                    exchange.close(datetime.now(UTC))
        except Refusal:
            pass


def picture(exchange: Exchange) -> dict[str, Any]:
    """Every queue of every book, in its order."""
    assert exchange.market is not None
    return {
        instrument: (
            book.last,
            [
                [exchange.market.describe(order) for order in levels.until(None)]  # type: ignore[arg-type]
                for levels in (*book.resting.values(), *book.waiting.values())
            ],
        )
        for instrument, book in exchange.market.books.items()
    }


@pytest.mark.parametrize("seed", range(6))
def test_the_journal_restores_every_queue_as_it_was(tmp_path: Path, seed: int) -> None:
    path, dice = tmp_path / "journal.jsonl", random.Random(seed)
    with opened(path) as exchange:
        asyncio.run(trade_at_random(exchange, dice, 400))
        placed = [order.request.client_order_id for order in exchange.ledger.page(after=0, limit=400)]
        before, states = picture(exchange), [asyncio.run(exchange.state(name)) for name in placed]
        assert sum(len(queue) for _, queues in before.values() for queue in queues) > 5
    with opened(path) as exchange:
        assert picture(exchange) == before
        assert [asyncio.run(exchange.state(name)) for name in placed] == states
        found = exchange.ledger.reports.page(after=0, limit=100_000)
    check_sums(found)


def check_sums(found: list[dict[str, Any]]) -> None:
    """What each report says of its order agrees with the fills before it; and as much is bought as is sold."""
    filled: dict[str, int] = {}
    bought = {"buy": 0, "sell": 0}
    for number, report in enumerate(found, start=1):
        order = report["venue_order_id"]
        if report["kind"] == "fill":
            filled[order] = filled.get(order, 0) + report["quantity"]
            bought[report["side"]] += report["quantity"]
        assert report["sequence"] == number
        assert report["cumulative_quantity"] == filled.get(order, 0)
        assert report["leaves_quantity"] in (0, report["order_quantity"] - filled.get(order, 0))
    assert bought["buy"] == bought["sell"] > 0


@pytest.mark.parametrize(
    ("text", "steps", "back"),
    [
        ("187.25", 187_250_000_000_000_000, "187.25"),
        ("0.000000000000001", 1, "0.000000000000001"),
        ("123456789012345.123456789012345", 123456789012345123456789012345, "123456789012345.123456789012345"),
        ("007.50", 7_500_000_000_000_000, "7.5"),
    ],
)
def test_prices_are_exact(text: str, steps: int, back: str) -> None:
    assert to_steps(text) == steps
    assert to_price(steps) == back
