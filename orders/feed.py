"""The feed: the events of all orders in one sequence, from which clients and webhooks are told what happened.

An event's place is its `(stamp, id)`. Ids alone will not do: they are given out when a row is inserted, and rows appear
when their transactions end, so whoever remembers the last id that it saw misses what appears below it later. A stamp is
at least the number of the transaction that wrote it (orders.lifecycle), and the horizon is the lowest number of those
that run. So below the horizon nothing is ever added: who reads up to there, and continues from there, misses nothing,
reads nothing twice, and reads each order's events in their sequence.

The horizon waits for the oldest transaction of the whole cluster that has written. Such a transaction delays the feed
and loses nothing; readers have no number and delay nothing.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self
from uuid import UUID

from orders import explanations
from orders.models import Status
from quiktrade.database.statements import fetch

KEPT = timedelta(days=7)
"""How far back a client may continue. Whoever missed more lists its orders instead."""

MOST_ON_A_PAGE = 1000

_NO_CURSOR = "Not a cursor: take the id of an event, or next_cursor, as it is."
_WIRE_FORM = re.compile(r"([0-9a-f]{4})\.(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})", re.ASCII)
_LARGEST = 2**63 - 1


class Cursor(NamedTuple):
    """A place in the feed: all up to this event was read.

    `cluster` is a mark of the database's cluster. A dump that was restored in another cluster counts transactions from
    the beginning, so places of the one mean nothing in the other.
    """

    cluster: str
    stamp: int
    id: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises: ValueError, with a sentence for the client, if it is none that was given out."""
        found = _WIRE_FORM.fullmatch(text)
        if found is None or max(int(found[2]), int(found[3])) > _LARGEST:
            raise ValueError(_NO_CURSOR)
        return cls(found[1], int(found[2]), int(found[3]))

    def __str__(self) -> str:
        return f"{self.cluster}.{self.stamp}.{self.id}"


class FeedEvent(NamedTuple):
    """An event as it is read from the feed."""

    stamp: int
    id: int
    owner_id: int
    order_id: UUID
    client_order_id: str
    first_quantity: int
    """The order's quantity as its client submitted it."""
    sequence: int
    event: str
    status: str
    actor: str
    reason: str
    detail: dict[str, Any]
    at: datetime


class Lost(Exception):
    """The feed cannot be continued from this cursor. The message says why and what to do: a client lists its orders
    and continues from `horizon`."""

    def __init__(self, why: str, horizon: Cursor) -> None:
        super().__init__(f"{why} List your orders, and continue from the cursor given here.")
        self.horizon = horizon


# The join costs a look-up by the primary key for each event; a copy of these columns would cost each event its bytes.
_COLUMNS = """e.stamp, e.id, e.owner_id, e.order_id, o.client_order_id,
        COALESCE((o.original_terms->>'quantity')::bigint, o.quantity), e.sequence, e.event, e.to_status, e.actor,
        e.reason, e.detail, e.at"""
_HORIZON = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_WHERE_WE_ARE = f"""SELECT system_identifier, {_HORIZON} AS horizon, statement_timestamp() AS at
    FROM pg_control_system()"""


_FROM = f"SELECT {_COLUMNS} FROM orders_orderevent e JOIN orders_order o ON o.id = e.order_id"
_OF_ALL = f"""{_FROM}
WHERE (e.stamp, e.id) > (%(stamp)s, %(id)s) AND (e.stamp, e.id) <= (%(upto_stamp)s, %(upto_id)s)
    AND e.owner_id IS NOT NULL
ORDER BY e.stamp, e.id LIMIT %(limit)s
"""
# Written so that only the index that begins with the owner is of use. With an equality of the owner, PostgreSQL may
# read the events of everybody where it believes that many are this client's.
_OF_ONE = f"""{_FROM}
WHERE (e.owner_id, e.stamp, e.id) > (%(owner)s, %(stamp)s, %(id)s)
    AND (e.owner_id, e.stamp, e.id) <= (%(owner)s, %(upto_stamp)s, %(upto_id)s)
ORDER BY e.owner_id, e.stamp, e.id LIMIT %(limit)s
"""
# As the last one, with whether events behind the cursor are archived: that happens when they are older than is kept.
_RESUME = f"""
SELECT EXISTS (SELECT FROM orders_archivedowner a WHERE a.owner_id = %(owner)s
    AND (a.stamp, a.event_id) > (%(stamp)s, %(id)s)), page.*
FROM (SELECT) one LEFT JOIN ({_OF_ONE}) page ON true ORDER BY page.stamp, page.id
"""

_THESE = f"{_FROM} WHERE e.id = ANY(%(ids)s::bigint[]) AND e.owner_id IS NOT NULL"


# The horizon and the next page, in one statement, for the one reader that asks often.
_FOLLOW = f"""
WITH h AS MATERIALIZED ({_WHERE_WE_ARE})
SELECT h.system_identifier, h.horizon, h.at, page.* FROM h LEFT JOIN LATERAL (
    {_FROM} WHERE (e.stamp, e.id) > (%(stamp)s, %(id)s) AND e.stamp < h.horizon AND e.owner_id IS NOT NULL
    ORDER BY e.stamp, e.id LIMIT %(limit)s) page ON true
ORDER BY page.stamp, page.id
"""


