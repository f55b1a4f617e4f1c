"""The orders that the simulated exchange has, in memory, in the order in which they came."""

from dataclasses import dataclass
from typing import Any

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


class Ledger:
    """Every order ever recorded, doubles included: the ground truth that placement is judged by."""

    def __init__(self) -> None:
        self._orders: list[VenueOrder] = []
        self._latest: dict[str, VenueOrder] = {}
        self.working = 0
        self.rejected = 0
        self.doubles = 0
        """Working orders beyond the first of their `client_order_id`."""

    def __len__(self) -> int:
        return len(self._orders)

    @property
    def next_sequence(self) -> int:
        return len(self._orders) + 1

    def add(self, order: VenueOrder) -> None:
        if order.sequence != self.next_sequence:
            raise ValueError(f"order {order.sequence} where {self.next_sequence} is next")
        client_order_id = order.request.client_order_id
        if order.status == WORKING:
            self.working += 1
            earlier = self._latest.get(client_order_id)
            if earlier is not None and earlier.status == WORKING:
                self.doubles += 1
        else:
            self.rejected += 1
        self._orders.append(order)
        self._latest[client_order_id] = order

    def latest(self, client_order_id: str) -> VenueOrder | None:
        """The order last recorded under this id."""
        return self._latest.get(client_order_id)

    def page(self, *, after: int, limit: int) -> list[VenueOrder]:
        """Up to `limit` orders whose sequence is above `after`, oldest first."""
        return self._orders[after : after + limit]
