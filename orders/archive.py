"""The archive: orders that ended long ago, with all that belongs to them, apart from the tables in daily use.

An order is either in the tables in use or in the archive, with its events, executions and requests. `move` takes orders
there and `bring_back` brings them back, each in one statement, so nothing is lost or doubled whatever dies. What reads
both does so in one statement, too: an order that moves meanwhile is found once.

A client's own id of an order or a request stays taken for ever. In use, a unique constraint says so. Of what leaves,
the ids are written to `orders_clientkey` first, by `keep_keys`, and the statements that store an order or a request
look there. A statement whose snapshot is older than the commit of these ids does not see them; so `move` must not be
called before every such statement has ended, which `older_snapshots` tells. Then no interleaving stores an order
again: a statement that runs while its first order moves sees the id, whatever it sees of the order.

The id is written when an order leaves, and not when it is accepted, because an insertion into a second table would
cost every accept 4 to 10 % (measured); the look costs 1 to 3 %, less than the measurement can tell.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db import IntegrityError, connection, models, transaction
from django.utils import timezone

from orders.archive_models import ClientKey
from orders.models import MULTI_DAY, OPEN, Execution, Order, OrderEvent, OrderRequest, Status
from quiktrade.database.statements import fetch
from quiktrade.texts import storable

logger = logging.getLogger(__name__)

TABLES: dict[type[models.Model], str] = {
    Order: "orders_archivedorder",
    OrderEvent: "orders_archivedevent",
    Execution: "orders_archivedexecution",
    OrderRequest: "orders_archivedrequest",
}
"""The table that archives the rows of each model."""
ORDER, EVENT, EXECUTION, REQUEST = TABLES.values()


def columns(model: type[models.Model]) -> list[str]:
    return [str(field.column) for field in model._meta.local_concrete_fields]


def not_taken(of: ClientKey.Of, owner_id: str, client_order_id: str) -> str:
    """The condition that no order or request that left the tables in use had this client's own id. It must be in the
    very statement that stores the new one.

    It is written so that PostgreSQL makes no join of it: the rows stay in their sequence, and are looked up one by one.
    """
    return f"({_KEPT.format(owner_id=owner_id, client_order_id=client_order_id, of=of.value)}) IS NULL"


_KEPT = """SELECT k.order_id FROM orders_clientkey k WHERE k.owner_id = {owner_id}
        AND k.client_order_id = {client_order_id} AND k.of = '{of}'"""


LEAST_AGE = timedelta(days=7)
"""Nothing younger is archived, whatever a clock said. What is configured is at least a day more, because the clocks of
two machines may differ."""


def may_have(at: datetime | None) -> bool:
    """Whether something of this time may be in the archive. None means any time."""
    return at is None or at <= timezone.now() - LEAST_AGE


def newest_order_at(owner_id: int) -> datetime | None:
    """When the newest archived order of this owner was created; None if there is none."""
    rows = fetch(_NEWEST.format("newest_order_at"), {"owner": owner_id})
    return rows[0][0] if rows else None


def newest_execution_at(owner_id: int) -> datetime | None:
    rows = fetch(_NEWEST.format("newest_execution_at"), {"owner": owner_id})
    return rows[0][0] if rows else None


_NEWEST = "SELECT {} FROM orders_archivedowner WHERE owner_id = %(owner)s"


def may_have_events(owner_id: int, since: datetime) -> bool:
    """Whether events of this owner from this time or later may be archived.

    The time of the newest archived event is not stored, but its place in the feed is. It is not later than the event
    that follows there, whoever's that is.
    """
    if not may_have(since):
        return False
    ((found,),) = fetch(_MAY_HAVE_EVENTS, {"owner": owner_id, "since": since})
    return bool(found)


_MAY_HAVE_EVENTS = """
SELECT EXISTS (SELECT FROM orders_archivedowner a WHERE a.owner_id = %(owner)s AND COALESCE(%(since)s <= (
    SELECT e.at FROM orders_orderevent e WHERE (e.stamp, e.id) > (a.stamp, a.event_id) AND e.owner_id IS NOT NULL
    ORDER BY e.stamp, e.id LIMIT 1), true))
