"""Gauges of orders and venues, read from rows when Prometheus asks.

Each statement reads partial indexes on what is open alone and counts to a limit, so it costs the same however many
orders there are.
"""

from prometheus_client import Metric

from orders.webhooks.rows import OLDEST_UNSENT
from quiktrade.database import replica
from quiktrade.metrics.gauges import COUNTED_TO, gauge, read

_VENUES = """
SELECT v.code, v.halted_at IS NOT NULL, h.retry_at IS NOT NULL, COALESCE(h.silences, 0),
    (SELECT count(*) FROM (SELECT FROM orders_order o
        WHERE o.venue_id = v.code AND o.status = 'pending' LIMIT %(limit)s) w),
    GREATEST(0, (SELECT extract(epoch FROM statement_timestamp() - min(o.next_attempt_at))
        FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'pending'))::float8,
    (SELECT count(*) FROM (SELECT FROM orders_order o
        WHERE o.venue_id = v.code AND o.status = 'submitting' LIMIT %(limit)s) s),
    GREATEST(0, (SELECT extract(epoch FROM statement_timestamp() - min(o.lease_expires_at))
        FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'submitting'))::float8,
    (SELECT GREATEST(0, extract(epoch FROM statement_timestamp() - r.lease_expires_at))::float8
        FROM exchanges_reportsession r WHERE r.venue_id = v.code ORDER BY r.lease_expires_at DESC LIMIT 1),
    (SELECT count(*) FROM (SELECT FROM exchanges_unmatchedreport u
        WHERE u.venue_id = v.code LIMIT %(limit)s) k)
FROM exchanges_venue v LEFT JOIN exchanges_venuehealth h ON h.venue_id = v.code ORDER BY v.code
"""
# GREATEST leaves NULL out: without an order the time is 0. Without a session there is no row, and no value.
# An order in doubt is looked up again and again, so `next_attempt_at` does not say since when it is; its place in the
# index by its status does not either. Its `updated_at` is read from at most this many rows.
_ATTENTION = """
SELECT (SELECT count(*) FROM (SELECT FROM orders_order WHERE status = 'failed' LIMIT %(limit)s) f),
    (SELECT count(*) FROM (SELECT FROM orders_order
        WHERE status = 'unconfirmed' AND parked_at IS NOT NULL LIMIT %(limit)s) p),
    (SELECT count(*) FROM (SELECT FROM orders_order
        WHERE status = 'unconfirmed' AND parked_at IS NULL LIMIT %(limit)s) u),
    GREATEST(0, (SELECT extract(epoch FROM statement_timestamp() - min(u.updated_at)) FROM (SELECT updated_at
        FROM orders_order WHERE status = 'unconfirmed' AND parked_at IS NULL LIMIT %(most)s) u))::float8,
    (SELECT count(*) FROM (SELECT FROM orders_orderrequest
        WHERE status IN ('waiting', 'pending', 'submitting', 'sent', 'unconfirmed') LIMIT %(limit)s) q),
    GREATEST(0, (SELECT extract(epoch FROM statement_timestamp() - min(created_at)) FROM orders_orderrequest
        WHERE status IN ('waiting', 'pending', 'submitting', 'sent', 'unconfirmed')))::float8
"""
MOST_READ = 1_000

# Events below the horizon can be told of, and it waits for the oldest transaction that has written (orders.feed). One
# that was prepared belongs to no session.
_TOLD = f"""
SELECT GREATEST(0,
        (SELECT extract(epoch FROM max(clock_timestamp() - xact_start)) FROM pg_stat_activity
            WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()),
        (SELECT extract(epoch FROM max(clock_timestamp() - prepared)) FROM pg_prepared_xacts))::float8,
    (SELECT count(*) FROM (SELECT FROM orders_webhookdelivery WHERE status IN ('pending', 'sending')
        LIMIT %(limit)s) d),
    GREATEST(0, ({OLDEST_UNSENT}))::float8,
    s.delivering, s.failing, s.disabled
FROM (SELECT count(*) FILTER (WHERE disabled_at IS NULL AND failures = 0) AS delivering,
        count(*) FILTER (WHERE disabled_at IS NULL AND failures > 0) AS failing,
        count(*) FILTER (WHERE disabled_at IS NOT NULL) AS disabled
    FROM (SELECT disabled_at, failures FROM orders_webhookendpoint WHERE deleted_at IS NULL LIMIT %(limit)s) w) s
"""


def venues() -> list[Metric]:
    rows = replica.read(lambda: read(_VENUES, limit=COUNTED_TO))
    per_venue = (
        ("venue_halted", "Whether operators have halted the venue."),
        ("venue_circuit_open", "Whether the venue is silent, paused or refuses our credentials."),
        ("venue_silences", "Requests without an answer since the venue's last answer."),
        ("orders_pending", "Orders that wait to be sent, counted to 10,000."),
        ("orders_oldest_due_seconds", "How long the order has been due that has been due for longest."),
        ("orders_submitting", "Orders claimed by an attempt, counted to 10,000."),
        ("lease_overdue_seconds", "How long the lease has been over that should have been swept first."),
        ("reports_unread_seconds", "How long nobody has read the venue's reports. Absent without a session ever."),
        ("reports_unmatched", "Reports of the venue that were kept for operators, counted to 10,000."),
    )
    return [
        gauge(name, text, [((row[0],), row[column]) for row in rows], "venue")
        for column, (name, text) in enumerate(per_venue, 1)
    ]


def attention() -> list[Metric]:
    failed, parked, unconfirmed, oldest, requests, oldest_request = replica.read(
        lambda: read(_ATTENTION, limit=COUNTED_TO, most=MOST_READ)
    )[0]
    return [
        gauge("orders_failed", "Orders that were given up, counted to 10,000.", [((), failed)]),
        gauge("orders_parked", "Orders that wait for an operator's word, counted to 10,000.", [((), parked)]),
        gauge("orders_unconfirmed", "Orders in doubt that are looked up, counted to 10,000.", [((), unconfirmed)]),
        gauge("unconfirmed_oldest_seconds", "Age of the longest doubt among 1,000 orders.", [((), oldest)]),
        gauge("requests_open", "Cancels and replaces without an answer, counted to 10,000.", [((), requests)]),
        gauge("requests_oldest_seconds", "Age of the oldest of them.", [((), oldest_request)]),
    ]


def told() -> list[Metric]:
    horizon, deliveries, oldest, *endpoints = read(_TOLD, limit=COUNTED_TO)[0]
    states = zip(("delivering", "failing", "disabled"), endpoints, strict=True)
    return [
        gauge(
            "stream_horizon_age_seconds",
            "Age of the oldest transaction that has written: streams and webhooks tell of nothing later.",
            [((), horizon)],
        ),
        gauge(
            "webhook_deliveries_open", "Deliveries that wait or are under way, counted to 10,000.", [((), deliveries)]
        ),
        gauge(
            "webhook_oldest_due_seconds",
            "How long the message has been due that has been due for longest, among 1,000 webhooks that neither fail "
            "nor are slow.",
            [((), oldest)],
        ),
        gauge(
            "webhooks",
            "Webhooks by how they stand (delivering, failing, disabled), among 10,000.",
            [((state,), count) for state, count in states],
            "state",
        ),
    ]
