"""What the simulated exchange does with what its member sends: recognise it, check it against the rules, record it.

Without a market an order that is accepted works for ever, and cannot be canceled or replaced.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from exchanges.simulator.journal import Journal, JournalError
from exchanges.simulator.ledger import REJECTED, WORKING, Ledger, VenueOrder, number_of
from exchanges.simulator.market import EXECUTIONS, Market, MemberOrder, to_price
from exchanges.simulator.report_log import Place, Record
from exchanges.simulator.validation import (
    LIMIT_PRICED,
    STOP_PRICED,
    CancelRequest,
    OrderRequest,
    Refusal,
    ReplaceRequest,
)


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
    ignore_cancel: bool = False


PROPER = Conduct()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the exchange answers to a request to cancel or replace, and again to each repetition of it."""

    status: int
    content: Record


class Exchange:
    def __init__(self, journal: Journal, ledger: Ledger, rules: Rules, market: Market | None = None) -> None:
        self.journal = journal
        self.ledger = ledger
        self.rules = rules
        self.market = market
        self.duplicates_refused = 0
        self.watchers: list[Callable[[list[Record]], None]] = []
        """Called with new reports, once they are in the journal."""
        if market is not None:
            market.open(journal.prefix, lambda: ledger.reports.last + 1)
            self._enter_orders_of_old()

    async def accept(self, request: OrderRequest, conduct: Conduct = PROPER) -> VenueOrder:
        """Record the order as working. Raises: Refusal; JournalError, after which the process must end."""
        now = datetime.now(UTC)
        earlier = self.ledger.latest(request.client_order_id)
        if earlier is not None and _is_remembered(earlier, conduct, now):
            self.duplicates_refused += 1
            await self.journal.settle()  # a refusal as a duplicate promises that the first is on record
            raise Refusal(409, "duplicate_client_order_id", f"received before, as {earlier.venue_order_id}")
        _check_staleness(request.valid_until, conduct, now)
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

    async def state(self, client_order_id: str) -> Record:
        """What has become of the order last received under this id. Raises: Refusal (`unknown_order`)."""
        return self._state(await self.find(client_order_id))

    async def cancel(self, client_order_id: str, request: CancelRequest, conduct: Conduct = PROPER) -> Answer:
        """Take the order out of the market. Raises: Refusal, of which nothing is recorded; JournalError."""
        return await self._amend(client_order_id, "cancel", request, conduct)

    async def replace(self, client_order_id: str, request: ReplaceRequest, conduct: Conduct = PROPER) -> Answer:
        """Give the order other terms. Raises: Refusal, of which nothing is recorded; JournalError."""
        return await self._amend(client_order_id, "replace", request, conduct)

    def pass_time(self, now: datetime) -> None:
        """End the orders whose date has come."""
        if self.market is not None:
            self._happened(self.market.expire(now))

    def close(self, now: datetime) -> int:
        """End the day; returns the number of reports."""
        reports = self.market.close(now) if self.market is not None else []
        self._happened(reports)
        return len(reports)

    def take(self, order: MemberOrder, quantity: int) -> None:
        """Have a second member trade with what rests at the order's price."""
        assert self.market is not None
        self._happened(self.market.take(order, quantity, datetime.now(UTC)))

    def fill_late(self, venue_order_id: str, quantity: int, now: datetime) -> None:
        """Fill an order that has ended, at its own price or the last one. Nobody is on the other side."""
        order = self._by_number(venue_order_id)
        ended = self.ledger.last_report(order)
        if self.market is not None and ended is not None:
            self._happened(self.market.fill_late(ended, quantity, now))

    def bust(self, execution_id: str, now: datetime) -> list[Record]:
        """Have an execution never been; returns the reports. Raises: Refusal."""
        return self._change_execution(execution_id, 0, None, now)

    def correct(self, execution_id: str, quantity: int, price: str | None, now: datetime) -> list[Record]:
        """Have an execution been of this quantity, not more than it was, and of this price. Raises: Refusal."""
        return self._change_execution(execution_id, quantity, price, now)

    def open_orders(self, after: int, limit: int) -> list[Record]:
        """The orders that work, as they stand, by their sequence; those above `after`."""
        working = list(self.market.working()) if self.market is not None else []
        numbered = sorted((number_of(order.id), order) for order in working if number_of(order.id) > after)
        return [self.market.describe(order) | {"sequence": number} for number, order in numbered[:limit] if self.market]

    def executions(self, after: int, limit: int) -> list[Record]:
        """The fills, busts and corrections among the next `limit` reports."""
        return [report for report in self.ledger.reports.page(after=after, limit=limit) if report["kind"] in EXECUTIONS]

    def _state(self, order: VenueOrder) -> Record:
        found = self.market and self.market.find(order.request.instrument, order.venue_order_id)
        if self.market is not None and found:
            return self.market.describe(found)
        report = self.ledger.last_report(order)
        if report is None:  # there is no market
            return {
                "client_order_id": order.request.client_order_id,
                "venue_order_id": order.venue_order_id,
                "status": "new" if order.status == WORKING else REJECTED,
                "order_quantity": order.request.quantity,
                "limit_price": order.request.limit_price,
                "stop_price": order.request.stop_price,
                "cumulative_quantity": 0,
                "leaves_quantity": order.request.quantity if order.status == WORKING else 0,
                "code": order.code,
                "text": order.text,
            }
        return {name: value for name, value in report.items() if name in _STATE}

    def _change_execution(self, execution_id: str, quantity: int, price: str | None, now: datetime) -> list[Record]:
        number = execution_id.removeprefix(f"{self.journal.prefix}-e")
        known = number.isdecimal() and 0 < int(number) <= self.ledger.reports.last
        execution = self.ledger.reports.get(int(number)) if known else {}
        if self.market is None or execution.get("execution_id") != execution_id or "quantity" not in execution:
            raise Refusal(404, "unknown_execution", "no fill or correction by this execution_id")
        if execution_id in self.ledger.changed_executions:
            raise Refusal(409, "too_late", "this execution was busted or corrected before")
        if quantity > execution["quantity"]:
            raise Refusal(422, "invalid_field", f"quantity: must be from 1 to {execution['quantity']}")
        order = self._by_number(execution["venue_order_id"])
        before = self.ledger.last_report(order)
        found = self.market.find(execution["instrument"], execution["venue_order_id"])
        reports = self.market.change_execution(execution, found or before or {}, quantity, price, now)
        self._happened(reports)
        return reports

    def _by_number(self, venue_order_id: str) -> VenueOrder:
        return self.ledger.page(after=number_of(venue_order_id) - 1, limit=1)[0]

    def _enter_orders_of_old(self) -> None:
        """Put into the market what was accepted when there was none."""
        assert self.market is not None
        for sequence in sorted(self.ledger.unlisted):
            order = self.ledger.page(after=sequence - 1, limit=1)[0]
            self._happened(self.market.enter(order, datetime.now(UTC)))

    async def _amend(
        self, client_order_id: str, kind: str, request: CancelRequest | ReplaceRequest, conduct: Conduct
    ) -> Answer:
        asked = {"client_order_id": client_order_id, "kind": kind} | asdict(request)
        now = datetime.now(UTC)
        earlier = None if conduct.forget_duplicates else self.ledger.request(request.request_id)
        if earlier is not None:
            if earlier["request"] | {"valid_until": None} != asked | {"valid_until": None}:
                raise Refusal(409, "duplicate_request_id", "received before, for something else")
            await self.journal.settle()
            return Answer(earlier["status"], earlier["answer"])
        _check_staleness(request.valid_until, conduct, now)
        order = self.ledger.latest(client_order_id)
        if order is None:
            raise Refusal(404, "unknown_order", "no order by this client_order_id")
        if self.market is None:
            raise Refusal(422, "no_market", "this exchange runs without a market")
        if kind == "cancel" and conduct.ignore_cancel:
            return Answer(202, {"request_id": request.request_id, "client_order_id": client_order_id})
        self.pass_time(now)
        found = self.market.find(order.request.instrument, order.venue_order_id)
        refusal = self._refusal_of_amendment(order, found, request, conduct)
        if refusal is not None:
            status = refusal.status
            answer = {"code": refusal.code, "text": refusal.text}
            reports = [self.market.refuse(f"{kind}_refused", self._state(order), request.request_id, answer, now)]
        else:
            assert found is not None
            if isinstance(request, CancelRequest):
                reports = self.market.cancel(found, request.request_id, now)
            else:
                reports = self.market.replace(found, request.request_id, now, **_terms(order, found, request))
            mine = [report for report in reports if report["venue_order_id"] == found.id]
            status, answer = 200, {name: mine[-1][name] for name in _ANSWER} | {"request_id": request.request_id}
        place = self._write({"request": asked, "status": status, "answer": answer}, reports)
        self.ledger.add_request(request.request_id, place)
        await self.journal.settle()
        return Answer(status, answer)

    def _refusal_of_amendment(
        self,
        order: VenueOrder,
        found: MemberOrder | None,
        request: CancelRequest | ReplaceRequest,
        conduct: Conduct,
    ) -> Refusal | None:
        if found is None:
            return Refusal(409, "too_late", "the order works no more")
        if isinstance(request, CancelRequest):
            return None
        kind, maximum = order.request.type, self.rules.max_quantity
        if conduct.halted:
            return Refusal(422, "trading_halted", "the market takes no replacements now")
        if maximum is not None and request.quantity is not None and request.quantity > maximum:
            return Refusal(422, "quantity_above_maximum", f"{request.quantity} is more than {maximum}")
        if request.limit_price is not None and kind not in LIMIT_PRICED:
            return Refusal(422, "invalid_field", f"limit_price: an order of type {kind} has none")
        if request.stop_price is not None and kind not in STOP_PRICED:
            return Refusal(422, "invalid_field", f"stop_price: an order of type {kind} has none")
        lasts = request.time_in_force or found.time_in_force
        if request.expires_at is not None and lasts != "gtd":
            return Refusal(422, "invalid_field", "expires_at: belongs to gtd only")
        return None

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
        reports = []
        if self.market is not None:
            reports = self.market.reject(order, now) if refusal else self.market.enter(order, now)
        self._write(order.as_json(), reports, order)
        return order

    def _happened(self, reports: list[Record]) -> None:
        """Write what happened without a request of the member."""
        if reports:
            self._write({}, reports)

    def _write(self, record: Record, reports: list[Record], order: VenueOrder | None = None) -> Place:
        """Put into the journal what happened, with all that followed from it, and then know it."""
        place = self.journal.append(record | {"reports": reports} if reports else record)
        try:
            if order is not None:
                self.ledger.add(order, place)
            if reports:
                self.ledger.add_reports(reports, place)
        except sqlite3.Error as error:  # the file cannot grow: orders missing in it would be accepted twice
            raise JournalError(f"cannot index {self.journal.path}: {error}") from error
        if reports:
            for watch in self.watchers:
                watch(reports)
        return place


