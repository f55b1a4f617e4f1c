"""The rows of requests to cancel or replace orders at their venues. Nothing else writes them.

A request is sent like an order: it is claimed under a lease, sent outside any transaction, and what came of that is
recorded, with the attempt number as the fence. What it means for its order is an event of the order, written by
orders.lifecycle or orders.reports in the same transaction. The order's `open_cancel` and `open_replace` say which
request is not decided: `follow()` decides a request whose order names it no more, and releases one that waited.

A caller that changes orders and requests in one transaction locks the orders first. All clocks are the database's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from orders.archive import not_taken
from orders.archive_models import ClientKey
from orders.models import ASKED_ABOUT, OPEN, OrderRequest, RequestStatus
from quiktrade.database.statements import fetch
from quiktrade.texts import MAX_ACTOR, storable

CANCEL, REPLACE = OrderRequest.Kind.CANCEL, OrderRequest.Kind.REPLACE

ANSWER_SECONDS = 5.0
"""A request without an answer is looked up this long after it was first sent."""
LOOK_UP_LONGEST_SECONDS = 60.0
"""Later the time between two look-ups grows to this."""
UNANSWERED_SECONDS = 300.0
"""A request that is open for longer than this is shown to operators."""


def _listed(statuses: Iterable[str]) -> str:
    return ", ".join(f"'{RequestStatus(status).value}'" for status in statuses)


_OPEN, _ASKED_ABOUT = _listed(OPEN), _listed(ASKED_ABOUT)
_TERMS = ("quantity", "limit_price", "stop_price", "time_in_force", "expires_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The terms that a replace changes; None leaves a term as it is. `quantity` is the total, with what is filled."""

    quantity: int | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewTerms:
    """All the terms that a replace asks for."""

    quantity: int
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: str
    expires_at: datetime | None


class IdTaken(Exception):
    """The owner had a request by this `client_order_id`, about an order that is archived. Nothing was stored."""


# ---- Asking ----

_NOT_TAKEN = not_taken(ClientKey.Of.REQUEST, "o.owner_id", "%(client_order_id)s::text")
_STORE_CANCELS = f"""
INSERT INTO orders_orderrequest (id, order_id, owner_id, venue_id, kind, client_order_id, status, next_attempt_at,
    actor, reason)
SELECT o.open_cancel, o.id, o.owner_id, o.venue_id, 'cancel', %(client_order_id)s::text,
    CASE WHEN w.waits THEN 'waiting' ELSE 'pending' END, CASE WHEN NOT w.waits THEN statement_timestamp() END,
    %(actor)s::text, %(reason)s::text
FROM orders_order o, LATERAL (SELECT o.status IN ('submitting', 'unconfirmed') OR EXISTS (
    SELECT FROM orders_orderrequest r
    WHERE r.order_id = o.id AND r.kind = 'replace' AND r.status = 'submitting')) w (waits)
WHERE o.id = ANY(%(orders)s::uuid[]) AND {_NOT_TAKEN}
RETURNING id
"""
_STORE_REPLACE = f"""
INSERT INTO orders_orderrequest (id, order_id, owner_id, venue_id, kind, client_order_id, quantity, limit_price,
    stop_price, time_in_force, expires_at, status, next_attempt_at, actor, reason)
SELECT %(id)s::uuid, o.id, o.owner_id, o.venue_id, 'replace', %(client_order_id)s::text, %(quantity)s::bigint,
    %(limit_price)s::numeric, %(stop_price)s::numeric, COALESCE(%(time_in_force)s::text, ''),
    %(expires_at)s::timestamptz, 'pending', statement_timestamp(), %(actor)s::text, %(reason)s::text
FROM orders_order o WHERE o.id = %(order)s::uuid AND {_NOT_TAKEN}
RETURNING id
"""
# One that may have arrived is not given up, and not sent again either.
_SUPERSEDE = """
UPDATE orders_orderrequest q SET status = CASE WHEN q.in_doubt THEN 'unconfirmed' ELSE 'superseded' END,
    next_attempt_at = NULL, look_up_at = CASE WHEN q.in_doubt THEN statement_timestamp() END,
    resolved_at = CASE WHEN NOT q.in_doubt THEN statement_timestamp() END, updated_at = statement_timestamp()
FROM orders_order o
WHERE o.id = q.order_id AND q.order_id = ANY(%(orders)s::uuid[]) AND q.kind = 'replace' AND q.status = 'pending'
    AND o.open_cancel IS NOT NULL
RETURNING q.order_id, q.id, q.status
"""


