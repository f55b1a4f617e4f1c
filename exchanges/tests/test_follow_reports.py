"""Reading a stream in the order of its numbers, with a venue inside the test that says what the test wants."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from exchanges import session
from exchanges.session import BackOff, Following
from exchanges.tests.loops import asynchronous
from exchanges.venue import ExecutionReport, News, OutcomeUnknown, ReportKind, StreamEnd


def news(*sequences: int) -> News:
    return News([ExecutionReport(sequence=n, kind=ReportKind.CANCELED, client_order_id="a") for n in sequences])


def beat(last: int, stream: str = "s") -> News:
    return News(heartbeat=StreamEnd(stream, last))


END = object()


class Scripted:
    """Each subscription gets the next list of messages; the stream stays open after them unless END is among them."""

    capabilities = SimpleNamespace(heartbeat_seconds=0.4)

    def __init__(self, *scripts: Sequence[Any]) -> None:
        self._scripts = list(scripts)
        self.asked: list[int] = []

    async def reports(self, stream: str, after: int) -> AsyncIterator[News]:
        self.asked.append(after)
        for message in self._scripts.pop(0):
            if message is END:
                return
            yield message
        await asyncio.sleep(3600)


class Reader:
    def __init__(self, *scripts: Sequence[Any], due: int = 1) -> None:
        self.venue = Scripted(*scripts)
        self.following = Following("XSIM", self.venue, "s", due)  # type: ignore[arg-type]
        self.batches: list[list[int]] = []

    async def write(self, batch: Sequence[ExecutionReport]) -> int:
        self.batches.append([report.sequence for report in batch])
        return batch[-1].sequence + 1

    @property
    def written(self) -> list[int]:
        return [sequence for batch in self.batches for sequence in batch]

    async def once(self) -> None:
        async def idle() -> None:
            """Nothing to renew."""

        await self.following.until_it_breaks(self.write, idle, idle_seconds=60)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Read, again and again where it breaks for a hole, until this is so."""

        async def go_on() -> None:
            while True:
                await self.once()

        reading = asyncio.create_task(go_on())
        try:
            async with asyncio.timeout(20):
                while not condition():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


@asynchronous
async def test_reports_are_written_in_the_order_of_their_numbers_and_once() -> None:
    reader = Reader([beat(0), news(2, 1), news(1, 2, 3), news(3)])
    await reader.until(lambda: reader.written == [1, 2, 3])


@asynchronous
async def test_a_missing_report_is_read_again_from_its_number() -> None:
    reader = Reader([beat(0), news(1, 3)], [beat(3), news(2)])
    await reader.until(lambda: reader.written == [1, 2, 3])
    assert reader.venue.asked == [0, 1]


@asynchronous
async def test_a_missing_last_report_is_noticed_by_a_heartbeat() -> None:
    reader = Reader([beat(0), news(1), beat(2)], [beat(2), news(2)])
    await reader.until(lambda: reader.written == [1, 2])
    assert reader.venue.asked == [0, 1]


@asynchronous
async def test_what_was_written_before_is_dropped() -> None:
    reader = Reader([beat(6), news(4, 5, 6, 7)], due=6)
    await reader.until(lambda: reader.written == [6, 7])


@asynchronous
async def test_a_batch_has_a_bounded_size() -> None:
    reader = Reader([news(*range(1, 601))])
    await reader.until(lambda: len(reader.written) == 600)
    assert [len(batch) for batch in reader.batches] == [250, 250, 100]


@asynchronous
async def test_a_silent_stream_and_one_of_another_name_and_one_that_ends_are_given_up() -> None:
    for script, code in (([beat(0)], "silent_stream"), ([beat(0, "t")], "other_stream"), ([END], "stream_ended")):
        with pytest.raises(OutcomeUnknown) as raised:
            async with asyncio.timeout(20):
                await Reader(script).once()
        assert raised.value.code == code


class Beating(Scripted):
    """Nothing is reported, and a heartbeat says so again and again."""

    async def reports(self, stream: str, after: int) -> AsyncIterator[News]:
        while True:
            yield beat(0)
            await asyncio.sleep(0.02)


@asynchronous
async def test_a_lease_can_be_renewed_while_there_are_only_heartbeats() -> None:
    reader, idle = Reader(), asyncio.Event()
    reader.following = Following("XSIM", Beating(), "s", 1)  # type: ignore[arg-type]

    async def renew() -> None:
        idle.set()

    reading = asyncio.create_task(reader.following.until_it_breaks(reader.write, renew, idle_seconds=0.2))
    try:
        async with asyncio.timeout(20):
            await idle.wait()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@asynchronous
async def test_a_report_that_never_comes_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LONGEST_PATIENCE_SECONDS", 0.02)
    reader = Reader(*[[beat(1), news(2)]] * 12)
    with caplog.at_level(logging.ERROR):
        await reader.until(lambda: len(reader.venue.asked) == 12)
    assert [(vars(record)["event"], vars(record)["sequence"]) for record in caplog.records] == [("session.stuck", 1)]
    assert not reader.written


@asynchronous
async def test_no_more_is_read_than_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MOST_WAITING", 3)
    monkeypatch.setattr(session, "LARGEST_BATCH", 1)
    reader, begun = Reader([news(1, 2, 3), news(4), news(5)]), asyncio.Event()
    written = reader.write

    async def write(batch: Sequence[ExecutionReport]) -> int:
        begun.set()
        assert len(reader.following.inbox.reports) <= 4
        await asyncio.sleep(0.01)
        return await written(batch)

    reader.write = write  # type: ignore[method-assign]
    await reader.until(lambda: reader.written == [1, 2, 3, 4, 5])


def test_the_pauses_grow_and_are_bounded() -> None:
    back_off = BackOff(base=1.0, cap=8.0)
    pauses = [back_off.next_seconds() for _ in range(6)]
    for pause, (least, most) in zip(pauses, [(0.5, 1), (1, 2), (2, 4), (4, 8), (4, 8), (4, 8)], strict=True):
        assert least <= pause <= most
