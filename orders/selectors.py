"""Queries. None of them locks a row or depends on a cache."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from itertools import starmap
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Count, Exists, Min, OuterRef, QuerySet
from django.db.models.functions import Now

from exchanges.venue import Terms
from orders import archive
from orders.archive_models import ClientKey
from orders.models import OrderEvent
from orders.verdicts import Doubt
from quiktrade.database import replica
from quiktrade.database.batching import Batcher
from quiktrade.database.statements import fetch, reads_from

# An open circuit delays a venue's orders until its next probe.
_SECONDS_UNTIL_DUE = """
SELECT extract(epoch FROM place - statement_timestamp())::float8,
       extract(epoch FROM sweep - statement_timestamp())::float8,
       extract(epoch FROM reconcile - statement_timestamp())::float8
FROM (SELECT
    (SELECT min(GREATEST(due.next_attempt_at, h.retry_at)) FROM exchanges_venue v
        LEFT JOIN exchanges_venuehealth h ON h.venue_id = v.code CROSS JOIN LATERAL (
        (SELECT o.next_attempt_at FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'pending'
            AND v.halted_at IS NULL ORDER BY o.next_attempt_at LIMIT 1)
        UNION ALL (SELECT q.next_attempt_at FROM orders_orderrequest q WHERE q.venue_id = v.code
            AND q.status = 'pending' AND q.kind = 'cancel' ORDER BY q.next_attempt_at LIMIT 1)
        UNION ALL (SELECT q.next_attempt_at FROM orders_orderrequest q WHERE q.venue_id = v.code
            AND q.status = 'pending' AND q.kind = 'replace' AND v.halted_at IS NULL ORDER BY q.next_attempt_at LIMIT 1)
        ) due) AS place,
    LEAST((SELECT min(lease_expires_at) FROM orders_order WHERE status = 'submitting'),
        (SELECT min(lease_expires_at) FROM orders_orderrequest WHERE status = 'submitting'),
        (SELECT LEAST(place_by, resend_before) FROM orders_order WHERE status = 'pending'
            AND (place_by IS NOT NULL OR resend_before IS NOT NULL) ORDER BY LEAST(place_by, resend_before) LIMIT 1)
        ) AS sweep,
    (SELECT min(due.next_attempt_at) FROM exchanges_venue v CROSS JOIN LATERAL (
        (SELECT o.next_attempt_at FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'unconfirmed'
            AND o.parked_at IS NULL ORDER BY o.next_attempt_at LIMIT 1)
        UNION ALL (SELECT o.next_attempt_at FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'unconfirmed'
            AND o.parked_at IS NOT NULL ORDER BY o.next_attempt_at LIMIT 1)
        UNION ALL (SELECT q.look_up_at FROM orders_orderrequest q WHERE q.venue_id = v.code
            AND q.status IN ('pending', 'sent', 'unconfirmed') AND q.look_up_at IS NOT NULL
            ORDER BY q.look_up_at LIMIT 1)) due) AS reconcile) AS next
"""


@dataclass(frozen=True, slots=True)
class WorkDue:
    """Seconds until there is work of each kind; at most 0 when it is due now, None when there is none."""

    place: float | None
    sweep: float | None
    reconcile: float | None


def work_due() -> WorkDue:
    """When the next work is due. This costs a few index look-ups; a halted venue gets nothing but cancels."""
    (seconds,) = fetch(_SECONDS_UNTIL_DUE, {})
    return WorkDue(*seconds)


def placement_due() -> float | None:
    """Seconds until the next order is due for placement; negative if it is overdue, None where none waits."""
    return work_due().place


_VENUES_WITH_DUE_WORK = """
SELECT v.code, v.adapter, v.settings, v.max_in_flight, r.due FROM exchanges_venue v
    LEFT JOIN exchanges_venuehealth h ON h.venue_id = v.code, LATERAL (SELECT EXISTS (
        SELECT FROM orders_orderrequest q WHERE q.venue_id = v.code AND q.status = 'pending'
            AND (q.kind = 'cancel' OR (q.kind = 'replace' AND v.halted_at IS NULL))
            AND q.next_attempt_at <= statement_timestamp()) AS due) r
WHERE (h.retry_at IS NULL OR h.retry_at <= statement_timestamp())
    AND (r.due OR (v.halted_at IS NULL AND EXISTS (SELECT FROM orders_order o WHERE o.venue_id = v.code
        AND o.status = 'pending' AND o.next_attempt_at <= statement_timestamp())))
