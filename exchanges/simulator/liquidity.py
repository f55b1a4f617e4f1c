"""A second member of the exchange, so that orders are filled without one of ours on the other side.

To an order that cannot wait it offers all of its quantity at once, at a fair price. With one that rests it trades after
a while, in one to three parts. The fair price is that of the last trade. So a limit order is left alone whose price is
more than one per cent worse for this member than that: to see an order wait, give it such a price.
"""

import asyncio
import heapq
import random
from collections.abc import Callable

from exchanges.simulator.book import FILL_OR_KILL, IMMEDIATE_OR_CANCEL, Book, Order
from exchanges.simulator.exchange import Exchange
from exchanges.simulator.journal import JournalError
from exchanges.simulator.market import DECIMAL_PLACES, Market, MemberOrder
from exchanges.simulator.report_log import Record

FIRST_PRICE = 100 * 10**DECIMAL_PLACES
"""For a market order in an instrument that has never been traded."""

DELAY_SECONDS = (0.1, 0.6)
LOOK_SECONDS = 0.05


class Liquidity:
    """`share` is the part of the orders that it cares for. `lost_memory` as of `OrderPort`."""

    def __init__(
        self, exchange: Exchange, share: float, seed: int, lost_memory: Callable[[JournalError], None]
    ) -> None:
        assert exchange.market is not None
        self._exchange = exchange
        self._market: Market = exchange.market
        self._share = share
        self._dice = random.Random(f"{seed}/liquidity")  # noqa: S311 - to be repeatable is the point
        self._lost_memory = lost_memory
        self._plans: list[tuple[float, str, str, int]] = []  # when, which order, where, in how many parts
        self._market.quote = self._quote
        for order in self._market.working():
            self._plan(order.instrument, order.id)
        exchange.watchers.append(self._watch)

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                while self._plans and self._plans[0][0] <= clock():
                    _, venue_order_id, instrument, parts = heapq.heappop(self._plans)
                    self._trade(venue_order_id, instrument, parts)
        except JournalError as error:
            self._lost_memory(error)

    def _watch(self, reports: list[Record]) -> None:
        for report in reports:
            if report["kind"] in ("new", "replaced", "restated") and report["leaves_quantity"]:
                self._plan(report["instrument"], report["venue_order_id"])

    def _plan(self, instrument: str, venue_order_id: str) -> None:
        if self._dice.random() < self._share:
            self._add(venue_order_id, instrument, self._dice.randint(1, 3))

    def _add(self, venue_order_id: str, instrument: str, parts: int) -> None:
        at = asyncio.get_running_loop().time() + self._dice.uniform(*DELAY_SECONDS)
        heapq.heappush(self._plans, (at, venue_order_id, instrument, parts))

    def _trade(self, venue_order_id: str, instrument: str, parts: int) -> None:
        order = self._market.find(instrument, venue_order_id)
        if order is None or order.waiting or not _is_fair(order, self._market.books[instrument]):
            return
        self._exchange.take(order, -(-order.leaves // parts))
        if parts > 1:
            self._add(venue_order_id, instrument, parts - 1)

    def _quote(self, book: Book, order: MemberOrder) -> Order | None:
        now_or_never = order.price is None or order.time_in_force in (IMMEDIATE_OR_CANCEL, FILL_OR_KILL)
        if order.stop is not None or not now_or_never or not _is_fair(order, book):
            return None
        if self._dice.random() >= self._share:
            return None
        price = order.price or book.last or FIRST_PRICE
        return Order(f"offer-{order.id}", -order.side, order.quantity, price)


def _is_fair(order: MemberOrder, book: Book) -> bool:
    """Tell whether the order's price is not much worse for the other side than the last one."""
    if order.price is None or book.last is None:
        return True
    return (order.price - book.last) * order.side * 100 >= -book.last
