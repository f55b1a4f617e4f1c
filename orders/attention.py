"""What needs an operator: counted here, in one place, for the head of every page, the sidebar and the first page.

Every read is bounded and served by the partial indexes on open orders, so that the console asks on every page
however many orders there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from exchanges.circuit import LONG_PAUSE_SECONDS
from exchanges.models import Venue, VenueHealth
from orders.models import LOOKED_UP, Order, Status
from orders.requests import UNANSWERED_SECONDS
from quiktrade.database.statements import fetch

COUNTED_TO = 10_000
"""Counts stop here: more is "10,000+"."""
OVERDUE_SECONDS = 30
"""An order that has been due for longer than this, at a venue that may be sent to, should have been sent."""
DOUBTFUL_SECONDS = 60
"""A look-up usually decides in a few seconds. An order that is in doubt for longer may need a person."""

GROUPED = 2_000
"""This many orders of each need are grouped by cause. Each costs microseconds, and open pages ask every few seconds."""
GROUPS_SHOWN = 20

FAILED = Q(status=Status.FAILED)


def doubtful() -> Q:
    """Orders that have been in doubt for too long, because no look-up has decided about them."""
    return LOOKED_UP & Q(updated_at__lte=Now() - timedelta(seconds=DOUBTFUL_SECONDS))


_COUNTS = """
WITH parked AS (SELECT count(*) AS orders FROM (SELECT FROM orders_order
    WHERE status = 'unconfirmed' AND parked_at IS NOT NULL LIMIT %(limit)s) o),
looked_up AS (SELECT count(*) AS orders, count(*) FILTER (
        WHERE updated_at <= statement_timestamp() - %(doubtful)s * interval '1 second') AS doubtful
    FROM (SELECT updated_at FROM orders_order
        WHERE status = 'unconfirmed' AND parked_at IS NULL LIMIT %(limit)s) o)
SELECT (SELECT count(*) FROM (SELECT FROM orders_order WHERE status = 'failed' LIMIT %(limit)s) o),
    parked.orders, looked_up.orders, looked_up.doubtful,
    (SELECT count(*) FROM (SELECT FROM orders_order WHERE status = 'submitting' LIMIT %(limit)s) o),
    (SELECT count(*) FROM (SELECT FROM orders_orderrequest
        WHERE status IN ('waiting', 'pending', 'submitting', 'sent', 'unconfirmed')
            AND created_at <= statement_timestamp() - %(unanswered)s * interval '1 second' LIMIT %(limit)s) q),
    (SELECT extract(epoch FROM statement_timestamp() - max(heartbeat_at))::float8 FROM quiktrade_workernode)
FROM parked, looked_up
"""

_QUEUES = """
SELECT v.code, (SELECT count(*) FROM (SELECT FROM orders_order o
        WHERE o.venue_id = v.code AND o.status = 'pending' LIMIT %(limit)s) w),
    (SELECT count(*) FROM (SELECT FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'pending'
        AND o.next_attempt_at <= statement_timestamp() - %(overdue)s * interval '1 second' LIMIT %(limit)s) d),
    (SELECT o.next_attempt_at FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'pending'
        ORDER BY o.next_attempt_at LIMIT 1)
FROM exchanges_venue v
"""

_BY_VENUE = """
SELECT 'orders_failed', venue_id, count(*) FROM (SELECT venue_id FROM orders_order
    WHERE status = 'failed' ORDER BY id DESC LIMIT %(limit)s) o GROUP BY venue_id
UNION ALL
SELECT 'orders_parked', v.code, p.orders FROM exchanges_venue v, LATERAL (SELECT count(*) AS orders
    FROM (SELECT FROM orders_order WHERE venue_id = v.code AND status = 'unconfirmed' AND parked_at IS NOT NULL
        LIMIT %(limit)s) o) p WHERE p.orders > 0
UNION ALL
SELECT 'orders_in_doubt', v.code, l.orders FROM exchanges_venue v, LATERAL (SELECT count(*) AS orders
    FROM (SELECT updated_at FROM orders_order WHERE venue_id = v.code AND status = 'unconfirmed' AND parked_at IS NULL
        LIMIT %(limit)s) o
    WHERE updated_at <= statement_timestamp() - %(doubtful)s * interval '1 second') l WHERE l.orders > 0
UNION ALL
SELECT 'requests_unanswered', venue_id, count(*) FROM (SELECT venue_id FROM orders_orderrequest
    WHERE status IN ('waiting', 'pending', 'submitting', 'sent', 'unconfirmed')
        AND created_at <= statement_timestamp() - %(unanswered)s * interval '1 second'
    ORDER BY created_at DESC LIMIT %(limit)s) q GROUP BY venue_id
