"""Ingesting a venue's report stream: its numbered reports become executions, events and the state of their orders.

A batch is two statements around the pure fold of orders.facts, in one transaction with the stream's checkpoint. So a
report is counted once whatever dies: either all of a batch is written and the checkpoint is behind it, or nothing.
The checkpoint moves on only for the session that holds its token, and only from where that session believes it to be.

No report is dropped. One that is about no order of ours, that contradicts what is known, or that cannot be written, is
kept as it came, for operators.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID

from django.db import InterfaceError, OperationalError, transaction

from exchanges import directory
from exchanges.leases import Checkpoint as Checkpoint
from exchanges.leases import LeaseLost as LeaseLost
from exchanges.models import UnmatchedReport
from exchanges.venue import LONGEST_ID, ExecutionReport, ReportKind
from orders import archive, lifecycle, requests
from orders.facts import EXACT, NOTHING, Facts, OtherTerms, Worth, fold, standing
from orders.lifecycle import TRANSITIONS, Event, ReportedOrder
from orders.models import MULTI_DAY, READABLE, Execution, OrderRequest, RequestStatus, Status, TimeInForce
from orders.positions import Holding, replay
from orders.requests import Refusal
from quiktrade.decimals import decimal_text
from quiktrade.jobs import doorbell
from quiktrade.texts import storable
from quiktrade.tracing import spans

logger = logging.getLogger(__name__)

T = TypeVar("T")

EXECUTIONS = (ReportKind.EXECUTED, ReportKind.BUSTED, ReportKind.CORRECTED)
EVENTS: Mapping[ReportKind, Event] = {
    ReportKind.ACKNOWLEDGED: Event.ACKNOWLEDGED,
    ReportKind.REJECTED: Event.REJECTED_BY_VENUE,
    ReportKind.EXECUTED: Event.EXECUTED,
    ReportKind.BUSTED: Event.EXECUTION_BUSTED,
    ReportKind.CORRECTED: Event.EXECUTION_CORRECTED,
    ReportKind.CANCELED: Event.CANCELED_AT_VENUE,
    ReportKind.EXPIRED: Event.EXPIRED_AT_VENUE,
    ReportKind.DONE_FOR_DAY: Event.DONE_FOR_DAY_AT_VENUE,
    ReportKind.RESTATED: Event.RESTATED,
    ReportKind.REPLACED: Event.REPLACED,
    ReportKind.CANCEL_REFUSED: Event.CANCEL_REFUSED,
    ReportKind.REPLACE_REFUSED: Event.REPLACE_REFUSED,
}
"""Those of reports that can say something new."""
REFUSALS = (ReportKind.CANCEL_REFUSED, ReportKind.REPLACE_REFUSED)
AMENDING = (ReportKind.REPLACED, ReportKind.RESTATED)
ANSWERS = (*REFUSALS, ReportKind.REPLACED)

LARGEST_QUANTITY = 10**15
LARGEST_PRICE = Decimal(10**10)
"""Prices are below it, and have at most eight decimal places: a column keeps no more."""


TRIES = 5
"""A batch is written again if another writer changed one of its positions: another stream of the venue is read at the
same time, or the venue was asked."""


class _PositionMoved(Exception):
    """Another writer has changed a position since it was read. Nothing was written."""


def ingest(reports: Sequence[ExecutionReport], checkpoint: Checkpoint, *, lease: float) -> Checkpoint:
    """Write a batch of reports; returns the checkpoint behind it, with the session's lease renewed for `lease` seconds.

    Reports from before the checkpoint are left out. Raises: LeaseLost; ValueError, if a report is missing between the
    checkpoint and the last one.
    """
    given = {report.sequence: report for report in reports if report.sequence >= checkpoint.next_sequence}
    batch = [given[sequence] for sequence in sorted(given)]
    if not batch:
        return checkpoint
    if batch[-1].sequence - checkpoint.next_sequence >= len(batch):
        raise ValueError(f"Of the reports {checkpoint.next_sequence} to {batch[-1].sequence} some are missing")
    return _write(batch, checkpoint, lease)


def _write(batch: Sequence[ExecutionReport], checkpoint: Checkpoint, lease: float) -> Checkpoint:
    """Write a batch in one transaction. Where one report cannot be written, the others are, and it is kept."""
    try:
        written = _in_one_transaction(lambda: _Batch(checkpoint).written(batch, batch[-1].sequence + 1, lease))
    except (OperationalError, InterfaceError, LeaseLost):
        raise  # no report is at fault
    except Exception as error:
        if len(batch) > 1:
            half = len(batch) // 2
            return _write(batch[half:], _write(batch[:half], checkpoint, lease), lease)
        with transaction.atomic():
            written = _Batch(checkpoint)
            written.keep(batch[0], f"It cannot be written: {str(error).strip()}")
            written.put(batch[-1].sequence + 1, lease)
    written.log()
    return replace(checkpoint, next_sequence=batch[-1].sequence + 1)


def _in_one_transaction(write: Callable[[], T]) -> T:
    """Write, and again from the beginning where another writer has changed a position meanwhile."""
    for _ in range(TRIES):
        with suppress(_PositionMoved), transaction.atomic():
            return write()
    raise OperationalError(f"Positions were changed {TRIES} times while they were computed")


ACTOR = "system:reconciliation"


def repair(
    reports: Sequence[ExecutionReport], checkpoint: Checkpoint, *, versions: Mapping[UUID, int], lease: float
) -> int:
    """Apply what was found out about orders otherwise than by the stream; returns how many of them changed.

    Executions that were fetched have the numbers that they have in the stream, and what was concluded has numbers below
    0. An order that is not of the version given any more is left as it is: there is news of it. Raises: LeaseLost.
    """
    batch = partial(_Batch, checkpoint, actor=ACTOR, versions=versions)
    written = _in_one_transaction(lambda: batch().written(reports, checkpoint.next_sequence, lease))
    written.log()
    return written.orders_changed


def apply_found(reports: Sequence[ExecutionReport], venue: str, *, actor: str) -> set[str]:
    """Apply what a look-up has found out, each report about another order; returns the client_order_ids of those that
    changed. None of the reports is of an execution: those are written by the venue's session alone.
    """
    batch = partial(_Batch, Checkpoint(venue, "", UUID(int=0), 0), actor=actor, fenced=False)
    written = _in_one_transaction(lambda: batch().written(reports, 0, 0.0))
    written.log()
    return {str(order.taken.id) for order in written.orders.values() if order.events}


NO_ORDER = "It is about no order of ours."
DOES_NOT_FIT = "It does not fit an order that is"
IN_DOUBT = f"{DOES_NOT_FIT} in doubt: the venue refused one request for it, and another may still be on its way."


def apply_kept(checkpoint: Checkpoint, *, lease: float, seconds: float | None = None) -> int:
    """Apply reports that were kept because their order was not known, or did not stand as they need, and now does.

    Returns how many are settled. With `seconds`, only those are tried that were kept in that time because their order
    was not known. What is settled is no longer kept: the order's history has it. Raises: LeaseLost.
    """
    settled, after = 0, 0
    while True:
        found = lifecycle.kept_reports(checkpoint.venue, NO_ORDER, DOES_NOT_FIT, after=after, seconds=seconds)
        for stream in sorted({kept.stream for kept in found}):
            settled += _apply_kept([kept for kept in found if kept.stream == stream], checkpoint, stream, lease)
        if len(found) < lifecycle.KEPT_AT_ONCE:
            return settled
        after = found[-1].id


def _apply_kept(found: Sequence[lifecycle.KeptReport], checkpoint: Checkpoint, stream: str, lease: float) -> int:
    rows = {kept.sequence: kept.id for kept in found}
    reports = sorted((_as_report(kept.report) for kept in found), key=lambda report: report.sequence)

    def write() -> tuple[_Batch, list[int]]:
        batch = _Batch(checkpoint, stream=stream)
        batch.fold(reports)
        again = {kept["sequence"]: kept["reason"] for kept in batch.unmatched}
        batch.unmatched.clear()
        batch.put(checkpoint.next_sequence, lease)
        settled = [id_ for sequence, id_ in rows.items() if sequence not in again]
        UnmatchedReport.objects.filter(pk__in=settled).delete()
        for sequence, reason in again.items():
            UnmatchedReport.objects.filter(pk=rows[sequence]).update(reason=reason)
        return batch, settled

    written, settled = _in_one_transaction(write)
    written.notices = [notice for notice in written.notices if notice.fields["event"] != KEPT]
    written.log()
    if settled:
        about = {"event": "report.settled", "venue": checkpoint.venue, "stream": stream, "reports": len(settled)}
        logger.info("Reports that were kept are applied", extra=about)
    return len(settled)


KEPT = "report.unmatched"


def _as_report(told: Mapping[str, str | None]) -> ExecutionReport:
    """The inverse of what `keep` writes."""
    known = {name: text for name, text in told.items() if text is not None and name in _READ}
    return ExecutionReport(**{name: _READ[name](text) for name, text in known.items()})


_READ: dict[str, Any] = dict.fromkeys(ExecutionReport.__dataclass_fields__, str)
_READ |= dict.fromkeys(("sequence", "quantity", "cumulative_quantity", "leaves_quantity"), int)
_READ |= dict.fromkeys(("price", "limit_price", "stop_price"), Decimal)
_READ |= {"kind": ReportKind, "at": datetime.fromisoformat, "expires_at": datetime.fromisoformat}


def flaw(report: ExecutionReport) -> str:
    """Why a report cannot be applied to any order; empty if it can."""
    if report.kind is ReportKind.UNREADABLE:
        return "It cannot be read."
    for name in ("venue_order_id", "execution_id", "refers_to"):
        text = getattr(report, name)
        if len(text) > LONGEST_ID or (text and not text.isprintable()):
            return f"Its {name} is not of at most {LONGEST_ID} printable characters."
    if not report.venue_order_id:
        return "It has no venue_order_id."
    if report.at is not None and (report.at.tzinfo is None or not READABLE[0] <= report.at <= READABLE[1]):
        return "Its time has no time zone or is none that can be stored."
    if report.kind in EXECUTIONS:
        if not report.execution_id:
            return "It has no execution_id."
        if report.kind is not ReportKind.EXECUTED and report.refers_to in ("", report.execution_id):
            return "It does not say which execution it takes back or corrects."
        if report.kind is not ReportKind.BUSTED:
            if not 0 < report.quantity <= LARGEST_QUANTITY:
                return f"Its quantity is {report.quantity}; one from 1 to {LARGEST_QUANTITY} is required."
            if not _storable_price(report.price):
                return f"Its price is {report.price}; one above 0 with at most 8 decimal places is required."
    elif not 0 <= report.quantity <= LARGEST_QUANTITY:
        return f"Its quantity is {report.quantity}; one from 0 to {LARGEST_QUANTITY} is required."
    if report.kind in AMENDING:
        for name in ("limit_price", "stop_price"):
            price = getattr(report, name)
            if price is not None and not _storable_price(price):
                return f"Its {name} is {price}; one above 0 with at most 8 decimal places is required."
        if report.time_in_force not in ("", *TimeInForce.values):
            return "Its time_in_force is none that is known."
        if report.expires_at is not None and (
            report.expires_at.tzinfo is None or not READABLE[0] <= report.expires_at <= READABLE[1]
        ):
            return "Its expires_at has no time zone or is none that can be stored."
    return ""


def _storable_price(price: Decimal | None) -> bool:
    if price is None or not price.is_finite() or not 0 < price < LARGEST_PRICE:
        return False
    exponent = price.normalize(EXACT).as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -8


@dataclass(slots=True)
class _Reported:
    """An order while reports are applied to it."""

    taken: ReportedOrder
    facts: Facts
    status: Status
    venue_order_id: str
    fresh: set[str]
    current_id: UUID | None = None
    last_error: str = ""
    events: int = 0
    venue_sequence: int = 0


class _Notice(NamedTuple):
    level: int
    text: str
    fields: dict[str, Any]


@dataclass(slots=True)
class _Batch:
    """What the reports of one transaction come to."""

    checkpoint: Checkpoint
    stream: str = ""  # of reports that were kept
    actor: str = ""
    fenced: bool = True  # reports of the stream; of what a look-up has found, refusals were weighed before
    versions: Mapping[UUID, int] = field(default_factory=dict)  # an order of another version is left as it is
    orders: dict[int, _Reported] = field(default_factory=dict)  # by the sequence of each report that is about one
    events: list[dict[str, Any]] = field(default_factory=list)
    holdings: dict[tuple[int, str], Holding] = field(default_factory=dict)  # by owner and instrument
    changed: set[tuple[int, str]] = field(default_factory=set)
    rewound: set[tuple[int, str]] = field(default_factory=set)  # in which one is taken back or corrected
    unmatched: list[dict[str, Any]] = field(default_factory=list)
    repeated: list[tuple[ExecutionReport, _Reported]] = field(default_factory=list)
    said: dict[UUID, str] = field(default_factory=dict)  # by the venue, of requests that it refused
    doubted: set[UUID] = field(default_factory=set)  # requests that a refusal does not decide
    notices: list[_Notice] = field(default_factory=list)
    began: float = field(default_factory=perf_counter)

    def written(self, batch: Sequence[ExecutionReport], next_sequence: int, lease: float) -> Self:
        self.fold(batch)
        self.put(next_sequence, lease)
        return self

    def fold(self, batch: Sequence[ExecutionReport]) -> None:
        """Apply reports to the facts of their orders, in the venue's sequence."""
        usable = []
        for report in batch:
            if why := flaw(report):
                self.keep(report, why)
            else:
                usable.append(report)
        if usable:
            self._take(usable)
        if (away := [report for report in usable if report.sequence not in self.orders]) and self._bring_back(away):
            self._take(away)
        if self.fenced and (refused := {_uuid(r.client_order_id): r.text for r in usable if r.kind in REFUSALS}):
            heard = [Refusal(id=id_, code=text or "refused") for id_, text in refused.items() if id_]
            self.doubted = requests.doubt(heard)
        for report in usable:
            order = self.orders.get(report.sequence)
            if order is None:
                self.keep(report, NO_ORDER)
            else:
                if self.versions.get(order.taken.id, order.taken.version) == order.taken.version:
                    self._apply(report, order)
        if self.repeated:
            self._compare()
        if self.rewound:
            self._replay()

    def keep(self, report: ExecutionReport, why: str) -> None:
        """Leave a report to operators, as it came."""
        if report.sequence < 0:  # no report of the venue
            text = "What was found out about an order does not fit it"
            self._notice(logging.WARNING, text, "report.unfit", report, why=why)
            return
        told = {name: None if value is None else storable(str(value)) for name, value in asdict(report).items()}
        self.unmatched.append({"sequence": report.sequence, "reason": storable(why), "report": told})
        self._notice(logging.ERROR, "A venue's report was kept for operators", KEPT, report, why=why)

    @property
    def orders_changed(self) -> int:
        return len({id(order) for order in self.orders.values() if order.events})

    def log(self) -> None:
        """Tell people what they must hear of, and traces. Not before the commit, which may fail."""
        changed = {order.taken.id: order.taken for order in self.orders.values() if order.events}
        about: dict[str, str | int | float] = {
            "venue": self.checkpoint.venue,
            "orders": len(changed),
            "events": len(self.events),
        }
        if len(changed) == 1:
            about["order.id"] = str(next(iter(changed)))
        contexts = (taken.traceparent for taken in changed.values())
        spans.done("reports", contexts, perf_counter() - self.began, about)
        for level, text, fields in self.notices:
            logger.log(level, text, extra=fields)

    def put(self, next_sequence: int, lease: float) -> None:
        changed = {id(order): order for order in self.orders.values() if order.events}.values()
        put = lifecycle.put_reported(
            orders=[_row(order) for order in changed],
            events=self.events,
            positions=[_position(key, self.holdings[key]) for key in sorted(self.changed)],
            unmatched=self.unmatched,
            actor=self.actor or f"venue:{self.checkpoint.venue}",
            venue=self.checkpoint.venue,
            stream=self.checkpoint.stream,
            token=self.checkpoint.token,
            lease=lease,
            **{"from": self.checkpoint.next_sequence, "next": next_sequence},
        )
        if put.checkpoints == 0 and self.fenced:
            raise LeaseLost(f"{self.checkpoint.venue}: {self.checkpoint.stream} is read by another session")
        if put.positions != len(self.changed):
            raise _PositionMoved
        if put.orders != len(changed):
            raise RuntimeError(f"{put.orders} of {len(changed)} orders were written although they were locked")
        self._follow(changed)

    def _follow(self, changed: Iterable[_Reported]) -> None:
        """Decide the requests that the reports have answered, in the same transaction."""
        asked = [order for order in changed if order.taken.open_cancel or order.taken.open_replace]
        if asked:
            ids = [order.taken.id for order in asked]
            if any(request.status == RequestStatus.PENDING for request in requests.follow(ids, said=self.said)):
                doorbell.ring()
            if over := [order.taken.id for order in asked if order.facts.leaves == 0]:
                requests.look_up_now(over)

    def _bring_back(self, away: Sequence[ExecutionReport]) -> int:
        """Have archived orders in use again that reports are about; returns how many there were."""
        rows = [{name: _as_row(report)[name] for name in ("named", "original", "venue_order_id")} for report in away]
        ids = archive.named_by_reports(self.checkpoint.venue, rows)
        if not ids:
            return 0
        back = archive.bring_back(ids, quiet=bool(self.stream)).orders  # what was kept is tried again and again
        if back:
            text = "A venue reports on archived orders: they are in use again"
            self._notice(logging.INFO, text, "archive.brought_back", away[0], orders=back)
        return back

    def _take(self, usable: Sequence[ExecutionReport]) -> None:
        executions = [report for report in usable if report.kind in EXECUTIONS]
        referred = [report.refers_to for report in executions if report.refers_to]
        concerned = [report.execution_id for report in executions] + referred
        rows = [_as_row(report) for report in usable]
        for taken in lifecycle.take_reported(self.checkpoint.venue, rows, concerned=concerned, referred=referred):
            order = _Reported(
                taken, _facts(taken), Status(taken.status), taken.venue_order_id, fresh=set(taken.fresh or ())
            )
            self.orders |= dict.fromkeys(taken.sequences, order)
            key = (taken.owner_id, taken.instrument)
            if taken.fresh and key not in self.holdings:
                self.holdings[key] = _holding(taken)

    def _apply(self, report: ExecutionReport, order: _Reported) -> None:
        if report.kind in EXECUTIONS:
            if report.execution_id not in order.fresh:
                self.repeated.append((report, order))
                return
            order.fresh.discard(report.execution_id)
            if report.refers_to:  # also if it counts for nothing: it may say that others are one execution
                self.rewound.add((order.taken.owner_id, order.taken.instrument))
        if (
            report.venue_order_id != order.venue_order_id
            and order.venue_order_id
            and report.kind != ReportKind.REPLACED
        ):
            self._notice(
                logging.ERROR,
                "A venue reports an order under another id: two may be live there",
                "order.two_at_venue",
                report,
                order_id=order.taken.id,
                known_venue_order_id=order.venue_order_id,
            )
        if report.kind is ReportKind.REPLACED and self._is_overtaken(report, order):
            return
        if report.kind in REFUSALS and _uuid(report.client_order_id) in self.doubted:
            return
        before, after = order.facts, fold(order.facts, report)
        if after is None:
            return
        event = EVENTS[report.kind]
        if event == Event.REJECTED_BY_VENUE and not self._is_last_word(report, order):
            if report.sequence < 0 or not order.facts.at_venue:  # otherwise it has refused another copy of the order
                self.keep(report, IN_DOUBT)
            return
        if (order.status, event) not in TRANSITIONS:
            self.keep(report, f"{DOES_NOT_FIT} {order.status}.")
            return
        status = standing(after)
        order.events += 1
        self.events.append(
            {
                "order_id": order.taken.id,
                "sequence": order.taken.version + order.events,
                "event": event.value,
                "from_status": order.status.value,
                "to_status": status.value,
                "attempt": order.taken.attempt,
                "reason": storable(report.text),
                "detail": self._detail(report, before, after),
            }
        )
        order.facts, order.status, order.venue_sequence = after, status, max(report.sequence, order.venue_sequence)
        order.last_error = storable(report.text) if event == Event.REJECTED_BY_VENUE else ""
        if report.kind in REFUSALS and (request := _uuid(report.client_order_id)):
            self.said[request] = report.text
        if report.kind is ReportKind.REPLACED:
            order.current_id = _uuid(report.client_order_id)
            order.venue_order_id = report.venue_order_id
        elif not order.venue_order_id:
            order.venue_order_id = report.venue_order_id
        self._count(report, order.taken, before, after)
        self._remark(report, order, before, after)

    def _is_last_word(self, report: ExecutionReport, order: _Reported) -> bool:
        """Whether a rejection decides the order: no other request for it can be accepted. As in verdicts.conclude().

        One that was kept may be about an attempt before the present one.
        """
        if not order.taken.in_doubt and not self.stream:
            return True
        if order.facts.at_venue:
            return report.venue_order_id == order.venue_order_id
        capabilities = directory.all_capabilities().get(self.checkpoint.venue)
        remembers = capabilities is not None and capabilities.remembers_rejections
        return remembers and order.status == Status.UNCONFIRMED

    def _is_overtaken(self, report: ExecutionReport, order: _Reported) -> bool:
        """Whether a replace was accepted before, and says nothing new: a later one was accepted since, or this is not
        the stream's word, which alone is in order with what else has changed the terms."""
        named = _uuid(report.client_order_id)
        if named is None or str(named) == order.facts.open_replace:
            return False
        if named == (order.current_id or order.taken.current_id):
            return report.sequence < 0
        found = OrderRequest.objects.filter(pk=named).values_list("status", flat=True).first()
        if found in (RequestStatus.REFUSED, RequestStatus.FAILED, RequestStatus.SUPERSEDED):
            text = "A venue changed an order by a request that counts as not done"
            self._notice(logging.ERROR, text, "request.done_after_all", report, order_id=order.taken.id)
        return found == RequestStatus.ACCEPTED

    def _compare(self) -> None:
        """Keep reports that use the id of a stored execution for another one. True repetitions say nothing new."""
        ids = [report.execution_id for report, _ in self.repeated]
        columns = ("order_id", "kind", "refers_to", "quantity", "price")
        rows = Execution.objects.filter(venue_id=self.checkpoint.venue, execution_id__in=ids)
        stored = {id_: tuple(row) for id_, *row in rows.values_list("execution_id", *columns)}
        for report, order in self.repeated:
            row = _as_row(report)
            again = (order.taken.id, *(row[name] for name in columns[1:]))
            if stored[report.execution_id] != again:
                self.keep(report, "Its execution_id was used before, for something else.")

    def _detail(self, report: ExecutionReport, before: Facts, after: Facts) -> dict[str, Any]:
        detail: dict[str, Any] = {"found": True}
        if report.sequence > 0:
            detail = {"stream": self.stream or self.checkpoint.stream, "sequence": report.sequence}
        if report.kind in EXECUTIONS:
            detail["execution_id"] = report.execution_id
            detail["quantity"] = report.quantity
            detail["price"] = decimal_text(report.price) if report.price is not None else None
            if report.refers_to:
                detail["refers_to"] = report.refers_to
        if after.quantity != before.quantity:
            detail |= {"quantity": after.quantity, "quantity_before": before.quantity}
        if after.terms != before.terms:
            for name in OtherTerms._fields:
                old, new = getattr(before.terms, name), getattr(after.terms, name)
                if old != new:
                    detail |= {name: _told(new), f"{name}_before": _told(old)}
        if report.kind in ANSWERS:
            detail["request_id"] = report.client_order_id
        detail["filled_quantity"] = after.filled
        detail["leaves_quantity"] = after.leaves
        return detail

    def _count(self, report: ExecutionReport, taken: ReportedOrder, before: Facts, after: Facts) -> None:
        quantity, value = after.filled - before.filled, EXACT.subtract(after.value, before.value)
        if not quantity and not value:
            return
        key = (taken.owner_id, taken.instrument)
        self.changed.add(key)
        if report.refers_to:
            self.holdings[key].add(taken.side, quantity, value)
        else:
            assert report.price is not None, "only an execution with a price adds to what was executed"
            self.holdings[key].trade(taken.side, quantity, report.price)

    def _replay(self) -> None:
        before = {key: self.holdings[key].realized for key in sorted(self.rewound)}
        too_many = replay(self.checkpoint.venue, {key: self.holdings[key] for key in before})
        self.changed |= {key for key, realized in before.items() if self.holdings[key].realized != realized}
        for owner_id, instrument in too_many:
            about = {"venue": self.checkpoint.venue, "owner_id": owner_id, "instrument": instrument}
            text = "A position has too many executions to compute again what it realized"
            self.notices.append(_Notice(logging.WARNING, text, {"event": "position.not_replayed", **about}))

    def _remark(self, report: ExecutionReport, order: _Reported, before: Facts, after: Facts) -> None:
        """What operators must hear of. What was executed counts in any case."""
        if after.filled <= before.filled:
            return
        fields = {"order_id": order.taken.id, "client_order_id": order.taken.client_order_id}
        if after.filled > after.quantity:
            text = "A venue executed more of an order than its quantity"
            self._notice(logging.ERROR, text, "order.executed_above_quantity", report, **fields)
        elif before.over and before.ended != Status.DONE_FOR_DAY:
            text = f"A venue executed an order that it had called {before.ended}"
            self._notice(logging.WARNING, text, "order.executed_after_end", report, **fields)

    def _notice(self, level: int, text: str, event: str, report: ExecutionReport, **fields: Any) -> None:
        stream = self.stream or self.checkpoint.stream
        about = {"venue": self.checkpoint.venue, "stream": stream, "sequence": report.sequence}
        self.notices.append(_Notice(level, text, {"event": event, **about, **fields}))


