"""The orders that the simulated exchange has, in the order in which they came.

The journal has them; here is where in it each one stands. That index is a temporary SQLite database, which keeps two
megabytes in memory and the rest in a file that ends with the process. It is made from the journal at each start,
so the two cannot differ.
"""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from exchanges.simulator.validation import OrderRequest

WORKING = "working"
REJECTED = "rejected"


@dataclass(slots=True, kw_only=True)
class VenueOrder:
    """One order at the exchange. `received_at` is ISO 8601 in UTC; `code` and `text` say why, if rejected."""

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
        own = {name: record.pop(name) for name in ("sequence", "venue_order_id", "status", "code", "text")}
        return cls(**own, received_at=record.pop("received_at"), request=OrderRequest(**record))


class Place(NamedTuple):
    """Where in the journal an order's line is, in bytes."""

    start: int
    size: int


_INDEX = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -2000;
CREATE TABLE entry (sequence INTEGER PRIMARY KEY, client_order_id TEXT, working INTEGER, start INTEGER, size INTEGER);
CREATE INDEX entry_client_order_id ON entry (client_order_id);
BEGIN
"""
_LATEST = "FROM entry WHERE client_order_id = ? ORDER BY sequence DESC LIMIT 1"


class Ledger:
    """Every order ever recorded, doubles included: the ground truth that placement is judged by."""

    def __init__(self, read: Callable[[Place], bytes]) -> None:
        """`read` takes bytes out of the journal."""
        self._read = read
        self._index = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._index.executescript(_INDEX)
        self._count = 0
        self.working = 0
        self.rejected = 0
        self.doubles = 0
        """Working orders beyond the first of their `client_order_id`."""

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
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?)", (order.sequence, client_order_id, works, *place)
        )
        self._count += 1

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
        begin, (start, size) = rows[0][0], rows[-1]  # one read: they follow one another
        return [_order(line) for line in self._read(Place(begin, start + size - begin)).splitlines()]

    def close(self) -> None:
        self._index.close()

    def _one(self, columns: str, client_order_id: str) -> Any:
        return self._index.execute(f"SELECT {columns} {_LATEST}", (client_order_id,)).fetchone()


def _order(line: bytes) -> VenueOrder:
    return VenueOrder.from_json(json.loads(line))