_ANSWER = ("client_order_id", "venue_order_id", "status", "order_quantity", "cumulative_quantity", "leaves_quantity")
_STATE = frozenset(
    {*_ANSWER, "instrument", "side", "limit_price", "stop_price", "time_in_force", "expires_at", "code", "text"}
)


def _terms(order: VenueOrder, found: MemberOrder, request: ReplaceRequest) -> Record:
    """The order's terms as they will be, whole."""
    price = None if found.price is None else to_price(found.price)
    stop = None if found.stop is None else to_price(found.stop)
    lasts = request.time_in_force or found.time_in_force
    expires_at = request.expires_at or (found.expires_at and found.expires_at.isoformat())
    return {
        "quantity": request.quantity or found.quantity,
        "limit_price": request.limit_price or price,
        "stop_price": request.stop_price or stop,
        "time_in_force": lasts,
        "expires_at": expires_at if lasts == "gtd" else None,
    }


def _check_staleness(valid_until: str | None, conduct: Conduct, now: datetime) -> None:
    """Raises: Refusal (`stale_request`)."""
    if not conduct.enforce_valid_until or valid_until is None:
        return
    if now + timedelta(seconds=conduct.clock_ahead) > datetime.fromisoformat(valid_until):
        raise Refusal(422, "stale_request", f"was valid until {valid_until}")


def _is_remembered(earlier: VenueOrder, conduct: Conduct, now: datetime) -> bool:
    if conduct.forget_duplicates:
        return False
    if conduct.duplicate_window_seconds is None:
        return True
    age = now - datetime.fromisoformat(earlier.received_at)
    return age.total_seconds() <= conduct.duplicate_window_seconds