def store_cancels(orders: Sequence[UUID], *, client_order_id: str = "", actor: str, reason: str) -> None:
    """Store the cancels that were asked for these orders, each under its order's `open_cancel`.

    Raises: IdTaken; django.db.IntegrityError, where the owner has another request by that `client_order_id`.
    """
    parameters = {"orders": list(orders), "client_order_id": client_order_id, **_by(actor, reason)}
    if not fetch(_STORE_CANCELS, parameters) and orders:
        raise IdTaken


def store_replace(
    request_id: UUID, order_id: UUID, changes: Changes, *, client_order_id: str, actor: str, reason: str
) -> None:
    """Raises: IdTaken; django.db.IntegrityError, where the owner has another request by that `client_order_id`."""
    asked = {name: getattr(changes, name) for name in _TERMS}
    parameters = {"id": request_id, "order": order_id, "client_order_id": client_order_id, **asked}
    if not fetch(_STORE_REPLACE, parameters | _by(actor, reason)):
        raise IdTaken


def _by(actor: str, reason: str) -> dict[str, str]:
    return {"actor": storable(actor, MAX_ACTOR), "reason": storable(reason)}


class Superseded(NamedTuple):
    order_id: UUID
    request_id: UUID


def supersede(orders: Sequence[UUID]) -> list[Superseded]:
    """Give up the replaces of these orders that no venue can have, and for which a cancel came first.

    The caller has their orders name them no more. One that may have arrived stays open, and is not sent again.
    """
    rows = fetch(_SUPERSEDE, {"orders": list(orders)})
    return [Superseded(order_id, request_id) for order_id, request_id, status in rows if status == "superseded"]


# ---- Following the orders ----


def _follow(chosen: str, locked: str = "") -> str:
    return f"""
UPDATE orders_orderrequest q SET status = n.status,
    next_attempt_at = CASE n.status WHEN 'pending' THEN statement_timestamp() END,
    look_up_at = NULL, lease_expires_at = NULL,
    resolved_at = CASE WHEN n.status <> 'pending' THEN statement_timestamp() END,
    last_error = CASE n.status WHEN 'refused' THEN COALESCE(%(said)s::json ->> q.id::text, q.last_error) ELSE '' END,
    updated_at = statement_timestamp()
FROM (
    SELECT q.id, CASE
        WHEN q.kind = 'cancel' THEN CASE WHEN o.open_cancel = q.id THEN 'pending'
            WHEN o.ended = 'canceled' OR o.status = 'canceled' THEN 'accepted'
            WHEN o.ended IN ('expired', 'rejected') OR o.status = 'rejected' THEN 'moot' ELSE 'refused' END
        WHEN o.current_id = q.id THEN 'accepted'
        WHEN o.ended IN ('canceled', 'expired', 'rejected') THEN 'moot' ELSE 'refused' END AS status
    FROM orders_orderrequest q JOIN orders_order o ON o.id = q.order_id
    WHERE {chosen} AND q.status IN ({_OPEN}) AND (
        q.id IS DISTINCT FROM CASE q.kind WHEN 'cancel' THEN o.open_cancel ELSE o.open_replace END
        OR (q.status = 'waiting' AND o.status NOT IN ('pending', 'submitting', 'unconfirmed')
            AND NOT EXISTS (SELECT FROM orders_orderrequest r
                WHERE r.order_id = o.id AND r.kind = 'replace' AND r.status = 'submitting')))
    ORDER BY q.id FOR NO KEY UPDATE OF q {locked}
) n WHERE q.id = n.id AND q.status IN ({_OPEN})
RETURNING q.id, q.order_id, q.kind, q.status
"""


_FOLLOW = _follow("q.order_id = ANY(%(orders)s::uuid[])")
_FOLLOW_ALL = _follow("true", "SKIP LOCKED")
_LOOK_UP_NOW = f"""
UPDATE orders_orderrequest SET look_up_at = LEAST(look_up_at, statement_timestamp())
WHERE order_id = ANY(%(orders)s::uuid[]) AND status IN ({_ASKED_ABOUT}) RETURNING id
"""