"""

# ---- Months ----

_LOCK = 7_302_115_620_817
"""Of what changes which partitions there are."""


def month_of(order_id: UUID) -> date:
    """The first day of the month in which an order's id was given out: it begins with milliseconds."""
    at = datetime.fromtimestamp((order_id.int >> 80) / 1000, UTC)
    return date(at.year, at.month, 1)


def next_month(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def first_id(at: datetime) -> UUID:
    """No id that was given out at this time or later is lower."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def first_id_of(month: date) -> UUID:
    return first_id(datetime(month.year, month.month, 1, tzinfo=UTC))


def partition(table: str, month: date) -> str:
    return f"{table}_{month:%Y_%m}"


def make_partitions(months: Iterable[date]) -> None:
    """Make what is missing. Attaching a partition locks out nobody who reads or writes the others."""
    for month in sorted(months):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            for table in TABLES.values():
                name = partition(table, month)
                cursor.execute("SELECT to_regclass(%s) IS NULL", [name])
                if cursor.fetchone() == (True,):
                    bounds = [str(first_id_of(month)), str(first_id_of(next_month(month)))]
                    cursor.execute(f"CREATE TABLE {name} (LIKE {table})")
                    cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM (%s) TO (%s)", bounds)


_MONTH = """(date_trunc('month', to_timestamp(('x' || left(replace({}::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
        AT TIME ZONE 'UTC'))::date"""

# ---- Moving ----

_OVER = ("filled", "canceled", "expired", "rejected")
assert set(_OVER) == {Status.FILLED, Status.CANCELED, Status.EXPIRED, Status.REJECTED}
STATUSES = {*_OVER, "done_for_day"}
"""No archived order has another."""
_ENDED_LONG_AGO = f"""(o.status IN {_OVER} OR (o.status = 'done_for_day'
        AND o.time_in_force NOT IN {tuple(each.value for each in MULTI_DAY)}))
        AND GREATEST(o.updated_at, o.created_at) < %(ended_before)s"""

# An order's version is the number of its events.
_CANDIDATES = f"""
SELECT id FROM (
    SELECT id, version, sum(version) OVER (ORDER BY id) AS events FROM (
        SELECT o.id, o.version FROM orders_order o
        WHERE o.id > %(after)s AND o.id < %(first_id)s AND {_ENDED_LONG_AGO} ORDER BY o.id LIMIT %(limit)s) o) o
WHERE events - version < %(events)s ORDER BY id
"""


def candidates(after: UUID, ended_before: datetime, *, limit: int, events: int = 2**31) -> list[UUID]:
    """The next orders by their ids that ended before this time, and have had no news since: up to `limit`, and no more
    behind those that have this many events together."""
    # An order that ended before then was accepted before then.
    asked = {"after": after, "ended_before": ended_before, "first_id": first_id(ended_before), "limit": limit}
    return [id_ for (id_,) in fetch(_CANDIDATES, {**asked, "events": events})]


# In the sequence of their keys, so that two movers wait for each other and do not deadlock. The transaction has a
# number even if all of the keys were there.
_KEEP_KEYS = """
WITH orders AS (
    INSERT INTO orders_clientkey (owner_id, client_order_id, of, order_id)
    SELECT owner_id, client_order_id, 'order', id FROM orders_order WHERE id = ANY(%(ids)s::uuid[])
    ORDER BY owner_id, client_order_id ON CONFLICT DO NOTHING
), requests AS (
    INSERT INTO orders_clientkey (owner_id, client_order_id, of, order_id)
    SELECT owner_id, client_order_id, 'request', order_id FROM orders_orderrequest
    WHERE order_id = ANY(%(ids)s::uuid[]) AND client_order_id <> ''
    ORDER BY owner_id, client_order_id ON CONFLICT DO NOTHING
)
SELECT pg_current_xact_id()::xid::text
"""
_OLDER_SNAPSHOTS = """
SELECT count(*) FROM pg_stat_get_activity(NULL)
WHERE age(backend_xmin) >= age(%(transaction)s::text::xid) AND pid <> pg_backend_pid()
    AND backend_type = 'client backend' AND datid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def keep_keys(ids: Sequence[UUID]) -> str:
    """Write the clients' own ids of these orders and of their requests. Returns the number of the transaction."""
    assert not connection.in_atomic_block, "others must see them when this returns"
    ((number,),) = fetch(_KEEP_KEYS, {"ids": list(ids)})
    return str(number)


def older_snapshots(number: str) -> int:
    """How many connections have a snapshot that may not have what this transaction wrote.

    A snapshot that was taken while the transaction ran, or before, has an `xmin` of at most its number. Of another
    role's connections nothing is shown: all processes that store orders must have one role, as selectors needs too.
    """
    ((count,),) = fetch(_OLDER_SNAPSHOTS, {"transaction": number})
    return int(count)


def _key_of(row: str, of: ClientKey.Of) -> str:
    return _KEPT.format(owner_id=f"{row}.owner_id", client_order_id=f"{row}.client_order_id", of=of.value)


_OPEN = tuple(status.value for status in OPEN)
# The row is locked with its version, so whoever writes to an order afterwards finds that it is gone, and no event is
# left behind. An order whose events a webhook has yet to be told of, or may be told of again, is left for later.
_CHOSEN = f"""
    SELECT o.id FROM orders_order o WHERE o.id = ANY(%(ids)s::uuid[]) AND {_ENDED_LONG_AGO}
        AND o.id = ({_key_of("o", ClientKey.Of.ORDER)})
        AND NOT EXISTS (SELECT FROM orders_orderrequest r WHERE r.order_id = o.id AND (r.status IN {_OPEN}
            OR (r.client_order_id <> '' AND o.id IS DISTINCT FROM ({_key_of("r", ClientKey.Of.REQUEST)}))))
        AND NOT EXISTS (SELECT FROM orders_webhookendpoint w WHERE w.owner_id = o.owner_id AND w.deleted_at IS NULL
            AND (EXISTS (SELECT FROM orders_orderevent e JOIN orders_webhookdelivery d
                    ON d.endpoint_id = w.id AND d.event_id = e.id WHERE e.order_id = o.id)
                OR (w.disabled_at IS NULL AND EXISTS (SELECT FROM orders_orderevent e WHERE e.order_id = o.id
                    AND e.sequence = o.version AND (e.stamp, e.id) > (w.cursor_stamp, w.cursor_id)))))
        AND o.version = (SELECT count(*) FROM orders_orderevent e WHERE e.order_id = o.id)
        AND NOT EXISTS (SELECT FROM orders_execution e WHERE e.order_id = o.id AND e.executed_at >= %(ended_before)s)
        AND {_MONTH.format("o.id")} NOT IN (SELECT month FROM orders_archivemonth WHERE dropping_at IS NOT NULL)
    FOR UPDATE OF o SKIP LOCKED
"""
_CHOSEN_BACK = f"SELECT o.id FROM {ORDER} o WHERE o.id = ANY(%(ids)s::uuid[]) FOR UPDATE OF o"


def _moving(chosen: str, *, back: bool) -> str:
    """The rows of the chosen orders from one side to the other, and what the archive says of itself."""
    steps = []
    for name, (model, archive) in zip(("orders", "events", "executions", "requests"), TABLES.items(), strict=True):
        source, target = model._meta.db_table, archive
        if back:
            source, target = target, source
        key, listed = "id" if model is Order else "order_id", ", ".join(columns(model))
        taken = f"DELETE FROM {source} x USING chosen c WHERE x.{key} = c.id RETURNING x.*"
        put = f"INSERT INTO {target} ({listed}) SELECT {listed} FROM {name} RETURNING 1"
        steps.append(f"{name} AS ({taken}), {name}_put AS ({put})")
    months = f"months AS (SELECT {_MONTH.format('id')} AS month, count(*) AS orders FROM orders GROUP BY 1)"
    counted = "count(*), (SELECT COALESCE(sum(version), 0) FROM orders)::bigint"
    counted += "".join(f", (SELECT count(*) FROM {name}), (SELECT count(*) FROM {name}_put)" for name in _PARTS)
    counted += ", (SELECT count(*) FROM months), (SELECT count(*) FROM noted)"
    tail = f"SELECT {counted} FROM orders"
    about = _FROM_ARCHIVE if back else _TO_ARCHIVE
    return f"WITH chosen AS MATERIALIZED ({chosen}), {', '.join(steps)}, {months}, {about} {tail}"


_PARTS = ("orders", "events", "executions", "requests")
_TO_ARCHIVE = """noted AS (
    INSERT INTO orders_archivemonth AS m (month, orders) SELECT month, orders FROM months ORDER BY month
    ON CONFLICT (month) DO UPDATE SET orders = m.orders + excluded.orders, version = m.version + 1, dropped_at = NULL,
        updated_at = statement_timestamp() WHERE m.dropping_at IS NULL
    RETURNING 1
), owners AS (
    INSERT INTO orders_archivedowner AS a (owner_id, newest_order_at, newest_execution_at, stamp, event_id)
    SELECT owner_id, max(created_at), max(executed_at), COALESCE((max(place))[1], 0), COALESCE((max(place))[2], 0)
    FROM (SELECT owner_id, created_at, NULL::timestamptz AS executed_at, NULL::bigint[] AS place FROM orders
        UNION ALL SELECT owner_id, NULL, executed_at, NULL FROM executions
        UNION ALL SELECT owner_id, NULL, NULL, ARRAY[stamp, id] FROM events WHERE owner_id IS NOT NULL) rows
    GROUP BY owner_id ORDER BY owner_id
    ON CONFLICT (owner_id) DO UPDATE SET newest_order_at = GREATEST(a.newest_order_at, excluded.newest_order_at),
        newest_execution_at = GREATEST(a.newest_execution_at, excluded.newest_execution_at),
        event_id = CASE WHEN (excluded.stamp, excluded.event_id) > (a.stamp, a.event_id) THEN excluded.event_id
            ELSE a.event_id END,
        stamp = GREATEST(a.stamp, excluded.stamp)
)"""
_FROM_ARCHIVE = """noted AS (
    UPDATE orders_archivemonth m SET orders = m.orders - n.orders, version = m.version + 1,
        updated_at = statement_timestamp()
    FROM months n WHERE m.month = n.month AND m.dropping_at IS NULL RETURNING 1
)"""
_MOVE, _BRING_BACK = _moving(_CHOSEN, back=False), _moving(_CHOSEN_BACK, back=True)


class Moved(NamedTuple):
    """How many rows of each kind moved."""

    orders: int = 0
    events: int = 0
    executions: int = 0
    requests: int = 0

    def plus(self, other: "Moved") -> "Moved":
        return Moved(*map(sum, zip(self, other, strict=True)))


def move(ids: Sequence[UUID], *, ended_before: datetime) -> Moved:
    """Move those of these orders to the archive that still are as `candidates` found them; the others stay.

    Their keys must have been kept, and no snapshot be older than that; and their partitions must have been made. Must
    not be called in a transaction. What cannot be moved is logged.
    """
    moved, stay = _each_that_can(_MOVE, ids, {"ended_before": ended_before})
    if stay:
        fields = {"event": "archive.not_moved", "orders": len(stay), "first_id": stay[0].id, "error": stay[0].why}
        logger.warning("Orders were not moved to the archive", extra=fields)
    return moved


def bring_back(ids: Sequence[UUID], *, quiet: bool = False) -> Moved:
    """Move those of these orders back that are in the archive: there is news of them.

    They stay in use until they have been without news for long enough again. What cannot be brought back is logged,
    unless `quiet`.
    """
    moved, stay = _each_that_can(_BRING_BACK, ids, {})
    if stay and not quiet:
        fields = {"event": "archive.not_brought_back", "orders": len(stay), "first_id": stay[0].id}
        logger.error(
            "Archived orders of which there is news were not brought back", extra={**fields, "error": stay[0].why}
        )
    return moved


class _Stays(NamedTuple):
    id: UUID
    why: str


def _each_that_can(statement: str, ids: Sequence[UUID], parameters: Mapping[str, Any]) -> tuple[Moved, list[_Stays]]:
    """Move these orders; where one of them keeps the others, only that one is left."""
    try:
        return _run(statement, {**parameters, "ids": list(ids)}), []
    except _NotMoved as why:
        if len(ids) == 1:
            return Moved(), [_Stays(ids[0], str(why))]
    half = len(ids) // 2
    (first, first_stay), (second, second_stay) = (
        _each_that_can(statement, part, parameters) for part in (ids[:half], ids[half:])
    )
    return first.plus(second), first_stay + second_stay


class _NotMoved(Exception):
    """Nothing was moved. The message says why."""


# Planning these statements takes as long as moving a hundred orders, and the plan is the same for any orders.
_AS_MOVER = "SELECT set_config('quiktrade.mover', %(mover)s, true), set_config('plan_cache_mode', %(plans)s, true)"


def _run(statement: str, parameters: dict[str, Any]) -> Moved:
    try:
        with transaction.atomic():
            fetch(_AS_MOVER, {"mover": "on", "plans": "force_generic_plan"})
            ((_, versions, *counts, months, noted),) = fetch(statement, parameters)
            taken, put = Moved(*counts[::2]), Moved(*counts[1::2])
            if months != noted:
                raise _NotMoved("Their month is being dropped.")
            if taken != put or versions != put.events:
                raise _NotMoved(f"Taken were {taken}, put {put}, and the orders have {versions} events.")
            fetch(_AS_MOVER, {"mover": "off", "plans": "auto"})
    except IntegrityError as error:  # a partition was dropped meanwhile, or another order took an execution's id
        raise _NotMoved(str(error).strip()) from error
    return put


# ---- Finding ----

_NAMED_BY_REPORTS = f"""
WITH r AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(reports)s::json) AS r (named uuid, original uuid, venue_order_id text)
)
SELECT DISTINCT found.id FROM r CROSS JOIN LATERAL (SELECT COALESCE(
    (SELECT id FROM {ORDER} WHERE id = r.named AND venue_id = %(venue)s),
    (SELECT id FROM {ORDER} WHERE id = r.original AND venue_id = %(venue)s),
    (SELECT order_id FROM {REQUEST} WHERE id = r.named AND venue_id = %(venue)s LIMIT 1),
    (SELECT order_id FROM {REQUEST} WHERE id = r.original AND venue_id = %(venue)s LIMIT 1),
    (SELECT (array_agg(id))[1] FROM {ORDER} WHERE venue_order_id = r.venue_order_id AND venue_order_id <> ''
        AND venue_id = %(venue)s HAVING count(*) = 1 AND NOT EXISTS (SELECT FROM orders_order o
            WHERE o.venue_order_id = r.venue_order_id AND o.venue_order_id <> '' AND o.venue_id = %(venue)s))) AS id
    OFFSET 0) found
WHERE found.id IS NOT NULL
"""


def named_by_reports(venue: str, reports: Sequence[Mapping[str, Any]]) -> list[UUID]:
    """The archived orders of a venue that reports are about. Which of its ids names an order is as in
    lifecycle.take_reported: a report that was about two orders before one of them was archived is about none."""
    given = orjson.dumps(reports, default=str).decode()
    return [id_ for (id_,) in fetch(_NAMED_BY_REPORTS, {"venue": venue, "reports": given})]


def known(ids: Sequence[UUID]) -> set[UUID]:
    """Which of these are ids of archived orders, or of requests about such."""
    rows = fetch(_KNOWN, {"ids": list(ids)})
    return {id_ for (id_,) in rows}


def known_at_venue(venue: str, venue_order_ids: Sequence[str]) -> set[str]:
    """Which of these are a venue's ids of archived orders."""
    return {id_ for (id_,) in fetch(_KNOWN_AT_VENUE, {"venue": venue, "ids": list(venue_order_ids)})}


_KNOWN_AT_VENUE = f"""SELECT DISTINCT venue_order_id FROM {ORDER}
WHERE venue_order_id = ANY(%(ids)s::text[]) AND venue_order_id <> '' AND venue_id = %(venue)s"""
_KNOWN = f"""SELECT id FROM {ORDER} WHERE id = ANY(%(ids)s::uuid[])
UNION ALL SELECT id FROM {REQUEST} WHERE id = ANY(%(ids)s::uuid[])"""
_ROWS: dict[type[models.Model], str] = {
    model: f"SELECT {', '.join(columns(model))} FROM {{}} WHERE {'id' if model is Order else 'order_id'} = ANY(%s)"
    for model in TABLES
}


def _rows(model: type[models.Model], ids: Sequence[UUID]) -> Iterator[Any]:
    """The rows of these orders wherever they are, read in one statement."""
    part = _ROWS[model]
    statement = f"{part.format(model._meta.db_table)} UNION ALL {part.format(TABLES[model])}"
    return iter(model._default_manager.raw(statement, [list(ids), list(ids)]))


def orders_anywhere(ids: Sequence[UUID]) -> dict[UUID, Order]:
    """These orders, wherever they are."""
    return {order.pk: order for order in _rows(Order, ids)} if ids else {}


def history(order_id: UUID) -> list[OrderEvent]:
    """All events of an order, wherever it is, in their sequence."""
    return sorted(_rows(OrderEvent, [order_id]), key=lambda event: event.sequence)


def requests_anywhere(order_id: UUID) -> list[OrderRequest]:
    """All requests about an order, wherever it is, the oldest first."""
    return sorted(_rows(OrderRequest, [order_id]), key=lambda request: request.pk)


def orders_by_key(owner_id: int, client_order_ids: Sequence[str], of: ClientKey.Of) -> dict[str, UUID]:
    """The ids of the orders whose own ids, or those of requests about them, were kept when they left."""
    kept = ClientKey.objects.filter(owner_id=owner_id, client_order_id__in=client_order_ids, of=of)
    return dict(kept.values_list("client_order_id", "order_id"))


_FOUND_BY_TEXT = f"""
SELECT o.id FROM {ORDER} o JOIN (
    SELECT k.order_id FROM orders_clientkey k WHERE k.client_order_id = %(text)s
        AND k.owner_id = ANY(ARRAY(SELECT id FROM auth_user)) LIMIT %(limit)s) k ON k.order_id = o.id
UNION SELECT id FROM (SELECT id FROM {ORDER} WHERE venue_order_id = %(text)s AND venue_order_id <> '' LIMIT %(limit)s) v
LIMIT %(limit)s
"""


def search(text: str, *, limit: int) -> list[Order]:
    """Archived orders by their id, the client's own id, or the venue's id."""
    text = storable(text.strip(), 64)
    try:
        ids = [UUID(text)]
    except ValueError:
        ids = []
    ids += [id_ for (id_,) in fetch(_FOUND_BY_TEXT, {"text": text, "limit": limit})] if text else []
    raw = Order.objects.raw(_ROWS[Order].format(ORDER), [ids])
    return sorted(raw, key=lambda order: order.pk, reverse=True)[:limit]
