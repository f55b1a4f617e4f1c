"""The life of an order: one table, and the one statement that writes a status.

`accept()` stores new orders, `claim()` takes due ones for an attempt, `sweep()` gives up on attempts whose
lease ran out, `advance()` applies what became known or was asked for. The last three are one UPDATE with
three ways to choose its rows. It is conditional on the edge existing from the status the row has, and on the
attempt number where one is given, and inserts the events in the same statement: an order cannot move without
its history, nor the history without the order.

Orders that did not move come back as stale: someone was there first. The attempt number keeps a late
worker's *negative* answer from counting against a newer attempt; an acknowledgement carries no such fence,
because it is evidence whenever it arrives.

All clocks here are the database's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db import connection, models

from exchanges.venue import Terms
from orders.models import Status
from quiktrade.database.statements import fetch
from quiktrade.texts import MAX_ACTOR, storable

PENDING, SUBMITTING, UNCONFIRMED = Status.PENDING, Status.SUBMITTING, Status.UNCONFIRMED
PLACED, REJECTED, FAILED, CANCELED = Status.PLACED, Status.REJECTED, Status.FAILED, Status.CANCELED
EXPIRED = Status.EXPIRED


class Event(models.TextChoices):
    ACCEPTED = "accepted"
    CLAIMED = "claimed"
    ACKNOWLEDGED = "acknowledged"
    REJECTED_BY_VENUE = "rejected_by_venue"
    NOT_SENT = "not_sent"
    VENUE_UNREACHABLE = "venue_unreachable"
    TURNED_AWAY = "turned_away"
    OUTCOME_UNKNOWN = "outcome_unknown"
    NOT_FOUND = "not_found"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    REQUEUED = "requeued"
    CANCEL_REQUESTED = "cancel_requested"
    PLACE_BY_PASSED = "place_by_passed"
    RESEND_WINDOW_PASSED = "resend_window_passed"
    RESEND_GIVEN_UP = "resend_given_up"
    MARKED_PLACED = "marked_placed"
    MARKED_NOT_PLACED = "marked_not_placed"


# fmt: off
TRANSITIONS: dict[tuple[Status, Event], Status] = {
    (PENDING,     Event.CLAIMED):            SUBMITTING,   # committed before any byte is sent
    (SUBMITTING,  Event.ACKNOWLEDGED):       PLACED,
    (SUBMITTING,  Event.REJECTED_BY_VENUE):  REJECTED,
    (SUBMITTING,  Event.NOT_SENT):           PENDING,      # proved: back off, count the failure
    (SUBMITTING,  Event.VENUE_UNREACHABLE):  PENDING,      # proved, and no fault of the order: costs no attempt
    (SUBMITTING,  Event.TURNED_AWAY):        PENDING,      # likewise: the venue takes nothing from us now
    (SUBMITTING,  Event.OUTCOME_UNKNOWN):    UNCONFIRMED,  # also when the lease expired
    (UNCONFIRMED, Event.ACKNOWLEDGED):       PLACED,
    (UNCONFIRMED, Event.REJECTED_BY_VENUE):  REJECTED,
    (UNCONFIRMED, Event.NOT_SENT):           PENDING,      # late proof, of the very attempt that was in question
    (UNCONFIRMED, Event.VENUE_UNREACHABLE):  PENDING,      # likewise
    (UNCONFIRMED, Event.TURNED_AWAY):        PENDING,      # likewise
    (UNCONFIRMED, Event.NOT_FOUND):          PENDING,      # only where the venue's class makes a re-send safe
    (UNCONFIRMED, Event.MARKED_PLACED):      PLACED,       # an operator's statement, after asking the venue again
    (UNCONFIRMED, Event.MARKED_NOT_PLACED):  FAILED,       # likewise; the operator requeues or cancels next
    (PENDING,     Event.ATTEMPTS_EXHAUSTED): FAILED,       # never from a doubtful state, so a requeue is safe
    (PENDING,     Event.PLACE_BY_PASSED):    EXPIRED,      # never a late placement
    (PENDING,     Event.RESEND_WINDOW_PASSED): UNCONFIRMED,  # the venue would not know a re-send for what it is
    (PENDING,     Event.RESEND_GIVEN_UP):    UNCONFIRMED,  # in doubt, must not be sent again: parked; look-ups continue
    (PENDING,     Event.CANCEL_REQUESTED):   CANCELED,     # nothing was sent, or all of it proved not sent
    (FAILED,      Event.REQUEUED):           PENDING,
    (FAILED,      Event.CANCEL_REQUESTED):   CANCELED,
    (PENDING,     Event.ACKNOWLEDGED):       PLACED,       # a late answer is evidence and is never dropped
    (FAILED,      Event.ACKNOWLEDGED):       PLACED,       # likewise
    (CANCELED,    Event.ACKNOWLEDGED):       PLACED,       # likewise, where it ended here and not at the venue
    (EXPIRED,     Event.ACKNOWLEDGED):       PLACED,       # likewise
    (REJECTED,    Event.ACKNOWLEDGED):       PLACED,       # likewise
}
# fmt: on

LONGEST_DELAY_SECONDS = 86_400.0
"""No step delays an order for longer than this, whatever a venue or its settings say: errors end within a day."""

NOT_IN_DOUBT = (Event.CANCEL_REQUESTED, Event.ATTEMPTS_EXHAUSTED, Event.PLACE_BY_PASSED)
"""While an attempt of an order may still arrive, the order does not end by our decision (found by docs/model)."""


@dataclass(slots=True, kw_only=True)
class NewRow(Terms):
    """An order to store, complete and valid: what `accept()` inserts. `actor` names who submits it."""

    actor: str
    id: UUID
    owner_id: int
    client_order_id: str
    venue_id: str
    place_by: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One event for one order.

    `attempt` is the fence: the step applies only while the order is at that attempt; None applies at any.
    `delay` is seconds from now until the order is due again (pending: to be placed, unconfirmed: to be looked
    up); None means at once, and for unconfirmed also that it is parked for an operator.
    With `not_found`, `in_doubt` says that an earlier attempt may arrive all the same, and `resend_within` that
    the venue recognises a re-send only for this many seconds more.
    `reason` becomes the order's last error where the step did not end well.
    """

    order_id: UUID
    event: Event
    attempt: int | None = None
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    venue_order_id: str = ""
    delay: float | None = None
    in_doubt: bool = False
    resend_within: float | None = None


