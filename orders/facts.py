"""What is known of an order at its venue, and the status that follows. Nothing here reads a row, a clock or a socket.

A venue's reports arrive late, early, repeated and in another order than they were made. So a report changes facts, and
the status is computed from the facts alone. Executions are evidence: they count whatever the order's status is, also
above its quantity and after its end. An execution is identified by its id, and taking it back is a fact by itself,
which holds whether the report of the execution came before or comes after.

Executions, acknowledgements and the end of an order may come in any order. `replaced`, `restated` and `done_for_day`
say how things stand from then on, so the caller applies them in the venue's sequence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Context, Decimal, Inexact
from typing import Any, NamedTuple, Protocol

from exchanges.venue import ExecutionReport, ReportKind
from orders.models import MULTI_DAY, Status, TimeInForce
from quiktrade.decimals import divided

EXACT = Context(prec=60, traps=[Inexact])
"""A quantity of 16 digits times a price of 18 has more digits than Python's context keeps. Here nothing is rounded."""


class Worth(NamedTuple):
    """What one execution counts for."""

    quantity: int
    price: Decimal

    @property
    def value(self) -> Decimal:
        return EXACT.multiply(self.quantity, self.price)


NOTHING = Worth(0, Decimal(0))


class OtherTerms(NamedTuple):
    """Those of an order's terms, besides its quantity, that a venue may change."""

    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str = ""
    expires_at: datetime | None = None

    def amended(self, report: ExecutionReport) -> "OtherTerms":
        """The terms as a report gives them; what it does not give stays. A type without a price gets none."""
        lasts, expires_at = self.time_in_force, self.expires_at
        if report.time_in_force and (report.time_in_force != TimeInForce.GTD or report.expires_at):
            lasts, expires_at = report.time_in_force, report.expires_at
        return OtherTerms(
            self.limit_price and (report.limit_price or self.limit_price),
            self.stop_price and (report.stop_price or self.stop_price),
            lasts,
            expires_at if lasts == TimeInForce.GTD else None,
        )


NO_OTHER_TERMS = OtherTerms()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one order.

    `executions` holds what the executions count for that a report may concern, by their ids. One that was taken back or
    corrected counts for nothing, also if it is not known yet. `filled` and `value` are the sums over all executions.
    `open_cancel` and `open_replace` are the ids of requests that the venue has not answered.
    """

    quantity: int
    multi_day: bool = False
    at_venue: bool = False
    ended: str = ""
    filled: int = 0
    value: Decimal = Decimal(0)
    open_cancel: str = ""
    open_replace: str = ""
    terms: OtherTerms = NO_OTHER_TERMS
    executions: Mapping[str, Worth] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether the venue said that it does no more of the order. An execution contradicts a rejection."""
        return _is_over(self.ended, self.filled)

    @property
    def leaves(self) -> int:
        """The quantity that may still be executed (FIX 151)."""
        return _leaves(self.quantity, self.filled, self.ended, self.multi_day)


def _is_over(ended: str, filled: int) -> bool:
    return ended != "" and not (ended == Status.REJECTED and filled > 0)


def _leaves(quantity: int, filled: int, ended: str, multi_day: bool) -> int:
    if _is_over(ended, filled) and not (ended == Status.DONE_FOR_DAY and multi_day):
        return 0
    return max(quantity - filled, 0)


class Standing(Protocol):
    """The columns of an order, as a model or as a row of a page, from which the quantity that is left follows."""

    status: Any
    time_in_force: Any
    quantity: int
    filled_quantity: int
    ended: str


NOTHING_LEFT = frozenset((Status.FAILED, Status.REJECTED, Status.CANCELED, Status.EXPIRED))
"""QuikTrade itself ends orders that have not reached their venue, and then no report of the venue says so. A failed
order is among them: it is not at the venue, and nothing sends it until an operator requeues it."""


def leaves_quantity(order: Standing) -> int:
    """The quantity of an order that may still be executed (FIX 151), at the venue or once the order is there."""
    if order.status in NOTHING_LEFT:
        return 0
    return _leaves(order.quantity, order.filled_quantity, order.ended, order.time_in_force in MULTI_DAY)


def average_price(value: Decimal, filled: int) -> Decimal | None:
    """The average price of what was executed (FIX 6), rounded half to even; None where nothing was."""
    return divided(value, filled) if filled else None


