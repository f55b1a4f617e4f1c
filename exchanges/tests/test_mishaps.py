"""What goes wrong with orders that have traded or ended, the end of the day, and the member that trades with ours."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest

from exchanges.simulator.options import read_options
from exchanges.simulator.process import is_between
from exchanges.tests.running import RunningExchange, call, running_exchange
from exchanges.tests.test_run_exchange import options
from exchanges.tests.test_trade import all_reports, place, reports, send, state, told

INSTRUMENTS = iter(f"XT{number:010}" for number in range(1_000))


@pytest.fixture
def instrument() -> str:
    """One that no other test of this module trades in."""
    return next(INSTRUMENTS)


@pytest.fixture(scope="module")
def with_liquidity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    with running_exchange(tmp_path_factory.mktemp("liquid"), "--liquidity", "1", "--seed", "7") as running:
        yield running


def wait_for(found: Callable[[], list[dict[str, Any]]], count: int) -> list[dict[str, Any]]:
    """The reports, once there are this many; the test's time-out ends the wait for what never comes."""
    while len(now := found()) < count:
        pass
    return now


def trade(exchange: RunningExchange, instrument: str, bid: int, ask: int) -> list[dict[str, Any]]:
    """A buy order and a sell order that trade; returns the two fills."""
    place(exchange, f"{instrument}-b", instrument, bid, limit_price="10", time_in_force="gtc")
    place(exchange, f"{instrument}-s", instrument, ask, limit_price="10", side="sell", time_in_force="gtc")
    return [report for report in reports(exchange, instrument) if report["kind"] == "fill"]


def bust(exchange: RunningExchange, execution_id: str) -> tuple[int, Any]:
    return exchange.admin("POST", "/admin/bust", {"execution_id": execution_id})


def correct(exchange: RunningExchange, execution_id: str, **terms: Any) -> tuple[int, Any]:
    return exchange.admin("POST", "/admin/correct", {"execution_id": execution_id} | terms)


def test_a_late_fill_comes_after_the_cancel(exchange: RunningExchange, instrument: str) -> None:
    exchange.set_faults(late_fill={"count": 1})
    place(exchange, f"{instrument}-b", instrument, 10)
    send(exchange, f"{instrument}-b", "cancel", f"{instrument}-c")
    late = wait_for(lambda: reports(exchange, instrument), 3)[-1]
    assert late["kind"] == "fill"
    assert (late["status"], late["leaves_quantity"]) == ("filled" if late["quantity"] == 10 else "canceled", 0)
    assert 0 < late["quantity"] == late["cumulative_quantity"] <= 10
    assert state(exchange, f"{instrument}-b")["cumulative_quantity"] == late["quantity"]


def test_what_is_busted_works_again_if_the_order_does(tmp_path: Path, instrument: str) -> None:
    with running_exchange(tmp_path) as exchange:
        bought, _ = trade(exchange, instrument, 10, 4)
        status, content = bust(exchange, bought["execution_id"])
        (report,) = content["reports"]
        assert (status, report["kind"], report["refers_to"]) == (200, "bust", bought["execution_id"])
        assert told([report]) == [(f"{instrument}-b", "bust", 0, 10)]
        exchange.kill()
        exchange.start()
        assert state(exchange, f"{instrument}-b")["leaves_quantity"] == 10
        assert bust(exchange, bought["execution_id"])[1]["code"] == "too_late"
        place(exchange, "again", instrument, 10, limit_price="10", side="sell")
        assert told(reports(exchange, instrument))[-2:] == [
            (f"{instrument}-b", "fill", 10, 0),
            ("again", "fill", 10, 0),
        ]


def test_what_is_busted_of_a_filled_order_is_canceled(exchange: RunningExchange, instrument: str) -> None:
    _, sold = trade(exchange, instrument, 10, 4)
    _, content = bust(exchange, sold["execution_id"])
    assert told(content["reports"]) == [(f"{instrument}-s", "bust", 0, 4), (f"{instrument}-s", "canceled", 0, 0)]
    assert state(exchange, f"{instrument}-s")["status"] == "canceled"


def test_a_bust_leaves_a_canceled_order_canceled(exchange: RunningExchange, instrument: str) -> None:
    bought, _ = trade(exchange, instrument, 10, 4)
    send(exchange, f"{instrument}-b", "cancel", f"{instrument}-c")
    (report,) = bust(exchange, bought["execution_id"])[1]["reports"]
    assert (report["status"], report["cumulative_quantity"], report["leaves_quantity"]) == ("canceled", 0, 0)


def test_a_correction_is_an_execution_of_its_own(exchange: RunningExchange, instrument: str) -> None:
    bought, _ = trade(exchange, instrument, 10, 4)
    (report,) = correct(exchange, bought["execution_id"], quantity=3, price="9.5")[1]["reports"]
    assert (report["kind"], report["quantity"], report["price"]) == ("correction", 3, "9.5")
    assert (report["cumulative_quantity"], report["leaves_quantity"]) == (3, 7)
    assert report["execution_id"] != report["refers_to"] == bought["execution_id"]
    assert bust(exchange, report["execution_id"])[1]["reports"][0]["cumulative_quantity"] == 0


def test_an_execution_cannot_be_made_more_nor_twice_nor_of_nothing(exchange: RunningExchange, instrument: str) -> None:
    bought, _ = trade(exchange, instrument, 10, 4)
    name = bought["execution_id"]
    for terms, status in (
        ({"quantity": 5}, 422),
        ({"quantity": 0}, 422),
        ({}, 422),
        ({"quantity": 1, "price": 1}, 422),
    ):
        assert correct(exchange, name, **terms)[0] == status
    for unknown in ("", name + "9", name.replace("-e", "-x"), name.rpartition("e")[0] + "e1"):
        assert bust(exchange, unknown)[1]["code"] == "unknown_execution"
    assert correct(exchange, name, quantity=4)[0] == 200
    assert correct(exchange, name, quantity=4)[1]["code"] == "too_late"


