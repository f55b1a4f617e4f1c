"""The book: worked examples, laws that hold in every market, an engine that is plainly right, and Liquibook."""

import platform
import random
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchanges.simulator.book import (
    BUY,
    CANCELED,
    EXPIRED,
    FILL,
    NEW,
    REPLACED,
    SELL,
    TRIGGERED,
    Book,
    NotWorking,
    Order,
    Report,
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def told(reports: Iterable[Report]) -> list[tuple[Any, ...]]:
    """The reports without what is nought."""
    return [(r.kind, r.order.id, r.quantity, r.price) if r.kind == FILL else (r.kind, r.order.id) for r in reports]


def submit(book: Book, order_id: str, side: int, quantity: int, price: int | None = None, **terms: Any) -> list[Any]:
    return told(book.submit(Order(order_id, side, quantity, price, **terms)))


def replace(book: Book, order_id: str, quantity: int, price: int | None, stop: int | None = None) -> list[Any]:
    return told(book.replace(order_id, quantity, price, stop, "day", None))


def test_the_best_price_trades_first_and_at_one_price_the_oldest() -> None:
    book = Book()
    submit(book, "dear", SELL, 10, 102)
    submit(book, "first", SELL, 10, 101)
    submit(book, "second", SELL, 10, 101)
    assert submit(book, "b", BUY, 25, 102) == [
        *[(NEW, "b"), (FILL, "first", 10, 101), (FILL, "b", 10, 101)],
        *[(FILL, "second", 10, 101), (FILL, "b", 10, 101)],
        *[(FILL, "dear", 5, 102), (FILL, "b", 5, 102)],
    ]
    assert {order.id: order.leaves for order in book.orders.values()} == {"dear": 5}


def test_a_market_order_takes_what_is_there_and_the_rest_is_canceled() -> None:
    book = Book()
    assert submit(book, "alone", BUY, 10) == [(NEW, "alone"), (CANCELED, "alone")]
    submit(book, "s", SELL, 4, 100)
    assert submit(book, "b", BUY, 10)[1:] == [(FILL, "s", 4, 100), (FILL, "b", 4, 100), (CANCELED, "b")]
    assert book.orders == {}


@pytest.mark.parametrize(
    ("lasts", "quantity", "filled", "ended"),
    [
        ("ioc", 8, 8, []),
        ("ioc", 12, 10, [(CANCELED, "b")]),
        ("fok", 10, 10, []),
        ("fok", 11, 0, [(CANCELED, "b")]),
    ],
)
def test_an_order_for_now_never_rests(lasts: str, quantity: int, filled: int, ended: list[Any]) -> None:
    book = Book()
    for number, price in enumerate((100, 101, 102)):
        submit(book, f"s{number}", SELL, 5, price)
    reports = submit(book, "b", BUY, quantity, 101, time_in_force=lasts)
    assert sum(report[2] for report in reports if report[:2] == (FILL, "b")) == filled
    assert [report for report in reports if report[0] == CANCELED] == ended
    assert "b" not in book.orders


def test_stops_wake_by_a_trade_the_oldest_first_and_may_wake_others() -> None:
    book = Book()
    submit(book, "young", BUY, 1, 105, stop=102)
    submit(book, "far", SELL, 1, 90, stop=101)
    submit(book, "never", BUY, 1, 105, stop=110)
    submit(book, "s", SELL, 1, 102)
    assert submit(book, "b", BUY, 1, 102) == [
        *[(NEW, "b"), (FILL, "s", 1, 102), (FILL, "b", 1, 102)],
        (TRIGGERED, "young"),  # no one is there to trade with, so it rests at 105
    ]
    submit(book, "bid", BUY, 1, 100)
    assert submit(book, "sell", SELL, 2, 100) == [
        *[(NEW, "sell"), (FILL, "young", 1, 105), (FILL, "sell", 1, 105)],
        *[(FILL, "bid", 1, 100), (FILL, "sell", 1, 100)],
        (TRIGGERED, "far"),
    ]
    assert list(book.orders) == ["never", "far"]


def test_a_stop_that_the_last_trade_has_reached_enters_at_once() -> None:
    book = Book()
    submit(book, "s", SELL, 2, 100)
    submit(book, "b", BUY, 1, 100)
    assert submit(book, "stop", BUY, 1, None, stop=100) == [
        *[(NEW, "stop"), (TRIGGERED, "stop")],
        *[(FILL, "s", 1, 100), (FILL, "stop", 1, 100)],
    ]


def test_a_stop_wakes_though_a_later_trade_of_the_same_sweep_left_its_price() -> None:
    book = Book()
    submit(book, "low", SELL, 1, 99)
    submit(book, "high", SELL, 1, 103)
    submit(book, "stop", SELL, 1, 90, stop=100)
    assert submit(book, "b", BUY, 2, 103)[-1] == (TRIGGERED, "stop")
    assert book.last == 103


@pytest.mark.parametrize(
    ("quantity", "price", "first"),
    [(4, 100, "a"), (5, 100, "a"), (6, 100, "b"), (4, 99, "b"), (4, 101, "a")],
)
def test_a_replaced_order_keeps_its_place_only_for_less_at_the_same_price(
    quantity: int, price: int, first: str
) -> None:
    book = Book()
    submit(book, "a", BUY, 5, 100)
    submit(book, "b", BUY, 5, 100)
    assert replace(book, "a", quantity, price) == [(REPLACED, "a")]
    assert submit(book, "s", SELL, 1, 99)[1][:2] == (FILL, first)


def test_an_order_replaced_below_what_is_filled_is_filled() -> None:
    book = Book()
    submit(book, "a", BUY, 10, 100)
    submit(book, "s", SELL, 4, 100)
    assert replace(book, "a", 3, 100) == [(REPLACED, "a")]
    with pytest.raises(NotWorking):
        book.cancel("a")


def test_a_replaced_price_may_trade_at_once() -> None:
    book = Book()
    submit(book, "b", BUY, 10, 99)
    submit(book, "s", SELL, 4, 100)
    assert replace(book, "b", 10, 100) == [(REPLACED, "b"), (FILL, "s", 4, 100), (FILL, "b", 4, 100)]


def test_the_end_of_the_day_is_not_the_end_of_what_is_good_longer() -> None:
    book = Book()
    for lasts in ("day", "gtc", "gtd"):
        submit(book, lasts, BUY, 1, 100, time_in_force=lasts, expires_at=NOON if lasts == "gtd" else None)
    submit(book, "stop", BUY, 1, None, stop=120)
    assert told(book.close()) == [(EXPIRED, "day"), (EXPIRED, "stop")]
    assert told(book.expire(NOON - timedelta(seconds=1))) == []
    assert told(book.expire(NOON)) == [(EXPIRED, "gtd")]
    assert list(book.orders) == ["gtc"]


def test_an_id_works_once_at_a_time() -> None:
    book = Book()
    submit(book, "a", BUY, 1, 100)
    with pytest.raises(ValueError, match="a is in the book"):
        submit(book, "a", BUY, 1, 100)


# The same market in the plainest way: one list, searched from end to end for whatever is needed.


@dataclass
class PlainOrder:
    id: str
    side: int
    left: int
    price: int | None
    stop: int | None
    lasts: str
    until: datetime | None
    filled: int = 0


class PlainMarket:
    """`there` is in the order in which orders came to where they stand."""

    def __init__(self) -> None:
        self.there: list[PlainOrder] = []
        self.log: list[tuple[Any, ...]] = []
        self.last: int | None = None

    def submit(self, order: PlainOrder) -> None:
        self.log.append((NEW, order.id))
        self.enter(order)

    def enter(self, order: PlainOrder) -> None:
        if order.stop is not None and not self.reached(order, self.last):
            self.there.append(order)
            return
        queue = [order]
        while queue:
            order = queue.pop(0)
            if order.stop is not None:
                order.stop = None
                self.log.append((TRIGGERED, order.id))
            self.match(order, queue)

    def match(self, order: PlainOrder, queue: list[PlainOrder]) -> None:
        if order.lasts == "fok" and sum(other.left for other in self.partners(order)) < order.left:
            self.log.append((CANCELED, order.id))
            return
        while order.left and (partners := self.partners(order)):
            other = min(partners, key=lambda other: (other.price or 0) * order.side)  # of equals, min takes the first
            quantity = min(order.left, other.left)
            for trader in (other, order):
                trader.left -= quantity
                trader.filled += quantity
                self.log.append((FILL, trader.id, quantity, other.price))
            self.last = other.price
            woken = [stop for stop in self.there if stop.stop is not None and self.reached(stop, self.last)]
            self.there = [order for order in self.there if order.left and order not in woken]
            queue += woken
        if order.left and (order.price is None or order.lasts in ("ioc", "fok")):
            self.log.append((CANCELED, order.id))
        elif order.left:
            self.there.append(order)

    def partners(self, order: PlainOrder) -> list[PlainOrder]:
        resting = [other for other in self.there if other.side != order.side and other.stop is None]
        return [o for o in resting if order.price is None or (order.price - (o.price or 0)) * order.side >= 0]

    @staticmethod
    def reached(order: PlainOrder, last: int | None) -> bool:
        return last is not None and (last - (order.stop or 0)) * order.side >= 0

    def find(self, order_id: str) -> PlainOrder | None:
        return next((order for order in self.there if order.id == order_id), None)

    def end(self, order: PlainOrder, kind: str) -> None:
        self.there.remove(order)
        self.log.append((kind, order.id))

    def replace(
        self, order: PlainOrder, quantity: int, price: int | None, stop: int | None, lasts: str, until: datetime | None
    ) -> None:
        self.log.append((REPLACED, order.id))
        order.lasts, order.until = lasts, until
        less = order.filled < quantity <= order.filled + order.left
        order.left = max(quantity - order.filled, 0)
        if less and price == order.price and (order.stop is None or stop == order.stop):
            return
        self.there.remove(order)
        order.price, order.stop = price, stop if order.stop is not None else None
        if order.left:
            self.enter(order)


class BothMarkets:
    """Every request goes to both, and both must tell the same."""

    def __init__(self) -> None:
        self.book, self.plain = Book(), PlainMarket()
        self.reports: list[Report] = []
        self.now = NOON

    def submit(self, order_id: str, side: int, quantity: int, price: int | None, stop: int | None, lasts: str) -> None:
        until = self.now + timedelta(seconds=quantity) if lasts == "gtd" else None
        order = Order(order_id, side, quantity, price, stop, lasts, until)
        self.plain.submit(PlainOrder(order_id, side, quantity, price, stop, lasts, until))
        self.agree(self.book.submit(order))

    def cancel(self, order_id: str) -> None:
        order = self.plain.find(order_id)
        if order is None:
            with pytest.raises(NotWorking):
                self.book.cancel(order_id)
            return
        self.plain.end(order, CANCELED)
        self.agree(self.book.cancel(order_id))

    def replace(self, order_id: str, quantity: int, price: int, stop: int, lasts: str) -> None:
        order = self.plain.find(order_id)
        if order is None:
            with pytest.raises(NotWorking):
                self.book.replace(order_id, quantity, price, stop, lasts, None)
            return
        terms = (quantity, price if order.price is not None else None, stop, lasts, None)
        self.plain.replace(order, *terms)
        self.agree(self.book.replace(order_id, *terms))

    def pass_time(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        for order in list(self.book.orders.values()):  # in its order, which is not what is tried here
            plain = self.plain.find(order.id)
            if plain is not None and plain.until is not None and plain.until <= self.now:
                self.plain.end(plain, EXPIRED)
        self.agree(self.book.expire(self.now))

    def agree(self, reports: list[Report]) -> None:
        self.reports += reports
        assert told(reports) == self.plain.log
        self.plain.log.clear()
        assert {order.id: order.leaves for order in self.book.orders.values()} == {
            order.id: order.left for order in self.plain.there
        }


PRICES = st.integers(95, 105)
SIDES = st.sampled_from((BUY, SELL))
LASTS = st.sampled_from(("day", "day", "gtc", "gtd", "ioc", "fok"))
NAMES = st.integers(0, 40)
REQUESTS = st.one_of(
    st.tuples(
        st.just("submit"), SIDES, st.integers(1, 50), st.none() | PRICES | PRICES, st.none() | st.none() | PRICES, LASTS
    ),
    st.tuples(st.just("cancel"), NAMES),
    st.tuples(st.just("replace"), NAMES, st.integers(1, 60), PRICES, PRICES, st.sampled_from(("day", "gtc"))),
    st.tuples(st.just("pass_time"), st.integers(1, 20)),
)


def run(requests: list[tuple[Any, ...]]) -> BothMarkets:
    markets, count = BothMarkets(), 0
    for name, *arguments in requests:
        if name == "submit":
            markets.submit(str(count), *arguments)
            count += 1
        elif name == "pass_time":
            markets.pass_time(*arguments)
        else:
            getattr(markets, name)(str(arguments[0]), *arguments[1:])
    return markets


def random_requests(seed: int, count: int) -> list[tuple[Any, ...]]:
    """The same kinds of requests from plain dice, which is quicker than to look for a small example."""
    dice, orders = random.Random(seed), 0
    requests: list[tuple[Any, ...]] = []
    for _ in range(count):
        kind = dice.choices(("submit", "cancel", "replace", "pass_time"), (65, 14, 18, 3))[0]
        price, stop, name = dice.randint(95, 105), dice.randint(95, 105), dice.randrange(max(orders, 1))
        if kind == "submit":
            chosen = dice.choice((None, price, price)), dice.choice((None, None, stop))
            lasts = dice.choice(("day", "day", "gtc", "gtd", "ioc", "fok"))
            requests.append((kind, dice.choice((BUY, SELL)), dice.randint(1, 50), *chosen, lasts))
            orders += 1
        elif kind == "replace":
            requests.append((kind, name, dice.randint(1, 60), price, stop, dice.choice(("day", "gtc"))))
        else:
            requests.append((kind, name if kind == "cancel" else dice.randint(1, 20)))
    return requests


def check_laws(markets: BothMarkets) -> None:
    book, reports = markets.book, markets.reports
    fills = [report for report in reports if report.kind == FILL]
    signed = [report.quantity * report.order.side for report in fills]
    assert sum(signed) == 0, "as much is bought as is sold"
    for resting, came in zip(fills[::2], fills[1::2], strict=True):
        assert (resting.quantity, resting.price) == (came.quantity, came.price)
        assert resting.order.side == -came.order.side
    for order in {id(report.order): report.order for report in reports}.values():
        assert order.filled == sum(report.quantity for report in fills if report.order is order)
        assert 0 <= order.filled <= order.quantity
    bids, asks = book.resting[BUY], book.resting[SELL]
    assert not (bids.keys and asks.keys and -bids.keys[0] >= asks.keys[0]), "the book is crossed"
    for levels in (bids, asks):
        queue = list(levels.until(None))
        assert all(order.leaves > 0 and not order.waiting for order in queue)
        ranks = [((order.price or 0) * levels.sign, order.rank) for order in queue]
        assert all(earlier < later for earlier, later in pairwise(ranks)), "price before time"


@settings(max_examples=150, deadline=None)
@given(st.lists(REQUESTS, max_size=40))
def test_every_market_does_what_the_plain_one_does(requests: list[tuple[Any, ...]]) -> None:
    check_laws(run(requests))


@pytest.mark.parametrize("seed", range(20))
def test_random_markets_do_what_the_plain_one_does(seed: int) -> None:
    check_laws(run(random_requests(seed, 150)))


@pytest.mark.exhaustive
def test_three_thousand_random_markets_do_what_the_plain_one_does() -> None:
    for seed in range(100, 3_100):
        check_laws(run(random_requests(seed, 120)))


# Liquibook publishes no wheel for other platforms than these.
HAS_LIQUIBOOK = sys.version_info < (3, 14) and (sys.platform, platform.machine()) in (
    ("linux", "x86_64"),
    ("darwin", "arm64"),
    ("win32", "AMD64"),
)


def liquibook() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of Python warn of the types that SWIG makes
        import liquibook
    return liquibook


def liquibook_trades(requests: list[tuple[Any, ...]]) -> list[tuple[frozenset[int], int, int]]:
    """The trades in the C++ engine, with who and the cost. It gets limit orders, some for now only, and cancels."""
    peer = liquibook()
    base: Any = peer.OrderListener

    class Listener(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.trades: list[tuple[frozenset[int], int, int]] = []

        def on_fill(self, came: Any, there: Any, quantity: int, cost: int) -> None:
            for order in (came, there):
                order.fill(quantity, cost, 0)
            pair = frozenset((names[came.order_id_], names[there.order_id_]))
            self.trades.append((pair, quantity, cost))

        def ignore(self, *_: Any) -> None:
            pass

        on_accept = on_reject = on_cancel = on_cancel_reject = on_replace = on_replace_reject = on_trigger_stop = ignore

    listener, book = Listener(), peer.DepthOrderBook()
    book.set_symbol("X")
    book.set_order_listener(listener)
    orders: list[Any] = []
    names: dict[int, int] = {}
    for name, *arguments in requests:
        if name == "submit":
            side, quantity, price, _, lasts = arguments
            condition = peer.oc_immediate_or_cancel if lasts == "ioc" else peer.oc_no_conditions
            orders.append(peer.SimpleOrder(side == BUY, price, quantity, 0, condition))
            names[orders[-1].order_id_] = len(orders) - 1
            book.add(orders[-1], condition)
        else:
            book.cancel(orders[arguments[0]])
    return listener.trades


def our_trades(requests: list[tuple[Any, ...]]) -> list[tuple[frozenset[int], int, int]]:
    book, count, trades = Book(), 0, []
    for name, *arguments in requests:
        if name == "submit":
            side, quantity, price, _, lasts = arguments
            fills = [r for r in book.submit(Order(str(count), side, quantity, price, None, lasts)) if r.kind == FILL]
            for there, came in zip(fills[::2], fills[1::2], strict=True):
                pair = frozenset((int(there.order.id), int(came.order.id)))
                trades.append((pair, there.quantity, there.price))
            count += 1
        elif str(arguments[0]) in book.orders:
            book.cancel(str(arguments[0]))
    return trades


def requests_for_liquibook(seed: int, immediate: float) -> list[tuple[Any, ...]]:
    """1,500 limit orders and cancels; a cancel is of an order that works, in our book."""
    dice, book, count = random.Random(seed), Book(), 0
    requests: list[tuple[Any, ...]] = []
    for _ in range(1_500):
        if dice.random() < 0.75 or not book.orders:
            lasts = "ioc" if dice.random() < immediate else "day"
            submitted = dice.choice((BUY, SELL)), dice.randint(1, 50), dice.randint(95, 105), None, lasts
            requests.append(("submit", *submitted))
            book.submit(Order(str(count), *submitted[:3], None, lasts))
            count += 1
        else:
            chosen = dice.choice(list(book.orders))
            requests.append(("cancel", int(chosen)))
            book.cancel(chosen)
    return requests


@pytest.mark.skipif(not HAS_LIQUIBOOK, reason="Liquibook has no wheel for this platform")
@pytest.mark.parametrize("seed", range(40))
def test_random_markets_trade_as_liquibook_does(seed: int) -> None:
    requests = requests_for_liquibook(seed, immediate=0.2 if seed % 2 else 0.0)
    theirs, ours = liquibook_trades(requests), our_trades(requests)
    assert len(ours) > 500
    assert [trade[:2] for trade in ours] == [trade[:2] for trade in theirs]
    # Liquibook gives what a fill costs in all, or the price of one share, by the version
    assert all(
        cost in (price, price * quantity) for (_, quantity, price), (_, _, cost) in zip(ours, theirs, strict=True)
    )
