"""Fills tables for measurements that do not measure the filling.

`python -m benchmarks.speed.seed ROWS` fills the product's tables in `DATABASE_URL`, which have been migrated.
"""

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

import django

INSTRUMENT = "US0378331005"
CHUNK = 2_000
"""Orders of one transaction, so that their events have one stamp."""
AT_ONCE = 2
TOLD = 50
"""Every so many chunks it is told how many orders are stored."""
BASE = 1_000
"""Orders of the measured client that are in every table, even in the one that counts as empty."""
CLIENTS = 500
INSTRUMENTS = 50
TABLES = ("orders_order", "orders_orderevent", "orders_execution")

# An order, its events in their sequence, and its execution. What differs between orders follows from a hash of their
# number.
_ORDERS = """
WITH new AS (
    SELECT n, %(now)s::timestamptz - (%(total)s - n) * interval '1 ms' AS at,
        CASE WHEN n %% %(every)s = 0 THEN 'pending' WHEN hash %% 4 < 2 THEN 'filled' WHEN hash %% 4 = 2 THEN 'placed'
            ELSE 'rejected' END AS status,
        'US' || lpad((hash / 4 %% %(instruments)s)::text, 10, '0') AS instrument,
        CASE WHEN n %% 100 = 1 OR %(mine)s THEN %(owner)s
            ELSE (%(others)s::int[])[1 + hash / 1000 %% cardinality(%(others)s::int[])] END AS owner
    FROM generate_series(%(first)s::int, %(last)s::int) AS n, LATERAL (SELECT hashint4(n) & 2147483647) h (hash)
), stored AS (
    INSERT INTO orders_order (id, owner_id, client_order_id, venue_id, instrument, side, type, quantity, limit_price,
        time_in_force, status, version, attempt, failures, next_attempt_at, in_doubt, venue_order_id, last_error,
        created_at, updated_at, placed_at, filled_quantity, filled_value, venue_sequence, stamp)
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
            || '8' || substr(md5(n::text), 4, 15))::uuid,
        owner, 'seed-' || n, %(venue)s, instrument, 'buy', 'limit', 100, 187.5, 'day', status,
        CASE status WHEN 'pending' THEN 1 ELSE 3 END, CASE status WHEN 'pending' THEN 0 ELSE 1 END, 0,
        CASE status WHEN 'pending' THEN at END, false,
        CASE WHEN status IN ('placed', 'filled') THEN 'L-' || n ELSE '' END,
        CASE status WHEN 'rejected' THEN 'instrument_not_tradable' ELSE '' END,
        at, at, CASE WHEN status IN ('placed', 'filled') THEN at END,
        CASE status WHEN 'filled' THEN 100 ELSE 0 END, CASE status WHEN 'filled' THEN 18750 ELSE 0 END,
        CASE status WHEN 'filled' THEN n ELSE 0 END, pg_current_xact_id()::text::bigint
    FROM new RETURNING id, owner_id, instrument, status, attempt, created_at, venue_sequence, stamp
), logged AS (
    INSERT INTO orders_orderevent (order_id, sequence, event, from_status, to_status, attempt, actor, reason, detail,
        at, owner_id, stamp)
    SELECT id, sequence, event, from_status, to_status, CASE sequence WHEN 1 THEN 0 ELSE attempt END, actor, reason,
        detail, created_at, owner_id, stamp
    FROM stored, LATERAL (VALUES
        (1, 'accepted', '', 'pending', 'client:seed', '', '{}'::jsonb),
        (2, 'claimed', 'pending', 'submitting', 'system:placement', '', '{}'),
        (3, CASE status WHEN 'filled' THEN 'executed' WHEN 'rejected' THEN 'rejected_by_venue' ELSE 'acknowledged' END,
            'submitting', status, CASE status WHEN 'filled' THEN 'venue:' || %(venue)s ELSE 'system:placement' END,
            CASE status WHEN 'rejected' THEN 'instrument_not_tradable' ELSE '' END,
            CASE status WHEN 'filled' THEN jsonb_build_object('stream', 'seed', 'sequence', venue_sequence,
                    'execution_id', 'seed-e' || venue_sequence, 'quantity', 100, 'price', '187.5',
                    'filled_quantity', 100, 'leaves_quantity', 0)
                ELSE '{"latency_ms": 2.5}' END)
        ) e (sequence, event, from_status, to_status, actor, reason, detail)
    WHERE sequence = 1 OR status <> 'pending'
    ORDER BY sequence, id
)
INSERT INTO orders_execution (venue_id, execution_id, kind, refers_to, order_id, owner_id, instrument, side, quantity,
    price, venue_sequence, executed_at, recorded_at)
SELECT %(venue)s, 'seed-e' || venue_sequence, 'executed', '', id, owner_id, instrument, 'buy', 100, 187.5,
    venue_sequence, created_at, created_at
FROM stored WHERE status = 'filled' ORDER BY id
"""
_POSITIONS = """
INSERT INTO orders_position (owner_id, venue_id, instrument, bought_quantity, bought_value, sold_quantity, sold_value,
    realized, version)
SELECT owner_id, venue_id, instrument, sum(quantity), sum(quantity * price), 0, 0, 0, count(*)
FROM orders_execution GROUP BY owner_id, venue_id, instrument
"""
_INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index i
WHERE indrelid = ANY(%s::regclass[]) AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)
"""


def accept_orders(count: int, *, owner_id: int, venue: str, side: str = "buy") -> list[UUID]:
    """Store due orders the way the product does, many at a time. Returns their ids."""
    from orders import lifecycle
    from orders.models import new_order_id

    ids = []
    for first in range(0, count, 2_000):
        rows = [
            lifecycle.NewRow(
                actor="client:benchmark",
                id=(order_id := new_order_id()),
                owner_id=owner_id,
                client_order_id=str(order_id),
                venue_id=venue,
                instrument=INSTRUMENT,
                side=side,
                type="limit",
                quantity=100,
                limit_price=Decimal("187.50"),
                stop_price=None,
                time_in_force="day",
                expires_at=None,
                place_by=None,
            )
            for _ in range(first, min(first + 2_000, count))
        ]
        lifecycle.accept(rows)
        ids += [row.id for row in rows]
    return ids


def fill(rows: int, tell: Callable[[int], None]) -> None:
    """Store `rows` orders of the past with three events each: 1 in 100 is pending, with one event, and due; of the
    others half are filled by one execution, a quarter work at the venue, and a quarter were rejected. 1 in 100 is the
    measured client's, and the rest are those of 499 others.

    Then store `BASE` orders of that client alone, of which 1 in 5 is pending and due.
    """
    from django.contrib.auth import get_user_model
    from django.db import connection

    from exchanges import demo

    model = get_user_model()
    demo.load("http://127.0.0.1:1")
    model.objects.bulk_create([model(username=f"seed-{n}") for n in range(CLIENTS - len(demo.CLIENTS))])
    owner = model.objects.get(username=demo.CLIENTS[0]).pk
    clients = model.objects.filter(is_staff=False).exclude(pk=owner)
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        (now,) = cursor.fetchone()
    same = {"now": now, "total": rows + BASE, "owner": owner, "others": list(clients.values_list("pk", flat=True))}
    same |= {"venue": demo.VENUE, "instruments": INSTRUMENTS}

    def store(first: int) -> int:
        last = min(first + CHUNK - 1, rows)
        with connection.cursor() as cursor:
            _do_not_wait(cursor)
            cursor.execute(_ORDERS, {**same, "first": first, "last": last, "every": 100, "mine": False})
        return last

    with connection.cursor() as cursor, _without_indexes(cursor):
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for chunk, last in enumerate(threads.map(store, range(1, rows + 1, CHUNK)), start=1):
                if chunk % TOLD == 0 or last == rows:
                    tell(last)
        cursor.execute(_ORDERS, {**same, "first": rows + 1, "last": rows + BASE, "every": 5, "mine": True})
        cursor.execute(_POSITIONS)
    with connection.cursor() as cursor:
        for table in (*TABLES, "orders_position"):
            cursor.execute(f"VACUUM ANALYZE {table}")


def _do_not_wait(cursor: Any) -> None:
    """Have this connection wait for no disk, and, if it is a superuser's, check no foreign keys."""
    cursor.execute("SET synchronous_commit = off")
    cursor.execute("SELECT current_setting('is_superuser') = 'on'")
    if cursor.fetchone() == (True,):
        cursor.execute("SET session_replication_role = replica")


@contextmanager
def _without_indexes(cursor: Any) -> Iterator[None]:
    """Drop the indexes of the large tables, but those of constraints, and make them again at the end."""
    cursor.execute(_INDEXES, [list(TABLES)])
    indexes = cursor.fetchall()
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}")
    yield
    cursor.execute("SET maintenance_work_mem = '512MB'")
    for _, definition in indexes:
        cursor.execute(definition)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quiktrade.settings")
    django.setup()

    def tell(stored: int) -> None:
        sys.stdout.write(f"{stored}\n")
        sys.stdout.flush()

    fill(int(sys.argv[1]), tell)


if __name__ == "__main__":
    main()
