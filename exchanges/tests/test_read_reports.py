"""The simulator's adapter, asked how orders stand and what happened to them, at a real exchange."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from exchanges.adapters.simulator import SimulatorVenue, _execution_report
from exchanges.tests.loops import asynchronous
from exchanges.tests.peer import Peer, reply
from exchanges.tests.running import RunningExchange, call, running_exchange
from exchanges.venue import ExecutionReport, NotSent, OutcomeUnknown, Report, ReportKind, ReportStatus


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SimulatorVenue]:
    venue = SimulatorVenue({"url": url, "timeout_seconds": 10})
    try:
        yield venue
    finally:
        await venue.close()


async def found(exchange: RunningExchange, client_order_id: str) -> Report:
    async with opened(exchange.url) as venue:
        report = await venue.find(client_order_id)
    assert report is not None
    return report


def trade(exchange: RunningExchange, name: str, bought: int, sold: int) -> None:
    """Have a bid of the member be met by an offer of its own, in a market of their own."""
    instrument = f"US0000{name[-1]}00000"
    for side, quantity in (("buy", bought), ("sell", sold)):
        order = {"side": side, "quantity": quantity, "limit_price": "10.5", "instrument": instrument}
        assert exchange.place(client_order_id=f"{name}-{side}", **order)[0] == 201


@asynchronous
async def test_an_order_is_found_as_it_stands(exchange: RunningExchange) -> None:
    trade(exchange, "found-1", 100, 40)
    call(exchange.url, "POST", "/orders/found-1-buy/replace", {"request_id": "found-r", "quantity": 80})
    part, all_of_it = await found(exchange, "found-1-buy"), await found(exchange, "found-1-sell")
    assert (part.status, part.quantity, part.cumulative_quantity, part.leaves_quantity, part.limit_price) == (
        ReportStatus.PARTIALLY_FILLED, 80, 40, 40, Decimal("10.5"),
    )  # fmt: skip
    assert (all_of_it.status, all_of_it.cumulative_quantity, all_of_it.leaves_quantity) == (ReportStatus.FILLED, 40, 0)
    call(exchange.url, "POST", "/orders/found-1-buy/cancel", {"request_id": "found-c"})
    ended = await found(exchange, "found-1-buy")
    assert (ended.status, ended.cumulative_quantity, ended.leaves_quantity) == (ReportStatus.CANCELED, 40, 0)


@asynchronous
async def test_an_exchange_without_a_market_says_how_an_order_stands(tmp_path: Path) -> None:
    with running_exchange(tmp_path, "--no-matching", "--max-quantity", "100") as exchange:
        exchange.place(client_order_id="works")
        exchange.place(client_order_id="refused", quantity=101)
        works, refused = await found(exchange, "works"), await found(exchange, "refused")
    assert (works.status, works.quantity, works.leaves_quantity) == (ReportStatus.WORKING, 100, 100)
    assert (refused.status, refused.code, refused.by_content) == (
        ReportStatus.REJECTED, "quantity_above_maximum", True,
    )  # fmt: skip


async def read(venue: SimulatorVenue, after: int, count: int) -> list[ExecutionReport]:
    reports: list[ExecutionReport] = []
    stream = (await venue.stream_end()).stream
    async for news in venue.reports(stream, after):
        reports += news.reports
        if len(reports) >= count:
            break
    return reports


@asynchronous
async def test_what_the_exchange_reports_is_read_with_the_ids_of_orders_and_requests(exchange: RunningExchange) -> None:
    async with opened(exchange.url) as venue:
        before = (await venue.stream_end()).last
        trade(exchange, "read-2", 100, 40)
        call(exchange.url, "POST", "/orders/read-2-buy/replace", {"request_id": "read-r", "quantity": 80})
        call(exchange.url, "POST", "/orders/read-2-buy/cancel", {"request_id": "read-c"})
        call(exchange.url, "POST", "/orders/read-2-buy/cancel", {"request_id": "read-d"})
        reports = await read(venue, before, 7)
    assert [(r.kind, r.client_order_id, r.original_client_order_id) for r in reports] == [
        (ReportKind.ACKNOWLEDGED, "read-2-buy", ""),
        (ReportKind.ACKNOWLEDGED, "read-2-sell", ""),
        (ReportKind.EXECUTED, "read-2-buy", ""),
        (ReportKind.EXECUTED, "read-2-sell", ""),
        (ReportKind.REPLACED, "read-r", "read-2-buy"),
        (ReportKind.CANCELED, "read-c", "read-2-buy"),
        (ReportKind.CANCEL_REFUSED, "read-d", "read-2-buy"),
    ]
    assert [r.sequence for r in reports] == list(range(before + 1, before + 8))
    filled, replaced = reports[2], reports[4]
    assert (filled.quantity, filled.price, filled.cumulative_quantity) == (40, Decimal("10.5"), 40)
    assert (replaced.quantity, replaced.limit_price, replaced.leaves_quantity) == (80, Decimal("10.5"), 40)
    assert filled.execution_id
    assert filled.at is not None


@asynchronous
async def test_executions_and_open_orders_are_listed_by_pages(
    exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchanges.adapters.simulator.PAGE", 2)
    async with opened(exchange.url) as venue:
        end = await venue.stream_end()
        trade(exchange, "list-3", 100, 40)
        trade(exchange, "list-4", 100, 30)
        executions = [each async for page in venue.executions(end.stream, end.last) for each in page]
        works = [each async for page in venue.open_orders() for each in page]
        all_again = [each async for page in venue.executions("another", end.last) for each in page]
    assert [(each.client_order_id, each.quantity) for each in executions] == [
        ("list-3-buy", 40), ("list-3-sell", 40), ("list-4-buy", 30), ("list-4-sell", 30),
    ]  # fmt: skip
    ours = [order for order in works if order.client_order_id.startswith("list-")]
    assert [(order.client_order_id, order.leaves_quantity) for order in ours] == [
        ("list-3-buy", 60),
        ("list-4-buy", 70),
    ]
    assert all_again[-4:] == executions


@asynchronous
async def test_a_stream_begins_with_a_heartbeat_and_one_of_another_name_does_not_begin(
    exchange: RunningExchange,
) -> None:
    async with opened(exchange.url) as venue:
        end = await venue.stream_end()
        async for news in venue.reports(end.stream, end.last):
            assert news.heartbeat == end
            break
        for stream, after in (("another", 0), (end.stream, end.last + 1)):
            with pytest.raises(NotSent, match="HTTP 409"):
                await anext(aiter(venue.reports(stream, after)))


@pytest.mark.parametrize(
    "content",
    [
        {"stream": "", "last": 1},
        {"stream": "a\n", "last": 1},
        {"stream": "a", "last": -1},
        {"stream": "a", "last": 2**63},
        {"stream": "a", "last": "1"},
    ],
)
@asynchronous
async def test_a_stream_that_says_nothing_usable_of_itself_is_unknown(content: dict[str, Any]) -> None:
    async with Peer(lambda _, writer: _answer(writer, reply(200, content))) as peer, opened(peer.url) as venue:
        with pytest.raises(OutcomeUnknown):
            await venue.stream_end()


async def _answer(writer: Any, content: bytes) -> None:
    writer.write(content)
    await writer.drain()


@pytest.mark.parametrize(
    "spoilt",
    [
        {"kind": "surprise"},
        {"kind": None},
        {"client_order_id": 7},
        {"venue_order_id": None},
        {"quantity": "40"},
        {"quantity": True},
        {"price": 10.5},
        {"price": []},
        {"price": "ten"},
        {"price": "1" * 41},
        {"at": "yesterday"},
        {"execution_id": 7},
    ],
)
def test_a_report_that_cannot_be_read_keeps_its_number_and_its_text(spoilt: dict[str, Any]) -> None:
    good = {"sequence": 7, "kind": "fill", "client_order_id": "a", "venue_order_id": "V-1", "execution_id": "E-1"}
    good |= {"quantity": 40, "price": "10.5"}
    assert _execution_report(good).kind is ReportKind.EXECUTED
    report = _execution_report(good | spoilt)
    assert (report.sequence, report.kind) == (7, ReportKind.UNREADABLE)
    assert '"sequence":7' in report.text


@pytest.mark.parametrize("record", [None, [], {}, {"sequence": "7"}, {"sequence": 0}, {"sequence": 2**63}])
def test_a_report_without_a_number_breaks_the_stream(record: Any) -> None:
    with pytest.raises(OutcomeUnknown, match="without a number"):
        _execution_report(record)
