"""What must hold after any fault: pure functions over what the clients, the database and the exchange know.

I1  at most one live order at the venue for each order of ours, and none that is not ours
I2  an accepted order ends in good time: placed, refused, expired, canceled, or with an operator
I3  what we call placed was accepted at the venue; what we call rejected, failed, expired or canceled is not live there
I4  an order that was answered with 201 is stored as it was sent
I5  one key is one order, however often it is sent
I6  the history has all transitions: without a gap, each an edge of the table, the last one leading to the status
I7  no client sees another client's order

after_placement.py has the others:

I8  each execution at the venue is stored once, for its order and its owner
I9  what an order has filled and what an owner has are the sums of the executions that count
I10 an order, and what was asked for it, stands here as it stands at the venue
I11 who reads the stream is told of every event once, of each order in its sequence
I12 a webhook's receiver has had every event
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

from benchmarks.faults import after_placement
from benchmarks.faults.records import WORKING, Evidence, Row, Step, VenueEntry, Violation, violation
from orders.lifecycle import STANDING, TRANSITIONS
from orders.models import AT_VENUE, Status

NEVER_LIVE = (Status.REJECTED, Status.FAILED, Status.EXPIRED, Status.CANCELED)
REPORTED_AS = (*AT_VENUE, Status.CANCELED, Status.EXPIRED, Status.REJECTED)
"""What can follow from a venue's reports."""
UNDER_WAY = (Status.PENDING, Status.SUBMITTING, Status.UNCONFIRMED)


def violations(evidence: Evidence) -> list[Violation]:
    """Find all violations. The system passes only if there are none."""
    checks = (_live_once, _finished, _true_finals, _kept, _one_key, _audit, _private, *after_placement.CHECKS)
    return [found for check in checks for found in check(evidence)]


def _accepted(ledger: Collection[VenueEntry]) -> dict[str, list[VenueEntry]]:
    """The orders that the exchange accepted, whatever became of them, by our ids."""
    accepted: dict[str, list[VenueEntry]] = defaultdict(list)
    for entry in ledger:
        if entry.status == WORKING:
            accepted[entry.client_order_id].append(entry)
    return accepted


def _live_once(evidence: Evidence) -> Iterator[Violation]:
    known = {row.id for row in evidence.rows}
    for order_id, entries in _accepted(evidence.ledger).items():
        names = ", ".join(entry.venue_order_id for entry in entries)
        if len(entries) > 1:
            yield violation("placed twice", order_id, f"accepted as {names}")
        if order_id not in known:
            yield violation("live without a row", order_id, f"accepted as {names}")


def _finished(evidence: Evidence) -> Iterator[Violation]:
    for row in evidence.rows:
        if row.status in UNDER_WAY and not row.parked:
            yield violation("never finished", row.id, f"still {row.status}, attempt {row.attempt}")


def _true_finals(evidence: Evidence) -> Iterator[Violation]:
    accepted, last = _accepted(evidence.ledger), after_placement.last_reports(evidence.reports)
    for row in evidence.rows:
        names = [entry.venue_order_id for entry in accepted.get(row.id, ())]
        live = [name for name in names if name not in last or last[name].leaves]
        if row.status in NEVER_LIVE and live:
            yield violation(f"{row.status} but live", row.id, f"live as {live[0]}")
        if row.status in AT_VENUE and row.venue_order_id not in names:
            yield violation("placed but not live", row.id, f"{row.status} as {row.venue_order_id}")


def _kept(evidence: Evidence) -> Iterator[Violation]:
    rows = {row.id: row for row in evidence.rows}
    for told in evidence.told:
        if told.accepted_at is None:
            continue
        for order_id in told.order_ids:
            row = rows.get(order_id)
            if row is None:
                yield violation("lost", order_id, f"{told.client_order_id} of {told.owner} was accepted")
            elif (row.owner, row.client_order_id) != (told.owner, told.client_order_id):
                yield violation("changed", order_id, f"{told.client_order_id} of {told.owner} is another's")
            elif row.content != told.content:
                yield violation("changed", order_id, f"sent {told.content}, stored {row.content}")


def _one_key(evidence: Evidence) -> Iterator[Violation]:
    keys = Counter((row.owner, row.client_order_id) for row in evidence.rows)
    for (owner, client_order_id), count in keys.items():
        if count > 1:
            yield violation("one key, two orders", client_order_id, f"{count} rows of {owner}")
    # An order that was refused, and stored by a slower copy of its request, must come to nothing.
    accepted = _accepted(evidence.ledger)
    came_to_something = [row for row in evidence.rows if row.status not in NEVER_LIVE or row.id in accepted]
    kept = {(row.owner, row.client_order_id) for row in came_to_something}
    for told in evidence.told:
        if told.refused and (told.owner, told.client_order_id) in kept:
            yield violation("refused but kept", told.client_order_id, f"{told.owner} was told {told.refused}")
        if len(told.order_ids) > 1:
            note = f"answers named {', '.join(sorted(told.order_ids))}"
            yield violation("one key, two orders", told.client_order_id, note)


def _audit(evidence: Evidence) -> Iterator[Violation]:
    rows = {row.id: row for row in evidence.rows}
    for row in evidence.rows:
        fault = _fault_in(evidence.histories.get(row.id, ()), row)
        if fault:
            yield violation("audit gap", row.id, fault)
    for order_id in evidence.histories.keys() - rows.keys():
        yield violation("audit gap", order_id, "a history without its order")


def _fault_in(history: Sequence[Step], row: Row) -> str:
    """What is wrong with an order's history, or an empty text."""
    if [step.sequence for step in history] != list(range(1, row.version + 1)):
        return f"version {row.version}, but sequences {[step.sequence for step in history]}"
    status, attempt = "", 0
    for step in history:
        if step.from_status != status:
            return f"#{step.sequence} goes on from {step.from_status!r}, but #{step.sequence - 1} led to {status!r}"
        if step.sequence == 1:
            legal = (step.event, step.to_status) == ("accepted", Status.PENDING)
        else:
            edges = {(str(a), str(e)): str(b) for (a, e), b in TRANSITIONS.items()}
            after = edges.get((step.from_status, step.event))
            legal = step.to_status in REPORTED_AS if after == STANDING else step.to_status == after
        if not legal:
            return f"#{step.sequence} {step.event} leads from {step.from_status!r} to {step.to_status!r}"
        attempt += step.event == "claimed"
        if step.attempt != attempt:
            return f"#{step.sequence} {step.event} is of attempt {step.attempt}, not {attempt}"
        status = step.to_status
    if status != row.status:
        return f"the history ends in {status}, the order is {row.status}"
    return "" if attempt == row.attempt else f"{attempt} claims, but attempt {row.attempt}"


def _private(evidence: Evidence) -> Iterator[Violation]:
    for read in evidence.foreign_reads:
        if read.http_status < 400:
            yield violation("foreign read", read.order_id, f"{read.reader} got HTTP {read.http_status}")
