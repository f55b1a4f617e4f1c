"""What QuikTrade asks of a venue, and what a venue may answer.

    Exception
     └ VenueError
        ├ OrderRejected     the venue refused this order: final
        ├ RequestRefused    the venue refused to cancel or replace: the order is as it was, or ended before
        ├ NotSent           proved not to have arrived: try again
        ├ OutcomeUnknown    may have arrived: find() before any re-send
        └ NotSupported      the venue has no such function: a programming error, see Capabilities

An adapter classifies what it saw into an answer or one of these errors; nobody above it looks at an HTTP
status or a FIX tag, and an adapter never sees a row of ours. When in doubt it says `OutcomeUnknown`: a reply
cut short and a connection dropped look the same, with the request already at the venue.

An error may say besides that the venue takes nothing from us now, whatever the order (`VenueTrouble`): that is the
venue's state, so the whole venue waits, and no order spends an attempt.

This is also where a venue's words become ours. Whatever an adapter puts into these errors and answers is made to
fit a row here: text without NUL and lone surrogates, of bounded length; a pause of a day at most; an answer whose
parts are unusable is `OutcomeUnknown`.

`client_order_id` (FIX 11) is, towards a venue, the id of our order: unique over all clients and the same on
every attempt. It is the venue's means to recognise a repetition, and ours to ask what became of an order.
"""

import enum
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from quiktrade.texts import storable

LONGEST_ID = 64

LONGEST_PAUSE_SECONDS = 86_400.0
"""A venue that asks for more is asked again after a day: a slip in its clock must not stop it for good."""


class ResendSafety(enum.Enum):
    """What makes it safe to send an order again after `OutcomeUnknown`: the rule by which the venue refuses a copy.

    Venues of the last two kinds know no copies: nothing on the way to them may repeat a request, as a proxy that tries
    again does. The formal model (docs/model) calls the four kinds, in this order, A, B, C and D.
    """

    REFUSES_DUPLICATES = "refuses_duplicates"
    """A known `client_order_id` is refused for ever. Look it up, else send the same id again."""

    REFUSES_RECENT_DUPLICATES = "refuses_recent_duplicates"
    """A known `client_order_id` is refused within `Capabilities.duplicate_window_seconds` of the first attempt. After
    that a re-send could double the order: an operator decides."""

    REFUSES_STALE_REQUESTS = "refuses_stale_requests"
    """A request is void after `NewOrder.valid_until`. Wait past that, look up, send again."""

    NOTHING = "nothing"
    """Only what is proved not sent is sent again; an operator decides on the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a venue can do. The lifecycle applies it; no code asks which venue it is.

    `deadline_seconds` bounds one whole call, first byte sent to last byte read, and is shorter than the lease
    of an attempt. `settle_seconds` is how long after the end of the last attempt (its outcome, or its lease) a
    request may still be on the wire: only after it does `find() is None` prove that the venue never got it.
    `in_flight` is how many calls one adapter can have under way at once.
    """

    resend_safety: ResendSafety
    deadline_seconds: float
    settle_seconds: float
    finds: bool
    order_types: frozenset[str]
    times_in_force: frozenset[str]
    in_flight: int = 1024
    duplicate_window_seconds: float | None = None
    remembers_rejections: bool = True  # a refused `client_order_id` stays refused; if not, a late original may live
    cancels: bool = False
    replaces: bool = False
    reports: bool = False  # it reports by itself, in numbers, and lists its open orders and its executions
    heartbeat_seconds: float | None = None  # while nothing happens, its stream says so this often


@dataclass(slots=True)
class Terms:
    """What an order asks for. Whatever carries an order derives from this, so that the terms are written once.

    Prices are exact; `expires_at` (FIX 126) is aware UTC, and present only for good-till-date. Nothing changes the
    terms of an order once they are made. The class is not frozen because that makes each object ten times as slow
    to make (10 µs instead of 1), and a page of orders is made of it.
    """

    instrument: str
    side: str
    type: str
    quantity: int
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: str
    expires_at: datetime | None

    def terms(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in TERMS}