class Followed(NamedTuple):
    """A request that was decided, or released to be sent."""

    id: UUID
    order_id: UUID
    kind: str
    status: str


def follow(orders: Sequence[UUID] | None, *, said: Mapping[UUID, str] | None = None) -> list[Followed]:
    """Decide the requests that these orders name no more, and release those that waited for their orders.

    None follows all orders. `said` are the venue's words on requests that it refused. In the transaction that changed
    the orders.
    """
    texts = {"said": orjson.dumps({str(id_): storable(text) for id_, text in (said or {}).items()}).decode()}
    if orders is None:
        return [Followed._make(row) for row in fetch(_FOLLOW_ALL, texts)]
    return [Followed._make(row) for row in fetch(_FOLLOW, texts | {"orders": list(orders)})]


def look_up_now(orders: Sequence[UUID]) -> None:
    """Have the open requests of these orders looked up at once: nothing is left of the orders to cancel or replace."""
    fetch(_LOOK_UP_NOW, {"orders": list(orders)})


def look_up_with_others(ids: Sequence[UUID]) -> None:
    """Have the other open requests of the orders of these requests looked up at once."""
    fetch(_LOOK_UP_WITH_OTHERS, {"ids": list(ids)})


_LOOK_UP_WITH_OTHERS = f"""
UPDATE orders_orderrequest SET look_up_at = LEAST(look_up_at, statement_timestamp())
WHERE order_id IN (SELECT order_id FROM orders_orderrequest WHERE id = ANY(%(ids)s::uuid[]))
    AND status IN ({_ASKED_ABOUT}) RETURNING id
"""

# ---- Hearing refusals ----

_DOUBT = f"""
UPDATE orders_orderrequest q SET
    code = CASE WHEN n.believed OR n.looked_up THEN q.code ELSE n.code END,
    look_up_at = CASE WHEN NOT n.believed AND q.status IN ({_ASKED_ABOUT}) THEN statement_timestamp()
        ELSE q.look_up_at END
FROM (
    SELECT x.id, w.looked_up, w.code, CASE WHEN w.looked_up THEN x.attempt = w.attempt AND x.status <> 'submitting'
        ELSE NOT x.in_doubt AND x.attempt = COALESCE(w.attempt, x.attempt) END AS believed
    FROM json_to_recordset(%(heard)s::json) AS w (id uuid, attempt int, looked_up boolean, code text)
        JOIN orders_orderrequest x ON x.id = w.id
    WHERE x.status IN ({_OPEN}) ORDER BY x.id FOR NO KEY UPDATE OF x
) n WHERE q.id = n.id
RETURNING q.id, n.believed
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A venue's refusal of a request: the answer to `attempt`, or that of an attempt that is not known.

    `looked_up` says that it follows from a look-up instead, made when no attempt up to `attempt` could arrive any more.
    """

    id: UUID
    code: str
    attempt: int | None = None
    looked_up: bool = False


def doubt(heard: Sequence[Refusal]) -> set[UUID]:
    """The requests that these refusals do not decide: another attempt may have been done, or is under way.

    They are looked up. The caller must have locked their orders; the requests are locked, too.
    """
    given = [{**asdict(refusal), "code": storable(refusal.code)} for refusal in heard]
    rows = fetch(_DOUBT, {"heard": orjson.dumps(given, default=str).decode()})
    return {id_ for id_, believed in rows if not believed}


# ---- Sending ----

_ABSOLUTE = """jsonb_build_object('quantity', COALESCE(q.quantity, o.quantity),
        'limit_price', COALESCE(q.limit_price, o.limit_price)::text,
        'stop_price', COALESCE(q.stop_price, o.stop_price)::text,
        'time_in_force', COALESCE(NULLIF(q.time_in_force, ''), o.time_in_force),
        'expires_at', CASE COALESCE(NULLIF(q.time_in_force, ''), o.time_in_force)
            WHEN 'gtd' THEN COALESCE(q.expires_at, o.expires_at) END,
        'before', jsonb_build_object('quantity', o.quantity, 'limit_price', o.limit_price::text,
            'stop_price', o.stop_price::text, 'time_in_force', o.time_in_force, 'expires_at', o.expires_at))"""