ORDER BY 1, 2
"""
"""Of failed orders and of requests the newest are counted: no index has them by venue."""

_GROUPS = """
WITH needed AS (
    (SELECT 'failed' AS need, id, venue_id, last_error, updated_at FROM orders_order
        WHERE status = 'failed' ORDER BY id DESC LIMIT %(limit)s)
    UNION ALL (SELECT 'parked', id, venue_id, last_error, parked_at FROM orders_order
        WHERE status = 'unconfirmed' AND parked_at IS NOT NULL LIMIT %(limit)s)
    UNION ALL (SELECT 'doubtful', id, venue_id, last_error, updated_at FROM (SELECT * FROM orders_order
            WHERE status = 'unconfirmed' AND parked_at IS NULL LIMIT %(limit)s) l
        WHERE updated_at <= statement_timestamp() - %(doubtful)s * interval '1 second'))
SELECT need, venue_id, cause, orders, since, newest, (SELECT last_error FROM orders_order WHERE id = newest)
FROM (SELECT need, venue_id, COALESCE(substring(last_error FROM '^([A-Za-z0-9_]+):'), last_error) COLLATE "C" AS cause,
        count(*) AS orders, min(updated_at) AS since, max(id::text COLLATE "C")::uuid AS newest
    FROM needed GROUP BY need, venue_id, cause ORDER BY count(*) DESC, min(updated_at) LIMIT %(groups)s) g
ORDER BY orders DESC, since
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """Orders by what they wait for, each counted up to COUNTED_TO, and the age of the last heartbeat."""

    failed: int
    parked: int
    looked_up: int
    doubtful: int
    being_sent: int
    unanswered: int
    """Requests to cancel or replace that have been open for more than UNANSWERED_SECONDS."""
    heartbeat_age: float | None
    """Seconds; None where no worker has ever reported."""

    @property
    def worker_runs(self) -> bool:
        return self.heartbeat_age is not None and self.heartbeat_age <= settings.JOBS_STALE_SECONDS


@dataclass(frozen=True, slots=True)
class Queue:
    """The pending orders of one venue, counted up to COUNTED_TO."""

    waiting: int
    overdue: int
    """Those that have been due for more than OVERDUE_SECONDS."""
    due_at: datetime | None
    """When the first of them is due, or was."""