TERMS = tuple(term.name for term in fields(Terms))


@dataclass(slots=True, kw_only=True)
class NewOrder(Terms):
    """FIX 35=D.

    `valid_until`, aware UTC by the database's clock, is when the lease of this attempt ends: a venue that
    can fence by time refuses the request after it.
    """

    client_order_id: str
    valid_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """FIX 35=F. `client_order_id` names the request, and is the same on every attempt.

    `original_client_order_id` (41) is the id that the venue accepted last: the order's, or that of a replace.
    `order_id` is the order's own, under which it was placed. `valid_until` is as in `NewOrder`.
    """

    client_order_id: str
    original_client_order_id: str
    order_id: str
    venue_order_id: str
    valid_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceRequest:
    """FIX 35=G. The order's new terms, all of them: `quantity` is the total, with what is filled. Ids as in
    `CancelRequest`."""

    client_order_id: str
    original_client_order_id: str
    order_id: str
    venue_order_id: str
    valid_until: datetime
    quantity: int
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The venue did what it was asked for. `quantity` is the order's after a replace; None as asked.
    `cumulative_quantity` is what was executed before.

    `venue_order_id` is the order's from now on, which a venue may change with a replace.
    """

    venue_order_id: str
    quantity: int | None = None
    cumulative_quantity: int | None = None

    def __post_init__(self) -> None:
        if not self.venue_order_id:
            raise OutcomeUnknown("unreadable_reply", "no venue_order_id")
        _check_id(self.venue_order_id)


@dataclass(frozen=True, slots=True)
class Taken:
    """The venue has the request, and promises nothing: its report, or a look-up, says what came of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The venue has the order and it is working there (FIX 35=8, 39=0).

    Raises: OutcomeUnknown, if the id is not 1 to 64 printable characters: there is no way back to that order.
    """

    venue_order_id: str

    def __post_init__(self) -> None:
        if not self.venue_order_id:
            raise OutcomeUnknown("unreadable_reply", "no venue_order_id")
        _check_id(self.venue_order_id)


class ReportStatus(enum.Enum):
    """The venue's word on an order (FIX 39)."""

    WORKING = "working"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    DONE_FOR_DAY = "done_for_day"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the venue knows of one order. `code`, `text` and `by_content` say why, where it was rejected.

    `quantity`, `limit_price`, `stop_price`, `time_in_force` and `expires_at` are the order's terms as they are now,
    `cumulative_quantity` (14) is what was executed and `leaves_quantity` (151) what may still be. What the venue does
    not say is None, or empty.

    Raises: OutcomeUnknown, if the venue's id for it is there and unusable.
    """

    client_order_id: str
    status: ReportStatus
    venue_order_id: str = ""
    code: str = ""
    text: str = ""
    by_content: bool = False
    quantity: int | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str = ""
    expires_at: datetime | None = None
    cumulative_quantity: int | None = None
    leaves_quantity: int | None = None

    def __post_init__(self) -> None:
        _check_id(self.venue_order_id)
        for name in ("code", "text"):
            object.__setattr__(self, name, storable(getattr(self, name)))


class ReportKind(enum.StrEnum):
    """What one report of a venue's stream says (FIX 150; the last two, FIX 35=9)."""

    ACKNOWLEDGED = "acknowledged"
    REJECTED = "rejected"
    EXECUTED = "executed"
    BUSTED = "busted"
    """An execution is taken back."""
    CORRECTED = "corrected"
    """An execution had another quantity or price."""
    CANCELED = "canceled"
    EXPIRED = "expired"
    DONE_FOR_DAY = "done_for_day"
    RESTATED = "restated"
    """The venue itself changed the order or renewed it for another day."""
    CANCEL_PENDING = "cancel_pending"
    REPLACE_PENDING = "replace_pending"
    REPLACED = "replaced"
    CANCEL_REFUSED = "cancel_refused"
    REPLACE_REFUSED = "replace_refused"
    UNREADABLE = "unreadable"
    """The adapter does not understand it. `text` has it as it came, for operators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionReport:
    """One numbered report of a venue's stream about one order (FIX 35=8 and 35=9).

    `client_order_id` (11) names the order or, in the answer to a cancel or replace, that request; then
    `original_client_order_id` (41) names the order. `quantity` is that of the execution (32) or, in `replaced` and
    `restated`, the order's new one (38); those two say with `limit_price`, `stop_price`, `time_in_force` and
    `expires_at` what the order's other terms are from then on, as far as the venue says.
    `refers_to` (19) is the execution that is taken back or corrected.
    `execution_id` (17) is unique at the venue for ever: where a venue's are unique for a day, its adapter adds the day.
    `cumulative_quantity` (14) and `leaves_quantity` (151) are the order's after the report, None where not said.
    """

    sequence: int
    kind: ReportKind
    client_order_id: str
    original_client_order_id: str = ""
    venue_order_id: str = ""
    execution_id: str = ""
    refers_to: str = ""
    quantity: int = 0
    price: Decimal | None = None
    at: datetime | None = None
    text: str = ""
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str = ""
    expires_at: datetime | None = None
    cumulative_quantity: int | None = None
    leaves_quantity: int | None = None


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """How far a venue's stream of reports reaches.

    `stream` is the venue's name for a series of numbers, which begins with 1: another one begins with a new journal or
    a new day. `last` is the number of its last report, 0 if there is none.
    """

    stream: str
    last: int


@dataclass(frozen=True, slots=True)
class News:
    """What one message of a stream brings: reports in any order, some perhaps again, or a heartbeat, or both."""

    reports: Sequence[ExecutionReport] = ()
    heartbeat: StreamEnd | None = None


def _check_id(value: object) -> None:
    if not isinstance(value, str) or len(value) > LONGEST_ID or (value and not value.isprintable()):
        raise OutcomeUnknown("unreadable_reply", "an unusable venue_order_id")


class VenueTrouble(enum.Enum):
    """Why a venue takes nothing from us now. It is true of the venue, and not of the order that met it."""

    PAUSED = "paused"
    """It asked for a pause: too many requests, or maintenance. Nothing is sent to it before that is over."""

    LOCKED_OUT = "locked_out"
    """It refuses our credentials, for whatever is asked. A person must renew them.

    The adapter says so from the venue's documents, and not by the number of a status: at many venues 403 is what
    becomes of one order that the account cannot pay for.
    """


class VenueError(Exception):
    """A call to a venue did not end as asked. `code` is short and stable, `text` is for people.

    `answered` says that the venue itself spoke, if only to refuse: it is alive, and its circuit stays closed.
    `trouble` says that it takes nothing now, from anybody with our credentials; `retry_after` is how many seconds
    it asked us to stay away for, None if it did not say.
    """

    def __init__(
        self,
        code: str,
        text: str = "",
        *,
        answered: bool = False,
        trouble: VenueTrouble | None = None,
        retry_after: float | None = None,
    ) -> None:
        code, text = storable(code), storable(text)  # a venue's words go into rows
        super().__init__(f"{code}: {text}" if text else code)
        self.code = code
        self.text = text
        self.answered = answered
        self.trouble = trouble
        self.retry_after = _pause(retry_after)


def _pause(seconds: float | None) -> float | None:
    if seconds is None or math.isnan(seconds):
        return None
    return min(max(float(seconds), 0.0), LONGEST_PAUSE_SECONDS)


class OrderRejected(VenueError):
    """The venue's definite refusal of this order. Do not send it again.

    `by_content` says that any copy of the order is refused likewise, whenever it arrives: for what the order says, as
    the venue's documents tell by the code, and not for how things stand, such as a halt or the hour.
    """

    def __init__(self, code: str, text: str = "", *, by_content: bool = False) -> None:
        super().__init__(code, text, answered=True)
        self.by_content = by_content


class RequestRefused(VenueError):
    """The venue's definite refusal to cancel or replace. `by_end` says that it is because the order has ended."""

    def __init__(self, code: str, text: str = "", *, by_end: bool = False) -> None:
        super().__init__(code, text, answered=True)
        self.by_end = by_end