@dataclass(slots=True)
class MovedOrder(Terms):
    """An order after a step that changed it."""

    id: UUID
    event: str
    from_status: str
    status: str
    attempt: int
    failures: int
    version: int
    in_doubt: bool
    venue_id: str
    lease_expires_at: datetime | None
    client_order_id: str
    age_seconds: float
    """Seconds from the acceptance of the order to this step."""


class Advance(NamedTuple):
    moved: list[MovedOrder]
    stale: list[Step]


_TYPES = {"id": "uuid", "owner_id": "bigint", "quantity": "bigint", "limit_price": "numeric", "stop_price": "numeric"}
_TYPES |= {"expires_at": "timestamptz", "place_by": "timestamptz"}
"""Of the given columns; every other one is text."""
_GIVEN_COLUMNS = {column.name: _TYPES.get(column.name, "text") for column in fields(NewRow)}
_NEW_COLUMNS = [name for name in _GIVEN_COLUMNS if name != "actor"]
_given_values = attrgetter(*_GIVEN_COLUMNS)

# An order's time is taken when its transaction has its number, not when the statement came: whoever reads orders by
# time can tell from the numbers in use which times are still to be filled (selectors._ALL_THERE_BEFORE).
_NOW = "CASE WHEN pg_current_xact_id() IS NOT NULL THEN clock_timestamp() END"

_ONE_ROW = "SELECT {}, {} AS now".format(
    ", ".join(f"%({name})s::{kind} AS {name}" for name, kind in _GIVEN_COLUMNS.items()), _NOW
)
_MANY_ROWS = "SELECT r.*, (SELECT {}) AS now FROM json_to_recordset(%(rows)s::json) AS r ({})".format(
    _NOW, ", ".join(f"{name} {kind}" for name, kind in _GIVEN_COLUMNS.items())
)


def _store(source: str) -> str:
    """The statement that stores new orders with their first events. `source` yields the rows, with one time for all."""
    return f"""
WITH wanted AS ({source}), stored AS (
    INSERT INTO orders_order ({", ".join(_NEW_COLUMNS)}, status, version, attempt, failures, in_doubt, venue_order_id,
        last_error, next_attempt_at, created_at, updated_at)
    SELECT {", ".join(_NEW_COLUMNS)}, 'pending', 1, 0, 0, false, '', '', now, now, now FROM wanted
    ON CONFLICT (owner_id, client_order_id) DO NOTHING
    RETURNING id, created_at
), noted AS (
    INSERT INTO orders_orderevent
        (order_id, sequence, event, from_status, to_status, attempt, actor, reason, detail, at)
    SELECT id, 1, 'accepted', '', 'pending', 0, actor, '', '{{}}', created_at FROM stored JOIN wanted USING (id)
    RETURNING order_id, at
)
SELECT array_agg(order_id), at FROM noted GROUP BY at
"""


