"""Reads a venue's stream of reports: in the order of their numbers, each once, and none left out.

A stream may repeat reports, overtake some with others, lose some, be cut, or fall silent. What is missing is read
again, from the number that is due: a report that has not come 20 ms after a later one is missing, and so is the last
one if a heartbeat has named it. A stream without heartbeats is silent, and is opened again.

Nothing here knows an order or the database: what reads a stream is given the functions that write.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from exchanges.venue import ExecutionReport, News, OutcomeUnknown, Venue

logger = logging.getLogger(__name__)

LARGEST_BATCH = 250
OVERTAKEN_SECONDS = 0.02
"""A report that was overtaken comes within this time after the one that overtook it."""
LONGEST_PATIENCE_SECONDS = 1.0
"""While reading again brings nothing, the wait before the next time doubles up to this. It is shorter than a lease."""
STUCK_AFTER = 8
"""When reading again has brought nothing this often, people are told."""
MOST_WAITING = 5_000
"""Nothing more is read while this many reports wait to be written, unless the one that is due is not among them."""
MISSED_HEARTBEATS = 2.5


@dataclass(slots=True)
class Inbox:
    """The reports that have come and are not written yet.

    `due` is the number of the next report to write, and `promised` the highest one that the venue says exists.
    """

    due: int
    promised: int = 0
    reports: dict[int, ExecutionReport] = field(default_factory=dict)

    def put(self, news: News) -> None:
        for report in news.reports:
            if report.sequence >= self.due:
                self.reports.setdefault(report.sequence, report)
                self.promised = max(self.promised, report.sequence)
        if news.heartbeat is not None:
            self.promised = max(self.promised, news.heartbeat.last)

    def batch(self) -> list[ExecutionReport]:
        """The reports from the one that is due, up to the first that is missing."""
        batch: list[ExecutionReport] = []
        while len(batch) < LARGEST_BATCH and (report := self.reports.get(self.due + len(batch))) is not None:
            batch.append(report)
        return batch

    def written(self, due: int) -> None:
        for sequence in range(self.due, due):
            self.reports.pop(sequence, None)
        self.due = due

    @property
    def lacks(self) -> bool:
        """Whether the report that is due exists, as far as is known, and has not come."""
        return self.due not in self.reports and self.promised >= self.due

    @property
    def is_full(self) -> bool:
        return len(self.reports) >= MOST_WAITING and self.due in self.reports


@dataclass(slots=True)
class Patience:
    """How long to wait for a missing report before the stream is read again."""

    tries: int = 0

    @property
    def seconds(self) -> float:
        return min(OVERTAKEN_SECONDS * 2.0**self.tries, LONGEST_PATIENCE_SECONDS)


Write = Callable[[Sequence[ExecutionReport]], Awaitable[int]]
"""Writes a batch; returns the number of the report that is due after it."""


class Following:
    """One stream of one venue, while it is read."""

    def __init__(self, code: str, venue: Venue, stream: str, due: int) -> None:
        self.stream = stream
        self.inbox = Inbox(due)
        self._code = code
        self._venue = venue
        self._patience = Patience()
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def until_it_breaks(self, write: Write, idle: Callable[[], Awaitable[None]], *, idle_seconds: float) -> None:
        """Read until a report is missing: then call this again. `idle` is called when nothing was written for a while.

        Raises: NotSent or OutcomeUnknown, if the stream cannot be read or ends; whatever `write` and `idle` raise.
        """
        inbox = self.inbox
        inbox.promised = 0  # what is there already waits for the report that is due, and that takes a moment to come
        reading = asyncio.create_task(self._read())
        clock = asyncio.get_running_loop().time
        idle_at = clock() + idle_seconds
        try:
            while True:
                self._news.clear()
                if batch := inbox.batch():
                    inbox.written(await write(batch))
                    self._patience.tries = 0
                    self._room.set()
                    idle_at = clock() + idle_seconds
                elif clock() >= idle_at:  # heartbeats write nothing
                    await idle()
                    idle_at = clock() + idle_seconds
                elif inbox.lacks:
                    if not await self._came():
                        return
                elif reading.done():
                    reading.result()
                    raise OutcomeUnknown("stream_ended", "the venue closed it")
                else:
                    await self._wait(idle_at - clock(), reading)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _wait(self, seconds: float, reading: asyncio.Task[None]) -> None:
        news = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({news, reading}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    async def _came(self) -> bool:
        """Whether the report that is due, which was overtaken or lost, comes by itself."""
        patience, due = self._patience, self.inbox.due
        try:
            async with asyncio.timeout(patience.seconds):
                while self.inbox.due not in self.inbox.reports:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            patience.tries += 1
            about = {"venue": self._code, "stream": self.stream, "sequence": due}
            if patience.tries == STUCK_AFTER:
                text = "A venue does not send a report that it has numbered: no later one can be written"
                logger.error(text, extra={"event": "session.stuck", **about})
            else:
                logger.info("A report is missing: reading again", extra={"event": "session.gap", **about})
            return False
        return True

    async def _read(self) -> None:
        beat = self._venue.capabilities.heartbeat_seconds
        silent = None if beat is None else beat * MISSED_HEARTBEATS
        async with aclosing(self._venue.reports(self.stream, self.inbox.due - 1)) as messages:  # type: ignore[type-var]
            while True:
                try:
                    async with asyncio.timeout(silent):
                        news = await anext(messages, None)
                except TimeoutError:
                    raise OutcomeUnknown("silent_stream", f"no heartbeat in {silent} s") from None
                if news is None:
                    return
                if news.heartbeat is not None and news.heartbeat.stream != self.stream:
                    raise OutcomeUnknown("other_stream", f"{news.heartbeat.stream} instead of {self.stream}")
                self.inbox.put(news)
                self._news.set()
                while self.inbox.is_full:
                    self._room.clear()
                    await self._room.wait()


@dataclass(slots=True)
class BackOff:
    """How long to stay away from a venue in trouble: longer each time, with full jitter."""

    base: float = 0.2
    cap: float = 10.0
    failures: int = 0

    def next_seconds(self) -> float:
        self.failures += 1
        ceiling = min(self.cap, self.base * 2.0 ** min(self.failures - 1, 20))
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311  it spreads the sessions
