"""Queries. None of them locks a row or depends on a cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import starmap
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Count, Exists, Min, OuterRef, QuerySet
from django.db.models.functions import Now

from exchanges.venue import Terms
from orders.models import OrderEvent
from orders.verdicts import Doubt
from quiktrade.database.batching import Batcher
from quiktrade.database.statements import fetch

# An open circuit delays a venue's orders until its next probe.
_SECONDS_UNTIL_DUE = """
SELECT extract(epoch FROM place - statement_timestamp())::float8,
       extract(epoch FROM sweep - statement_timestamp())::float8,
       extract(epoch FROM reconcile - statement_timestamp())::float8
FROM (SELECT
    (SELECT min(GREATEST(due.next_attempt_at, h.retry_at)) FROM exchanges_venue v
        LEFT JOIN exchanges_venuehealth h ON h.venue_id = v.code CROSS JOIN LATERAL (
        SELECT o.next_attempt_at FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'pending'
        ORDER BY o.next_attempt_at LIMIT 1) due WHERE v.halted_at IS NULL) AS place,
    LEAST((SELECT min(lease_expires_at) FROM orders_order WHERE status = 'submitting'),
        (SELECT LEAST(place_by, resend_before) FROM orders_order WHERE status = 'pending'
            AND (place_by IS NOT NULL OR resend_before IS NOT NULL) ORDER BY LEAST(place_by, resend_before) LIMIT 1)
        ) AS sweep,
    (SELECT min(due.next_attempt_at) FROM exchanges_venue v CROSS JOIN LATERAL (
        (SELECT o.next_attempt_at FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'unconfirmed'
            AND o.parked_at IS NULL ORDER BY o.next_attempt_at LIMIT 1)
        UNION ALL (SELECT o.next_attempt_at FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'unconfirmed'
            AND o.parked_at IS NOT NULL ORDER BY o.next_attempt_at LIMIT 1)) due) AS reconcile) AS next
"""


@dataclass(frozen=True, slots=True)
class WorkDue:
    """Seconds until there is work of each kind; at most 0 when it is due now, None when there is none."""

    place: float | None
    sweep: float | None
    reconcile: float | None


def work_due() -> WorkDue:
    """When the next work is due. This costs a few index look-ups; orders of halted venues are not placed."""
    (seconds,) = fetch(_SECONDS_UNTIL_DUE, {})
    return WorkDue(*seconds)


def placement_due() -> float | None:
    """Seconds until the next order is due for placement; negative if it is overdue, None where none waits."""
    return work_due().place


_VENUES_WITH_DUE_ORDERS = """
SELECT v.code, v.adapter, v.settings, v.max_in_flight FROM exchanges_venue v
    LEFT JOIN exchanges_venuehealth h ON h.venue_id = v.code
WHERE v.halted_at IS NULL AND (h.retry_at IS NULL OR h.retry_at <= statement_timestamp())
    AND EXISTS (SELECT FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'pending'
        AND o.next_attempt_at <= statement_timestamp())
"""


class VenueToServe(NamedTuple):
    """The columns of a venue that are needed to send to it."""

    code: str
    adapter: str
    settings: dict[str, Any]
    max_in_flight: int


def venues_with_due_orders() -> list[VenueToServe]:
    """Venues with due orders that are not halted, and whose circuit is closed or due for a probe."""
    return [VenueToServe._make(row) for row in fetch(_VENUES_WITH_DUE_ORDERS, {})]


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


_ORDERS = f"SELECT {', '.join(column.name for column in fields(ClientOrder))} FROM orders_order"
_LOOK_UP = f"{_ORDERS} JOIN unnest(%(ids)s::uuid[], %(owners)s::bigint[]) AS w (id, owner_id) USING (id, owner_id)"
_SUBMITTED = f"{_ORDERS} WHERE owner_id = %(owner)s AND client_order_id = ANY(%(ids)s)"


def submitted(owner_id: int, client_order_ids: Sequence[str]) -> dict[str, ClientOrder]:
    """This client's orders that have one of these ids of its own, keyed by that id."""
    rows = fetch(_SUBMITTED, {"owner": owner_id, "ids": list(client_order_ids)})
    return {order.client_order_id: order for order in starmap(ClientOrder, rows)}


MOST_LOOK_UPS = 500


class _LookUp:
    def __init__(self, owner_id: int, order_id: UUID) -> None:
        self.owner_id = owner_id
        self.order_id = order_id
        self.order: ClientOrder | None = None


def order_of(owner_id: int, order_id: UUID) -> ClientOrder | None:
    """The order, if it is this client's."""
    look_up = _LookUp(owner_id, order_id)
    if connection.in_atomic_block:  # the transaction may see rows that are not committed yet
        _find([look_up])
    else:
        _look_ups.do(look_up)
    return look_up.order


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
    "client_order_id": "client_order_id = %(client_order_id)s",
    "created_from": "created_at >= %(created_from)s",
    "created_before": "created_at < %(created_before)s",
}
"""The filters of a client's list."""


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
    if not newest_first:
        ((parameters["all_there_before"],),) = fetch(_ALL_THERE_BEFORE, {})  # asked before the page: see its comment
        conditions.append("created_at < %(all_there_before)s")
    if after is not None:
        conditions.append(f"(created_at, id) {'<' if newest_first else '>'} (%(after_at)s, %(after_id)s)")
        parameters |= {"after_at": after.created_at, "after_id": after.id}
    direction = "DESC" if newest_first else "ASC"
    statement = (
        f"{_ORDERS} WHERE {' AND '.join(conditions)} ORDER BY created_at {direction}, id {direction} LIMIT %(limit)s"
    )
    return list(starmap(ClientOrder, fetch(statement, parameters)))


def history(order_id: UUID) -> QuerySet[OrderEvent]:
    return OrderEvent.objects.filter(order_id=order_id).order_by("sequence")


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
