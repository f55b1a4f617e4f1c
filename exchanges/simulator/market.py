"""The market of the simulated exchange: a book for each instrument, and the reports on its member's orders.

Every change of an order at the exchange is one report. Reports are numbered from 1 without a gap, and are JSON from
the start, since the journal keeps them as they are sent:

    sequence                 the number
    kind                     new, fill, canceled, expired, replaced, rejected, done_for_day, restated, bust, correction,
                             cancel_refused, replace_refused
    status                   what the order is after it: new, partially_filled, filled, canceled, expired,
                             done_for_day or rejected
    client_order_id, venue_order_id, instrument, side
    order_quantity, limit_price, stop_price, time_in_force, expires_at       the order's terms after it
    cumulative_quantity, leaves_quantity                                     what is filled, and what is still to fill
    quantity, price          of a fill or a correction
    execution_id, refers_to  its id, and the id of the execution that a bust or a correction is about
    request_id               of the request to cancel or replace that it answers
    code, text               why
    at                       when, ISO 8601 in UTC

What does not apply is left out. A stop that a trade has reached is `restated` with code `triggered`.

The market is never written down as such: it is what the reports make of it, so reading them again restores it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from exchanges.simulator.book import (
    BUY,
    CANCELED,
    DAY,
    FILL,
    IMMEDIATE_OR_CANCEL,
    NEW,
    REPLACED,
    SELL,
    TRIGGERED,
    Book,
    Order,
    Report,
    keeps_place,
)
from exchanges.simulator.ledger import VenueOrder

RESTATED, DONE_FOR_DAY, REJECTED = "restated", "done_for_day", "rejected"
BUST, CORRECTION = "bust", "correction"
LATE = "late_fill"
EXECUTIONS = frozenset({FILL, BUST, CORRECTION})

DECIMAL_PLACES = 15
"""Of a price in an order; the books count in steps of the last one."""

_SIDES = {"buy": BUY, "sell": SELL}
_SIDE_NAMES = {BUY: "buy", SELL: "sell"}
_ENDED = frozenset({"canceled", "expired", REJECTED, DONE_FOR_DAY})

_OF_ITSELF = frozenset({"execution_id", "refers_to", "quantity", "price", "request_id", "code", "text"})

Record = dict[str, Any]


@dataclass(slots=True, eq=False, kw_only=True)
class MemberOrder(Order):
    """A working order of the exchange's member. `id` is its venue_order_id."""

    client_order_id: str
    instrument: str