class TroubleKind(StrEnum):
    NO_WORKER = "no_worker"
    UNANSWERED = "requests_unanswered"
    HALTED = "venue_halted"
    IN_TROUBLE = "venue_in_trouble"
    OVERDUE = "orders_overdue"
    FAILED = "orders_failed"
    PARKED = "orders_parked"
    DOUBTFUL = "orders_in_doubt"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One problem that needs a person: its kind and name, a sentence about it, and what to do."""

    kind: "TroubleKind"
    head: str
    sentence: str
    advice: str
    since: datetime | None = None
    venue: str = ""
    """The venue that it concerns, if it concerns one."""
    orders: int = 0
    """How many orders it holds up."""


def venue_troubles(venue: Venue, queue: Queue) -> list[Trouble]:
    """Why a person should look at this venue, from its row, its circuit and its queue. A new kind of trouble belongs
    here."""
    circuit = venue.open_circuit
    if venue.halted:
        halted_by = venue.halted_by.removeprefix("operator:")
        halt = Trouble(
            TroubleKind.HALTED,
            f"{venue.pk} halted",
            f"{venue.pk} is halted by {halted_by}: {venue.halt_reason}. {_orders_wait(queue.waiting)}.",
            "Resume it when the reason is gone: nothing but cancels is sent to it until then.",
            since=venue.halted_at,
            venue=venue.pk,
            orders=queue.waiting,
        )
        # Resuming is useless while the venue refuses our credentials. All other trouble ends by itself.
        locked_out = circuit is not None and circuit.trouble == VenueHealth.Trouble.LOCKED_OUT
        return [halt, *(_circuit_troubles(circuit, queue) if circuit and locked_out else [])]
    if circuit:
        return _circuit_troubles(circuit, queue)
    if queue.overdue:
        late = "1 order is" if queue.overdue == 1 else f"{shown(queue.overdue)} orders are"
        return [
            Trouble(
                TroubleKind.OVERDUE,
                f"{shown(queue.overdue)} overdue",
                f"{late} overdue at {venue.pk}: due for more than {OVERDUE_SECONDS} s, and not sent.",
                "Look whether a worker runs, and whether the venue's limits let this many orders through.",
                since=queue.due_at,
                venue=venue.pk,
                orders=queue.overdue,
            )
        ]
    return []


def _circuit_troubles(circuit: VenueHealth, queue: Queue) -> list[Trouble]:
    """Why an open circuit needs a person. The list is empty if the venue asked for a pause that is soon over."""
    venue, error = circuit.venue_id, circuit.last_error
    match circuit.trouble:
        case VenueHealth.Trouble.LOCKED_OUT:
            head, said = f"{venue} refuses credentials", f"{venue} refuses our credentials: {error}"
            advice = (
                "Renew its key: until then nothing is sent to it, and no order of it is looked up. The new one is "
                "tried by itself within a minute of the next order that is due."
            )
        case VenueHealth.Trouble.PAUSED:
            until = circuit.paused_until
            if until is None or circuit.opened_at is None or until <= timezone.now():
                return []
            if (until - circuit.opened_at).total_seconds() < LONG_PAUSE_SECONDS:
                return []
            at = f"{until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
            head, said = f"{venue} paused", f"{venue} asked us to send nothing until {at}: {error}"
            advice = (
                "It is tried again by itself when that is over. Find out from the venue why it asks for so long; if it "
                "was an error of theirs, halt the venue and resume it, which tries it at once."
            )
        case _:
            head, said = f"{venue} silent", f"{venue} does not answer: {error}"
            advice = (
                "It is tried again by itself, with one order at a time. Find out from the venue what is wrong, or "
                "halt it to keep its orders back."
            )
    sentence = f"{said}. {_orders_wait(queue.waiting)}."
    kind = TroubleKind.IN_TROUBLE
    return [Trouble(kind, head, sentence, advice, since=circuit.opened_at, venue=venue, orders=queue.waiting)]


@dataclass(frozen=True, slots=True)
class State:
    """What is known about orders, venues and workers, all read together."""

    counts: Counts
    venues: Sequence[Venue]
    queues: Mapping[str, Queue]

    @property
    def waiting(self) -> int:
        return min(COUNTED_TO, sum(queue.waiting for queue in self.queues.values()))

    @property
    def due_at(self) -> datetime | None:
        return min((queue.due_at for queue in self.queues.values() if queue.due_at), default=None)

    def troubles(self) -> list[Trouble]:
        """The troubles of the system and the venues. Those of single orders are in `groups()`."""
        troubles = [] if self.counts.worker_runs else [self._no_worker()]
        if self.counts.unanswered:
            troubles.append(_unanswered(self.counts.unanswered))
        for venue in self.venues:
            troubles += venue_troubles(venue, self.queues.get(venue.pk, NO_QUEUE))
        return troubles

    def order_troubles(self) -> list[Trouble]:
        """The troubles of single orders, counted over all venues and causes."""
        counts = self.counts
        needs = ((counts.failed, FAILED_NEED), (counts.parked, PARKED_NEED), (counts.doubtful, DOUBTFUL_NEED))
        return [need.trouble(count) for count, need in needs if count]

    def heads(self) -> list[str]:
        """The names of everything that needs a person."""
        return [trouble.head for trouble in (*self.troubles(), *self.order_troubles())]

    def _no_worker(self) -> Trouble:
        age = self.counts.heartbeat_age
        return Trouble(
            TroubleKind.NO_WORKER,
            "no worker",
            f"No worker runs: nothing is sent or looked up. {_orders_wait(self.waiting)}.",
            "Start a worker, or find out why it stopped; orders are accepted all the same, and wait.",
            since=None if age is None else timezone.now() - timedelta(seconds=age),
            orders=self.waiting,
        )


def _unanswered(count: int, venue: str = "") -> Trouble:
    what, is_open = ("1 cancel or replace", "is") if count == 1 else (f"{shown(count)} cancels and replaces", "are")
    return Trouble(
        TroubleKind.UNANSWERED,
        f"{shown(count)} unanswered",
        f"{what}{_at(venue)} {is_open} open for more than {UNANSWERED_SECONDS / 60:.0f} minutes.",
        "Their venues are asked about them each minute. Find out from the venue what became of them: until it says "
        "so, their orders may be working there.",
        venue=venue,
        orders=count,
    )


def _at(venue: str) -> str:
    return f" at {venue}" if venue else ""


@dataclass(frozen=True)
class OrderNeed:
    """Why single orders need a person, and what a person can do."""

    kind: TroubleKind
    name: str
    one: str
    many: str
    advice: str

    def heading(self, count: str) -> str:
        return self.one if count == "1" else self.many.format(count)

    def trouble(self, orders: int, venue: str = "") -> Trouble:
        sentence = f"{self.heading(shown(orders))}{_at(venue)}."
        return Trouble(self.kind, f"{shown(orders)} {self.name}", sentence, self.advice, venue=venue, orders=orders)


FAILED_NEED = OrderNeed(
    TroubleKind.FAILED,
    "failed",
    "1 order has failed",
    "{} orders have failed",
    "Nothing of this is at the venue. Requeue when the cause is mended, or cancel what is not wanted any more.",
)
PARKED_NEED = OrderNeed(
    TroubleKind.PARKED,
    "parked",
    "1 order is parked",
    "{} orders are parked",
    "Ask the venue, by screen or telephone, and mark each placed or not placed. Reconcile asks it once more.",
)
DOUBTFUL_NEED = OrderNeed(
    TroubleKind.DOUBTFUL,
    "in doubt",
    "1 order is in doubt",
    "{} orders are in doubt",
    "Sent, and for more than a minute no answer has said what became of this. The venue is asked by itself; find out "
    "why it does not tell.",
)

NO_QUEUE = Queue(0, 0, None)


def state() -> State:
    limits: dict[str, float] = {"limit": COUNTED_TO, "doubtful": DOUBTFUL_SECONDS, "overdue": OVERDUE_SECONDS}
    limits["unanswered"] = UNANSWERED_SECONDS
    return State(
        Counts(*fetch(_COUNTS, limits)[0]),
        list(Venue.objects.select_related("health")),
        {code: Queue(*queue) for code, *queue in fetch(_QUEUES, limits)},
    )


def troubles_by_venue() -> list[Trouble]:
    """The troubles of single orders and requests, counted for each venue."""
    needs = {need.kind: need for need in (FAILED_NEED, PARKED_NEED, DOUBTFUL_NEED)}
    limits = {"limit": COUNTED_TO, "doubtful": DOUBTFUL_SECONDS, "unanswered": UNANSWERED_SECONDS}
    return [
        _unanswered(count, venue) if kind == TroubleKind.UNANSWERED else needs[TroubleKind(kind)].trouble(count, venue)
        for kind, venue, count in fetch(_BY_VENUE, limits)
    ]


class Group(NamedTuple):
    """Orders of one venue that need a person for the same cause, and so one decision."""

    need: str
    """failed, parked or doubtful."""
    venue: str
    cause: str
    """The code at the beginning of their last errors, or the whole error if it has no code."""
    orders: int
    since: datetime
    """The time since which the first of them has needed a person."""
    newest: UUID
    error: str
    """The newest one's last error."""