_ACCEPT_ONE, _ACCEPT_MANY = _store(_ONE_ROW), _store(_MANY_ROWS)

# Locked in the order of their ids, so that two writers of overlapping batches wait instead of deadlocking.
_GIVEN = """
    SELECT w.* FROM json_to_recordset(%(steps)s::json) AS w (order_id uuid, event text, attempt int, reason text,
        detail jsonb, venue_order_id text, delay float8, in_doubt boolean, resend_within float8)
    JOIN orders_order x ON x.id = w.order_id ORDER BY x.id FOR NO KEY UPDATE OF x
"""

_DUE = """
    SELECT x.id AS order_id, 'claimed' AS event, NULL::int AS attempt, '' AS reason, '{}'::jsonb AS detail,
        '' AS venue_order_id, %(lease)s::float8 AS delay, false AS in_doubt, NULL::float8 AS resend_within
    FROM orders_order x
    WHERE x.venue_id = %(venue)s AND x.status = 'pending' AND x.next_attempt_at <= statement_timestamp()
      AND (x.place_by IS NULL OR x.place_by > statement_timestamp())
      AND (x.resend_before IS NULL OR x.resend_before > statement_timestamp())
    ORDER BY x.next_attempt_at
    LIMIT GREATEST(0, LEAST(%(limit)s, %(in_flight)s - (SELECT count(*) FROM orders_order s
        WHERE s.venue_id = %(venue)s AND s.status = 'submitting')))
    FOR NO KEY UPDATE OF x SKIP LOCKED
"""

_LEASE_RAN_OUT = """
    SELECT x.id AS order_id, 'outcome_unknown' AS event, x.attempt, %(reason)s::text AS reason,
        '{"code": "lease_expired"}'::jsonb AS detail, '' AS venue_order_id, %(delay)s::float8 AS delay,
        false AS in_doubt, NULL::float8 AS resend_within
    FROM orders_order x
    WHERE x.venue_id = %(venue)s AND x.status = 'submitting' AND x.lease_expires_at <= statement_timestamp()
    ORDER BY x.lease_expires_at LIMIT %(limit)s FOR NO KEY UPDATE OF x SKIP LOCKED
"""

_OVERTAKEN = """
    SELECT x.id AS order_id,
        CASE WHEN x.place_by > statement_timestamp() IS NOT FALSE THEN 'resend_window_passed'
            WHEN x.in_doubt THEN 'resend_given_up' ELSE 'place_by_passed' END AS event,
        NULL::int AS attempt,
        CASE WHEN x.place_by > statement_timestamp() IS NOT FALSE THEN
                'The venue would not recognise a re-send any more.'
            WHEN x.in_doubt THEN 'Its place_by passed: it is not sent again. It was sent without an answer before,'
                ' and may be at the venue.'
            ELSE 'Its place_by passed before it could be sent.' END AS reason,
        '{}'::jsonb AS detail, '' AS venue_order_id,
        CASE WHEN x.place_by > statement_timestamp() IS NOT FALSE THEN 0::float8 END AS delay,
        false AS in_doubt, NULL::float8 AS resend_within
    FROM orders_order x
    WHERE x.status = 'pending' AND (x.place_by IS NOT NULL OR x.resend_before IS NOT NULL)
      AND LEAST(x.place_by, x.resend_before) <= statement_timestamp()
    LIMIT %(limit)s FOR NO KEY UPDATE OF x SKIP LOCKED
"""


def _edges() -> str:
    return ", ".join(f"('{event}', '{before}', '{after}')" for (before, event), after in TRANSITIONS.items())


_MOVED = {"from_status": "before", "age_seconds": "extract(epoch FROM updated_at - created_at)::float8"}
_MOVED_COLUMNS = ", ".join(_MOVED.get(column.name, column.name) for column in fields(MovedOrder))


