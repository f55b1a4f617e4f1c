"""What is known at the end of a run, as plain rows: to the clients, to the database and to the exchange."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

WORKING = "working"
"""The ledger's status of an order that the exchange accepted, whatever became of it later."""

Content = tuple[str, str, str, int]
"""Instrument, side, type and quantity, as the client submitted them."""


class Terms(NamedTuple):
    """What an order's replacements can change, as it is now. `expires_at` is in seconds since 1970."""

    quantity: int
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str = "day"
    expires_at: float | None = None


# ---- What the clients know ----


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRead:
    """A client asked for another client's order."""

    reader: str
    order_id: str
    http_status: int


class Asked(NamedTuple):
    """How a cancel or a replacement of an order was answered, and when; 0 if it was not."""

    order_id: str
    kind: str
    http_status: int
    at: float = 0.0


class Heard(NamedTuple):
    """One event of an order, as a client was told of it."""

    order_id: str
    sequence: int


@dataclass(slots=True, kw_only=True)
class Listener:
    """A client that is told of every event of its owner's orders, from before the first order to the end.

    It reads the stream, or it is a webhook's receiver.
    """

    name: str
    owner: str
    heard: list[Heard] = field(default_factory=list)
    """In the order in which they came."""


# ---- What the database knows ----


class Row(NamedTuple):
    """An order. `content` has the quantity as submitted, `terms` the present one."""

    id: str
    owner: str
    client_order_id: str
    content: Content
    status: str
    parked: bool
    attempt: int
    version: int
    venue_order_id: str
    terms: Terms
    filled: int = 0
    value: Decimal = Decimal(0)


class Step(NamedTuple):
    """One event of an order's history."""

    sequence: int
    event: str
    from_status: str
    to_status: str
    attempt: int
    at: float
    reason: str


class Execution(NamedTuple):
    """An execution, a bust or a correction. The exchange knows no owner."""

    execution_id: str
    kind: str
    refers_to: str
    order_id: str
    owner: str
    instrument: str
    side: str
    quantity: int
    price: Decimal | None


class Position(NamedTuple):
    owner: str
    instrument: str
    bought_quantity: Decimal
    bought_value: Decimal
    sold_quantity: Decimal
    sold_value: Decimal


class Request(NamedTuple):
    """A cancel or a replacement that was asked for. The exchange knows it by `id`."""

    id: str
    order_id: str
    kind: str
    status: str


# ---- What the exchange knows ----


class VenueEntry(NamedTuple):
    """An order in the exchange's ledger. Its `client_order_id` is our order's id."""

    client_order_id: str
    venue_order_id: str
    status: str
    received_at: str


class VenueReport(NamedTuple):
    """One report of the exchange. `status`, `terms`, `filled` and `leaves` say how the order stands after it."""

    sequence: int
    kind: str
    client_order_id: str
    venue_order_id: str
    status: str
    terms: Terms
    filled: int
    leaves: int
    request_id: str = ""
    execution: Execution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    told: Sequence[Told]
    rows: Sequence[Row]
    histories: Mapping[str, Sequence[Step]]
    """The events by order id, in their sequence."""
    ledger: Sequence[VenueEntry]
    foreign_reads: Sequence[ForeignRead]
    asked: Sequence[Asked] = ()
    executions: Sequence[Execution] = ()
    positions: Sequence[Position] = ()
    requests: Sequence[Request] = ()
    reports: Sequence[VenueReport] = ()
    """In their sequence. There are none if the exchange runs without a market."""
    streams: Sequence[Listener] = ()
    webhooks: Sequence[Listener] = ()
    unmatched: int = 0
    """How many reports were kept for operators."""


class Violation(NamedTuple):
    invariant: str
    what: str
    """One of the names in `KINDS`."""
    order_id: str
    """The order's id, or the client_order_id if there is no order."""
    note: str


# fmt: off
KINDS = {
    "placed twice":                   "I1",
    "live without a row":             "I1",
    "never finished":                 "I2",
    "request never answered":         "I2",
    "rejected but live":              "I3",
    "failed but live":                "I3",
    "expired but live":               "I3",
    "canceled but live":              "I3",
    "placed but not live":            "I3",
    "lost":                           "I4",
    "changed":                        "I4",
    "request lost":                   "I4",
    "one key, two orders":            "I5",
    "refused but kept":               "I5",
    "audit gap":                      "I6",
    "foreign read":                   "I7",
    "execution lost":                 "I8",
    "execution doubled":              "I8",
    "execution misattributed":        "I8",
    "filled is not its executions":   "I9",
    "position is not its executions": "I9",
    "state believed otherwise":       "I10",
    "terms believed otherwise":       "I10",
    "cancel believed otherwise":      "I10",
    "replace believed otherwise":     "I10",
    "stream event missed":            "I11",
    "stream event doubled":           "I11",
    "stream event out of order":      "I11",
    "webhook never delivered":        "I12",
}
# fmt: on


def violation(what: str, order_id: str, note: str) -> Violation:
    return Violation(KINDS[what], what, order_id, note)