def test_the_end_of_the_day_restates_what_is_good_longer(tmp_path: Path, instrument: str) -> None:
    with running_exchange(tmp_path) as exchange:
        place(exchange, "day", instrument, 5)
        place(exchange, "gtc", instrument, 5, time_in_force="gtc")
        assert exchange.admin("POST", "/admin/close") == (200, {"reports": 3})
        found = all_reports(exchange)[2:]
        assert told(found) == [("day", "expired", 0, 0), ("gtc", "done_for_day", 0, 5), ("gtc", "restated", 0, 5)]
        assert [report["status"] for report in found] == ["expired", "done_for_day", "new"]
        exchange.kill()
        exchange.start()
        place(exchange, "s", instrument, 5, side="sell")
        assert told(all_reports(exchange))[-1] == ("s", "fill", 5, 0)


@pytest.mark.parametrize(
    ("earlier", "now", "between"),
    [
        ("2026-03-02T15:59:59.9", "2026-03-02T16:00:00", True),
        ("2026-03-02T16:00:00", "2026-03-02T16:00:00.2", False),
        ("2026-03-02T15:00:00", "2026-03-02T15:59:59.9", False),
        ("2026-03-02T12:00:00", "2026-03-03T00:00:01", True),
        ("2026-03-02T17:00:00", "2026-03-03T00:00:01", False),
    ],
)
def test_the_day_ends_once_a_day(earlier: str, now: str, between: bool) -> None:
    begin, end = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (earlier, now))
    assert is_between(begin, time(16), end) == between


def test_options_of_the_market_explain_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("--close", "24:00"), ("--close", "4pm"), ("--liquidity", "1.5"), ("--liquidity", "nan")):
        with pytest.raises(SystemExit):
            options(*arguments)
        assert f"argument {arguments[0]}: must be" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--no-matching: without a market"):
        read_options(options("--no-matching", "--liquidity", "0.5"))
    assert read_options(options("--close", "21:30")).closes_at == time(21, 30)


def test_with_liquidity_an_order_that_cannot_wait_is_filled_at_once(
    with_liquidity: RunningExchange, instrument: str
) -> None:
    place(with_liquidity, f"{instrument}-m", instrument, 7, type="market", limit_price=None)
    place(with_liquidity, f"{instrument}-f", instrument, 9, limit_price="101", time_in_force="fok")
    assert told(reports(with_liquidity, instrument)) == [
        *[(f"{instrument}-m", "new", 0, 7), (f"{instrument}-m", "fill", 7, 0)],
        *[(f"{instrument}-f", "new", 0, 9), (f"{instrument}-f", "fill", 9, 0)],
    ]


def test_with_liquidity_a_resting_order_is_filled_in_time_unless_its_price_is_far(
    with_liquidity: RunningExchange, instrument: str
) -> None:
    place(with_liquidity, f"{instrument}-m", instrument, 7, type="market", limit_price=None)  # at 100
    place(with_liquidity, f"{instrument}-far", instrument, 9, limit_price="98")
    place(with_liquidity, f"{instrument}-near", instrument, 9, limit_price="99")
    while state(with_liquidity, f"{instrument}-near")["status"] != "filled":
        pass
    assert state(with_liquidity, f"{instrument}-far")["status"] == "new"
    fills = [report for report in reports(with_liquidity, instrument) if report["kind"] == "fill"][1:]
    assert 1 <= len(fills) <= 3
    assert {report["client_order_id"] for report in fills} == {f"{instrument}-near"}


def test_every_report_agrees_with_the_executions_whatever_goes_wrong(tmp_path: Path) -> None:
    dice = random.Random(3)
    with running_exchange(tmp_path, "--liquidity", "0.5", "--seed", "3") as exchange:
        exchange.set_faults(
            late_fill={"probability": 0.5, "seconds": [0, 0.05]},
            bust={"probability": 0.2, "seconds": [0, 0.05]},
            correction={"probability": 0.2, "seconds": [0, 0.05]},
        )
        for number in range(60):
            kind = dice.choice(("limit", "market"))
            price = str(dice.randint(98, 102)) if kind == "limit" else None
            side, quantity = dice.choice(("buy", "sell")), dice.randint(1, 50)
            place(exchange, f"a-{number}", "XS0000000001", quantity, side=side, type=kind, limit_price=price)
            if number % 3 == 0:
                send(exchange, f"a-{dice.randrange(number + 1)}", "cancel", f"a-{number}-c")
        exchange.set_faults()
        exchange.kill()
        exchange.start()
        found = all_reports(exchange)
        executions = [report for report in found if report["kind"] in ("fill", "bust", "correction")]
        assert {report["kind"] for report in executions} == {"fill", "bust", "correction"}
        assert "late_fill" in {report.get("code") for report in executions}
        assert call(exchange.url, "GET", "/executions")[1]["reports"] == executions
    check_executions(found)


def check_executions(found: list[dict[str, Any]]) -> None:
    worth: dict[str, int] = {}
    whose: dict[str, str] = {}
    for number, report in enumerate(found, start=1):
        order = report["venue_order_id"]
        assert report["sequence"] == number
        if "execution_id" in report:
            worth[report.get("refers_to", "")] = 0
            worth[report["execution_id"]] = report.get("quantity", 0)
            whose[report["execution_id"]] = order
        filled = sum(quantity for name, quantity in worth.items() if whose.get(name) == order)
        assert report["cumulative_quantity"] == filled
        assert report["leaves_quantity"] in (0, report["order_quantity"] - filled)