def _move(selection: str) -> str:
    """The only statement that writes a status. `selection` yields one row for each order to move: order_id,
    event, attempt, reason, detail, venue_order_id, delay, in_doubt, resend_within; the meanings are those of `Step`."""
    return f"""
WITH wanted AS ({selection}), edge (event, before, after) AS (VALUES {_edges()}), moved AS (
    UPDATE orders_order o SET
        status = edge.after,
        version = o.version + 1,
        attempt = o.attempt + CASE WHEN edge.event = 'claimed' THEN 1 ELSE 0 END,
        failures = CASE edge.event WHEN 'not_sent' THEN o.failures + 1 WHEN 'requeued' THEN 0 ELSE o.failures END,
        lease_expires_at = CASE WHEN edge.after = 'submitting'
            THEN statement_timestamp() + wanted.delay * interval '1 second' END,
        next_attempt_at = CASE WHEN edge.after IN ('pending', 'unconfirmed')
            THEN statement_timestamp() + COALESCE(wanted.delay, 0) * interval '1 second' END,
        parked_at = CASE WHEN edge.after = 'unconfirmed' AND wanted.delay IS NULL THEN statement_timestamp() END,
        in_doubt = (o.in_doubt OR wanted.in_doubt) AND edge.event <> 'marked_not_placed',
        resend_before = CASE WHEN edge.event <> 'marked_not_placed' THEN COALESCE(o.resend_before,
            statement_timestamp() + wanted.resend_within * interval '1 second') END,
        venue_order_id = CASE WHEN wanted.venue_order_id = '' THEN o.venue_order_id ELSE wanted.venue_order_id END,
        last_error = CASE WHEN edge.after IN ('submitting', 'failed') THEN o.last_error
            WHEN edge.event IN ('acknowledged', 'requeued', 'cancel_requested') THEN '' ELSE wanted.reason END,
        placed_at = CASE WHEN edge.after = 'placed' THEN statement_timestamp() ELSE o.placed_at END,
        updated_at = statement_timestamp()
    FROM wanted JOIN edge USING (event)
    WHERE o.id = wanted.order_id AND o.status = edge.before
      AND (wanted.attempt IS NULL OR wanted.attempt = o.attempt)
      AND NOT (o.in_doubt AND edge.event = ANY(%(not_in_doubt)s::text[]))
      AND (edge.before NOT IN ('canceled', 'expired', 'rejected') OR o.venue_order_id = '')
    RETURNING o.*, edge.event, edge.before, wanted.reason, wanted.detail
), logged AS (
    INSERT INTO orders_orderevent
        (order_id, sequence, event, from_status, to_status, attempt, actor, reason, detail, at)
    SELECT id, version, event, before, status, attempt, %(actor)s, reason, detail, updated_at FROM moved
)
SELECT {_MOVED_COLUMNS} FROM moved
"""


_ADVANCE, _CLAIM, _SWEEP, _OVERTAKE = map(_move, (_GIVEN, _DUE, _LEASE_RAN_OUT, _OVERTAKEN))


def accept(rows: Sequence[NewRow]) -> dict[UUID, datetime]:
    """Store new orders as pending, each with its first event, in one statement.

    Returns the ids that were stored, with the time of storing. An id is missing if its owner already has an order with
    that `client_order_id`; nothing was written for it.
    """
    if len(rows) == 1:
        stored = fetch(_ACCEPT_ONE, _as_given(rows[0]))
    else:
        # Sorted by their key, so that two statements with the same orders wait for each other and do not deadlock.
        ordered = sorted(rows, key=lambda row: (row.owner_id, row.client_order_id))
        stored = fetch(_ACCEPT_MANY, {"rows": _document([_as_given(row) for row in ordered])})
    return {id_: at for ids, at in stored for id_ in ids}


def _as_given(row: NewRow) -> dict[str, Any]:
    return dict(zip(_GIVEN_COLUMNS, _given_values(row), strict=True))


def _document(rows: Sequence[Mapping[str, Any]]) -> str:
    """Encode rows for json_to_recordset(). Decimals become strings, so that they stay exact."""
    return orjson.dumps(rows, default=str).decode()


def claim(venue: str, *, limit: int, in_flight: int, lease: float, actor: str) -> list[MovedOrder]:
    """Take up to `limit` due orders of a venue for `lease` seconds, longest due first.

    At most `in_flight` are in flight afterwards, if claims for a venue follow one another. Two callers never
    get the same order. Commit before sending anything. Whether the venue may be sent to at all is for the caller
    to ask (exchanges.circuit).
    """
    limits = {"limit": limit, "in_flight": in_flight, "lease": _bounded(lease)}
    return _run(_CLAIM, {"venue": venue, **limits, "actor": actor})