# A subquery in place of the CTE would be run again for each row of a nested loop, and its limit would not hold.
_CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT r.id, r.order_id FROM orders_orderrequest r JOIN orders_order x ON x.id = r.order_id
    WHERE r.venue_id = %(venue)s AND r.kind = %(kind)s AND r.status = 'pending'
        AND r.next_attempt_at <= statement_timestamp() AND (r.kind = 'cancel' OR x.open_cancel IS NULL)
    ORDER BY r.next_attempt_at
    LIMIT GREATEST(0, LEAST(%(limit)s, %(in_flight)s
        - (SELECT count(*) FROM orders_order s WHERE s.venue_id = %(venue)s AND s.status = 'submitting')
        - (SELECT count(*) FROM orders_orderrequest s WHERE s.venue_id = %(venue)s AND s.status = 'submitting')))
    FOR NO KEY UPDATE OF r SKIP LOCKED
)
UPDATE orders_orderrequest q SET status = 'submitting', attempt = q.attempt + 1,
    lease_expires_at = statement_timestamp() + %(lease)s::float8 * interval '1 second', next_attempt_at = NULL,
    look_up_at = COALESCE(q.look_up_at, statement_timestamp() + {ANSWER_SECONDS} * interval '1 second'),
    original_id = COALESCE(q.original_id, o.current_id, o.id),
    terms = CASE q.kind WHEN 'replace' THEN COALESCE(q.terms, {_ABSOLUTE}) END,
    updated_at = statement_timestamp()
FROM due JOIN orders_order o ON o.id = due.order_id
WHERE q.id = due.id
RETURNING q.id, q.order_id, q.venue_id, q.kind, q.original_id, o.venue_order_id, q.attempt, q.failures, q.in_doubt,
    q.lease_expires_at, o.filled_quantity, q.kind = 'cancel' AND o.open_replace IS NOT NULL, q.terms, o.traceparent
"""


class ClaimedRequest(NamedTuple):
    """A request under a lease. Every attempt of it has the same ids and terms."""

    id: UUID
    order_id: UUID
    venue_id: str
    kind: str
    original_id: UUID
    venue_order_id: str
    attempt: int
    failures: int
    in_doubt: bool
    lease_expires_at: datetime
    filled: int
    """What of the order was executed, as far as we know."""
    replacing: bool
    """Whether it is a cancel, and a replace of the order is open: what came of that is to be known first."""
    terms: NewTerms | None
    traceparent: str | None = None
    """The context of the order."""


def claim(venue: str, kind: str, *, limit: int, in_flight: int, lease: float) -> list[ClaimedRequest]:
    """Take up to `limit` due requests of this kind for `lease` seconds, longest due first.

    At most `in_flight` requests and orders are under way afterwards. Commit before sending anything.
    """
    parameters = {"venue": venue, "kind": kind, "limit": limit, "in_flight": in_flight, "lease": lease}
    rows = fetch(_CLAIM, parameters)
    return [ClaimedRequest._make((*row[:-2], _new_terms(row[-2]), row[-1])) for row in rows]


def _new_terms(stored: Mapping[str, Any] | None) -> NewTerms | None:
    """Terms as PostgreSQL's JSON has them."""
    if stored is None:
        return None
    price = {name: None if stored[name] is None else Decimal(stored[name]) for name in ("limit_price", "stop_price")}
    until = stored["expires_at"]
    expires_at = None if until is None else datetime.fromisoformat(until)
    return NewTerms(quantity=stored["quantity"], time_in_force=stored["time_in_force"], expires_at=expires_at, **price)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Where a request goes after an attempt or a look-up.

    It applies only while the request has this attempt number, and is in one of the statuses `leaving`. Delays are in
    seconds from now: `delay` to the next attempt, `look_up` to the next look-up (None leaves that as it is), `settle`
    to when this attempt cannot arrive any more (None: it had an answer, or never left).
    """

    id: UUID
    attempt: int
    status: RequestStatus
    leaving: tuple[RequestStatus, ...] = (RequestStatus.SUBMITTING,)
    delay: float | None = None
    look_up: float | None = None
    settle: float | None = None
    in_doubt: bool = False
    failed: bool = False
    code: str = ""
    error: str = ""


_MOVE = f"""
UPDATE orders_orderrequest q SET status = w.status, failures = q.failures + w.failed::int,
    next_attempt_at = statement_timestamp() + w.delay * interval '1 second',
    look_up_at = CASE WHEN w.status NOT IN ({_OPEN}) THEN NULL WHEN w.look_up IS NULL THEN q.look_up_at
        ELSE statement_timestamp() + w.look_up * interval '1 second' END,
    settled_at = GREATEST(q.settled_at, statement_timestamp() + w.settle * interval '1 second'),
    in_doubt = q.in_doubt OR w.in_doubt, lease_expires_at = NULL, last_error = w.error,
    code = CASE WHEN w.code = '' THEN q.code ELSE w.code END,
    resolved_at = CASE WHEN w.status NOT IN ({_OPEN}) THEN statement_timestamp() END,
    updated_at = statement_timestamp()
