"""The statements that move deliveries. All clocks here are the database's.

An endpoint's cursor is moved and its deliveries are made in one statement, and only over events below the snapshot's
horizon: what another transaction commits later is never behind a cursor (orders.feed).
"""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db import connection

from orders.webhooks.verdicts import Answer, Verdict
from quiktrade.database.statements import fetch
from quiktrade.texts import storable

SYSTEM = "system:webhooks"

AT_ONCE = 4
"""Deliveries under way to one endpoint."""
FAILING_AFTER = 3
"""An endpoint with this many failures after each other is sent one delivery at a time, with a pause after each."""
LONGEST_PAUSE = 300
"""The pause doubles from 5 seconds up to this many. So a receiver that is back is found at the latest after that."""
LEASE_SECONDS = 25.0
"""An attempt without a result for this long is made again. It is longer than an attempt takes, which is 15 s at most,
and its recording. While a worker that died holds an endpoint's places, nothing else is sent there."""

ENDPOINTS_AT_ONCE, EVENTS_AT_ONCE = 50, 200
"""One statement moves this many cursors over this many events each, those first that are furthest behind."""

DISABLED_AFTER = "5 days"
DELIVERED_KEPT, DEAD_KEPT = "7 days", "30 days"
DISABLED_KEPT = "30 days"
"""What waits for a webhook that was disabled for so long is dead: its orders could not be archived."""
REMOVED_AT_ONCE = 1_000

_ACTIVE = "w.disabled_at IS NULL AND w.deleted_at IS NULL"
_OPEN = "IN ('pending', 'sending')"

_HORIZON = "(SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint)"
"""Every event with a stamp below it is committed and visible to this statement, and no more of them will come."""

# Written so that only the index that begins with the owner is of use (see orders.feed). Without the sequence PostgreSQL
# may look for a single one in the whole table.
_NEW_EVENTS = f"""FROM orders_orderevent e
    WHERE (e.owner_id, e.stamp, e.id) > (w.owner_id, w.cursor_stamp, w.cursor_id)
        AND (e.owner_id, e.stamp) < (w.owner_id, {_HORIZON})
    ORDER BY e.owner_id, e.stamp, e.id"""

_FAN_OUT = f"""
WITH behind AS (
    SELECT w.id, w.owner_id, w.event_types, w.cursor_stamp, w.cursor_id FROM orders_webhookendpoint w
    WHERE {_ACTIVE} AND (SELECT e.id {_NEW_EVENTS} LIMIT 1) IS NOT NULL
    ORDER BY w.cursor_stamp, w.cursor_id LIMIT {ENDPOINTS_AT_ONCE} FOR NO KEY UPDATE SKIP LOCKED
), found AS (
    SELECT w.id AS endpoint_id, w.event_types, e.stamp, e.id, e.event FROM behind w CROSS JOIN LATERAL (
        SELECT e.stamp, e.id, e.event {_NEW_EVENTS} LIMIT {EVENTS_AT_ONCE}) e
), moved AS (
    UPDATE orders_webhookendpoint w SET cursor_stamp = last.stamp, cursor_id = last.id
    FROM (SELECT DISTINCT ON (endpoint_id) endpoint_id, stamp, id FROM found
        ORDER BY endpoint_id, stamp DESC, id DESC) last
    WHERE w.id = last.endpoint_id
), made AS (
    INSERT INTO orders_webhookdelivery (endpoint_id, event_id, status, attempt, failures, last_text)
    SELECT endpoint_id, id, 'pending', 0, 0, '' FROM found
    WHERE event_types = '{{}}' OR 'order.' || event = ANY(event_types)
    ON CONFLICT (endpoint_id, event_id) DO NOTHING RETURNING id
)
SELECT (SELECT count(*) FROM found), (SELECT count(*) FROM made)
"""


class FannedOut(NamedTuple):
    events: int
    deliveries: int


