"""7: reading one order, and the page of the newest 50, against the inline stack doing the same."""

from benchmarks.speed import seed
from benchmarks.speed.session import SINGLE, Session
from exchanges import demo

ORDERS = 5_000

_INLINE = """
INSERT INTO orders (id, client_order_id, type, side, instrument, quantity, limit_price, time_in_force, status,
    venue_order_id, last_error, created_at, updated_at)
SELECT gen_random_uuid(), 'read-' || n, 'limit', 'buy', 'US0378331005', 100, 187.5, 'day', 'placed', 'V-' || n, '',
    statement_timestamp() + n * interval '1 ms', statement_timestamp() FROM generate_series(1, %s) AS n
"""


def measure(session: Session) -> None:
    stage = session.stage
    stage.forget_orders()
    seed.accept_orders(ORDERS, owner_id=stage.client_id, venue=demo.VENUE)
    with stage.web() as web, stage.inline("instant") as inline:
        with stage.connect(database="inline") as database:
            database.execute("TRUNCATE orders")
            database.execute(_INLINE, [ORDERS])
            theirs = [row[0] for row in database.execute("SELECT id FROM orders ORDER BY random()").fetchall()]
        with stage.connect() as database:
            for table in ("orders_order", "orders_orderevent"):
                database.execute(f"VACUUM ANALYZE {table}")
            ours = [row[0] for row in database.execute("SELECT id FROM orders_order ORDER BY random()").fetchall()]
        headers = stage.headers(web)
        found = session.interleave(
            {
                "one order": lambda seconds: session.load(
                    web, paths=[f"{SINGLE}/{pk}" for pk in ours], headers=headers, seconds=seconds
                ),
                "one order, inline stack": lambda seconds: session.load(
                    inline, paths=[f"/orders/{pk}" for pk in theirs], seconds=seconds
                ),
                "page of 50": lambda seconds: session.load(
                    web, paths=[f"{SINGLE}?limit=50"], headers=headers, seconds=seconds
                ),
                "page of 50, inline stack": lambda seconds: session.load(
                    inline, paths=["/orders?limit=50"], seconds=seconds
                ),
            }
        )
    for what, target in (("one order", 0.9), ("page of 50", 1.0)):
        session.measure(
            f"reading {what}", "reads/s", [answers.rate for answers in found[what]],
            against="inline stack", reference=[answers.rate for answers in found[f"{what}, inline stack"]],
            target=target,
        )  # fmt: skip
    for name, answers in found.items():
        session.cost(name if "inline" in name else f"{name}, QuikTrade", answers)
