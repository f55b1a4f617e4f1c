"""The simulated exchange's faults, through the adapter and the admin endpoint."""

import asyncio
import http.client
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from exchanges.adapters.simulator import SimulatorVenue
from exchanges.simulator.faults import FIND, KINDS, PLACE, FaultError, Faults
from exchanges.tests.conformance import ORDER, QUICK
from exchanges.tests.loops import asynchronous
from exchanges.tests.running import RunningExchange
from exchanges.venue import NewOrder, NotSent, OrderRejected, OutcomeUnknown, ReportStatus, VenueTrouble


def order(client_order_id: str, **changes: Any) -> NewOrder:
    return replace(ORDER, client_order_id=client_order_id, **changes)


@asynccontextmanager
async def adapter(exchange: RunningExchange, **settings: Any) -> AsyncIterator[SimulatorVenue]:
    venue = SimulatorVenue({"url": exchange.url} | settings)
    try:
        yield venue
    finally:
        await venue.close()


def copies(exchange: RunningExchange, client_order_id: str) -> list[str]:
    return [row["status"] for row in exchange.orders() if row["client_order_id"] == client_order_id]


async def recorded(venue: SimulatorVenue, client_order_id: str) -> None:
    """Return when the exchange has the order."""
    report = await venue.find(client_order_id)
    while report is None:
        await asyncio.sleep(0.02)
        report = await venue.find(client_order_id)


@asynchronous
async def test_without_faults_an_order_is_placed_and_found(exchange: RunningExchange) -> None:
    async with adapter(exchange) as venue:
        acknowledgement = await venue.place(order("no-fault"))
        report = await venue.find("no-fault")
        assert report is not None
        assert (report.status, report.venue_order_id) == (
            ReportStatus.WORKING,
            acknowledgement.venue_order_id,
        )
        with pytest.raises(OutcomeUnknown, match="duplicate_client_order_id"):
            await venue.place(order("no-fault"))
        assert await venue.find("never-sent") is None


@asynchronous
async def test_a_rule_of_the_exchange_is_a_definite_refusal(exchange: RunningExchange) -> None:
    async with adapter(exchange) as venue:
        with pytest.raises(OrderRejected, match="instrument_not_tradable"):
            await venue.place(order("untradable", instrument="US5949181045"))
        report = await venue.find("untradable")
    assert report is not None
    assert (report.status, report.code) == (ReportStatus.REJECTED, "instrument_not_tradable")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("accept_then_drop", {}),
        ("truncate", {}),
        ("http_5xx", {"recorded": True, "status": 502}),
        ("latency", {"seconds": 60, "on": "place"}),
    ],
)
@asynchronous
async def test_a_lost_reply_leaves_a_live_order(
    exchange: RunningExchange, name: str, parameters: dict[str, Any]
) -> None:
    exchange.set_faults(**{name: parameters | {"count": 1}})
    async with adapter(exchange, timeout_seconds=QUICK) as venue:
        with pytest.raises(OutcomeUnknown):
            await venue.place(order(f"lost-{name}"))
        report = await venue.find(f"lost-{name}")
    assert report is not None
    assert report.status is ReportStatus.WORKING


@pytest.mark.parametrize(
    ("name", "parameters"), [("reset", {}), ("http_5xx", {}), ("stall", {}), ("stall", {"seconds": 0.05})]
)
@asynchronous
async def test_a_lost_request_leaves_no_order(exchange: RunningExchange, name: str, parameters: dict[str, Any]) -> None:
    exchange.set_faults(**{name: parameters | {"on": "place"}})
    async with adapter(exchange, timeout_seconds=QUICK) as venue:
        with pytest.raises(OutcomeUnknown):
            await venue.place(order("lost-request"))
        assert await venue.find("lost-request") is None