"""


class VenueToServe(NamedTuple):
    """The columns of a venue that are needed to send to it."""

    code: str
    adapter: str
    settings: dict[str, Any]
    max_in_flight: int
    requests_due: bool = False
    """Whether there are requests to cancel or replace, besides orders or alone."""


def venues_with_due_work() -> list[VenueToServe]:
    """Venues with due orders or requests, whose circuit is closed or due for a probe; halted ones with due cancels."""
    return [VenueToServe._make(row) for row in fetch(_VENUES_WITH_DUE_WORK, {})]


@dataclass(slots=True)
class ClientOrder(Terms):
    """An order as its client sees it. A row of a page becomes one in a tenth of the time that a model takes."""

    id: UUID
    owner_id: int
    client_order_id: str
    venue_id: str
    place_by: datetime | None
    status: str
    attempt: int
    next_attempt_at: datetime | None
    venue_order_id: str
    last_error: str
    created_at: datetime
    updated_at: datetime
    placed_at: datetime | None
    version: int
    filled_quantity: int
    filled_value: Decimal
    ended: str
    cancel_requested_at: datetime | None
    open_request: dict[str, Any] | None
    """The cancel, or else the replace, that is not decided, as its client sees it."""


_OPEN_REQUEST = """CASE WHEN open_cancel IS NOT NULL OR open_replace IS NOT NULL THEN (
    SELECT json_build_object('id', q.id, 'kind', q.kind, 'client_order_id', q.client_order_id, 'status', q.status,
        'attempts', q.attempt,
        'since', to_char(q.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
    FROM orders_orderrequest q WHERE q.id = COALESCE(open_cancel, open_replace)) END"""


def _columns(open_request: str) -> str:
    names = (column.name for column in fields(ClientOrder))
    return ", ".join(f"{open_request} AS open_request" if name == "open_request" else name for name in names)


_COLUMNS = _columns(_OPEN_REQUEST)
_ARCHIVED_COLUMNS = _columns("NULL::json")  # no archived order has a request that is not decided
_ORDERS = f"SELECT {_COLUMNS} FROM orders_order"
_ARCHIVED = f"SELECT {_ARCHIVED_COLUMNS} FROM {archive.ORDER}"
_LOOK_UP = f"{_ORDERS} JOIN unnest(%(ids)s::uuid[], %(owners)s::bigint[]) AS w (id, owner_id) USING (id, owner_id)"
# One look-up by index for each id, whatever the planner thinks of their number. In one statement, in which an order
# that moves meanwhile is in use or has its key kept.
_SUBMITTED = f"""
SELECT w.owner_id, w.own_id, k.order_id, o.*
FROM unnest(%(owners)s::bigint[], %(own_ids)s::text[]) AS w (owner_id, own_id)
LEFT JOIN LATERAL (SELECT {_COLUMNS}, original_terms FROM orders_order
    WHERE owner_id = w.owner_id AND client_order_id = w.own_id LIMIT 1) o ON true
LEFT JOIN LATERAL (SELECT order_id FROM orders_clientkey
    WHERE o.id IS NULL AND owner_id = w.owner_id AND client_order_id = w.own_id AND of = 'order' LIMIT 1) k ON true
WHERE o.id IS NOT NULL OR k.order_id IS NOT NULL"""
# For orders that were not found: in one statement, in which an order that moves meanwhile is found once.
_ANYWHERE = " UNION ALL ".join(
    f"""SELECT {columns}, original_terms FROM {table} WHERE id = ANY(%(ids)s::uuid[])"""
    for table, columns in (("orders_order", _COLUMNS), (archive.ORDER, _ARCHIVED_COLUMNS))
)


MOST_LOOK_UPS = 500


class Submitted(NamedTuple):
    """A stored order, and the terms that its client submitted: a venue may have changed them since."""

    order: ClientOrder
    terms: dict[str, Any]


class _ByOwnIds:
    """One client's orders, to be found by its own ids of them."""

    def __init__(self, owner_id: int, own_ids: Sequence[str]) -> None:
        self.owner_id = owner_id
        self.own_ids = own_ids
        self.found: dict[str, Submitted] = {}
        self.elsewhere: list[UUID] = []
        """Of those that are not in use."""


def submitted(owner_id: int, client_order_ids: Sequence[str]) -> dict[str, Submitted]:
    """This client's orders that have one of these ids of its own, keyed by that id; archived ones, too."""
    wanted = _ByOwnIds(owner_id, client_order_ids)
    if connection.in_atomic_block:
        _find_submitted([wanted])
    else:
        _submitted.do(wanted)
    if wanted.elsewhere:
        wanted.found |= _as_submitted(fetch(_ANYWHERE, {"ids": wanted.elsewhere}))
    return wanted.found


def _find_submitted(wanted: Sequence[_ByOwnIds]) -> None:
    """Find the orders of each client that are in use, and the ids of the others, all with one statement."""
    asked = dict.fromkeys((each.owner_id, own_id) for each in wanted for own_id in each.own_ids)
    owners = ",".join(str(owner_id) for owner_id, _ in asked)
    rows = fetch(_SUBMITTED, {"owners": f"{{{owners}}}", "own_ids": [own_id for _, own_id in asked]})
    found = {(owner_id, own_id): (elsewhere, row) for owner_id, own_id, elsewhere, *row in rows}
    for each in wanted:
        its = [found[each.owner_id, own_id] for own_id in each.own_ids if (each.owner_id, own_id) in found]
        each.found = _as_submitted([row for elsewhere, row in its if elsewhere is None])
        each.elsewhere = [elsewhere for elsewhere, _ in its if elsewhere is not None]


_submitted = Batcher(_find_submitted, most=MOST_LOOK_UPS, size=lambda each: len(each.own_ids))


def removed(owner_id: int, client_order_ids: Sequence[str]) -> dict[str, UUID]:
    """The ids of this client's orders that are not stored any more, by its own ids of them."""
    return archive.orders_by_key(owner_id, client_order_ids, ClientKey.Of.ORDER)


def _as_submitted(rows: Iterable[Sequence[Any]]) -> dict[str, Submitted]:
    found = {}
    for *row, original in rows:
        order = ClientOrder(*row)
        found[order.client_order_id] = Submitted(order, _terms(original) if original else order.terms())
    return found


def _terms(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Terms as PostgreSQL's JSON has them."""
    read: dict[str, Callable[[str], Any]] = {"limit_price": Decimal, "stop_price": Decimal}
    read["expires_at"] = datetime.fromisoformat
    return {name: read[name](value) if name in read and value else value for name, value in stored.items()}


class _LookUp:
    def __init__(self, owner_id: int, order_id: UUID) -> None:
        self.owner_id = owner_id
        self.order_id = order_id
        self.order: ClientOrder | None = None


def order_of(owner_id: int, order_id: UUID) -> ClientOrder | None:
    """The order, if it is this client's, in use or archived."""
    look_up = _LookUp(owner_id, order_id)
    if connection.in_atomic_block:  # the transaction may see rows that are not committed yet
        _find([look_up])
    else:
        _look_ups.do(look_up)
    if look_up.order is not None:
        return look_up.order
    for row in fetch(_ANYWHERE, {"ids": [order_id]}):
        order = ClientOrder(*row[:-1])
        return order if order.owner_id == owner_id else None
    return None


def _find(wanted: Sequence[_LookUp]) -> None:
    """Find the order of each look-up, all with one statement."""
    ids = ",".join(str(each.order_id) for each in wanted)
    owners = ",".join(str(each.owner_id) for each in wanted)
    rows = fetch(_LOOK_UP, {"ids": f"{{{ids}}}", "owners": f"{{{owners}}}"})
    found = {(order.owner_id, order.id): order for order in starmap(ClientOrder, rows)}
    for each in wanted:
        each.order = found.get((each.owner_id, each.order_id))


_look_ups = Batcher(_find, most=MOST_LOOK_UPS)

FILTERS = {
    "status": "status = ANY(%(status)s)",
    "side": "side = %(side)s",
    "type": "type = %(type)s",
    "instrument": "instrument = %(instrument)s",
    "venue": "venue_id = %(venue)s",
    "client_order_id": """id IN (
        SELECT o.id FROM orders_order o WHERE o.owner_id = %(owner)s AND o.client_order_id = %(client_order_id)s
        UNION ALL SELECT q.order_id FROM orders_orderrequest q
        WHERE q.owner_id = %(owner)s AND q.client_order_id = %(client_order_id)s AND q.client_order_id <> '')""",
    "created_from": "created_at >= %(created_from)s",
    "created_before": "created_at < %(created_before)s",
}
"""The filters of a client's list."""
_ARCHIVED_FILTERS = FILTERS | {
    "status": "status = ANY(%(archived_status)s)",
    "client_order_id": """id IN (SELECT k.order_id FROM orders_clientkey k
        WHERE k.owner_id = %(owner)s AND k.client_order_id = %(client_order_id)s)""",
}


class Position(NamedTuple):
    """The last order of a page, by time of creation and id."""

    created_at: datetime
    id: UUID


# Orders become visible when their transaction ends, which is not in the order of their times. One that is not visible
# to a statement sent after this one belongs to a transaction that has its number now, and began at `xact_start`; or
# that gets its number later, and the order's time is taken after that. Readers have no number, and hold nothing up.
# Of another role's transactions the start is not shown: all processes that store orders must have one role.
_ALL_THERE_BEFORE = """
SELECT LEAST(statement_timestamp(), min(xact_start)) FROM pg_stat_get_activity(NULL)
WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
    AND datid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def page_of_orders(
    owner_id: int, filters: Mapping[str, Any], *, after: Position | None, newest_first: bool, limit: int
) -> list[ClientOrder]:
    """Up to `limit` of this client's orders behind a position: every page costs the same.

    Oldest first, it ends before the first order that a running transaction may still add: a client that continues from
    its last order misses none. Newest first, it has every order that is there.
    """
    conditions = ["owner_id = %(owner)s", *(FILTERS[name] for name in filters)]
    parameters = {"owner": owner_id, "limit": limit, **filters}
    if "status" in filters:
        parameters["archived_status"] = [status for status in filters["status"] if status in archive.STATUSES]
    if not newest_first:
        assert reads_from.get() != replica.ALIAS, "the primary alone knows which transactions run"
        ((parameters["all_there_before"],),) = fetch(_ALL_THERE_BEFORE, {})  # asked before the page: see its comment
        conditions.append("created_at < %(all_there_before)s")
    if after is not None:
        conditions.append(f"(created_at, id) {'<' if newest_first else '>'} (%(after_at)s, %(after_id)s)")
        parameters |= {"after_at": after.created_at, "after_id": after.id}
    direction = "DESC" if newest_first else "ASC"
    ordered = f"ORDER BY created_at {direction}, id {direction} LIMIT %(limit)s"
    in_use = f"{_ORDERS} WHERE {' AND '.join(conditions)} {ordered}"
    archived = conditions[:1] + [_ARCHIVED_FILTERS[name] for name in filters] + conditions[1 + len(filters) :]
    both = f"({in_use}) UNION ALL ({_ARCHIVED} WHERE {' AND '.join(archived)} {ordered}) {ordered}"
    bounds = [filters.get("created_from"), after.created_at if after and not newest_first else None]
    begins = max((at for at in bounds if at is not None), default=None)

    def read() -> list[tuple[Any, ...]]:
        """Read what is in use; and both, if the page may have archived orders."""
        rows = fetch(in_use, parameters)
        if "status" in filters and not parameters["archived_status"]:
            return rows  # a list of open orders is often short, and would read the whole archive for nothing
        oldest = begins
        if newest_first and len(rows) == limit:  # no older order is on the page
            oldest = rows[-1][_CREATED_AT]
        if not archive.may_have(oldest) or (newest := archive.newest_order_at(owner_id)) is None:
            return rows
        return fetch(both, parameters) if oldest is None or oldest <= newest else rows

    return list(starmap(ClientOrder, replica.read(read)))


_CREATED_AT = [column.name for column in fields(ClientOrder)].index("created_at")


def history(order_id: UUID) -> QuerySet[OrderEvent]:
    return OrderEvent.objects.filter(order_id=order_id).order_by("sequence")


def whole_history(order_id: UUID, *, upto: int | None = None, limit: int | None = None) -> list[OrderEvent]:
    """The events of an order in their sequence, in use or archived: those up to a sequence, and at most so many."""
    events = history(order_id)
    found = list((events if upto is None else events.filter(sequence__lte=upto))[:limit])
    if not found:
        found = [event for event in archive.history(order_id) if upto is None or event.sequence <= upto][:limit]
    return found


def doubts(order_ids: Sequence[UUID]) -> dict[UUID, Doubt]:
    """The doubt about each order, from its history. What an operator has since vouched for is not in doubt."""
    events = OrderEvent.objects.filter(order=OuterRef("order"))
    missed = events.filter(attempt=OuterRef("attempt"), event__in=("not_sent", "venue_unreachable", "turned_away"))
    vouched_for = events.filter(event="marked_not_placed", sequence__gt=OuterRef("sequence"))
    history = OrderEvent.objects.filter(order__in=order_ids).exclude(Exists(vouched_for))
    attempts = history.filter(event="claimed").exclude(Exists(missed)).values("order_id")
    ages = dict(attempts.annotate(age=Now() - Min("at")).values_list("order_id", "age"))
    # If a venue in trouble gave no answer, the order is not at fault: as with 429, it costs no attempt.
    excused = events.filter(attempt=OuterRef("attempt"), event="outcome_unknown", detail__has_key="trouble")
    resends = history.filter(event="not_found").exclude(Exists(excused)).values("order_id")
    rounds = dict(resends.annotate(rounds=Count("id")).values_list("order_id", "rounds"))
    return {pk: Doubt(ages[pk].total_seconds() if pk in ages else 0.0, rounds.get(pk, 0)) for pk in order_ids}


_UNREAD_FOR = """
SELECT venue_id, extract(epoch FROM statement_timestamp() - max(lease_expires_at))::float8
FROM exchanges_reportsession GROUP BY venue_id
"""


def reports_unread() -> dict[str, float]:
    """For how many seconds nobody has read the reports of each venue that ever had a session; at most 0 if they are."""
    return dict(fetch(_UNREAD_FOR, {}))


def reports_unread_for() -> float | None:
    """The longest of these times; None if no session of a venue has ever run."""
    return max(reports_unread().values(), default=None)