def fan_out() -> FannedOut:
    """Move cursors over new events and make their deliveries. Call it again until there are no events."""
    ((events, deliveries),) = fetch(_FAN_OUT, {})
    return FannedOut(events, deliveries)


_SECONDS_UNTIL_DUE = f"""
SELECT extract(epoch FROM min(due.at) - statement_timestamp())::float8
FROM orders_webhookendpoint w CROSS JOIN LATERAL (
    (SELECT GREATEST(d.due_at, w.paused_until) AS at FROM orders_webhookdelivery d
        WHERE d.endpoint_id = w.id AND d.status {_OPEN} ORDER BY d.due_at LIMIT 1)
    UNION ALL (SELECT statement_timestamp() {_NEW_EVENTS} LIMIT 1)) due
WHERE {_ACTIVE}
"""


OLDEST_UNSENT = f"""SELECT extract(epoch FROM statement_timestamp() - min(due.at))
    FROM (SELECT * FROM orders_webhookendpoint w
        WHERE {_ACTIVE} AND NOT w.slow AND w.failures = 0 LIMIT 1000) w CROSS JOIN LATERAL (
        (SELECT GREATEST(d.due_at, w.paused_until) AS at FROM orders_webhookdelivery d
            WHERE d.endpoint_id = w.id AND d.status {_OPEN} ORDER BY d.due_at LIMIT 1)
        UNION ALL (SELECT e.at {_NEW_EVENTS} LIMIT 1)) due"""
"""For how many seconds that has been due which has been due for longest, among the messages of 1,000 endpoints whose
receivers are not the reason."""


def seconds_until_due() -> float | None:
    """Seconds until there is something to deliver; at most 0 when it is due now, None where nothing waits."""
    ((seconds,),) = fetch(_SECONDS_UNTIL_DUE, {})
    return None if seconds is None else float(seconds)


# A receiver that is slow or fails competes only with its like for `troubled` places: it takes none from the others.
_CLAIM = f"""
WITH candidate AS (
    SELECT d.id, d.due_at, w.slow OR w.failures > 0 AS troubled FROM orders_webhookendpoint w CROSS JOIN LATERAL (
        SELECT x.id, x.due_at FROM orders_webhookdelivery x
        WHERE x.endpoint_id = w.id AND x.status {_OPEN} AND x.due_at <= statement_timestamp()
        ORDER BY x.due_at LIMIT GREATEST(0, CASE WHEN w.failures >= {FAILING_AFTER} THEN 1 ELSE {AT_ONCE} END
            - (SELECT count(*) FROM orders_webhookdelivery s WHERE s.endpoint_id = w.id AND s.status = 'sending'
                AND s.due_at > statement_timestamp()))) d
    WHERE {_ACTIVE} AND (w.paused_until IS NULL OR w.paused_until <= statement_timestamp())
), chosen AS (
    (SELECT id FROM candidate WHERE NOT troubled ORDER BY due_at LIMIT %(places)s)
    UNION ALL (SELECT id FROM candidate WHERE troubled ORDER BY due_at LIMIT %(troubled)s)
), locked AS (
    SELECT x.id FROM orders_webhookdelivery x WHERE x.id = ANY(ARRAY(SELECT id FROM chosen))
        AND x.status {_OPEN} AND x.due_at <= statement_timestamp() FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE orders_webhookdelivery d SET status = 'sending', attempt = d.attempt + 1,
    due_at = statement_timestamp() + %(lease)s::float8 * interval '1 second'
FROM locked, orders_webhookendpoint w WHERE d.id = locked.id AND w.id = d.endpoint_id
RETURNING d.id, d.endpoint_id, d.event_id, d.created_at, d.attempt, d.failures, w.url, w.slow OR w.failures > 0,
    w.secret, CASE WHEN w.old_secret_until > statement_timestamp() THEN w.old_secret ELSE '' END
"""


