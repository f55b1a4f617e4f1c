"""What must hold after any fault: pure functions over what the clients, the database and the exchange know.

I1  at most one live order at the venue for each order of ours, and none that is not ours
I2  an accepted order ends in good time: placed, refused, expired, canceled, or with an operator
I3  what we call placed is live at the venue; what we call rejected, failed, expired or canceled is not
I4  an order that was answered with 201 is stored as it was sent
I5  one key is one order, however often it is sent
I6  the history has all transitions: without a gap, each an edge of the table, the last one leading to the status
I7  no client sees another client's order
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orders.lifecycle import TRANSITIONS
from orders.models import AT_VENUE, Status

WORKING = "working"
"""The exchange's status of a live order."""

NEVER_LIVE = (Status.REJECTED, Status.FAILED, Status.EXPIRED, Status.CANCELED)
UNDER_WAY = (Status.PENDING, Status.SUBMITTING, Status.UNCONFIRMED)

Content = tuple[str, str, str, int]
"""Instrument, side, type and quantity."""


@dataclass(slots=True, kw_only=True)
class Told:
    """What one client was told about one of its orders."""

    client_order_id: str
    owner: str
    content: Content
    first_sent_at: float
    accepted_at: float | None = None
    order_ids: set[str] = field(default_factory=set)
    """Every id that an answer gave it. There must be one."""
    refused: str = ""
    """The latest definite refusal of it, whether or not another request with it was accepted."""


class Row(NamedTuple):
    """An order in the database."""

    id: str
    owner: str
    client_order_id: str
    content: Content
    status: str
    parked: bool
    attempt: int
    version: int
    venue_order_id: str


class Step(NamedTuple):
    """One event of an order's history."""

    sequence: int
    event: str
    from_status: str
    to_status: str
    attempt: int
    at: float
    reason: str


class VenueEntry(NamedTuple):
    """An order in the exchange's ledger. Its `client_order_id` is our order's id."""

    client_order_id: str
    venue_order_id: str
    status: str
    received_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRead:
    """A client asked for another client's order."""

    reader: str
    order_id: str
    http_status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    told: Sequence[Told]
    rows: Sequence[Row]
    histories: Mapping[str, Sequence[Step]]
    """The events by order id, in their sequence."""
    ledger: Sequence[VenueEntry]
    foreign_reads: Sequence[ForeignRead]


class Violation(NamedTuple):
    invariant: str
    what: str
    """One of the names in `KINDS`."""
    order_id: str
    """The order's id, or the client_order_id if there is no order."""
    note: str


KINDS = {
    "placed twice": "I1",
    "live without a row": "I1",
    "never finished": "I2",
    "rejected but live": "I3",
    "failed but live": "I3",
    "expired but live": "I3",
    "canceled but live": "I3",
    "placed but not live": "I3",
    "lost": "I4",
    "changed": "I4",
    "one key, two orders": "I5",
    "refused but kept": "I5",
    "audit gap": "I6",
    "foreign read": "I7",
}


def violations(evidence: Evidence) -> list[Violation]:
    """Find all violations. The system passes only if there are none."""
    checks = (_live_once, _finished, _true_finals, _kept, _one_key, _audit, _private)
    return [violation for check in checks for violation in check(evidence)]


def _violation(what: str, order_id: str, note: str) -> Violation:
    return Violation(KINDS[what], what, order_id, note)


def _live(ledger: Collection[VenueEntry]) -> dict[str, list[VenueEntry]]:
    live: dict[str, list[VenueEntry]] = defaultdict(list)
    for entry in ledger:
        if entry.status == WORKING:
            live[entry.client_order_id].append(entry)
    return live


def _live_once(evidence: Evidence) -> Iterator[Violation]:
    known = {row.id for row in evidence.rows}
    for order_id, entries in _live(evidence.ledger).items():
        names = ", ".join(entry.venue_order_id for entry in entries)
        if len(entries) > 1:
            yield _violation("placed twice", order_id, f"live as {names}")
        if order_id not in known:
            yield _violation("live without a row", order_id, f"live as {names}")


def _finished(evidence: Evidence) -> Iterator[Violation]:
    for row in evidence.rows:
        if row.status in UNDER_WAY and not row.parked:
            yield _violation("never finished", row.id, f"still {row.status}, attempt {row.attempt}")


def _true_finals(evidence: Evidence) -> Iterator[Violation]:
    live = _live(evidence.ledger)
    for row in evidence.rows:
        entries = live.get(row.id, [])
        if row.status in NEVER_LIVE and entries:
            yield _violation(f"{row.status} but live", row.id, f"live as {entries[0].venue_order_id}")
        if row.status in AT_VENUE and row.venue_order_id not in [entry.venue_order_id for entry in entries]:
            yield _violation("placed but not live", row.id, f"{row.status} as {row.venue_order_id}")


def _kept(evidence: Evidence) -> Iterator[Violation]:
    rows = {row.id: row for row in evidence.rows}
    for told in evidence.told:
        if told.accepted_at is None:
            continue
        for order_id in told.order_ids:
            row = rows.get(order_id)
            if row is None:
                yield _violation("lost", order_id, f"{told.client_order_id} of {told.owner} was accepted")
            elif (row.owner, row.client_order_id) != (told.owner, told.client_order_id):
                yield _violation("changed", order_id, f"{told.client_order_id} of {told.owner} is another's")
            elif row.content != told.content:
                yield _violation("changed", order_id, f"sent {told.content}, stored {row.content}")


def _one_key(evidence: Evidence) -> Iterator[Violation]:
    keys = Counter((row.owner, row.client_order_id) for row in evidence.rows)
    for (owner, client_order_id), count in keys.items():
        if count > 1:
            yield _violation("one key, two orders", client_order_id, f"{count} rows of {owner}")
    # An order that was refused, and stored by a slower copy of its request, must come to nothing.
    kept = {(row.owner, row.client_order_id) for row in evidence.rows if row.status not in NEVER_LIVE}
    for told in evidence.told:
        if told.refused and (told.owner, told.client_order_id) in kept:
            yield _violation("refused but kept", told.client_order_id, f"{told.owner} was told {told.refused}")
        if len(told.order_ids) > 1:
            note = f"answers named {', '.join(sorted(told.order_ids))}"
            yield _violation("one key, two orders", told.client_order_id, note)


def _audit(evidence: Evidence) -> Iterator[Violation]:
    rows = {row.id: row for row in evidence.rows}
    for row in evidence.rows:
        fault = _fault_in(evidence.histories.get(row.id, ()), row)
        if fault:
            yield _violation("audit gap", row.id, fault)
    for order_id in evidence.histories.keys() - rows.keys():
        yield _violation("audit gap", order_id, "a history without its order")


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
            legal = edges.get((step.from_status, step.event)) == step.to_status
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
            yield _violation("foreign read", read.order_id, f"{read.reader} got HTTP {read.http_status}")