def _told(value: Any) -> Any:
    """A term as the history tells it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return decimal_text(value) if isinstance(value, Decimal) else value


def _as_row(report: ExecutionReport) -> dict[str, Any]:
    """What the statement needs of a report."""
    counts = report.kind in EXECUTIONS
    return {
        "sequence": report.sequence,
        "named": _uuid(report.client_order_id),
        "original": _uuid(report.original_client_order_id),
        "venue_order_id": report.venue_order_id,
        "kind": report.kind.value,
        "execution_id": report.execution_id if counts else "",
        "refers_to": report.refers_to if counts else "",
        "quantity": 0 if report.kind is ReportKind.BUSTED else report.quantity,
        "price": None if report.kind is ReportKind.BUSTED else report.price,
        "at": report.at,
    }


def _uuid(text: str) -> UUID | None:
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None


def _facts(taken: ReportedOrder) -> Facts:
    executions = {
        id_: Worth(quantity, price)
        for id_, quantity, price in zip(
            taken.known or (), taken.known_quantities or (), taken.known_prices or (), strict=True
        )
    }
    executions |= dict.fromkeys(taken.gone or (), NOTHING)
    return Facts(
        quantity=taken.quantity,
        multi_day=taken.time_in_force in MULTI_DAY,
        at_venue=taken.venue_order_id != "",
        ended=taken.ended,
        filled=taken.filled_quantity,
        value=taken.filled_value,
        open_cancel=str(taken.open_cancel or ""),
        open_replace=str(taken.open_replace or ""),
        terms=OtherTerms(taken.limit_price, taken.stop_price, taken.time_in_force, taken.expires_at),
        executions=executions,
    )


def _row(order: _Reported) -> dict[str, Any]:
    facts = order.facts
    return {
        "id": order.taken.id,
        "version": order.taken.version,
        "events": order.events,
        "status": order.status.value,
        "venue_order_id": order.venue_order_id,
        "quantity": facts.quantity,
        **facts.terms._asdict(),
        "ended": facts.ended,
        "filled_quantity": facts.filled,
        "filled_value": facts.value,
        "open_cancel": facts.open_cancel or None,
        "open_replace": facts.open_replace or None,
        "current_id": order.current_id,
        "venue_sequence": order.venue_sequence,
        "last_error": order.last_error,
        "at_venue": facts.at_venue,
    }


def _holding(taken: ReportedOrder) -> Holding:
    if taken.bought_quantity is None:
        return Holding()
    return Holding(
        int(taken.bought_quantity),
        taken.bought_value,
        int(taken.sold_quantity),
        taken.sold_value,
        taken.realized,
        taken.position_version,
    )


def _position(key: tuple[int, str], holding: Holding) -> dict[str, Any]:
    return {"owner_id": key[0], "instrument": key[1], **asdict(holding)}