class Horizon(NamedTuple):
    """How far the feed can be read: everything before it is there. `at` is the database's time."""

    cluster: str
    stamp: int
    at: datetime
    id: int = 0

    @property
    def cursor(self) -> Cursor:
        """The place before which everything is, and behind which everything will be that is not there yet."""
        return Cursor(self.cluster, self.stamp, self.id)


def horizon() -> Horizon:
    ((identifier, stamp, at),) = fetch(_WHERE_WE_ARE, {})
    return Horizon(cluster_mark(identifier), stamp, at)


def cluster_mark(system_identifier: int) -> str:
    return hashlib.sha256(str(system_identifier).encode()).hexdigest()[:4]


def read(after: Cursor, upto: Horizon | Cursor, *, owner_id: int | None = None, limit: int) -> list[FeedEvent]:
    """The next events of one client behind a cursor, or of all; fewer than `limit` only if these are all up to `upto`.

    `next_cursor` says where to continue. The cursor must be one of this cluster (see `check`), and `upto` not ahead of
    the horizon. Events from before there was a feed are not in it.
    """
    parameters = {"stamp": after.stamp, "id": after.id, "upto_stamp": upto.stamp, "upto_id": upto.id, "limit": limit}
    rows = fetch(_OF_ALL, parameters) if owner_id is None else fetch(_OF_ONE, {**parameters, "owner": owner_id})
    return [FeedEvent._make(row) for row in rows]


def follow(line: Any, after: Cursor | None, *, limit: int) -> tuple[list[FeedEvent], Horizon]:
    """The next events of all and how far they can be read, on a connection of the caller's own; none without `after`.

    `limit` is above 0, and `next_cursor` says where to continue.
    """
    parameters = {"stamp": after.stamp, "id": after.id} if after else {"stamp": _LARGEST, "id": 0}
    rows = line.execute(_FOLLOW, {**parameters, "limit": limit}, prepare=True, binary=True).fetchall()
    identifier, stamp, at = rows[0][:3]
    events = [FeedEvent._make(row[3:]) for row in rows if row[3] is not None]
    return events, Horizon(cluster_mark(identifier), stamp, at)


def events(ids: Sequence[int]) -> list[FeedEvent]:
    """These events, in no certain order."""
    return [FeedEvent._make(row) for row in fetch(_THESE, {"ids": list(ids)})]


def check(after: Cursor, upto: Horizon) -> None:
    """Raises: Lost, if it is a place in another database, or none that was reached here."""
    if after.cluster != upto.cluster:
        raise Lost("The cursor is of another database.", upto.cursor)
    if after > upto.cursor:
        raise Lost("The cursor is ahead of this database, which may have been restored.", upto.cursor)


def resume(after: Cursor, upto: Horizon, *, owner_id: int, limit: int) -> list[FeedEvent]:
    """As `read`, for a client that comes back. Raises: Lost, if it missed more than is kept, or see `check`.

    A client that missed nothing may come back however late.
    """
    check(after, upto)
    bounds = {"stamp": after.stamp, "id": after.id, "upto_stamp": upto.stamp, "upto_id": 0}
    rows = fetch(_RESUME, {**bounds, "owner": owner_id, "limit": limit})
    events = [FeedEvent._make(row[1:]) for row in rows if row[1] is not None]
    if rows[0][0] or (events and events[0].at < upto.at - KEPT):
        raise Lost(f"The cursor is from more than {KEPT.days} days ago.", upto.cursor)
    return events


def cursor_of(event: FeedEvent, cluster: str) -> Cursor:
    return Cursor(cluster, event.stamp, event.id)


_ENDED = (Status.CANCELED, Status.EXPIRED, Status.REJECTED)


def for_client(event: FeedEvent, cluster: str) -> dict[str, Any]:
    """The event as its client is told it, by stream, by polling and by webhook alike.

    It has nothing that is for operators only: no names, no attempt, no detail of our own trouble.
    """
    left = 0 if event.status in _ENDED else event.first_quantity
    return {
        "cursor": str(cursor_of(event, cluster)),
        "order_id": event.order_id,
        "client_order_id": event.client_order_id,
        "sequence": event.sequence,
        "event": event.event,
        "status": event.status,
        "filled_quantity": event.detail.get("filled_quantity", 0),
        "leaves_quantity": event.detail.get("leaves_quantity", left),
        "execution": _execution(event.detail),
        "by": event.actor.partition(":")[0],
        "reason": explanations.reason(event.event, event.actor, event.reason),
        "at": event.at,
    }


def _execution(detail: dict[str, Any]) -> dict[str, Any] | None:
    if "execution_id" not in detail:
        return None
    return {
        "execution_id": detail["execution_id"],
        "quantity": detail["quantity"],
        "price": detail["price"],
        "refers_to": detail.get("refers_to", ""),
    }


def next_cursor(events: Sequence[FeedEvent], upto: Horizon, *, limit: int) -> Cursor:
    """Where to continue behind a page that was asked for with this `limit`."""
    return upto.cursor if len(events) < limit else cursor_of(events[-1], upto.cluster)
