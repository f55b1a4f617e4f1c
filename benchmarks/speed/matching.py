"""`python -m benchmarks.speed.matching ENGINE SECONDS`: how many requests a second a book answers.

ENGINE is `book`, which is the simulated exchange's, or `liquibook`, which is the same in C++ behind a wrapper for
Python. The requests are the same for both: three of four are limit orders at eleven prices, and the others cancel one
that works. Prints a line of JSON: requests a second, and how many trades there were in the first market.
"""

import json
import random
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from exchanges.simulator.book import BUY, FILL, SELL, Book, NotWorking, Order

MARKET = 30_000
"""Requests to one book; then a new one begins."""

Request = tuple[int, int, int]
"""Side, quantity and price; a cancel has side 0, and the number of the order to cancel."""


def requests(seed: int) -> list[Request]:
    dice, count = random.Random(seed), 0  # noqa: S311  to be repeatable is the point
    made: list[Request] = []
    for _ in range(MARKET):
        if count == 0 or dice.random() < 0.75:
            made.append((dice.choice((BUY, SELL)), dice.randint(1, 50), dice.randint(95, 105)))
            count += 1
        else:
            made.append((0, dice.randrange(max(0, count - 200), count), 0))
    return made


def run_book(made: list[Request]) -> int:
    """Returns the number of trades."""
    book, count, trades = Book(), 0, 0
    for side, quantity, price in made:
        if side:
            for report in book.submit(Order(str(count), side, quantity, price)):
                trades += report.kind == FILL
            count += 1
        else:
            try:
                book.cancel(str(quantity))
            except NotWorking:
                continue
    return trades // 2


def liquibook_runner() -> Callable[[list[Request]], int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of Python warn of the types that the wrapper makes
        import liquibook as peer

    class Listener(peer.OrderListener):  # type: ignore[misc]
        trades = 0

        def on_fill(self, came: Any, there: Any, quantity: int, cost: int) -> None:
            came.fill(quantity, cost, 0)
            there.fill(quantity, cost, 0)
            self.trades += 1

        def ignore(self, *_: Any) -> None:
            return None

        on_accept = on_reject = on_cancel = on_cancel_reject = on_replace = on_replace_reject = on_trigger_stop = ignore

    def run(made: list[Request]) -> int:
        listener, book = Listener(), peer.DepthOrderBook()
        book.set_symbol("X")
        book.set_order_listener(listener)
        orders = []
        for side, quantity, price in made:
            if side:
                orders.append(peer.SimpleOrder(side == BUY, price, quantity, 0, peer.oc_no_conditions))
                book.add(orders[-1], peer.oc_no_conditions)
            elif orders[quantity].open_qty():
                book.cancel(orders[quantity])
        return listener.trades

    return run


def main() -> None:
    engine, seconds = sys.argv[1], float(sys.argv[2])
    run = run_book if engine == "book" else liquibook_runner()
    markets = [requests(seed) for seed in range(4)]
    trades, done, begun = run(markets[0]), 0, time.perf_counter()
    while (taken := time.perf_counter() - begun) < seconds:
        run(markets[done % len(markets)])
        done += 1
    sys.stdout.write(json.dumps({"rate": done * MARKET / taken, "trades": trades}) + "\n")


if __name__ == "__main__":
    main()
