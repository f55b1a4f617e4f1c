"""The orders that the simulated exchange has, in the order in which they came.

The journal has them; here is where in it each one stands. That index is a temporary SQLite database, which keeps two
megabytes in memory and the rest in a file that ends with the process. It is made from the journal at each start,
so the two cannot differ.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from exchanges.simulator.report_log import Place, Record, ReportLog
from exchanges.simulator.validation import OrderRequest

WORKING = "working"
REJECTED = "rejected"

ENDED_AT_ONCE = 500
"""The index is written when this many orders have ended: one at a time would cost as much as the order itself."""


@dataclass(slots=True, kw_only=True)
class VenueOrder:
    """One order as the exchange answered it; what became of it later is in the reports.

    `received_at` is ISO 8601 in UTC; `code` and `text` say why, if rejected.
    """

    sequence: int
    venue_order_id: str
    status: str
    code: str
    text: str
    received_at: str
    request: OrderRequest

    def as_json(self) -> dict[str, Any]:
        request = self.request
        return {
            "sequence": self.sequence,
            "client_order_id": request.client_order_id,
            "venue_order_id": self.venue_order_id,
            "status": self.status,
            "code": self.code,
            "text": self.text,
            "received_at": self.received_at,
            "instrument": request.instrument,
            "side": request.side,
            "type": request.type,
            "quantity": request.quantity,
            "limit_price": request.limit_price,
            "stop_price": request.stop_price,
            "time_in_force": request.time_in_force,
            "expires_at": request.expires_at,
            "valid_until": request.valid_until,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "VenueOrder":
        """The inverse of `as_json`. Raises: KeyError, TypeError for a record of another form."""
        record.pop("reports", None)
        own = {name: record.pop(name) for name in ("sequence", "venue_order_id", "status", "code", "text")}
        return cls(**own, received_at=record.pop("received_at"), request=OrderRequest(**record))


_INDEX = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -2000;
CREATE TABLE entry (
    sequence INTEGER PRIMARY KEY, client_order_id TEXT, working INTEGER, start INTEGER, size INTEGER, report INTEGER
);
CREATE INDEX entry_client_order_id ON entry (client_order_id);
CREATE TABLE request (request_id TEXT PRIMARY KEY, start INTEGER, size INTEGER) WITHOUT ROWID;
BEGIN
"""
_REFUSALS = ("cancel_refused", "replace_refused")
_LATEST = "FROM entry WHERE client_order_id = ? ORDER BY sequence DESC LIMIT 1"


class Ledger:
    """Every order ever recorded, doubles included: the ground truth that placement is judged by.

    Beside them the requests to cancel or replace by their ids, and the reports by their numbers.
    """

    def __init__(self, read: Callable[[Place], bytes]) -> None:
        """`read` takes bytes out of the journal."""
        self._read = read
        self._index = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._index.executescript(_INDEX)
        self.reports = ReportLog(read)
        self._count = 0
        self.working = 0
        self.rejected = 0
        self.doubles = 0
        """Working orders beyond the first of their `client_order_id`."""
        self._ended: dict[int, int] = {}  # the last reports that the index has not got yet
        self.changed_executions: set[str] = set()
        """The ids of those that were busted or corrected."""
        self.unlisted: set[int] = set()
        """The sequences of the working orders of former runs that no market has had."""

    def __len__(self) -> int:
        return self._count

    @property
    def next_sequence(self) -> int:
        return self._count + 1

    def add(self, order: VenueOrder, place: Place) -> None:
        if order.sequence != self.next_sequence:
            raise ValueError(f"order {order.sequence} where {self.next_sequence} is next")
        client_order_id, works = order.request.client_order_id, order.status == WORKING
        if works:
            self.working += 1
            self.doubles += self._one("working", client_order_id) == (1,)
        else:
            self.rejected += 1
        self._index.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, NULL)", (order.sequence, client_order_id, works, *place)
        )
        self._count += 1

    def add_reports(self, reports: list[Record], place: Place) -> None:
        """Note the reports of the line at this place, and of each order that has ended the last one.

        While an order works the market knows how it stands. The index is written for many orders at once.
        """
        self.reports.add(reports, place)
        if self.unlisted:
            self.unlisted.difference_update(number_of(report["venue_order_id"]) for report in reports)
        for report in reports:
            if "refers_to" in report:
                self.changed_executions.add(report["refers_to"])
            if report["leaves_quantity"] == 0 and report["kind"] not in _REFUSALS:
                self._ended[number_of(report["venue_order_id"])] = report["sequence"]
        if len(self._ended) >= ENDED_AT_ONCE:
            self._index.executemany(
                "UPDATE entry SET report = ? WHERE sequence = ?", [(last, order) for order, last in self._ended.items()]
            )
            self._ended.clear()

    def add_request(self, request_id: str, place: Place) -> None:
        self._index.execute("INSERT OR REPLACE INTO request VALUES (?, ?, ?)", (request_id, *place))

    def request(self, request_id: str) -> Record | None:
        """The line of the request last received under this id."""
        found = self._index.execute("SELECT start, size FROM request WHERE request_id = ?", (request_id,)).fetchone()
        return None if found is None else orjson.loads(self._read(Place(*found)))

    def last_report(self, order: VenueOrder) -> Record | None:
        """The last report on the order, if it has ended."""
        if order.sequence in self._ended:
            return self.reports.get(self._ended[order.sequence])
        found = self._index.execute("SELECT report FROM entry WHERE sequence = ?", (order.sequence,)).fetchone()
        return None if found is None or found[0] is None else self.reports.get(found[0])

    def latest(self, client_order_id: str) -> VenueOrder | None:
        """The order last recorded under this id."""
        found = self._one("start, size", client_order_id)
        return None if found is None else _order(self._read(Place(*found)))

    def page(self, *, after: int, limit: int) -> list[VenueOrder]:
        """Up to `limit` orders whose sequence is above `after`, oldest first."""
        rows = self._index.execute(
            "SELECT start, size FROM entry WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, limit)
        ).fetchall()
        if not rows:
            return []
        begin, (start, size) = rows[0][0], rows[-1]  # one read, with whatever else happened in between
        records = [orjson.loads(line) for line in self._read(Place(begin, start + size - begin)).splitlines()]
        return [VenueOrder.from_json(record) for record in records if is_order(record)]

    def close(self) -> None:
        self._index.close()

    def _one(self, columns: str, client_order_id: str) -> Any:
        return self._index.execute(f"SELECT {columns} {_LATEST}", (client_order_id,)).fetchone()


def is_order(record: Record) -> bool:
    """Tell whether the line of the journal is an order's; others are of what happened to orders later."""
    return "client_order_id" in record


def number_of(venue_order_id: str) -> int:
    """An order's own sequence, with which its venue_order_id ends."""
    return int(venue_order_id.rpartition("-")[2])


def _order(line: bytes) -> VenueOrder:
    return VenueOrder.from_json(orjson.loads(line))
