"""A venue inside the test, of any class. The test decides on its network, clock and answers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from exchanges import registry
from exchanges.models import Venue
from exchanges.venue import (
    Acknowledgement,
    Capabilities,
    NewOrder,
    OutcomeUnknown,
    Report,
    ReportStatus,
    RequestVenue,
    ResendSafety,
)
from orders.engine import Engine
from orders.tests.factories import VenueFactory

DEADLINE_SECONDS = 5.0
SETTLE_SECONDS = 10.0
WINDOW_SECONDS = 200.0
ALL = frozenset({"market", "limit", "stop", "stop_limit", "day", "gtc", "ioc", "fok", "gtd"})


@dataclass
class Book:
    """What the venue knows about each order id: how many orders are live, and whether it was refused."""

    safety: ResendSafety
    live: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    invalid: set[str] = field(default_factory=set)  # refused for what they say, however often they come
    known_for: dict[str, float] = field(default_factory=dict)  # seconds since the id was first seen
    reachable: bool = True
    forgets_rejections: bool = False

    def take(self, client_order_id: str, *, stale: bool, refuse: bool) -> str:
        """A request arrives; the answer is `working`, `refused`, `duplicate` or `stale`."""
        if self.safety is ResendSafety.REFUSES_STALE_REQUESTS and stale:
            return "stale"
        age = self.known_for.get(client_order_id)
        remembers = {
            ResendSafety.REFUSES_DUPLICATES: age is not None,
            ResendSafety.REFUSES_RECENT_DUPLICATES: age is not None and age < WINDOW_SECONDS,
        }
        if remembers.get(self.safety, False):
            return "duplicate"
        if refuse:
            self.refused.add(client_order_id)
            if not self.forgets_rejections:
                self.known_for.setdefault(client_order_id, 0.0)
            return "refused"
        self.known_for.setdefault(client_order_id, 0.0)
        self.live[client_order_id] = self.live.get(client_order_id, 0) + 1
        return "working"


class ScriptedVenue(RequestVenue):
    """Looks orders up in the book. The test does the sending."""

    def __init__(self, book: Book, settings: Mapping[str, Any]) -> None:
        self._book = book
        self._settle = settings.get("settle_seconds", SETTLE_SECONDS)

    @property
    def capabilities(self) -> Capabilities:
        recent = self._book.safety is ResendSafety.REFUSES_RECENT_DUPLICATES
        return Capabilities(
            resend_safety=self._book.safety,
            deadline_seconds=DEADLINE_SECONDS,
            settle_seconds=self._settle,
            finds=True,
            order_types=ALL,
            times_in_force=ALL,
            duplicate_window_seconds=WINDOW_SECONDS if recent else None,
            remembers_rejections=not self._book.forgets_rejections,
        )

    async def place(self, order: NewOrder) -> Acknowledgement:
        raise AssertionError("the test sends")

    async def find(self, client_order_id: str) -> Report | None:
        if not self._book.reachable:
            raise OutcomeUnknown("timeout")
        if self._book.live.get(client_order_id):
            return Report(
                client_order_id=client_order_id, status=ReportStatus.WORKING, venue_order_id=f"V-{client_order_id}"
            )
        if client_order_id in self._book.refused:
            code, by_content = "refused", client_order_id in self._book.invalid
            return Report(
                client_order_id=client_order_id, status=ReportStatus.REJECTED, code=code, by_content=by_content
            )
        return None

    async def close(self) -> None:
        """Nothing is open."""


@contextmanager
def answering(
    place: Callable[[NewOrder], Awaitable[Acknowledgement]],
    find: Callable[[str], Awaitable[Report | None]] | None = None,
) -> Iterator[Venue]:
    """The default venue, which answers as the test says."""

    class Answering(ScriptedVenue):
        async def place(self, order: NewOrder) -> Acknowledgement:
            return await place(order)

        async def find(self, client_order_id: str) -> Report | None:
            return await (find or super().find)(client_order_id)

    registry.ADAPTERS["scripted"] = lambda values: Answering(Book(ResendSafety.REFUSES_DUPLICATES), values)
    try:
        yield VenueFactory(adapter="scripted", settings={"settle_seconds": 0.01})
    finally:
        del registry.ADAPTERS["scripted"]


def run_engine(seconds: float = 20.0, **options: Any) -> None:
    engine = Engine()

    async def run() -> None:
        try:
            await engine.run(seconds=seconds, **options)
        finally:
            await engine.close()

    asyncio.run(run())