class NotSent(VenueError):
    """The request is proved not to have arrived. Send it again."""


class OutcomeUnknown(VenueError):
    """The request may have arrived. Ask the venue with `find()` before anything is sent again."""


class NotSupported(VenueError):
    """The venue's capabilities do not include this call."""


class Venue(Protocol):
    """One venue, for the event loop it was opened in. Many calls may be under way at once."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def place(self, order: NewOrder) -> Acknowledgement:
        """Send the order once. Raises: OrderRejected, NotSent, OutcomeUnknown, and nothing else."""
        ...

    async def find(self, client_order_id: str) -> Report | None:
        """Ask what the venue knows of an order; None if it has none by that id.

        Raises: NotSent or OutcomeUnknown when there is no answer (ask again later), NotSupported where
        `capabilities.finds` is false.
        """
        ...

    async def cancel(self, request: CancelRequest) -> Done | Taken:
        """Ask once to end the order. Raises: RequestRefused, NotSent, OutcomeUnknown, and NotSupported where
        `capabilities.cancels` is false."""
        ...

    async def replace(self, request: ReplaceRequest) -> Done | Taken:
        """Ask once to give the order these terms. Raises: as `cancel`, by `capabilities.replaces`."""
        ...

    async def stream_end(self) -> StreamEnd:
        """Ask how far the stream of reports reaches now. Raises as `find`."""
        ...

    def reports(self, stream: str, after: int) -> AsyncIterator[News]:
        """The reports of this stream that are numbered above `after`, and then each as it comes: at least once each.

        A heartbeat comes at once and then every `capabilities.heartbeat_seconds`, so that a reader knows whether it
        has missed something, also at the end. Ends, or raises NotSent or OutcomeUnknown, when the stream breaks or when
        it is not this one that the venue has now: begin again with `stream_end()`.
        """
        ...

    def executions(self, stream: str, after: int) -> AsyncIterator[Sequence[ExecutionReport]]:
        """The executions, busts and corrections among the reports numbered above `after`, by pages. Raises as `find`.

        They are numbered as in the stream. If the venue has another stream now, those of that one are returned.
        """
        ...

    def open_orders(self) -> AsyncIterator[Sequence[Report]]:
        """The orders that work at the venue, by pages, each as it stands when its page is made. Raises as `find`."""
        ...

    async def close(self) -> None: ...


class RequestVenue:
    """A base for adapters of venues that only answer requests: what they lack is `NotSupported`."""

    async def cancel(self, request: CancelRequest) -> Done | Taken:
        raise NotSupported("cancel", "this venue's adapter does not cancel orders")

    async def replace(self, request: ReplaceRequest) -> Done | Taken:
        raise NotSupported("replace", "this venue's adapter does not replace orders")

    async def stream_end(self) -> StreamEnd:
        raise NotSupported("reports", "this venue's adapter has no report stream")

    def reports(self, stream: str, after: int) -> AsyncIterator[News]:
        raise NotSupported("reports", "this venue's adapter has no report stream")

    def executions(self, stream: str, after: int) -> AsyncIterator[Sequence[ExecutionReport]]:
        raise NotSupported("executions", "this venue's adapter does not list executions")

    def open_orders(self) -> AsyncIterator[Sequence[Report]]:
        raise NotSupported("open_orders", "this venue's adapter does not list open orders")