def sweep(venue: str, *, delay: float | None, limit: int, actor: str) -> list[MovedOrder]:
    """Make up to `limit` orders with an expired lease unconfirmed; they are looked up in `delay` seconds."""
    reason = "The attempt ended without a result: its lease ran out."
    return _run(_SWEEP, {"venue": venue, "delay": _bounded(delay), "limit": limit, "reason": reason, "actor": actor})


def overtake(*, limit: int, actor: str) -> list[MovedOrder]:
    """Take up to `limit` pending orders whose time is over out of the queue: they expire, or are looked up."""
    return _run(_OVERTAKE, {"limit": limit, "actor": actor})


def advance(steps: Iterable[Step], *, actor: str) -> Advance:
    """Apply steps, at most one for each order, in one statement.

    An order that changed while the statement waited for its row is tried once more, as it stands now.
    """
    left = {step.order_id: step for step in steps}
    moved: list[MovedOrder] = []
    for _ in range(2):
        if not left:
            break
        now_moved = _run(_ADVANCE, {"steps": _document([_as_row(step) for step in left.values()]), "actor": actor})
        moved += now_moved
        for order in now_moved:
            del left[order.id]
    return Advance(moved, list(left.values()))


def _as_row(step: Step) -> dict[str, Any]:
    # A venue's window for a re-send may be longer than this: a look-up before it closes does no harm.
    return {name: getattr(step, name) for name in Step.__slots__} | {
        "reason": storable(step.reason),
        "delay": _bounded(step.delay),
        "resend_within": _bounded(step.resend_within),
    }


def _bounded(seconds: float | None) -> float | None:
    """Limit a delay, so that no useless time is written and none that Python cannot read. NaN becomes 0."""
    return None if seconds is None else min(max(0.0, seconds), LONGEST_DELAY_SECONDS)


def _run(statement: str, parameters: dict[str, Any]) -> list[MovedOrder]:
    parameters["actor"] = storable(parameters["actor"], MAX_ACTOR)
    in_doubt = {"not_in_doubt": [event.value for event in NOT_IN_DOUBT]}
    return [MovedOrder(*row) for row in fetch(statement, {**parameters, **in_doubt})]


PARKED_FIRST_SECONDS = 60.0
PARKED_LONGEST_SECONDS = 3600.0
"""The time between look-ups of a parked order doubles each time, within these bounds. So an operator who decides late
finds a recent answer of the venue, and the venue is not asked too often."""

_UNTIL_ASKED_AGAIN = f"""LEAST({PARKED_LONGEST_SECONDS}, GREATEST({PARKED_FIRST_SECONDS},
    extract(epoch FROM statement_timestamp() - o.parked_at))) * interval '1 second'"""


def _claim_lookups(parked: str, wait: str) -> str:
    return f"""
UPDATE orders_order o SET next_attempt_at = statement_timestamp() + {wait}
FROM (SELECT id FROM orders_order WHERE venue_id = %(venue)s AND status = 'unconfirmed' AND parked_at {parked}
      AND next_attempt_at <= statement_timestamp() ORDER BY next_attempt_at LIMIT %(limit)s
      FOR NO KEY UPDATE SKIP LOCKED) due
WHERE o.id = due.id RETURNING o.id, o.attempt, o.parked_at IS NOT NULL
"""


_CLAIM_LOOKUPS = _claim_lookups("IS NULL", "%(seconds)s * interval '1 second'")
_CLAIM_PARKED_LOOKUPS = _claim_lookups("IS NOT NULL", _UNTIL_ASKED_AGAIN)


class LookUp(NamedTuple):
    """An unconfirmed order to ask its venue about. What is found out says nothing about a newer attempt."""

    order_id: UUID
    attempt: int
    parked: bool


def claim_lookups(venue: str, *, limit: int, seconds: float) -> list[LookUp]:
    """Choose unconfirmed orders that are due to be looked up, those that are parked last.

    The next look-up is delayed by `seconds`, and that of a parked order by its own longer time. No status changes, so
    no event is written.
    """
    found: list[LookUp] = []
    with connection.cursor() as cursor:
        for statement in (_CLAIM_LOOKUPS, _CLAIM_PARKED_LOOKUPS):
            if len(found) < limit:
                left = limit - len(found)
                cursor.execute(statement, {"venue": venue, "limit": left, "seconds": _bounded(seconds)})
                found += map(LookUp._make, cursor.fetchall())
    return found