class Claimed(NamedTuple):
    """A delivery that one attempt holds under its lease. It has secrets in it: never log it."""

    id: int
    endpoint_id: UUID
    event_id: int | None
    created_at: datetime
    attempt: int
    failures: int
    url: str
    troubled: bool
    secret: str
    old_secret: str

    @property
    def secrets(self) -> list[str]:
        return [secret for secret in (self.secret, self.old_secret) if secret]

    @property
    def message_id(self) -> str:
        return f"test_{self.id}" if self.event_id is None else f"evt_{self.event_id}"

    def __repr__(self) -> str:
        return f"<delivery {self.id} attempt {self.attempt}>"


def claim(*, places: int, troubled: int) -> list[Claimed]:
    """Take due deliveries for one attempt each; `troubled` of them at most for endpoints that are slow or fail."""
    parameters = {"places": places, "troubled": troubled, "lease": LEASE_SECONDS}
    return [Claimed._make(row) for row in fetch(_CLAIM, parameters)]


_CONTEXTS = """
SELECT e.id, o.id, o.traceparent FROM orders_orderevent e JOIN orders_order o ON o.id = e.order_id
WHERE e.id = ANY(%(ids)s::bigint[]) AND o.traceparent IS NOT NULL
"""


class Context(NamedTuple):
    """The order of an event, and the context in which it was submitted."""

    order_id: UUID
    traceparent: str


def contexts(event_ids: Sequence[int]) -> dict[int, Context]:
    """Those of events whose orders are traced."""
    return {id_: Context(*context) for id_, *context in fetch(_CONTEXTS, {"ids": list(event_ids)})}


class Result(NamedTuple):
    delivery: Claimed
    answer: Answer
    verdict: Verdict


# The endpoints are locked in one order, so that two writers wait instead of deadlocking. An endpoint that does well is
# written once a minute.
_RECORD = f"""
WITH result AS (
    SELECT * FROM json_to_recordset(%(results)s::json) AS r (id bigint, endpoint_id uuid, attempt int, code int,
        text text, latency_ms int, delivered boolean, delay float8, pause float8, counted boolean, gone boolean,
        slow boolean)
), kept AS (
    UPDATE orders_webhookdelivery d SET
        status = CASE WHEN r.delivered THEN 'delivered' WHEN r.delay IS NULL THEN 'dead' ELSE 'pending' END,
        failures = d.failures + CASE WHEN r.counted AND NOT r.delivered THEN 1 ELSE 0 END,
        due_at = statement_timestamp() + COALESCE(r.delay, 0) * interval '1 second',
        ended_at = CASE WHEN r.delivered OR r.delay IS NULL THEN statement_timestamp() END,
        last_code = r.code, last_text = r.text, latency_ms = r.latency_ms
    FROM result r WHERE d.id = ANY(ARRAY(SELECT id FROM result)) AND d.id = r.id AND d.attempt = r.attempt
        AND d.status = 'sending'
    RETURNING r.*, d.status
), told AS (
    SELECT endpoint_id AS id, bool_or(delivered) AS well, count(*) FILTER (WHERE counted AND NOT delivered) AS failed,
        max(pause) AS pause, bool_or(gone) AS gone, bool_or(slow) AS slow,
        max(COALESCE('HTTP ' || code || ': ', '') || text) FILTER (WHERE counted AND NOT delivered) AS error
    FROM kept GROUP BY endpoint_id
), locked AS (
    SELECT w.* FROM orders_webhookendpoint w WHERE w.id IN (SELECT id FROM told) ORDER BY w.id FOR NO KEY UPDATE
), outlook AS (
    SELECT t.*, CASE WHEN t.well THEN 0 ELSE l.failures + t.failed END AS failures,
        CASE WHEN l.disabled_at IS NOT NULL OR t.failed = 0 THEN '' WHEN t.gone THEN 'The receiver answered 410 Gone.'
            WHEN NOT t.well AND l.failing_since <= statement_timestamp() - interval '{DISABLED_AFTER}'
            THEN 'Nothing was delivered for {DISABLED_AFTER}.' ELSE '' END AS ends
    FROM told t JOIN locked l USING (id)
), noted AS (
    UPDATE orders_webhookendpoint w SET
        failures = o.failures,
        failing_since = CASE WHEN o.failures > 0 THEN COALESCE(w.failing_since, statement_timestamp()) END,
        slow = o.slow,
        paused_until = statement_timestamp() + interval '1 second' * NULLIF(GREATEST(o.pause, CASE
            WHEN o.failures >= {FAILING_AFTER}
            THEN LEAST({LONGEST_PAUSE}, 5 * 2 ^ (LEAST(o.failures, 20) - {FAILING_AFTER})) END), 0),
        last_success_at = CASE WHEN o.well THEN statement_timestamp() ELSE w.last_success_at END,
        last_error = COALESCE(left(o.error, 500), w.last_error),
        disabled_at = CASE WHEN o.ends <> '' THEN statement_timestamp() ELSE w.disabled_at END,
        disabled_by = CASE WHEN o.ends <> '' THEN '{SYSTEM}' ELSE w.disabled_by END,
        disabled_reason = CASE WHEN o.ends <> '' THEN o.ends ELSE w.disabled_reason END
    FROM outlook o WHERE w.id = o.id
        AND (w.failures > 0 OR o.failed > 0 OR w.slow <> o.slow OR o.pause > 0 OR w.paused_until IS NOT NULL
            OR w.last_success_at IS NULL OR w.last_success_at < statement_timestamp() - interval '1 minute')
)
SELECT (SELECT count(*) FROM kept), (SELECT array_agg(DISTINCT endpoint_id) FROM kept WHERE status = 'dead'),
    (SELECT json_agg(json_build_array(id, ends)) FROM outlook WHERE ends <> '')
"""