def standing(facts: Facts) -> Status:
    """Of all that is true of an order at its venue, the status to show.

    The order of these lines is FIX's precedence of order statuses (FIX 4.4, volume 4, appendix D).
    """
    if facts.open_cancel:
        return Status.PENDING_CANCEL
    if facts.open_replace:
        return Status.PENDING_REPLACE
    if facts.ended == Status.DONE_FOR_DAY:
        return Status.DONE_FOR_DAY
    if facts.filled >= facts.quantity:
        return Status.FILLED
    if facts.over:
        return Status(facts.ended)
    return Status.PARTIALLY_FILLED if facts.filled else Status.PLACED


def fold(facts: Facts, report: ExecutionReport) -> Facts | None:
    """Apply one report. None means that it says nothing new."""
    match report.kind:
        case ReportKind.EXECUTED | ReportKind.BUSTED | ReportKind.CORRECTED:
            return _count(facts, report)
        case ReportKind.ACKNOWLEDGED:
            if facts.at_venue:
                return None
            # The venue accepted one copy of the order: that it refused another copy is not its last word.
            return replace(facts, at_venue=True, ended="" if facts.ended == Status.REJECTED else facts.ended)
        case ReportKind.REJECTED:
            if facts.ended:
                return None
            return replace(facts, ended=Status.REJECTED.value, open_cancel="", open_replace="")
        case ReportKind.CANCELED | ReportKind.EXPIRED:
            if facts.ended not in ("", Status.DONE_FOR_DAY):
                return None
            # Whatever was asked for is decided by this.
            return replace(facts, at_venue=True, ended=report.kind.value, open_cancel="", open_replace="")
        case ReportKind.DONE_FOR_DAY:
            return None if facts.ended else replace(facts, at_venue=True, ended=Status.DONE_FOR_DAY.value)
        case ReportKind.RESTATED:
            quantity, ended = report.quantity or facts.quantity, facts.ended
            if ended == Status.DONE_FOR_DAY:
                ended = ""
            terms = facts.terms.amended(report)
            if (facts.quantity, facts.terms, facts.ended, facts.at_venue) == (quantity, terms, ended, True):
                return None
            return _with_terms(facts, terms, quantity=quantity, ended=ended)
        case ReportKind.REPLACED:
            # Asked to go below what it has executed, a venue amends the quantity to that.
            quantity = max(report.quantity or facts.quantity, facts.filled)
            open_replace = "" if facts.open_replace == report.client_order_id else facts.open_replace
            terms = facts.terms.amended(report)
            if (facts.quantity, facts.terms, facts.open_replace, facts.at_venue) == (
                quantity,
                terms,
                open_replace,
                True,
            ):
                return None
            return _with_terms(facts, terms, quantity=quantity, open_replace=open_replace)
        case ReportKind.CANCEL_REFUSED:
            # A refusal closes the request that it names, and no other one.
            return replace(facts, open_cancel="") if facts.open_cancel == report.client_order_id else None
        case ReportKind.REPLACE_REFUSED:
            return replace(facts, open_replace="") if facts.open_replace == report.client_order_id else None
        case ReportKind.CANCEL_PENDING | ReportKind.REPLACE_PENDING:
            return None  # the venue is considering a request, which is shown as pending since it was made
        case ReportKind.UNREADABLE:
            return None


def _with_terms(facts: Facts, terms: OtherTerms, **changes: Any) -> Facts:
    multi_day = terms.time_in_force in MULTI_DAY if terms.time_in_force else facts.multi_day
    return replace(facts, at_venue=True, terms=terms, multi_day=multi_day, **changes)


def _count(facts: Facts, report: ExecutionReport) -> Facts | None:
    """Count an execution once, and never one that was taken back or corrected, in whichever order the reports come."""
    executions, filled, value = dict(facts.executions), facts.filled, facts.value
    if report.execution_id not in executions:
        worth = NOTHING
        if report.kind is not ReportKind.BUSTED and report.price is not None:
            worth = Worth(report.quantity, report.price)
        executions[report.execution_id] = worth
        filled, value = filled + worth.quantity, EXACT.add(value, worth.value)
    if report.refers_to:
        gone = executions.get(report.refers_to, NOTHING)
        executions[report.refers_to] = NOTHING
        filled, value = filled - gone.quantity, EXACT.subtract(value, gone.value)
    if executions == facts.executions:
        return None
    return replace(facts, at_venue=True, filled=filled, value=value, executions=executions)