def groups() -> list[Group]:
    """What needs a person, by need, venue and cause, the largest groups first."""
    limits = {"limit": GROUPED, "doubtful": DOUBTFUL_SECONDS, "groups": GROUPS_SHOWN}
    return [Group._make(row) for row in fetch(_GROUPS, limits)]


def caused_by(cause: str) -> Q:
    """Orders whose last error has this cause (see Group)."""
    if not cause:
        return Q(last_error="")
    return Q(last_error=cause) | Q(last_error__startswith=f"{cause}:")


def shown(count: int) -> str:
    return f"{COUNTED_TO:,}+" if count >= COUNTED_TO else f"{count:,}"


def _orders_wait(count: int) -> str:
    return "No order waits" if not count else "1 order waits" if count == 1 else f"{shown(count)} orders wait"


def failed_orders(*, venue: str | None, accepted_before: datetime | None, error: str | None) -> QuerySet[Order]:
    """Failed orders, oldest first; `error` is a text within their last error; its case does not matter."""
    orders = Order.objects.filter(FAILED).order_by("pk")
    if venue is not None:
        orders = orders.filter(venue_id=venue)
    if accepted_before is not None:
        orders = orders.filter(created_at__lte=accepted_before)
    if error is not None:
        orders = orders.filter(last_error__icontains=error)
    return orders


def due_orders() -> QuerySet[Order]:
    """Orders to be placed now, at venues that are not halted."""
    return Order.objects.filter(status=Status.PENDING, next_attempt_at__lte=Now(), venue__halted_at__isnull=True)


def unconfirmed_orders(*, venue: str | None) -> QuerySet[Order]:
    """Unconfirmed orders, parked ones included, oldest first."""
    orders = Order.objects.filter(status=Status.UNCONFIRMED).order_by("pk")
    return orders if venue is None else orders.filter(venue_id=venue)