class Recorded(NamedTuple):
    kept: int
    dead: list[UUID]
    """The endpoints for which a delivery was given up."""
    disabled: list[tuple[str, str]]
    """The endpoints that were disabled by this, and why."""


def record(results: Sequence[Result]) -> Recorded:
    """Write what came of attempts. A result that is too late, because another attempt was begun, changes nothing."""
    rows = [
        {
            **result.verdict._asdict(),
            "id": result.delivery.id,
            "endpoint_id": result.delivery.endpoint_id,
            "attempt": result.delivery.attempt,
            "code": result.answer.code,
            "text": storable(result.answer.text),
            "latency_ms": round(result.answer.seconds * 1000),
        }
        for result in results
    ]
    ((kept, dead, disabled),) = fetch(_RECORD, {"results": orjson.dumps(rows).decode()})
    return Recorded(kept, dead or [], [tuple(each) for each in disabled or []])


# The orders are locked, so that none of them is archived before its deliveries are there and keep it.
_REPLAY = """
WITH wanted AS MATERIALIZED (
    SELECT e.id, e.order_id, e.at FROM orders_orderevent e
    WHERE e.owner_id = %(owner)s AND e.at >= %(from_)s AND e.at < %(to)s
        AND (%(event_types)s::text[] = '{}' OR 'order.' || e.event = ANY(%(event_types)s::text[]))
    ORDER BY e.at, e.id LIMIT %(limit)s
), kept AS MATERIALIZED (
    SELECT o.id FROM orders_order o WHERE o.id = ANY(ARRAY(SELECT order_id FROM wanted)) FOR KEY SHARE
), made AS (
    INSERT INTO orders_webhookdelivery AS d (endpoint_id, event_id, status, attempt, failures, last_text)
    SELECT %(endpoint)s, id, 'pending', 0, 0, '' FROM wanted WHERE order_id IN (SELECT id FROM kept)
    ON CONFLICT (endpoint_id, event_id) DO UPDATE
        SET status = 'pending', failures = 0, due_at = statement_timestamp(), ended_at = NULL
        WHERE d.status IN ('delivered', 'dead')
)
SELECT count(*) FILTER (WHERE order_id IN (SELECT id FROM kept)), CASE WHEN count(*) = %(limit)s THEN max(at) END
FROM wanted
"""


