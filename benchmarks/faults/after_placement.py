"""What must hold of an order after its placement, whatever was broken: pure functions over the evidence.

The exchange's ledger and its reports are the truth. The system is at rest when these are asked.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from benchmarks.faults.records import (
    WORKING,
    Evidence,
    Execution,
    Listener,
    Position,
    VenueReport,
    Violation,
    violation,
)
from orders.facts import EXACT
from orders.models import Status

SAME = {"new": Status.PLACED}
"""The exchange's words for statuses that have another name here."""
_ASKED = (Status.PENDING_CANCEL, Status.PENDING_REPLACE)
_OVER = (Status.REJECTED, Status.FAILED, Status.EXPIRED, Status.CANCELED)
_OPEN = ("waiting", "pending", "submitting", "sent", "unconfirmed")
"""Statuses of a request without an answer."""
_DONE_AS = {"cancel": "canceled", "replace": "replaced"}


def last_reports(reports: Iterable[VenueReport]) -> dict[str, VenueReport]:
    """How each order stands at the exchange, by its venue_order_id."""
    return {report.venue_order_id: report for report in reports}


def executions_agree(evidence: Evidence) -> Iterator[Violation]:
    """I8: each execution at the exchange is stored once, for its order and its owner, and nothing else is."""
    owners = {row.id: row.owner for row in evidence.rows}
    stored = Counter(execution.execution_id for execution in evidence.executions)
    real = {report.execution.execution_id: report.execution for report in evidence.reports if report.execution}
    for execution_id, execution in real.items():
        if execution_id not in stored:
            yield violation("execution lost", execution.order_id, f"{execution.kind} {execution_id} is not stored")
    for execution_id, count in stored.items():
        if count > 1:
            yield violation("execution doubled", execution_id, f"stored {count} times")
    for execution in evidence.executions:
        truth = real.get(execution.execution_id)
        if truth is None:
            note = f"{execution.execution_id} is stored, and the exchange has none by this id"
            yield violation("execution doubled", execution.order_id, note)
        elif execution != truth._replace(owner=owners.get(truth.order_id, "")):
            yield violation("execution misattributed", execution.order_id, f"stored {execution}, it is {truth}")


def sums_agree(evidence: Evidence) -> Iterator[Violation]:
    """I9: what an order has filled, and what an owner has of an instrument, are the sums of the executions."""
    filled: dict[str, list[Execution]] = defaultdict(list)
    traded: dict[tuple[str, str], list[Execution]] = defaultdict(list)
    for execution in _that_count(evidence.executions):
        filled[execution.order_id].append(execution)
        traded[execution.owner, execution.instrument].append(execution)
    for row in evidence.rows:
        quantity, value = _sums(filled[row.id])
        if (row.filled, row.value) != (quantity, value):
            note = f"filled {row.filled} for {row.value}, its executions {quantity} for {value}"
            yield violation("filled is not its executions", row.id, note)
    held = {(position.owner, position.instrument): position for position in evidence.positions}
    for key in held.keys() | traded.keys():
        bought, sold = (_sums(one for one in traded[key] if one.side == side) for side in ("buy", "sell"))
        expected = Position(*key, Decimal(bought[0]), bought[1], Decimal(sold[0]), sold[1])
        found = held.get(key) or Position(*key, Decimal(0), Decimal(0), Decimal(0), Decimal(0))
        if found != expected:
            yield violation("position is not its executions", " ".join(key), f"{found}, its executions {expected}")


def beliefs_are_true(evidence: Evidence) -> Iterator[Violation]:
    """I10: an order stands here as it stands at the exchange."""
    accepted: dict[str, list[str]] = defaultdict(list)
    for entry in evidence.ledger:
        if entry.status == WORKING:
            accepted[entry.client_order_id].append(entry.venue_order_id)
    last = last_reports(evidence.reports)
    for row in evidence.rows:
        names = accepted.get(row.id, [])
        report = last.get(names[0]) if len(names) == 1 else None
        if report is None or (row.status in _OVER and report.leaves):
            continue  # I1 and I3 judge an order that is not there, there twice, or still live there
        if row.status not in _ASKED and (row.status, row.venue_order_id) != (_status(report), report.venue_order_id):
            note = f"{row.status} as {row.venue_order_id or 'nothing'}, there {_status(report)} as {names[0]}"
            yield violation("state believed otherwise", row.id, note)
        elif row.filled != report.filled:
            yield violation("state believed otherwise", row.id, f"filled {row.filled}, there {report.filled}")
        if row.terms != report.terms:
            yield violation("terms believed otherwise", row.id, f"{row.terms}, there {report.terms}")


