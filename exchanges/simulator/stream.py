"""The reports as they happen, over WebSocket: GET /reports?after=N&stream=NAME with an upgrade.

The exchange sends the reports after that number, in their order, up to 200 in a frame, and then each one as it comes:

    {"reports": [...]}
    {"heartbeat": 1234, "stream": "5f0c1e"}     at once, and then every second: the number of the last report

Thus a reader knows within a second whether it has missed something, and reads again from the number that it has. It
says nothing itself. 409 `other_stream` means that this exchange has another journal than the reader thinks, and 409
`ahead_of_stream` that the reader has seen more than there is.

A report is sent only when it is as safe as the journal makes it.
"""

import asyncio
from typing import Any

import orjson
from aiohttp import WSCloseCode, web

from exchanges.simulator.exchange import Exchange
from exchanges.simulator.faults import FRAME, REPORT, Faults
from exchanges.simulator.reads import after_of
from exchanges.simulator.replies import cut, refuse
from exchanges.simulator.report_log import Record
from exchanges.simulator.validation import Refusal

AT_ONCE = 200
HEARTBEAT_SECONDS = 1.0


class Streams:
    def __init__(self, exchange: Exchange, faults: Faults) -> None:
        self._exchange = exchange
        self._faults = faults
        self._readers: set[asyncio.Event] = set()
        exchange.watchers.append(self._tell)

    def __len__(self) -> int:
        return len(self._readers)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send until the reader goes away. Raises: JournalError."""
        try:
            after = self._begin(request)
        except Refusal as refusal:
            return refuse(refusal)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        news = asyncio.Event()
        self._readers.add(news)
        sending = asyncio.create_task(self._send(request, socket, after, news))
        reading = asyncio.create_task(_read(socket))
        try:
            await asyncio.wait({sending, reading}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not isinstance(sending.exception(), ConnectionError):
                sending.result()
        finally:
            self._readers.discard(news)
            sending.cancel()
            reading.cancel()
            await asyncio.gather(sending, reading, return_exceptions=True)  # a reader that goes away is no error
        await socket.close(code=WSCloseCode.GOING_AWAY)
        return socket

    def _begin(self, request: web.BaseRequest) -> int:
        after, own = after_of(request), self._exchange.journal.prefix
        if request.query.get("stream", own) != own:
            raise Refusal(409, "other_stream", f"the reports of this exchange are stream {own}")
        if after > self._exchange.ledger.reports.last:
            raise Refusal(409, "ahead_of_stream", f"the last report is {self._exchange.ledger.reports.last}")
        return after

    def _tell(self, reports: list[Record]) -> None:
        for news in self._readers:
            news.set()

    async def _send(
        self, request: web.BaseRequest, socket: web.WebSocketResponse, after: int, news: asyncio.Event
    ) -> None:
        log, journal, clock = self._exchange.ledger.reports, self._exchange.journal, asyncio.get_running_loop()
        beat_at = clock.time()
        while True:
            news.clear()
            last = log.last
            await journal.settle()
            if clock.time() >= beat_at:
                await self._frame(request, socket, {"heartbeat": last, "stream": journal.prefix})
                beat_at = clock.time() + HEARTBEAT_SECONDS
            if after < last:
                reports = log.page(after=after, limit=min(AT_ONCE, last - after))
                after += len(reports)
                await self._frame(request, socket, {"reports": self._disturbed(reports)})
                continue
            try:
                await asyncio.wait_for(news.wait(), max(beat_at - clock.time(), 0))
            except TimeoutError:
                pass

    def _disturbed(self, reports: list[Record]) -> list[Record]:
        """The reports that are sent for these: those that a fault drops are missing, and others are there twice."""
        if not self._faults:
            return reports
        sent: list[Record] = []
        for report in reports:
            struck = self._faults.draw(REPORT)
            if "drop_reports" not in struck:
                sent += [report, report] if "repeat_reports" in struck else [report]
        return sent

    async def _frame(self, request: web.BaseRequest, socket: web.WebSocketResponse, content: dict[str, Any]) -> None:
        """Send one frame, with what faults make of it."""
        struck = self._faults.draw(FRAME)
        if "cut_stream" in struck:
            cut(request, reset=True)
            raise ConnectionResetError
        for name in ("silent_stream", "delay_reports"):
            if name in struck:
                await asyncio.sleep(struck[name].duration())
        if (shuffle := struck.get("shuffle_reports")) and "reports" in content:
            shuffle.dice.shuffle(content["reports"])
        await socket.send_str(orjson.dumps(content).decode())


async def _read(socket: web.WebSocketResponse) -> None:
    """Answer pings, and return when the reader has closed the stream or gone away."""
    async for _ in socket:
        pass