FROM json_to_recordset(%(moves)s::json) AS w (id uuid, attempt int, status text, leaving text[], delay float8,
    look_up float8, settle float8, in_doubt boolean, failed boolean, code text, error text)
WHERE q.id = w.id AND q.attempt = w.attempt AND q.status = ANY(w.leaving)
RETURNING q.id, q.order_id, q.kind, q.status
"""


def move(moves: Sequence[Move]) -> list[Followed]:
    """Record where requests go. One that changed meanwhile is left alone, and is not returned."""
    rows = [
        {
            "id": each.id,
            "attempt": each.attempt,
            "status": each.status.value,
            "leaving": [status.value for status in each.leaving],
            "delay": each.delay,
            "look_up": each.look_up,
            "settle": each.settle,
            "in_doubt": each.in_doubt,
            "failed": each.failed,
            "code": storable(each.code),
            "error": storable(each.error),
        }
        for each in sorted(moves, key=lambda each: each.id)
    ]
    return [Followed._make(row) for row in fetch(_MOVE, {"moves": orjson.dumps(rows, default=str).decode()})]


_SWEEP = """
UPDATE orders_orderrequest q SET status = CASE q.kind WHEN 'cancel' THEN 'pending' ELSE 'unconfirmed' END,
    next_attempt_at = CASE q.kind WHEN 'cancel' THEN statement_timestamp() END,
    look_up_at = statement_timestamp()
        + CASE q.kind WHEN 'cancel' THEN 0 ELSE %(settle)s::float8 END * interval '1 second',
    settled_at = GREATEST(q.settled_at, statement_timestamp() + %(settle)s::float8 * interval '1 second'),
    in_doubt = true, lease_expires_at = NULL, last_error = 'lease_expired: The attempt ended without a result.',
    updated_at = statement_timestamp()
FROM (SELECT id FROM orders_orderrequest WHERE venue_id = %(venue)s AND status = 'submitting'
    AND lease_expires_at <= statement_timestamp() ORDER BY lease_expires_at LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED) due