class Market:
    """Its books may have orders of a second member, for a moment only; nothing is reported of those."""

    def __init__(self) -> None:
        self.books: dict[str, Book] = {}
        self.prefix = ""
        self.quote: Callable[[Book, MemberOrder], Order | None] = lambda book, order: None
        """Gives what a second member offers to an order that comes in, for this moment only."""
        self._next: Callable[[], int] = lambda: 1
        self._read_back: dict[str, MemberOrder] = {}

    # Reading the journal

    def observe(self, reports: Iterable[Record]) -> None:
        """Take in reports of a former run, in their order; then `open`."""
        for report in reports:
            self._observe(report)

    def open(self, prefix: str, next_sequence: Callable[[], int]) -> None:
        """Put the orders that work into the books, in the order in which they came to where they stand."""
        self.prefix, self._next = prefix, next_sequence
        for order in self._read_back.values():
            self._book(order.instrument).stand(order)
        self._read_back.clear()

    def _observe(self, report: Record) -> None:
        kind, venue_order_id = report["kind"], report["venue_order_id"]
        if kind == NEW:
            self._read_back[venue_order_id] = _order_from_report(report)
        if kind == FILL and report.get("code") != LATE:
            self._book(report["instrument"]).last = to_steps(report["price"])
        order = self._read_back.get(venue_order_id)
        if order is None:
            return
        moves = kind == RESTATED and report.get("code") == TRIGGERED
        if kind == REPLACED:
            price, stop = to_steps(report.get("limit_price")), to_steps(report.get("stop_price"))
            moves = not keeps_place(order, report["order_quantity"], price, stop)
            order.quantity, order.price, order.stop = report["order_quantity"], price, stop
            order.time_in_force, order.expires_at = report["time_in_force"], _time(report.get("expires_at"))
        order.filled = report["cumulative_quantity"]
        order.waiting = order.waiting and not (kind == RESTATED and moves)
        if report["leaves_quantity"] == 0:
            del self._read_back[venue_order_id]
        elif moves:
            self._read_back[venue_order_id] = self._read_back.pop(venue_order_id)

    # What can be asked of it

    def find(self, instrument: str, venue_order_id: str) -> MemberOrder | None:
        """The order, if it works."""
        book = self.books.get(instrument)
        order = book.orders.get(venue_order_id) if book else None
        return order if isinstance(order, MemberOrder) else None

    def working(self) -> Iterator[MemberOrder]:
        for book in self.books.values():
            yield from (order for order in book.orders.values() if isinstance(order, MemberOrder))

    def count(self) -> int:
        return sum(len(book.orders) for book in self.books.values())

    # What happens in it: each returns the reports, which are then to be written

    def enter(self, order: VenueOrder, now: datetime) -> list[Record]:
        request = order.request
        book = self._book(request.instrument)
        entering = MemberOrder(
            id=order.venue_order_id,
            side=_SIDES[request.side],
            quantity=request.quantity,
            price=to_steps(request.limit_price),
            stop=to_steps(request.stop_price),
            time_in_force=request.time_in_force,
            expires_at=_time(request.expires_at),
            client_order_id=request.client_order_id,
            instrument=request.instrument,
        )
        reports = book.expire(now)
        quote = self.quote(book, entering)
        if quote is not None:
            reports += book.submit(quote)
        reports += book.submit(entering)
        if quote is not None and quote.id in book.orders:
            book.cancel(quote.id)
        return self._records(reports, now)

    def take(self, order: MemberOrder, quantity: int, now: datetime) -> list[Record]:
        """Have a second member trade this much at the order's price, or better, with whoever is first there."""
        other = Order(f"other-{order.id}", -order.side, quantity, order.price, time_in_force=IMMEDIATE_OR_CANCEL)
        return self._records(self._book(order.instrument).submit(other), now)

    def reject(self, order: VenueOrder, now: datetime) -> list[Record]:
        """The report on an order that was refused."""
        request = order.request
        report = {
            **self._head(REJECTED, REJECTED, now),
            "client_order_id": request.client_order_id,
            "venue_order_id": order.venue_order_id,
            "instrument": request.instrument,
            "side": request.side,
            "order_quantity": request.quantity,
            "cumulative_quantity": 0,
            "leaves_quantity": 0,
            "code": order.code,
            "text": order.text,
        }
        return [report]

    def cancel(self, order: MemberOrder, request_id: str, now: datetime) -> list[Record]:
        return self._records(self._book(order.instrument).cancel(order.id), now, order, request_id)

    def replace(
        self,
        order: MemberOrder,
        request_id: str,
        now: datetime,
        *,
        quantity: int,
        limit_price: str | None,
        stop_price: str | None,
        time_in_force: str,
        expires_at: str | None,
    ) -> list[Record]:
        prices = to_steps(limit_price), to_steps(stop_price)
        book = self._book(order.instrument)
        reports = book.replace(order.id, quantity, *prices, time_in_force, _time(expires_at))
        return self._records(reports, now, order, request_id)

    def refuse(self, kind: str, state: Record, request_id: str, answer: Record, now: datetime) -> Record:
        """The report that a request about an order in this state was refused."""
        return state | self._head(kind, state["status"], now) | {"request_id": request_id} | answer

    def expire(self, now: datetime) -> list[Record]:
        """End the orders that were good till a date that has come."""
        return self._records([report for book in self.books.values() for report in book.expire(now)], now)

    def close(self, now: datetime) -> list[Record]:
        """End the day. What is good longer is done for this day, and restated for the next, which begins at once."""
        reports = []
        for book in self.books.values():
            reports += book.close()
            for order in book.orders.values():
                reports += [Report(DONE_FOR_DAY, order, order.filled), Report(RESTATED, order, order.filled)]
        return self._records(reports, now)

    def fill_late(self, ended: Record, quantity: int, now: datetime) -> list[Record]:
        """A fill of an order that has ended, as its last report says."""
        filled = ended["cumulative_quantity"] + quantity
        last = self._book(ended["instrument"]).last
        price = ended.get("limit_price") or (None if last is None else to_price(last))
        if price is None or filled > ended["order_quantity"]:
            return []
        report = _order_part(ended) | self._head(FILL, ended["status"], now)
        if filled == ended["order_quantity"]:
            report["status"] = "filled"
        report |= {"quantity": quantity, "price": price, "cumulative_quantity": filled}
        return [report | {"execution_id": f"{self.prefix}-e{report['sequence']}", "code": LATE}]

    def change_execution(
        self, execution: Record, order: MemberOrder | Record, quantity: int, price: str | None, now: datetime
    ) -> list[Record]:
        """A bust, or with a quantity a correction, and the cancel of what an order has left that works no more.

        `order` is as it works, or its last report.
        """
        lost = execution["quantity"] - quantity
        kind = CORRECTION if quantity else BUST
        if isinstance(order, MemberOrder):
            order.filled -= lost
            filled, leaves = order.filled, order.leaves
            report = self._body(order, filled, leaves) | self._head(kind, _status(kind, order, filled), now)
        else:
            filled = order["cumulative_quantity"] - lost
            leaves = lost if order["status"] == "filled" else 0
            report = _order_part(order) | self._head(kind, order["status"], now)
            report |= {"cumulative_quantity": filled, "leaves_quantity": leaves}
            if leaves:
                report["status"] = "partially_filled" if filled else "new"
        report |= {"refers_to": execution["execution_id"], "execution_id": f"{self.prefix}-e{report['sequence']}"}
        if quantity:
            report |= {"quantity": quantity, "price": price or execution["price"]}
        if isinstance(order, MemberOrder) or not leaves:
            return [report]
        rest = _order_part(report) | self._head(CANCELED, CANCELED, now)
        rest |= {"sequence": report["sequence"] + 1, "leaves_quantity": 0, "text": "what was busted is not put back"}
        return [report, rest]

    def describe(self, order: MemberOrder) -> Record:
        """The order as it stands."""
        return self._body(order, order.filled, order.leaves) | {"status": _status(NEW, order, order.filled)}

    def _book(self, instrument: str) -> Book:
        book = self.books.get(instrument)
        if book is None:
            book = self.books[instrument] = Book()
        return book

    def _records(
        self, reports: list[Report], now: datetime, asked: Order | None = None, request_id: str = ""
    ) -> list[Record]:
        """The member's part of what happened. The first report on the order `asked` about answers the request."""
        records: list[Record] = []
        first, at = self._next(), now.isoformat()
        for report in reports:
            order = report.order
            if not isinstance(order, MemberOrder):
                continue
            kind = RESTATED if report.kind == TRIGGERED else report.kind
            status = _status(kind, order, report.filled)
            ended = status in _ENDED and not (kind == DONE_FOR_DAY and order.time_in_force != DAY)
            record = {"sequence": first + len(records), "kind": kind, "status": status, "at": at}
            record |= self._body(order, report.filled, 0 if ended else order.quantity - report.filled)
            if kind == FILL:
                record["execution_id"] = f"{self.prefix}-e{record['sequence']}"
                record["quantity"], record["price"] = report.quantity, to_price(report.price)
            if report.kind == TRIGGERED:
                record["code"], record["text"] = TRIGGERED, "a trade has reached the stop price"
            elif report.text:
                record["text"] = report.text
            if order is asked and request_id:
                record["request_id"], request_id = request_id, ""
            records.append(record)
        return records

    def _head(self, kind: str, status: str, now: datetime) -> Record:
        return {"sequence": self._next(), "kind": kind, "status": status, "at": now.isoformat()}

    @staticmethod
    def _body(order: MemberOrder, filled: int, leaves: int) -> Record:
        body = {
            "client_order_id": order.client_order_id,
            "venue_order_id": order.id,
            "instrument": order.instrument,
            "side": _SIDE_NAMES[order.side],
            "order_quantity": order.quantity,
            "time_in_force": order.time_in_force,
            "cumulative_quantity": filled,
            "leaves_quantity": leaves,
        }
        if order.price is not None:
            body["limit_price"] = to_price(order.price)
        if order.stop is not None:
            body["stop_price"] = to_price(order.stop)
        if order.expires_at is not None:
            body["expires_at"] = order.expires_at.isoformat()
        return body