@asynchronous
async def test_a_held_request_takes_effect_after_its_sender_gave_up(exchange: RunningExchange) -> None:
    exchange.set_faults(hold={"seconds": 1.0, "count": 1})
    async with adapter(exchange, timeout_seconds=QUICK) as venue:
        with pytest.raises(OutcomeUnknown):
            await venue.place(order("held"))
        assert await venue.find("held") is None
        await recorded(venue, "held")


@asynchronous
async def test_rejecting_everything_is_a_definite_refusal(exchange: RunningExchange) -> None:
    exchange.set_faults(reject=True)
    async with adapter(exchange) as venue:
        with pytest.raises(OrderRejected, match="trading_halted"):
            await venue.place(order("rejected"))
        exchange.set_faults()
        with pytest.raises(OutcomeUnknown, match="duplicate_client_order_id"):
            await venue.place(order("rejected"))


@asynchronous
async def test_a_forgotten_rejection_lets_a_late_original_live(exchange: RunningExchange) -> None:
    exchange.set_faults(reject={"count": 1}, forget_rejections=True)
    async with adapter(exchange) as venue:
        with pytest.raises(OrderRejected):
            await venue.place(order("forgotten-rejection"))
        assert await venue.find("forgotten-rejection") is None
        await venue.place(order("forgotten-rejection"))


@asynchronous
async def test_a_rate_limit_discards_the_request_and_says_how_long(exchange: RunningExchange) -> None:
    exchange.set_faults(rate_limit={"retry_after": 2.5})
    async with adapter(exchange) as venue:
        with pytest.raises(NotSent) as raised:
            await venue.place(order("limited"))
        assert raised.value.retry_after == 2.5
        assert await venue.find("limited") is None
        exchange.set_faults(rate_limit={"retry_after": 60, "date": True})
        with pytest.raises(NotSent) as raised:
            await venue.place(order("limited"))
    assert raised.value.retry_after is not None
    assert 50 < raised.value.retry_after <= 60


@asynchronous
async def test_a_5xx_answer_may_ask_for_a_pause(exchange: RunningExchange) -> None:
    exchange.set_faults(http_5xx={"retry_after": 8})
    async with adapter(exchange) as venue:
        with pytest.raises(OutcomeUnknown) as raised:
            await venue.place(order("maintenance"))
    assert (raised.value.trouble, raised.value.retry_after) == (VenueTrouble.PAUSED, 8.0)


@asynchronous
async def test_a_lock_out_refuses_everything_unread(exchange: RunningExchange) -> None:
    exchange.set_faults(lock_out=True)
    async with adapter(exchange) as venue:
        for call in (venue.place(order("locked-out")), venue.find("locked-out")):
            with pytest.raises(NotSent, match="not_authorized"):
                await call
    assert copies(exchange, "locked-out") == []


@asynchronous
async def test_forgotten_duplicates_become_further_live_orders(exchange: RunningExchange) -> None:
    exchange.set_faults(forget_duplicates=True)
    before = exchange.stats()["doubles"]
    async with adapter(exchange, resend_safety="nothing") as venue:
        first = await venue.place(order("doubled"))
        second = await venue.place(order("doubled"))
    assert first != second
    assert copies(exchange, "doubled") == ["working", "working"]
    assert exchange.stats()["doubles"] == before + 1


@asynchronous
async def test_a_duplicate_is_refused_within_the_window_only(exchange: RunningExchange) -> None:
    async with adapter(exchange) as venue:
        await venue.place(order("window"))
        exchange.set_faults(duplicate_window={"seconds": 3600})
        with pytest.raises(OutcomeUnknown, match="duplicate_client_order_id"):
            await venue.place(order("window"))
        exchange.set_faults(duplicate_window={"seconds": 0})
        await venue.place(order("window"))
    assert copies(exchange, "window") == ["working", "working"]