WHERE q.id = due.id
RETURNING q.id, q.order_id, q.kind, q.status
"""


def sweep(venue: str, *, settle: float, limit: int) -> list[Followed]:
    """Take back requests whose lease ran out: a cancel is sent again, a replace looked up after `settle` seconds."""
    return [Followed._make(row) for row in fetch(_SWEEP, {"venue": venue, "settle": settle, "limit": limit})]


# ---- Looking up ----

# The wait grows with the age of the request, from 1 s to the longest. A replace has no answer before it has settled,
# but evidence counts at once, so it may be asked about earlier.
_CLAIM_LOOKUPS = f"""
WITH due AS MATERIALIZED (
    SELECT id, order_id FROM orders_orderrequest WHERE venue_id = %(venue)s AND status IN ({_ASKED_ABOUT})
        AND look_up_at <= statement_timestamp() ORDER BY look_up_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE orders_orderrequest q SET look_up_at = statement_timestamp() + GREATEST(%(seconds)s::float8,
    LEAST({LOOK_UP_LONGEST_SECONDS}, extract(epoch FROM statement_timestamp() - q.created_at) / 2))
    * interval '1 second'
FROM due JOIN orders_order o ON o.id = due.order_id
WHERE q.id = due.id
RETURNING q.id, q.order_id, o.venue_order_id, q.kind, q.attempt, q.status,
    q.settled_at > statement_timestamp() IS NOT TRUE, extract(epoch FROM statement_timestamp() - q.created_at)::float8,
    o.quantity, o.limit_price, o.stop_price, o.time_in_force, o.expires_at, q.code, q.terms, o.filled_quantity,
    o.open_cancel IS NOT NULL, q.kind = 'cancel' AND o.open_replace IS NOT NULL
"""


class RequestLookUp(NamedTuple):
    """A request to ask its venue about. `settled` says that no attempt of it can still arrive."""

    id: UUID
    order_id: UUID
    venue_order_id: str
    kind: str
    attempt: int
    status: str
    settled: bool
    age: float
    before: NewTerms
    """The order's terms at the first claim of a replace. They are stored with what it asks for."""
    code: str
    """Of the venue's refusal, if one was heard."""
    terms: NewTerms | None
    filled: int
    """What of the order is executed, as far as we know."""
    canceling: bool
    """Whether a cancel of the order is open."""
    replacing: bool
    """As in `ClaimedRequest`."""


def claim_lookups(venue: str, *, limit: int, seconds: float) -> list[RequestLookUp]:
    """Choose requests that are due to be looked up. The next look-up is delayed by `seconds` at least."""
    found = []
    for row in fetch(_CLAIM_LOOKUPS, {"venue": venue, "limit": limit, "seconds": seconds}):
        terms = row[14] or {}  # without what was before, where an earlier version of the program has claimed it
        before = _new_terms(terms.get("before")) or NewTerms(*row[8:13])
        found.append(RequestLookUp._make((*row[:8], before, row[13], _new_terms(row[14]), *row[15:])))
    return found


_POSTPONE = f"""
UPDATE orders_orderrequest q SET look_up_at = GREATEST(q.settled_at, statement_timestamp() + LEAST(
    {LOOK_UP_LONGEST_SECONDS}, GREATEST(1, extract(epoch FROM statement_timestamp() - q.created_at) / 2))
    * interval '1 second'), last_error = w.error
FROM json_to_recordset(%(given)s::json) AS w (id uuid, error text)
WHERE q.id = w.id AND q.status IN ({_ASKED_ABOUT}) RETURNING q.id
"""


def postpone(errors: Mapping[UUID, str]) -> None:
    """Look requests up again later, because nothing was decided: sooner while they are young."""
    rows = [{"id": id_, "error": storable(errors[id_])} for id_ in sorted(errors)]
    fetch(_POSTPONE, {"given": orjson.dumps(rows, default=str).decode()})


_PULL_BACK = f"""
UPDATE orders_orderrequest q SET
    next_attempt_at = CASE WHEN q.status = 'pending' THEN statement_timestamp() END,
    look_up_at = CASE WHEN q.status IN ({_ASKED_ABOUT})
        THEN statement_timestamp() + %(settle)s::float8 * interval '1 second' END,
    settled_at = CASE WHEN q.settled_at IS NOT NULL
        THEN statement_timestamp() + %(settle)s::float8 * interval '1 second' END,
    lease_expires_at = CASE WHEN q.status = 'submitting'
        THEN statement_timestamp() + %(lease)s::float8 * interval '1 second' END,
    created_at = LEAST(q.created_at, statement_timestamp()), updated_at = LEAST(q.updated_at, statement_timestamp())
FROM (SELECT id FROM orders_orderrequest WHERE venue_id = %(venue)s AND status IN ({_OPEN})
    AND GREATEST(next_attempt_at, look_up_at, settled_at, lease_expires_at)
        > statement_timestamp() + %(furthest)s::float8 * interval '1 second'
    LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED) ahead
WHERE q.id = ahead.id RETURNING q.id
"""


def pull_back(venue: str, *, furthest: float, settle: float, lease: float, limit: int) -> int:
    """Correct times that are further ahead than `furthest` seconds, as `lifecycle.pull_back` does of orders."""
    parameters = {"venue": venue, "furthest": furthest, "settle": settle, "lease": lease, "limit": limit}
    return len(fetch(_PULL_BACK, parameters))
