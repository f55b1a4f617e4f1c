"""The stream of reports, read over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from exchanges.simulator.exchange import Exchange, Rules
from exchanges.simulator.journal import open_journal
from exchanges.simulator.market import Market
from exchanges.simulator.validation import read_order
from exchanges.tests.loops import asynchronous
from exchanges.tests.running import ORDER, RunningExchange, running_exchange


class Reader:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def frame(self) -> dict[str, Any]:
        content: dict[str, Any] = await self.socket.receive_json()
        return content

    async def heartbeat(self) -> int:
        while "heartbeat" not in (frame := await self.frame()):
            pass
        return int(frame["heartbeat"])

    async def numbers(self, count: int) -> list[int]:
        """The numbers of the next reports, at least this many."""
        found: list[int] = []
        while len(found) < count:
            found += [report["sequence"] for report in (await self.frame()).get("reports", ())]
        return found


@asynccontextmanager
async def reading(exchange: RunningExchange, after: int, **query: str) -> AsyncIterator[Reader]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{exchange.url}/reports", params={"after": str(after)} | query) as socket,
    ):
        yield Reader(socket)


async def place(exchange: RunningExchange, count: int) -> int:
    """Place orders that do not trade, one report each; returns the number of the last report before them."""
    before: int = exchange.stats()["reports"]
    for number in range(count):
        status, _ = await asyncio.to_thread(exchange.place, client_order_id=f"r{before}-{number}")
        assert status == 201
    return before


@asynchronous
async def test_reports_come_as_they_happen(exchange: RunningExchange) -> None:
    before = exchange.stats()["reports"]
    async with reading(exchange, before) as reader:
        assert await reader.heartbeat() == before
        await place(exchange, 3)
        assert await reader.numbers(3) == [before + 1, before + 2, before + 3]


@asynchronous
async def test_a_stream_can_be_read_again_from_any_number(exchange: RunningExchange) -> None:
    before = await place(exchange, 4)
    for number in range(4):
        async with reading(exchange, before + number) as reader:
            assert await reader.numbers(4 - number) == list(range(before + number + 1, before + 5))


@asynchronous
async def test_the_stream_says_what_the_pages_say(exchange: RunningExchange) -> None:
    before = await place(exchange, 3)
    async with reading(exchange, before) as reader:
        while "reports" not in (frame := await reader.frame()):
            pass
    assert frame["reports"] == exchange.admin("GET", f"/reports?after={before}")[1]["reports"]


@asynchronous
async def test_a_heartbeat_carries_the_last_number_when_nothing_happens(exchange: RunningExchange) -> None:
    before = await place(exchange, 2)
    async with reading(exchange, before + 2) as reader:
        assert [await reader.heartbeat(), await reader.heartbeat()] == [before + 2, before + 2]


@asynchronous
async def test_a_long_past_comes_in_frames_of_two_hundred(tmp_path: Path) -> None:
    market = Market()
    journal, ledger = open_journal(tmp_path / "journal.jsonl", fsync=False, observe=market.observe)
    former = Exchange(journal, ledger, Rules(), market)
    for number in range(250):
        await former.accept(read_order(json.dumps(ORDER | {"client_order_id": f"past-{number}"}).encode()))
    ledger.close()
    journal.close()
    with running_exchange(tmp_path) as exchange:
        async with reading(exchange, 0) as reader:
            assert await reader.heartbeat() == 250
            first, second = (await reader.frame())["reports"], (await reader.frame())["reports"]
            assert (len(first), len(second), second[-1]["sequence"]) == (200, 50, 250)


@asynchronous
async def test_a_reader_of_another_past_is_refused(exchange: RunningExchange) -> None:
    last = exchange.stats()["reports"]
    for after, query, status in ((last + 1, {}, 409), (0, {"stream": "another"}, 409), (-1, {}, 400)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            async with reading(exchange, after, **query):
                pass
        assert raised.value.status == status
    name = exchange.admin("GET", "/reports")[1]["stream"]
    async with reading(exchange, last, stream=name) as reader:
        assert (await reader.frame())["stream"] == name


@asynchronous
async def test_an_exchange_with_readers_stops_cleanly(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        async with reading(exchange, 0) as reader:
            await reader.heartbeat()
            assert await asyncio.to_thread(exchange.stop) == 0


@asynchronous
async def test_a_dropped_report_is_missing_and_can_be_read_again(exchange: RunningExchange) -> None:
    before = exchange.stats()["reports"]
    exchange.set_faults(drop_reports={"count": 1})
    async with reading(exchange, before) as reader:
        await reader.heartbeat()
        await place(exchange, 2)
        assert await reader.numbers(1) == [before + 2]
        assert await reader.heartbeat() == before + 2
    async with reading(exchange, before) as reader:
        assert await reader.numbers(2) == [before + 1, before + 2]


@asynchronous
async def test_reports_may_come_twice_and_in_any_order(exchange: RunningExchange) -> None:
    before = await place(exchange, 20)
    wanted = list(range(before + 1, before + 21))
    exchange.set_faults(repeat_reports=True, shuffle_reports=True)
    async with reading(exchange, before) as reader:
        found = await reader.numbers(40)
    assert sorted(found) == sorted(wanted * 2)
    assert found != sorted(found)


@asynchronous
async def test_a_stream_may_be_cut_and_is_there_again(exchange: RunningExchange) -> None:
    before = await place(exchange, 1)
    exchange.set_faults(cut_stream={"count": 1})
    async with reading(exchange, before) as reader:
        message = await reader.socket.receive()
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    async with reading(exchange, before) as reader:
        assert await reader.numbers(1) == [before + 1]


@pytest.mark.parametrize("fault", ["silent_stream", "delay_reports"])
def test_a_stream_may_say_nothing_for_a_while(exchange: RunningExchange, fault: str) -> None:
    @asynchronous
    async def test() -> None:
        before = await place(exchange, 1)
        exchange.set_faults(**{fault: {"seconds": 60, "count": 1}})
        async with reading(exchange, before) as reader:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.frame(), 0.2)
        async with reading(exchange, before) as reader:
            assert await reader.numbers(1) == [before + 1]

    test()