def requests_agree(evidence: Evidence) -> Iterator[Violation]:
    """I2, I4 and I10: what a client was promised to be asked for is, it has an answer, and it is the exchange's."""
    kept = {(request.order_id, request.kind) for request in evidence.requests}
    for asked_for in evidence.asked:
        if asked_for.http_status == 202 and asked_for[:2] not in kept:
            yield violation("request lost", asked_for.order_id, f"{asked_for.kind} was answered with 202")
    done = {report.request_id: report for report in evidence.reports if report.request_id and report.kind in _HAPPENED}
    canceled = {report.client_order_id for report in evidence.reports if report.kind == _DONE_AS["cancel"]}
    known = {entry.client_order_id for entry in evidence.ledger if entry.status == WORKING}
    asked = {request.id for request in evidence.requests}
    with_operators = {row.id for row in evidence.rows if row.parked}  # whether it is there decides what is asked for it
    for request in evidence.requests:
        what = f"{request.kind} believed otherwise"
        happened = request.id in done
        if request.kind == "cancel" and request.status == "accepted":
            # A cancel is done with when the order is canceled at the exchange, by this request or without it. An order
            # that was never sent is canceled here.
            happened = request.order_id in canceled or request.order_id not in known
        if request.status in _OPEN:
            if request.order_id not in with_operators:
                note = f"{request.kind} {request.id} {request.status}"
                yield violation("request never answered", request.order_id, note)
        elif happened != (request.status == "accepted"):
            note = f"{request.id} is {request.status}, and was {'done' if happened else 'not done'} there"
            yield violation(what, request.order_id, note)
    for request_id, report in done.items():
        if request_id not in asked:
            kind = "cancel" if report.kind == _DONE_AS["cancel"] else "replace"
            note = f"{request_id} was done there, and nobody asked for it"
            yield violation(f"{kind} believed otherwise", report.client_order_id, note)


def streams_are_whole(evidence: Evidence) -> Iterator[Violation]:
    """I11: who reads the stream hears every event of its orders once, those of one order in their sequence."""
    due = _due(evidence)
    for listener in evidence.streams:
        for order_id, sequence in sorted(due[listener.owner] - set(listener.heard)):
            yield violation("stream event missed", order_id, f"{listener.name} was not told of #{sequence}")
        for (order_id, sequence), count in Counter(listener.heard).items():
            if count > 1:
                yield violation(
                    "stream event doubled", order_id, f"{listener.name} was told {count} times of #{sequence}"
                )
        yield from _out_of_order(listener)


def webhooks_are_delivered(evidence: Evidence) -> Iterator[Violation]:
    """I12: a webhook's receiver has had every event at least once."""
    due = _due(evidence)
    for listener in evidence.webhooks:
        for order_id, sequence in sorted(due[listener.owner] - set(listener.heard)):
            yield violation("webhook never delivered", order_id, f"{listener.name} did not get #{sequence}")


CHECKS = (
    executions_agree,
    sums_agree,
    beliefs_are_true,
    requests_agree,
    streams_are_whole,
    webhooks_are_delivered,
)

_HAPPENED = frozenset(_DONE_AS.values())


def _that_count(executions: Sequence[Execution]) -> Iterator[Execution]:
    """Those that were neither busted nor corrected; a bust itself has no quantity."""
    gone = {execution.refers_to for execution in executions}
    return (execution for execution in executions if execution.execution_id not in gone)


def _sums(executions: Iterable[Execution]) -> tuple[int, Decimal]:
    quantity, value = 0, Decimal(0)
    for execution in executions:
        quantity += execution.quantity
        value = EXACT.add(value, EXACT.multiply(execution.quantity, execution.price or Decimal(0)))
    return quantity, value


def _status(report: VenueReport) -> str:
    return str(SAME.get(report.status, report.status))


def _due(evidence: Evidence) -> Mapping[str, set[tuple[str, int]]]:
    """The events that each owner must hear of."""
    due: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for row in evidence.rows:
        due[row.owner].update((row.id, step.sequence) for step in evidence.histories.get(row.id, ()))
    return due


def _out_of_order(listener: Listener) -> Iterator[Violation]:
    latest: dict[str, int] = {}
    for order_id, sequence in dict.fromkeys(listener.heard):
        if sequence < latest.get(order_id, 0):
            note = f"{listener.name} was told of #{sequence} after #{latest[order_id]}"
            yield violation("stream event out of order", order_id, note)
        latest[order_id] = max(sequence, latest.get(order_id, 0))