@asynchronous
async def test_a_stale_request_is_void_where_valid_until_is_enforced(exchange: RunningExchange) -> None:
    late = order("stale", valid_until=datetime.now(UTC) - timedelta(seconds=1))
    exchange.set_faults(enforce_valid_until=True)
    async with adapter(exchange, resend_safety="refuses_stale_requests") as venue:
        with pytest.raises(NotSent, match="stale_request"):
            await venue.place(late)
        assert await venue.find("stale") is None
        exchange.set_faults()
        await venue.place(late)
        exchange.set_faults(enforce_valid_until={"clock_ahead": 60})
        with pytest.raises(NotSent, match="stale_request"):
            await venue.place(order("too-late", valid_until=datetime.now(UTC) + timedelta(seconds=30)))


@asynchronous
async def test_a_request_held_past_its_valid_until_is_void(exchange: RunningExchange) -> None:
    exchange.set_faults(enforce_valid_until=True, hold={"seconds": 0.2})
    soon_late = order("held-stale", valid_until=datetime.now(UTC) + timedelta(seconds=0.1))
    async with adapter(exchange) as venue:
        with pytest.raises(NotSent, match="stale_request"):
            await venue.place(soon_late)


@asynchronous
async def test_refusing_closes_the_port_and_only_the_port(exchange: RunningExchange) -> None:
    async with adapter(exchange) as venue:
        await venue.place(order("before-refusing"))  # leaves a connection open, which must end too
        await asyncio.to_thread(exchange.set_faults, refuse=True)
        with pytest.raises(NotSent):
            await venue.place(order("refused"))
        with pytest.raises(NotSent):
            await venue.find("refused")
        assert exchange.admin("GET", "/health")[0] == 200
        exchange.set_faults()
        await venue.place(order("refused"))
        assert await venue.find("before-refusing") is not None


