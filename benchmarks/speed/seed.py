"""Fills tables for measurements that do not measure the filling.

`python -m benchmarks.speed.seed ROWS` fills the product's tables in `DATABASE_URL`, which have been migrated.
"""

import os
import sys
from collections.abc import Callable
from decimal import Decimal

import django

INSTRUMENT = "US0378331005"
CHUNK = 200_000
BASE = 1_000
"""Orders of the measured client that are in every table, even in the one that counts as empty."""

_ORDERS = """
WITH new AS (
    SELECT n, %(now)s::timestamptz - (%(total)s - n) * interval '1 ms' AS at,
        n %% %(every)s = 0 AS open, CASE WHEN n %% 100 = 1 OR %(mine)s THEN %(owner)s ELSE %(others)s END AS owner
    FROM generate_series(%(first)s, %(last)s) AS n
), stored AS (
    INSERT INTO orders_order (id, owner_id, client_order_id, venue_id, instrument, side, type, quantity, limit_price,
        time_in_force, status, version, attempt, failures, next_attempt_at, in_doubt, venue_order_id, last_error,
        created_at, updated_at, placed_at)
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
            || '8' || substr(md5(n::text), 4, 15))::uuid,
        owner, 'seed-' || n, %(venue)s, %(instrument)s, 'buy', 'limit', 100, 187.5, 'day',
        CASE WHEN open THEN 'pending' ELSE 'placed' END, 1, CASE WHEN open THEN 0 ELSE 1 END, 0,
        CASE WHEN open THEN at END, false, CASE WHEN open THEN '' ELSE 'L-' || n END, '',
        at, at, CASE WHEN open THEN NULL ELSE at END
    FROM new RETURNING id, status, attempt, created_at
)
INSERT INTO orders_orderevent (order_id, sequence, event, from_status, to_status, attempt, actor, reason, detail, at)
SELECT id, 1, 'accepted', '', status, attempt, 'client:seed', '', '{}', created_at FROM stored
"""


def accept_orders(count: int, *, owner_id: int, venue: str) -> None:
    """Store due orders the way the product does, many at a time."""
    from orders import lifecycle
    from orders.models import new_order_id

    for first in range(0, count, 2_000):
        rows = [
            lifecycle.NewRow(
                actor="client:benchmark",
                id=(order_id := new_order_id()),
                owner_id=owner_id,
                client_order_id=str(order_id),
                venue_id=venue,
                instrument=INSTRUMENT,
                side="buy",
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


def fill(rows: int, tell: Callable[[int], None]) -> None:
    """Store `rows` orders of the past with one event each: 1 in 100 is open and due, 1 in 100 is the measured client's.
    Then store `BASE` orders of that client alone, of which 1 in 5 is open and due."""
    from django.contrib.auth import get_user_model
    from django.db import connection

    from exchanges import demo

    users = get_user_model().objects
    demo.load("http://127.0.0.1:1")
    owner, others = (users.get(username=name).pk for name in demo.CLIENTS)
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        (now,) = cursor.fetchone()
        same = {"now": now, "total": rows + BASE, "owner": owner, "others": others}
        same |= {"venue": demo.VENUE, "instrument": INSTRUMENT}
        for first in range(1, rows + 1, CHUNK):
            last = min(first + CHUNK - 1, rows)
            cursor.execute(_ORDERS, {**same, "first": first, "last": last, "every": 100, "mine": False})
            tell(last)
        cursor.execute(_ORDERS, {**same, "first": rows + 1, "last": rows + BASE, "every": 5, "mine": True})
        for table in ("orders_order", "orders_orderevent"):
            cursor.execute(f"VACUUM ANALYZE {table}")


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quiktrade.settings")
    django.setup()

    def tell(stored: int) -> None:
        sys.stdout.write(f"{stored}\n")
        sys.stdout.flush()

    fill(int(sys.argv[1]), tell)


if __name__ == "__main__":
    main()
