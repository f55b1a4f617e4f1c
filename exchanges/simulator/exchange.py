"""What the simulated exchange does with an order: recognise it, check it against the rules, record it.

There is no matching yet: an order that is accepted works for ever.
"""

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from exchanges.simulator.journal import Journal, JournalError
from exchanges.simulator.ledger import REJECTED, WORKING, Ledger, VenueOrder
from exchanges.simulator.validation import OrderRequest, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What this exchange refuses although it is well formed."""

    untradable_instruments: frozenset[str] = frozenset()
    max_quantity: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """How the exchange handles one order. The default is without faults."""

    halted: bool = False
    forget_duplicates: bool = False
    duplicate_window_seconds: float | None = None
    forget_rejections: bool = False
    enforce_valid_until: bool = False
    clock_ahead: float = 0.0


PROPER = Conduct()


class Exchange:
    def __init__(self, journal: Journal, ledger: Ledger, rules: Rules) -> None:
        self.journal = journal
        self.ledger = ledger
        self.rules = rules
        self.duplicates_refused = 0

    async def accept(self, request: OrderRequest, conduct: Conduct = PROPER) -> VenueOrder:
        """Record the order as working. Raises: Refusal; JournalError, after which the process must end."""
        now = datetime.now(UTC)
        earlier = self.ledger.latest(request.client_order_id)
        if earlier is not None and _is_remembered(earlier, conduct, now):
            self.duplicates_refused += 1
            await self.journal.settle()  # a refusal as a duplicate promises that the first is on record
            raise Refusal(409, "duplicate_client_order_id", f"received before, as {earlier.venue_order_id}")
        if conduct.enforce_valid_until and _is_stale(request, now + timedelta(seconds=conduct.clock_ahead)):
            raise Refusal(422, "stale_request", f"was valid until {request.valid_until}")
        refusal = self._refusal_of(request, conduct)
        if refusal is None:
            order = self._record(request, now)
            await self.journal.settle()
            return order
        # Remembered, so that an earlier copy of the request that arrives late is a duplicate, not an order.
        if not conduct.forget_rejections:
            self._record(request, now, refusal)
            await self.journal.settle()
        raise refusal

    async def find(self, client_order_id: str) -> VenueOrder:
        """The order last received under this id. Raises: Refusal (`unknown_order`)."""
        order = self.ledger.latest(client_order_id)
        if order is None:
            raise Refusal(404, "unknown_order", "no order by this client_order_id")
        await self.journal.settle()
        return order

    def _refusal_of(self, request: OrderRequest, conduct: Conduct) -> Refusal | None:
        maximum = self.rules.max_quantity
        if conduct.halted:
            return Refusal(422, "trading_halted", "the market takes no orders now")
        if request.instrument in self.rules.untradable_instruments:
            return Refusal(422, "instrument_not_tradable", f"{request.instrument} is not tradable here")
        if maximum is not None and request.quantity > maximum:
            return Refusal(422, "quantity_above_maximum", f"{request.quantity} is more than {maximum}")
        return None

    def _record(self, request: OrderRequest, now: datetime, refusal: Refusal | None = None) -> VenueOrder:
        sequence = self.ledger.next_sequence
        order = VenueOrder(
            sequence=sequence,
            venue_order_id=f"{self.journal.prefix}-{sequence}",
            status=REJECTED if refusal else WORKING,
            code=refusal.code if refusal else "",
            text=refusal.text if refusal else "",
            received_at=now.isoformat(),
            request=request,
        )
        place = self.journal.append(order.as_json())
        try:
            self.ledger.add(order, place)
        except sqlite3.Error as error:  # the file cannot grow: orders missing in it would be accepted twice
            raise JournalError(f"cannot index {self.journal.path}: {error}") from error
        return order


def _is_stale(request: OrderRequest, now: datetime) -> bool:
    return request.valid_until is not None and now > datetime.fromisoformat(request.valid_until)


def _is_remembered(earlier: VenueOrder, conduct: Conduct, now: datetime) -> bool:
    if conduct.forget_duplicates:
        return False
    if conduct.duplicate_window_seconds is None:
        return True
    age = now - datetime.fromisoformat(earlier.received_at)
    return age.total_seconds() <= conduct.duplicate_window_seconds