def read_health(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/health")
    return connection.getresponse().read()


def test_refusing_ends_kept_connections(exchange: RunningExchange) -> None:
    kept = http.client.HTTPConnection(urlsplit(exchange.url).netloc, timeout=10)
    read_health(kept)
    exchange.set_faults(refuse=True)
    kept.auto_open = False
    with pytest.raises(ConnectionError):
        read_health(kept)
    kept.close()


@asynchronous
async def test_refusing_lets_a_request_under_way_end(exchange: RunningExchange) -> None:
    exchange.set_faults(latency={"seconds": 0.2, "on": "place"})
    async with adapter(exchange) as venue:
        call = asyncio.create_task(venue.place(order("under-way")))
        await recorded(venue, "under-way")
        await asyncio.to_thread(exchange.set_faults, refuse=True)
        await call


def test_refusing_and_opening_can_be_repeated(exchange: RunningExchange) -> None:
    for number in range(5):
        exchange.set_faults(refuse=True)
        exchange.set_faults(refuse=True)
        with pytest.raises(ConnectionRefusedError):
            exchange.place(client_order_id=f"closed-{number}")
        exchange.set_faults()
        assert exchange.place(client_order_id=f"open-{number}")[0] == 201


@asynchronous
async def test_a_fault_strikes_the_call_it_is_aimed_at(exchange: RunningExchange) -> None:
    async with adapter(exchange) as venue:
        exchange.set_faults(http_5xx={"on": "find"})
        await venue.place(order("aimed"))
        with pytest.raises(OutcomeUnknown, match="http_503"):
            await venue.find("aimed")
        exchange.set_faults(http_5xx={"on": ["place", "find"]})
        with pytest.raises(OutcomeUnknown, match="http_503"):
            await venue.place(order("aimed"))


def test_a_fault_with_a_count_strikes_so_many_requests(exchange: RunningExchange) -> None:
    exchange.set_faults(http_5xx={"count": 2, "status": 504})
    statuses = [exchange.place(client_order_id=f"counted-{number}")[0] for number in range(4)]
    assert statuses == [504, 504, 201, 201]
    assert exchange.stats()["faults"]["http_5xx"]["struck"] == 2


def test_the_same_seed_strikes_the_same_requests() -> None:
    def strikes(seed: int, others: dict[str, Any]) -> list[bool]:
        faults = Faults(seed=seed)
        faults.replace({"reset": {"probability": 0.3}} | others)
        return ["reset" in faults.draw(PLACE) for _ in range(200)]

    assert strikes(1, {}) == strikes(1, {"stall": {"probability": 0.5}})
    assert strikes(1, {}) != strikes(2, {})
    assert 30 < sum(strikes(1, {})) < 90


def test_a_duration_is_drawn_from_its_range() -> None:
    faults = Faults(seed=1)
    faults.replace({"latency": {"seconds": [0.1, 0.5]}})
    durations = [faults.draw(FIND)["latency"].duration() for _ in range(100)]
    assert all(0.1 <= duration <= 0.5 for duration in durations)
    assert len(set(durations)) > 50


def test_faults_can_be_set_and_removed_one_by_one(exchange: RunningExchange) -> None:
    exchange.admin("PUT", "/admin/faults/stall", True)
    exchange.admin("PUT", "/admin/faults/latency", {"seconds": [0, 0.01]})
    _, shown = exchange.admin("DELETE", "/admin/faults/stall")
    latency = {
        "on": ["find", "place"],
        "probability": 1.0,
        "count": None,
        "struck": 0,
        "seconds": [0.0, 0.01],
    }
    assert shown["faults"] == {"latency": latency}
    _, shown = exchange.admin("DELETE", "/admin/faults")
    assert shown["faults"] == {}
    _, shown = exchange.admin("GET", "/admin/faults")
    assert (shown["seed"], set(shown["available"])) == (7, set(KINDS))


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"stal": True}, "no fault 'stal'; there are: hold, stall"),
        ({"stall": False}, "stall: must be true or an object"),
        ({"stall": {"second": 1}}, "no parameter 'second'; known: seconds, on, probability, count"),
        ({"stall": {"seconds": -1}}, "stall: seconds: must be a number from 0 to 3600"),
        ({"stall": {"seconds": True}}, "must be a number"),
        ({"stall": {"seconds": [2, 1]}}, "2 is above 1"),
        ({"stall": {"seconds": [1]}}, "must be a number or [min, max]"),
        ({"latency": True}, "latency: seconds is required"),
        ({"reset": {"probability": 1.5}}, "reset: probability: must be a number from 0 to 1"),
        ({"reset": {"probability": float("nan")}}, "must be a number from 0 to 1"),
        ({"reset": {"count": 0}}, "reset: count: must be a whole number from 1"),
        ({"reset": {"on": "cancel"}}, "reset: on: can strike find and place only"),
        ({"reset": {"on": []}}, "reset: on: must be"),
        ({"reject": {"on": "find"}}, "reject: on: can strike place only"),
        ({"refuse": {"probability": 0.5}}, "refuse: no parameter 'probability'; known: it has none"),
        ({"http_5xx": {"status": 404}}, "http_5xx: status: must be a whole number from 500 to 599"),
        ({"http_5xx": {"recorded": "yes"}}, "http_5xx: recorded: must be true or false"),
    ],
)
def test_a_wrong_fault_is_explained_and_changes_nothing(faults: dict[str, Any], words: str) -> None:
    set_before = Faults(seed=1)
    set_before.replace({"truncate": True})
    with pytest.raises(FaultError) as raised:
        set_before.replace({"reset": True} | faults)
    assert words in str(raised.value)
    assert list(set_before.as_json()["faults"]) == ["truncate"]


def test_the_admin_endpoint_explains_a_wrong_fault(exchange: RunningExchange) -> None:
    exchange.set_faults(truncate=True)
    for method, path, content in (
        ("PUT", "/admin/faults", {"stal": True}),
        ("PUT", "/admin/faults", []),
        ("PUT", "/admin/faults", None),
        ("PUT", "/admin/faults/stal", True),
        ("PUT", "/admin/faults/stall", [1]),
        ("DELETE", "/admin/faults/stal", None),
    ):
        status, answer = exchange.admin(method, path, content)
        assert (status, answer["code"]) == (400, "bad_fault")
    assert list(exchange.stats()["faults"]) == ["truncate"]
