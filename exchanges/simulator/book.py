"""A market in one instrument: orders matched by price, and at one price by time.

Nothing here reads a clock or does I/O: times come from the caller, quantities are whole shares, and prices are whole
numbers of whatever step the caller chose. Every call returns the reports that follow from it, in the order in which
things happened, so the same calls always give the same reports.

A trade is at the price of the order that was there first, and gives two reports: first that order's, then that of the
order that came. A stop is reached by a trade at its price or beyond; the stops that one trade reaches wake in the order
of their age, each after whatever woke before it has been matched. A replaced order keeps its place in the queue only
if it asks for less at the same prices; otherwise it is last at its new price.
"""

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

BUY, SELL = 1, -1
DAY, IMMEDIATE_OR_CANCEL, FILL_OR_KILL = "day", "ioc", "fok"
NEW, FILL, TRIGGERED, REPLACED, CANCELED, EXPIRED = "new", "fill", "triggered", "replaced", "canceled", "expired"


class NotWorking(Exception):
    """The order is not in the book: it was never there, or it has ended."""


@dataclass(slots=True, eq=False)
class Order:
    """An order without `price` trades at any; with `stop` it waits until a trade reaches that price."""

    id: str
    side: int
    quantity: int
    price: int | None = None
    stop: int | None = None
    time_in_force: str = DAY
    expires_at: datetime | None = None
    filled: int = 0
    waiting: bool = False
    rank: int = 0
    """Given by the book: who came earlier to where it stands has a lower one."""

    @property
    def leaves(self) -> int:
        return self.quantity - self.filled


class Report(NamedTuple):
    """What happened to an order. `quantity` and `price` are a fill's; `filled` is the order's total after it."""

    kind: str
    order: Order
    filled: int
    quantity: int = 0
    price: int = 0
    text: str = ""


class Levels:
    """Orders by price, and by age at one price. With sign 1 the lowest price is first, with -1 the highest."""

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.keys: list[int] = []
        """The prices times the sign, sorted."""
        self._queues: dict[
            int, OrderedDict[str, Order]
        ] = {}  # the first of a dict would take longer and longer to find

    def add(self, price: int, order: Order) -> None:
        key = price * self.sign
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = OrderedDict()
            insort(self.keys, key)
        queue[order.id] = order

    def remove(self, price: int, order: Order) -> None:
        key = price * self.sign
        queue = self._queues[key]
        del queue[order.id]
        if not queue:
            del self._queues[key], self.keys[bisect_left(self.keys, key)]

    def first(self) -> Order:
        return next(iter(self._queues[self.keys[0]].values()))

    def reaches(self, price: int | None) -> bool:
        """Tell whether the first price is this one or before it; None is beyond every price."""
        return bool(self.keys) and (price is None or self.keys[0] <= price * self.sign)

    def until(self, price: int | None) -> Iterator[Order]:
        count = len(self.keys) if price is None else bisect_right(self.keys, price * self.sign)
        return (order for key in self.keys[:count] for order in self._queues[key].values())