@lru_cache(maxsize=4096)
def to_steps(price: str | None) -> int | None:
    if price is None:
        return None
    whole, _, fraction = price.partition(".")
    return int(whole + fraction.ljust(DECIMAL_PLACES, "0"))


@lru_cache(maxsize=4096)
def to_price(steps: int) -> str:
    digits = str(steps).rjust(DECIMAL_PLACES + 1, "0")
    fraction = digits[-DECIMAL_PLACES:].rstrip("0")
    return f"{digits[:-DECIMAL_PLACES]}.{fraction}" if fraction else digits[:-DECIMAL_PLACES]


def _order_part(report: Record) -> Record:
    """What a report says of the order, without what it says of itself."""
    return {name: value for name, value in report.items() if name not in _OF_ITSELF}


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _status(kind: str, order: Order, filled: int) -> str:
    if kind in _ENDED:
        return kind
    if filled >= order.quantity:
        return "filled"
    return "partially_filled" if filled else "new"


def _order_from_report(report: Record) -> MemberOrder:
    stop = to_steps(report.get("stop_price"))
    return MemberOrder(
        id=report["venue_order_id"],
        side=_SIDES[report["side"]],
        quantity=report["order_quantity"],
        price=to_steps(report.get("limit_price")),
        stop=stop,
        time_in_force=report["time_in_force"],
        expires_at=_time(report.get("expires_at")),
        waiting=stop is not None,
        client_order_id=report["client_order_id"],
        instrument=report["instrument"],
    )