class Replayed(NamedTuple):
    events: int
    next_from: datetime | None
    """The time of the last event, if there may be more."""


def replay(
    endpoint: UUID, owner_id: int, event_types: Sequence[str], from_: datetime, to: datetime, *, limit: int
) -> Replayed:
    """Make the first `limit` events of a time due for an endpoint, whether it had them before or not."""
    parameters: dict[str, Any] = {
        "endpoint": endpoint,
        "owner": owner_id,
        "event_types": list(event_types),
        "from_": from_,
        "to": to,
    }
    with connection.cursor() as cursor:  # planned for these times: for others another index may be the better one
        cursor.execute(_REPLAY, {**parameters, "limit": limit})
        return Replayed(*cursor.fetchone())


_RESEND = """
UPDATE orders_webhookdelivery SET status = 'pending', failures = 0, due_at = statement_timestamp(), ended_at = NULL
WHERE id = ANY(%(ids)s) AND status IN ('delivered', 'dead') RETURNING id
"""


def resend(ids: Sequence[int]) -> list[int]:
    """Make deliveries that are over due again. Returns those that were."""
    return [id_ for (id_,) in fetch(_RESEND, {"ids": list(ids)})]


def remove(ids: Sequence[int]) -> None:
    """Remove deliveries of which nothing can be sent any more."""
    fetch("DELETE FROM orders_webhookdelivery WHERE id = ANY(%(ids)s) RETURNING id", {"ids": list(ids)})


_REMOVE_OLD = f"""
DELETE FROM orders_webhookdelivery WHERE id = ANY(ARRAY(
    (SELECT id FROM orders_webhookdelivery WHERE status = 'delivered' AND ended_at IS NOT NULL
        AND ended_at < statement_timestamp() - interval '{DELIVERED_KEPT}' LIMIT {REMOVED_AT_ONCE})
    UNION ALL (SELECT id FROM orders_webhookdelivery WHERE status = 'dead' AND ended_at IS NOT NULL
        AND ended_at < statement_timestamp() - interval '{DEAD_KEPT}' LIMIT {REMOVED_AT_ONCE})
    UNION ALL (SELECT d.id FROM orders_webhookendpoint w JOIN orders_webhookdelivery d ON d.endpoint_id = w.id
        WHERE w.deleted_at IS NOT NULL LIMIT {REMOVED_AT_ONCE}))) RETURNING id
"""
_GIVE_UP = f"""
UPDATE orders_webhookdelivery SET status = 'dead', ended_at = statement_timestamp(),
    last_text = 'The webhook was disabled for {DISABLED_KEPT}.'
WHERE status {_OPEN} AND id = ANY(ARRAY(
    SELECT d.id FROM orders_webhookendpoint w JOIN orders_webhookdelivery d ON d.endpoint_id = w.id
    WHERE w.disabled_at < statement_timestamp() - interval '{DISABLED_KEPT}' AND w.deleted_at IS NULL
        AND d.status {_OPEN} LIMIT {REMOVED_AT_ONCE})) RETURNING id
"""
_REMOVE_DELETED = """
DELETE FROM orders_webhookendpoint w WHERE w.deleted_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM orders_webhookdelivery d WHERE d.endpoint_id = w.id) RETURNING w.id
"""


def remove_old(*, seconds: float) -> int:
    """Remove deliveries that are long over, and those of deleted endpoints, for so long. Returns how many.

    What has waited for a webhook that was disabled for long is made dead, a part at each call.
    """
    removed, end = 0, time.monotonic() + seconds
    fetch(_GIVE_UP, {})
    while count := len(fetch(_REMOVE_OLD, {})):
        removed += count
        if time.monotonic() >= end:
            return removed
    fetch(_REMOVE_DELETED, {})
    return removed