class Book:
    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}  # those that work: they rest, or wait for their stop
        self.last: int | None = None  # the price of the last trade
        self.resting = {BUY: Levels(-1), SELL: Levels(1)}
        self.waiting = {BUY: Levels(1), SELL: Levels(-1)}
        self._woken: deque[Order] = deque()
        self._rank = 0
        self._next_expiry: datetime | None = None

    def submit(self, order: Order) -> list[Report]:
        if order.id in self.orders:
            raise ValueError(f"order {order.id} is in the book already")
        order.waiting = order.stop is not None
        reports = [Report(NEW, order, order.filled)]
        self._enter(order, reports)
        return reports

    def cancel(self, order_id: str, kind: str = CANCELED, text: str = "") -> list[Report]:
        """Raises: NotWorking."""
        order = self._working(order_id)
        self._remove(order)
        return [Report(kind, order, order.filled, text=text)]

    def replace(
        self, order_id: str, quantity: int, price: int | None, stop: int | None, lasts: str, until: datetime | None
    ) -> list[Report]:
        """Give a working order these terms; `quantity` is the total, with what is filled. Raises: NotWorking.

        A quantity below what is filled is raised to that, and then the order is filled. The stop of an order that
        waits no more has no effect. It `lasts` as a time in force says, for the last one `until` a date.
        """
        order = self._working(order_id)
        order.time_in_force, order.expires_at = lasts, until
        self._note_expiry(order)
        if keeps_place(order, quantity, price, stop):
            order.quantity = quantity
            return [Report(REPLACED, order, order.filled)]
        self._remove(order)
        order.quantity, order.price = max(quantity, order.filled), price
        order.stop = stop if order.waiting else order.stop
        reports = [Report(REPLACED, order, order.filled)]
        if order.leaves:
            self._enter(order, reports)
        return reports

    def expire(self, now: datetime) -> list[Report]:
        """End the orders that are good till a date that has come, the oldest first."""
        if self._next_expiry is None or now < self._next_expiry:
            return []
        due = [order for order in self.orders.values() if order.expires_at is not None and order.expires_at <= now]
        reports = [report for order in due for report in self.cancel(order.id, EXPIRED, "its time is over")]
        dates = (order.expires_at for order in self.orders.values() if order.expires_at is not None)
        self._next_expiry = min(dates, default=None)
        return reports

    def close(self) -> list[Report]:
        """End the orders for the day, the oldest first."""
        due = [order for order in self.orders.values() if order.time_in_force == DAY]
        return [report for order in due for report in self.cancel(order.id, EXPIRED, "the day is over")]

    def stand(self, order: Order) -> None:
        """Put a working order where it belongs, behind those that are there; nothing is matched."""
        self._rank += 1
        order.rank = self._rank
        self.orders[order.id] = order
        levels, price = self._place_of(order)
        levels.add(price, order)
        self._note_expiry(order)

    def _working(self, order_id: str) -> Order:
        if order_id not in self.orders:
            raise NotWorking(order_id)
        return self.orders[order_id]

    def _remove(self, order: Order) -> None:
        del self.orders[order.id]
        levels, price = self._place_of(order)
        levels.remove(price, order)

    def _place_of(self, order: Order) -> tuple[Levels, int]:
        levels, price = (self.waiting, order.stop) if order.waiting else (self.resting, order.price)
        assert price is not None
        return levels[order.side], price

    def _note_expiry(self, order: Order) -> None:
        at = order.expires_at
        if at is not None and (self._next_expiry is None or at < self._next_expiry):
            self._next_expiry = at

    def _enter(self, order: Order, reports: list[Report]) -> None:
        """Let the order wait, or match it; then match the stops that its trades reached, and theirs in turn."""
        if order.waiting and not self._is_reached(order):
            self.stand(order)
            return
        self._woken.append(order)
        while self._woken:
            order = self._woken.popleft()
            if order.waiting:
                order.waiting = False
                reports.append(Report(TRIGGERED, order, order.filled))
            self._match(order, reports)

    def _is_reached(self, order: Order) -> bool:
        """Tell whether the last trade was at the order's stop or beyond it."""
        assert order.stop is not None
        return self.last is not None and (self.last - order.stop) * order.side >= 0

    def _match(self, order: Order, reports: list[Report]) -> None:
        """Trade with the other side while its first price will do; then rest, or end."""
        there = self.resting[-order.side]
        if order.time_in_force == FILL_OR_KILL and not self._can_fill(order):
            reports.append(Report(CANCELED, order, order.filled, text="it cannot be filled whole at once"))
            return
        while order.leaves and there.reaches(order.price):
            first, price = there.first(), there.keys[0] * there.sign
            quantity = min(order.leaves, first.leaves)
            first.filled += quantity
            order.filled += quantity
            reports.append(Report(FILL, first, first.filled, quantity, price))
            reports.append(Report(FILL, order, order.filled, quantity, price))
            if not first.leaves:
                self._remove(first)
            self.last = price
            if self.waiting[BUY].keys or self.waiting[SELL].keys:
                self._wake(price)
        if order.leaves and (order.price is None or order.time_in_force in (IMMEDIATE_OR_CANCEL, FILL_OR_KILL)):
            reports.append(Report(CANCELED, order, order.filled, text="there is no more to trade with at once"))
        elif order.leaves:
            self.stand(order)

    def _can_fill(self, order: Order) -> bool:
        wanted = order.leaves
        for other in self.resting[-order.side].until(order.price):
            wanted -= other.leaves
            if wanted <= 0:
                return True
        return False

    def _wake(self, price: int) -> None:
        """Take out the stops that a trade at this price reaches: they are matched next, the oldest first."""
        woken = [order for levels in self.waiting.values() if levels.reaches(price) for order in levels.until(price)]
        for order in sorted(woken, key=lambda order: order.rank):
            self._remove(order)
            self._woken.append(order)


def keeps_place(order: Order, quantity: int, price: int | None, stop: int | None) -> bool:
    """Tell whether these terms leave a working order its place in the queue: no more than now, at the same prices."""
    same_prices = price == order.price and (stop == order.stop or not order.waiting)
    return same_prices and order.filled < quantity <= order.quantity