_GIVEN_ATTEMPTS = """
FROM unnest(%(ids)s::uuid[], %(attempts)s::int[]) AS w (id, attempt)
WHERE o.id = w.id AND o.attempt = w.attempt AND o.status = 'unconfirmed'
"""
_PARK = f"""
UPDATE orders_order o SET parked_at = COALESCE(o.parked_at, statement_timestamp()), last_error = %(error)s,
    next_attempt_at = statement_timestamp() + {_UNTIL_ASKED_AGAIN}
{_GIVEN_ATTEMPTS}
"""
_POSTPONE = f"""
UPDATE orders_order o SET next_attempt_at = statement_timestamp() + %(seconds)s * interval '1 second',
    last_error = %(error)s
{_GIVEN_ATTEMPTS} AND o.parked_at IS NULL
"""


def park(orders: Sequence[LookUp], *, error: str) -> None:
    """Leave unconfirmed orders to an operator. After this, a look-up moves them only if it finds evidence."""
    _put_off(_PARK, orders, error=error)


def postpone(orders: Sequence[LookUp], *, seconds: float, error: str) -> None:
    """Look unconfirmed orders up again in `seconds`; the venue gave no answer this time. Parked ones are left alone."""
    _put_off(_POSTPONE, orders, error=error, seconds=_bounded(seconds))


def _put_off(statement: str, orders: Sequence[LookUp], *, error: str, **values: float | None) -> None:
    ids, attempts = [order.order_id for order in orders], [order.attempt for order in orders]
    with connection.cursor() as cursor:
        cursor.execute(statement, {"ids": ids, "attempts": attempts, "error": storable(error), **values})


def _ahead(column: str, bound: str, condition: str) -> str:
    return f"""SELECT * FROM (SELECT id FROM orders_order WHERE venue_id = %(venue)s AND {condition}
        AND {column} > statement_timestamp() + {bound} * interval '1 second'
        LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED) found"""


def _not_ahead(column: str) -> str:
    """The column's value, or the present time if that is earlier. LEAST would turn a NULL into a time."""
    return f"CASE WHEN o.{column} > statement_timestamp() THEN statement_timestamp() ELSE o.{column} END"


_OPEN_QUESTION = "NOT %(stamped)s AND status"
_PULL_BACK = f"""
UPDATE orders_order o SET
    next_attempt_at = CASE o.status WHEN 'pending' THEN statement_timestamp()
        WHEN 'unconfirmed' THEN statement_timestamp() + %(settle)s * interval '1 second' END,
    lease_expires_at = CASE o.status WHEN 'submitting'
        THEN statement_timestamp() + %(lease)s * interval '1 second' END,
    resend_before = {_not_ahead("resend_before")},
    parked_at = {_not_ahead("parked_at")},
    updated_at = {_not_ahead("updated_at")}
FROM (
    {_ahead("next_attempt_at", "%(furthest)s", "status = 'pending'")} UNION ALL
    {_ahead("next_attempt_at", "%(furthest)s", f"{_OPEN_QUESTION} = 'unconfirmed' AND parked_at IS NULL")} UNION ALL
    {_ahead("next_attempt_at", "%(furthest_parked)s", f"{_OPEN_QUESTION} = 'unconfirmed' AND parked_at IS NOT NULL")}
    UNION ALL
    {_ahead("lease_expires_at", "%(furthest)s", f"{_OPEN_QUESTION} = 'submitting'")}
) ahead WHERE o.id = ahead.id
"""


def pull_back(venue: str, *, furthest: float, settle: float, lease: float, stamped: bool, limit: int) -> int:
    """Correct times that are further ahead than the longest delay. Returns how many orders had one.

    They were written while the database's clock was ahead. `furthest` is the longest delay, in seconds, of an
    order of this venue. A pending order is due at once, an unconfirmed one after `settle` seconds, and an attempt keeps
    a whole `lease`: it may have begun just now. A venue that checks the time in a request (`stamped`) accepts the
    request until that time, so such an order stays unconfirmed until then. It is no longer known how much of a window
    for re-sends is left, so the window counts as over.
    """
    bounds = {"furthest": furthest, "furthest_parked": furthest + PARKED_LONGEST_SECONDS}
    with connection.cursor() as cursor:
        cursor.execute(
            _PULL_BACK,
            {"venue": venue, "settle": settle, "lease": lease, "stamped": stamped, "limit": limit, **bounds},
        )
        return int(cursor.rowcount)
