"""The life of an order: one table, and the statements that write a status.

`accept()` stores new orders, `claim()` takes due ones for an attempt, `sweep()` gives up on attempts whose
lease ran out, `advance()` applies what became known or was asked for. The last three are one UPDATE with
three ways to choose its rows. `take_reported()` and `put_reported()` stand around the fold of what a venue reports
(orders.reports). Every UPDATE is conditional on the edge existing from the status the row has, and on the
attempt number where one is given, and inserts the events in the same statement: an order cannot move without
its history, nor the history without the order.

Orders that did not move come back as stale: someone was there first. The attempt number keeps a late
worker's *negative* answer from counting against a newer attempt; an acknowledgement carries no such fence,
because it is evidence whenever it arrives.

All clocks here are the database's. Whatever writes events rings for those who follow them (orders.feed).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from itertools import product
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.conf import settings
from django.db import connection, models

from exchanges.venue import Terms
from orders.archive import not_taken
from orders.archive_models import ClientKey
from orders.models import AT_VENUE, Status
from quiktrade.database.statements import fetch
from quiktrade.jobs import doorbell
from quiktrade.texts import MAX_ACTOR, storable

PENDING, SUBMITTING, UNCONFIRMED = Status.PENDING, Status.SUBMITTING, Status.UNCONFIRMED
PLACED, REJECTED, FAILED, CANCELED = Status.PLACED, Status.REJECTED, Status.FAILED, Status.CANCELED
EXPIRED, PENDING_CANCEL, PENDING_REPLACE = Status.EXPIRED, Status.PENDING_CANCEL, Status.PENDING_REPLACE
STANDING = "standing"
"""No status: an edge that leads here leads to the status that follows from what is known of the order at its venue
(orders.facts.standing)."""


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
    CANCEL_ASKED = "cancel_asked"
    CANCEL_WITHDRAWN = "cancel_withdrawn"
    REPLACE_ASKED = "replace_asked"
    REPLACE_WITHDRAWN = "replace_withdrawn"
    EXECUTED = "executed"
    EXECUTION_BUSTED = "execution_busted"
    EXECUTION_CORRECTED = "execution_corrected"
    CANCELED_AT_VENUE = "canceled_at_venue"
    EXPIRED_AT_VENUE = "expired_at_venue"
    DONE_FOR_DAY_AT_VENUE = "done_for_day_at_venue"
    RESTATED = "restated"
    REPLACED = "replaced"
    CANCEL_REFUSED = "cancel_refused"
    REPLACE_REFUSED = "replace_refused"


# fmt: off
TRANSITIONS: dict[tuple[Status, Event], str] = {
    (PENDING,     Event.CLAIMED):            SUBMITTING,   # committed before any byte is sent
    (SUBMITTING,  Event.ACKNOWLEDGED):       STANDING,     # placed, if no report of the venue came before
    (SUBMITTING,  Event.REJECTED_BY_VENUE):  REJECTED,
    (SUBMITTING,  Event.NOT_SENT):           PENDING,      # proved: back off, count the failure
    (SUBMITTING,  Event.VENUE_UNREACHABLE):  PENDING,      # proved, and no fault of the order: costs no attempt
    (SUBMITTING,  Event.TURNED_AWAY):        PENDING,      # likewise: the venue takes nothing from us now
    (SUBMITTING,  Event.OUTCOME_UNKNOWN):    UNCONFIRMED,  # also when the lease expired
    (UNCONFIRMED, Event.ACKNOWLEDGED):       STANDING,
    (UNCONFIRMED, Event.REJECTED_BY_VENUE):  REJECTED,
    (UNCONFIRMED, Event.NOT_SENT):           PENDING,      # late proof, of the very attempt that was in question
    (UNCONFIRMED, Event.VENUE_UNREACHABLE):  PENDING,      # likewise
    (UNCONFIRMED, Event.TURNED_AWAY):        PENDING,      # likewise
    (UNCONFIRMED, Event.NOT_FOUND):          PENDING,      # only where the venue's class makes a re-send safe
    (UNCONFIRMED, Event.MARKED_PLACED):      STANDING,     # an operator's statement, after asking the venue again
    (UNCONFIRMED, Event.MARKED_NOT_PLACED):  FAILED,       # likewise; the operator requeues or cancels next
    (PENDING,     Event.ATTEMPTS_EXHAUSTED): FAILED,       # never from a doubtful state, so a requeue is safe
    (PENDING,     Event.PLACE_BY_PASSED):    EXPIRED,      # never a late placement
    (PENDING,     Event.RESEND_WINDOW_PASSED): UNCONFIRMED,  # the venue would not know a re-send for what it is
    (PENDING,     Event.RESEND_GIVEN_UP):    UNCONFIRMED,  # in doubt, must not be sent again: parked; look-ups continue
    (PENDING,     Event.CANCEL_REQUESTED):   CANCELED,     # nothing was sent, or all of it proved not sent
    (FAILED,      Event.REQUEUED):           PENDING,
    (FAILED,      Event.CANCEL_REQUESTED):   CANCELED,
    (PENDING,     Event.ACKNOWLEDGED):       STANDING,     # a late answer is evidence and is never dropped
    (FAILED,      Event.ACKNOWLEDGED):       STANDING,     # likewise
    (CANCELED,    Event.ACKNOWLEDGED):       STANDING,     # likewise, where it ended here and not at the venue
    (EXPIRED,     Event.ACKNOWLEDGED):       STANDING,     # likewise
    (REJECTED,    Event.ACKNOWLEDGED):       STANDING,     # likewise
    (PENDING,     Event.CANCEL_ASKED):       UNCONFIRMED,  # in doubt only: not sent again, and looked up
    (SUBMITTING,  Event.CANCEL_ASKED):       SUBMITTING,   # the venue is asked once it is known to have the order
    (UNCONFIRMED, Event.CANCEL_ASKED):       UNCONFIRMED,  # likewise
}
# fmt: on
# While a request is open the status says so, and no second one is made.
TRANSITIONS |= {(PENDING_CANCEL, Event.CANCEL_WITHDRAWN): STANDING}
TRANSITIONS |= {(status, Event.CANCEL_ASKED): STANDING for status in AT_VENUE if status != PENDING_CANCEL}
TRANSITIONS |= {
    (status, Event.REPLACE_ASKED): STANDING for status in AT_VENUE if status not in (PENDING_CANCEL, PENDING_REPLACE)
}
TRANSITIONS |= {(status, Event.REPLACE_WITHDRAWN): STANDING for status in (PENDING_CANCEL, PENDING_REPLACE)}

REPORTED: frozenset[tuple[Status, Event]] = frozenset(
    # Evidence counts in any state of the order, and so does its end at the venue.
    {
        *product(Status, (Event.EXECUTED, Event.EXECUTION_BUSTED, Event.EXECUTION_CORRECTED)),
        *product(Status, (Event.CANCELED_AT_VENUE, Event.EXPIRED_AT_VENUE)),
        *product(AT_VENUE, (Event.DONE_FOR_DAY_AT_VENUE, Event.RESTATED, Event.REPLACED)),
        *product(AT_VENUE, (Event.CANCEL_REFUSED, Event.REPLACE_REFUSED)),
        (PLACED, Event.REJECTED_BY_VENUE),  # an exchange may refuse what its front end acknowledged
    }
)
"""The steps that change facts, so that only a report of the venue makes them (orders.reports)."""
TRANSITIONS |= dict.fromkeys(REPORTED, STANDING)

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
    traceparent: str | None = None
    """The context of the request that submits it, if that is sampled (see quiktrade/tracing)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One event for one order.

    `attempt` is the fence: the step applies only while the order is at that attempt; None applies at any.
    `delay` is seconds from now until the order is due again (pending: to be placed, unconfirmed: to be looked
    up); None means at once, and for unconfirmed also that it is parked for an operator.
    With `not_found`, `in_doubt` says that an earlier attempt may arrive all the same, and `resend_within` that
    the venue recognises a re-send only for this many seconds more.
    `reason` becomes the order's last error where the step did not end well. `request_id` is the cancel or replace that
    a step asks for or withdraws.
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
    request_id: UUID | None = None


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
    open_cancel: UUID | None = None
    traceparent: str | None = None


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

# The position of an event in the feed (orders.feed) is its stamp: the number of its transaction, or the order's last
# stamp if that is higher, because a transaction may have taken its number early and then waited for the order's row.
# So an order's events are in their sequence there, and no event appears below the numbers of running transactions.
_STAMP = "(SELECT pg_current_xact_id()::text::bigint)"

_ONE_ROW = "SELECT {}, {} AS now, {} AS stamp".format(
    ", ".join(f"%({name})s::{kind} AS {name}" for name, kind in _GIVEN_COLUMNS.items()), _NOW, _STAMP
)
_MANY_ROWS = "SELECT r.*, (SELECT {}) AS now, {} AS stamp FROM json_to_recordset(%(rows)s::json) AS r ({})".format(
    _NOW, _STAMP, ", ".join(f"{name} {kind}" for name, kind in _GIVEN_COLUMNS.items())
)


def _store(source: str) -> str:
    """The statement that stores new orders with their first events. `source` yields the rows, with one time for all.

    That an order is not stored twice is decided by the unique constraint of its id and, of orders that were moved to
    the archive, by the ids that were kept. Both are in this one statement: see orders.archive. An id that we gave the
    order ourselves, because its client gave none, was just made: nobody has kept it.
    """
    return f"""
WITH wanted AS ({source}), stored AS (
    INSERT INTO orders_order ({", ".join(_NEW_COLUMNS)}, status, version, attempt, failures, in_doubt, venue_order_id,
        last_error, next_attempt_at, created_at, updated_at, stamp)
    SELECT {", ".join(_NEW_COLUMNS)}, 'pending', 1, 0, 0, false, '', '', now, now, now, stamp FROM wanted
    WHERE client_order_id = id::text OR {not_taken(ClientKey.Of.ORDER, "wanted.owner_id", "wanted.client_order_id")}
    ON CONFLICT (owner_id, client_order_id) DO NOTHING
    RETURNING id, created_at
), noted AS (
    INSERT INTO orders_orderevent
        (order_id, sequence, event, from_status, to_status, attempt, actor, reason, detail, at, owner_id, stamp)
    SELECT id, 1, 'accepted', '', 'pending', 0, actor, '', '{{}}', created_at, owner_id, stamp
    FROM stored JOIN wanted USING (id)
    RETURNING order_id, at
)
SELECT array_agg(order_id), at FROM noted GROUP BY at
"""


_ACCEPT_ONE, _ACCEPT_MANY = _store(_ONE_ROW), _store(_MANY_ROWS)

# Locked in the order of their ids, so that two writers of overlapping batches wait instead of deadlocking.
_GIVEN = """
    SELECT w.* FROM json_to_recordset(%(steps)s::json) AS w (order_id uuid, event text, attempt int, reason text,
        detail jsonb, venue_order_id text, delay float8, in_doubt boolean, resend_within float8, request_id uuid)
    JOIN orders_order x ON x.id = w.order_id ORDER BY x.id FOR NO KEY UPDATE OF x
"""

_DUE = """
    SELECT x.id AS order_id, 'claimed' AS event, NULL::int AS attempt, '' AS reason, '{}'::jsonb AS detail,
        '' AS venue_order_id, %(lease)s::float8 AS delay, false AS in_doubt, NULL::float8 AS resend_within,
        NULL::uuid AS request_id
    FROM orders_order x
    WHERE x.venue_id = %(venue)s AND x.status = 'pending' AND x.next_attempt_at <= statement_timestamp()
      AND (x.place_by IS NULL OR x.place_by > statement_timestamp())
      AND x.open_cancel IS NULL
      AND (x.resend_before IS NULL OR x.resend_before > statement_timestamp())
    ORDER BY x.next_attempt_at
    LIMIT GREATEST(0, LEAST(%(limit)s, %(in_flight)s - (SELECT count(*) FROM orders_orderrequest r
        WHERE r.venue_id = %(venue)s AND r.status = 'submitting') - (SELECT count(*) FROM orders_order s
        WHERE s.venue_id = %(venue)s AND s.status = 'submitting')))
    FOR NO KEY UPDATE OF x SKIP LOCKED
"""

_LEASE_RAN_OUT = """
    SELECT x.id AS order_id, 'outcome_unknown' AS event, x.attempt, %(reason)s::text AS reason,
        '{"code": "lease_expired"}'::jsonb AS detail, '' AS venue_order_id, %(delay)s::float8 AS delay,
        false AS in_doubt, NULL::float8 AS resend_within,
        NULL::uuid AS request_id
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
        false AS in_doubt, NULL::float8 AS resend_within,
        NULL::uuid AS request_id
    FROM orders_order x
    WHERE x.status = 'pending' AND (x.place_by IS NOT NULL OR x.resend_before IS NOT NULL)
      AND LEAST(x.place_by, x.resend_before) <= statement_timestamp()
    LIMIT %(limit)s FOR NO KEY UPDATE OF x SKIP LOCKED
"""


# A cancel of many. What was never sent, or is proved not to be at the venue, is canceled here. The ids are UUIDv7.
_UUID7 = """encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
        substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
        52, 1), 53, 1), 'hex')::uuid"""
_CHOSEN = """(%(owner)s::int IS NULL OR owner_id = %(owner)s) AND (%(venue)s::text IS NULL OR venue_id = %(venue)s)
            AND (%(instrument)s::text IS NULL OR instrument = %(instrument)s)
            AND (%(side)s::text IS NULL OR side = %(side)s)
            AND (%(client_order_ids)s::text[] IS NULL OR client_order_id = ANY(%(client_order_ids)s))"""
_CANCELABLE_THERE = """open_cancel IS NULL AND venue_id = ANY(%(cancelers)s) AND (status = 'unconfirmed'
            OR status = 'submitting' OR (status = 'pending' AND in_doubt)
            OR status IN ('placed', 'partially_filled', 'pending_replace')
            OR (status = 'done_for_day' AND time_in_force IN ('gtc', 'gtd')))"""
_CANCELABLE_HERE = "(status = 'failed' OR status = 'pending') AND NOT in_doubt"


def _to_cancel(candidates: str) -> str:
    return f"""
    SELECT x.id AS order_id, CASE WHEN {_CANCELABLE_HERE} THEN 'cancel_requested' ELSE 'cancel_asked' END AS event,
        NULL::int AS attempt, %(reason)s::text AS reason, '{{}}'::jsonb AS detail, '' AS venue_order_id,
        0::float8 AS delay, false AS in_doubt, NULL::float8 AS resend_within, {_UUID7} AS request_id
    FROM orders_order x WHERE {candidates} AND ({_CANCELABLE_HERE} OR ({_CANCELABLE_THERE}))
    ORDER BY x.id LIMIT %(limit)s FOR NO KEY UPDATE OF x
"""


# Each part finds its rows by an index of such rows alone: most orders of an owner have ended.
_OPEN = " UNION ALL ".join(
    f"SELECT id FROM orders_order WHERE {condition} AND {_CHOSEN}"
    for condition in (
        "status IN ('placed', 'partially_filled', 'pending_replace', 'done_for_day')",
        *(f"status = '{status}'" for status in ("pending", "submitting", "unconfirmed", "failed")),
    )
)
_TO_CANCEL_BY_ID = _to_cancel(f"x.id = ANY(%(ids)s) AND {_CHOSEN}")
_TO_CANCEL_BY_FILTER = _to_cancel(f"x.id IN ({_OPEN})")


def _edges() -> str:
    edges = {edge: after for edge, after in TRANSITIONS.items() if edge not in REPORTED}
    return ", ".join(f"('{event}', '{before}', '{after}')" for (before, event), after in edges.items())


def _standing(ended: str, open_cancel: str, open_replace: str) -> str:
    """`orders.facts.standing` of an order's row, with these three as they will be."""
    return f"""CASE WHEN {open_cancel} IS NOT NULL THEN 'pending_cancel'
            WHEN {open_replace} IS NOT NULL THEN 'pending_replace'
            WHEN {ended} = 'done_for_day' THEN 'done_for_day' WHEN o.filled_quantity >= o.quantity THEN 'filled'
            WHEN {ended} <> '' AND NOT ({ended} = 'rejected' AND o.filled_quantity > 0) THEN {ended}
            WHEN o.filled_quantity > 0 THEN 'partially_filled' ELSE 'placed' END"""


_ENDED = """CASE edge.event WHEN 'rejected_by_venue' THEN 'rejected'
            WHEN 'acknowledged' THEN replace(o.ended, 'rejected', '') ELSE o.ended END"""
_OPEN_CANCEL = """CASE WHEN edge.event = 'cancel_asked' THEN wanted.request_id
            WHEN edge.event IN ('cancel_withdrawn', 'cancel_requested', 'rejected_by_venue') THEN NULL
            ELSE o.open_cancel END"""
_OPEN_REPLACE = """CASE WHEN edge.event = 'replace_asked' THEN wanted.request_id
            WHEN edge.event IN ('replace_withdrawn', 'rejected_by_venue') THEN NULL ELSE o.open_replace END"""


# An event says what is filled and what is left, unless that follows from the order's first quantity and the status.
_FIGURES = """CASE WHEN filled_quantity = 0 AND ended = '' AND original_terms IS NULL THEN detail
            ELSE detail || jsonb_build_object('filled_quantity', filled_quantity, 'leaves_quantity',
            CASE WHEN status IN ('canceled', 'expired', 'rejected') OR ended IN ('canceled', 'expired')
                OR (ended = 'rejected' AND filled_quantity = 0)
                OR (ended = 'done_for_day' AND time_in_force NOT IN ('gtc', 'gtd')) THEN 0
            ELSE GREATEST(quantity - filled_quantity, 0) END) END"""

_MOVED = {"from_status": "before", "age_seconds": "extract(epoch FROM updated_at - created_at)::float8"}
_MOVED_COLUMNS = ", ".join(_MOVED.get(column.name, column.name) for column in fields(MovedOrder))


def _move(selection: str) -> str:
    """The statement of every step that is not a venue's report. `selection` yields one row for each order to move:
    order_id, event, attempt, reason, detail, venue_order_id, delay, in_doubt, resend_within, request_id; the meanings
    are those of `Step`."""
    return f"""
WITH wanted AS ({selection}), edge (event, before, after) AS (VALUES {_edges()}), moved AS (
    UPDATE orders_order o SET
        status = CASE edge.after WHEN 'standing' THEN {_standing(_ENDED, _OPEN_CANCEL, _OPEN_REPLACE)}
            ELSE edge.after END,
        version = o.version + 1,
        attempt = o.attempt + CASE WHEN edge.event = 'claimed' THEN 1 ELSE 0 END,
        failures = CASE edge.event WHEN 'not_sent' THEN o.failures + 1 WHEN 'requeued' THEN 0 ELSE o.failures END,
        lease_expires_at = CASE WHEN edge.event = 'cancel_asked' THEN o.lease_expires_at WHEN edge.after = 'submitting'
            THEN statement_timestamp() + wanted.delay * interval '1 second' END,
        next_attempt_at = CASE WHEN edge.event = 'cancel_asked' AND edge.before = 'unconfirmed' THEN o.next_attempt_at
            WHEN edge.after IN ('pending', 'unconfirmed')
            THEN statement_timestamp() + COALESCE(wanted.delay, 0) * interval '1 second' END,
        parked_at = CASE WHEN edge.event = 'cancel_asked' THEN o.parked_at
            WHEN edge.after = 'unconfirmed' AND wanted.delay IS NULL THEN statement_timestamp() END,
        in_doubt = (o.in_doubt OR wanted.in_doubt) AND edge.event <> 'marked_not_placed',
        resend_before = CASE WHEN edge.event <> 'marked_not_placed' THEN COALESCE(o.resend_before,
            statement_timestamp() + wanted.resend_within * interval '1 second') END,
        venue_order_id = CASE WHEN wanted.venue_order_id = '' THEN o.venue_order_id ELSE wanted.venue_order_id END,
        last_error = CASE WHEN edge.after IN ('submitting', 'failed') OR edge.event = 'cancel_asked' THEN o.last_error
            WHEN edge.event IN ('acknowledged', 'requeued', 'cancel_requested', 'cancel_withdrawn', 'replace_asked',
                'replace_withdrawn') THEN '' ELSE wanted.reason END,
        placed_at = CASE edge.after WHEN 'standing' THEN COALESCE(o.placed_at, statement_timestamp())
            ELSE o.placed_at END,
        ended = {_ENDED},
        open_cancel = {_OPEN_CANCEL},
        open_replace = {_OPEN_REPLACE},
        cancel_requested_at = CASE edge.event WHEN 'cancel_asked' THEN statement_timestamp()
            ELSE o.cancel_requested_at END,
        updated_at = statement_timestamp(),
        stamp = GREATEST(o.stamp, {_STAMP})
    FROM wanted JOIN edge USING (event)
    WHERE o.id = wanted.order_id AND o.status = edge.before
      AND (wanted.attempt IS NULL OR wanted.attempt = o.attempt)
      AND NOT (o.in_doubt AND edge.event = ANY(%(not_in_doubt)s::text[]))
      AND (edge.before NOT IN ('canceled', 'expired', 'rejected') OR o.venue_order_id = '')
      AND (edge.event <> 'cancel_withdrawn' OR o.open_cancel = wanted.request_id)
      AND (edge.event <> 'replace_withdrawn' OR o.open_replace = wanted.request_id)
      AND (edge.event <> 'cancel_asked' OR (o.open_cancel IS NULL AND (edge.before <> 'pending' OR o.in_doubt)))
      AND NOT (edge.event = 'not_found' AND wanted.in_doubt AND o.open_cancel IS NOT NULL)
    RETURNING o.*, edge.event, edge.before, wanted.reason, wanted.detail
), logged AS (
    INSERT INTO orders_orderevent
        (order_id, sequence, event, from_status, to_status, attempt, actor, reason, detail, at, owner_id, stamp)
    SELECT id, version, event, before, status, attempt, %(actor)s, reason, {_FIGURES}, updated_at, owner_id, stamp
    FROM moved
)
SELECT {_MOVED_COLUMNS} FROM moved
"""


_ADVANCE, _CLAIM, _SWEEP, _OVERTAKE = map(_move, (_GIVEN, _DUE, _LEASE_RAN_OUT, _OVERTAKEN))
_CANCEL_BY_ID, _CANCEL_BY_FILTER = map(_move, (_TO_CANCEL_BY_ID, _TO_CANCEL_BY_FILTER))


def accept(rows: Sequence[NewRow]) -> dict[UUID, datetime]:
    """Store new orders as pending, each with its first event, in one statement.

    Returns the ids that were stored, with the time of storing. An id is missing if its owner already has an order with
    that `client_order_id`, or had one that is archived; nothing was written for it.
    """
    if len(rows) == 1:
        stored = fetch(_ACCEPT_ONE, _as_given(rows[0]))
    else:
        # Sorted by their key, so that two statements with the same orders wait for each other and do not deadlock.
        ordered = sorted(rows, key=lambda row: (row.owner_id, row.client_order_id))
        stored = fetch(_ACCEPT_MANY, {"rows": _document([_as_given(row) for row in ordered])})
    if stored:
        doorbell.ring(settings.FEED_CHANNEL)
    return {id_: at for ids, at in stored for id_ in ids}


def _as_given(row: NewRow) -> dict[str, Any]:
    return dict(zip(_GIVEN_COLUMNS, _given_values(row), strict=True))


def _document(rows: Sequence[Mapping[str, Any]]) -> str:
    """Encode rows for json_to_recordset(). Decimals become strings, so that they stay exact."""
    return orjson.dumps(rows, default=str).decode()


def claim(venue: str, *, limit: int, in_flight: int, lease: float, actor: str) -> list[MovedOrder]:
    """Take up to `limit` due orders of a venue for `lease` seconds, longest due first.

    At most `in_flight` are in flight afterwards, requests included, if claims for a venue follow one another. Two
    callers never get the same order. Commit before sending anything. Whether the venue may be sent to at all is for
    the caller to ask (exchanges.circuit).
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


def cancel(
    *,
    owner: int | None,
    ids: Sequence[UUID] | None,
    venue: str | None,
    instrument: str | None,
    side: str | None,
    client_order_ids: Sequence[str] | None,
    cancelers: Sequence[str],
    limit: int,
    actor: str,
    reason: str,
) -> list[MovedOrder]:
    """Cancel up to `limit` of the orders that match all that is given, in one statement.

    Those of which nothing is at a venue are canceled. The others get the id of a new request, `open_cancel`, if their
    venue is one of the `cancelers`; the caller stores the requests in the same transaction.
    """
    parameters = {
        "owner": owner,
        "venue": venue,
        "instrument": instrument,
        "side": side,
        "client_order_ids": None if client_order_ids is None else list(client_order_ids),
        "cancelers": list(cancelers),
        "limit": limit,
        "actor": actor,
        "reason": storable(reason),
    }
    if ids is None:
        return _run(_CANCEL_BY_FILTER, parameters)
    return _run(_CANCEL_BY_ID, parameters | {"ids": list(ids)})


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
    moved = [MovedOrder(*row) for row in fetch(statement, {**parameters, **in_doubt})]
    if moved:
        doorbell.ring(settings.FEED_CHANNEL)
    return moved


# ---- What a venue reports: orders.reports folds it between these two statements ----

# The orders are locked in the order of their ids, as by every writer of many. Executions that are stored already
# conflict, so what is returned as fresh counts once, whatever is repeated. The rest is what the statement saw at its
# begin: what stored rows say of the executions that this batch concerns. PostgreSQL estimates the rows of a JSON
# document without reading it, and would read the whole table of orders for a few of them, or that of positions. So
# orders are named by an array, and OFFSET 0 makes it look up one position at a time.
_TAKE_REPORTED = """
WITH r AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(reports)s::json) AS r (sequence bigint, named uuid, original uuid,
        venue_order_id text, kind text, execution_id text, refers_to text, quantity bigint, price numeric,
        at timestamptz)
), about AS MATERIALIZED (
    SELECT r.sequence, COALESCE(
        (SELECT id FROM orders_order WHERE id = r.named AND venue_id = %(venue)s),
        (SELECT id FROM orders_order WHERE id = r.original AND venue_id = %(venue)s),
        (SELECT order_id FROM orders_orderrequest WHERE id = r.named AND venue_id = %(venue)s),
        (SELECT order_id FROM orders_orderrequest WHERE id = r.original AND venue_id = %(venue)s),
        (SELECT (array_agg(id))[1] FROM orders_order WHERE venue_order_id = r.venue_order_id AND venue_order_id <> ''
            AND venue_id = %(venue)s HAVING count(*) = 1 AND NOT EXISTS (SELECT FROM orders_archivedorder a
                WHERE a.venue_order_id = r.venue_order_id AND a.venue_order_id <> '' AND a.venue_id = %(venue)s)))
        AS order_id
    FROM r
), o AS MATERIALIZED (
    SELECT x.* FROM orders_order x WHERE x.id = ANY(ARRAY(SELECT order_id FROM about))
    ORDER BY x.id FOR NO KEY UPDATE OF x
), fresh AS (
    INSERT INTO orders_execution (venue_id, execution_id, kind, refers_to, order_id, owner_id, instrument, side,
        quantity, price, venue_sequence, executed_at)
    SELECT %(venue)s, r.execution_id, r.kind, r.refers_to, o.id, o.owner_id, o.instrument, o.side,
        r.quantity, r.price, r.sequence, COALESCE(r.at, statement_timestamp())
    FROM r JOIN about USING (sequence) JOIN o ON o.id = about.order_id
    WHERE r.execution_id <> '' ORDER BY r.sequence
    ON CONFLICT (venue_id, execution_id) DO NOTHING
    RETURNING order_id, execution_id
), gone AS (
    SELECT order_id, array_agg(refers_to::text) AS ids FROM orders_execution
    WHERE venue_id = %(venue)s AND refers_to <> '' AND refers_to = ANY(%(concerned)s::text[]) GROUP BY order_id
), known AS (
    SELECT order_id, array_agg(execution_id::text) AS ids, array_agg(quantity) AS quantities, array_agg(price) AS prices
    FROM orders_execution WHERE venue_id = %(venue)s AND execution_id = ANY(%(referred)s::text[]) AND kind <> 'busted'
    GROUP BY order_id
)
SELECT o.id, o.owner_id, o.instrument, o.side, o.client_order_id, o.status, o.version, o.attempt, o.in_doubt,
    o.venue_order_id, o.quantity, o.time_in_force, o.ended, o.filled_quantity, o.filled_value, o.open_cancel,
    o.open_replace, o.current_id, o.limit_price, o.stop_price, o.expires_at, o.traceparent, s.sequences,
    f.ids, gone.ids, known.ids, known.quantities, known.prices,
    p.bought_quantity, p.bought_value, p.sold_quantity, p.sold_value, p.realized, p.version
FROM o JOIN (SELECT order_id, array_agg(sequence) AS sequences FROM about GROUP BY order_id) s ON s.order_id = o.id
    LEFT JOIN (SELECT order_id, array_agg(execution_id::text) AS ids FROM fresh GROUP BY order_id) f
        ON f.order_id = o.id
    LEFT JOIN gone ON gone.order_id = o.id LEFT JOIN known ON known.order_id = o.id
    LEFT JOIN LATERAL (SELECT * FROM orders_position p WHERE p.owner_id = o.owner_id AND p.venue_id = %(venue)s
        AND p.instrument = o.instrument AND f.ids IS NOT NULL OFFSET 0) p ON true
"""

_TERMS_NOW = ", ".join(
    f"'{name}', x.{name}" + ("::text" if name.endswith("price") else "")
    for name in (term.name for term in fields(Terms))
)
_PUT_REPORTED = f"""
WITH w AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(orders)s::json) AS w (id uuid, version int, events int, status text,
        venue_order_id text, quantity bigint, limit_price numeric, stop_price numeric, time_in_force text,
        expires_at timestamptz, ended text, filled_quantity bigint, filled_value numeric,
        open_cancel uuid, open_replace uuid, current_id uuid, venue_sequence bigint, last_error text, at_venue boolean)
), moved AS (
    UPDATE orders_order x SET
        status = w.status, version = x.version + w.events, venue_order_id = w.venue_order_id, quantity = w.quantity,
        limit_price = w.limit_price, stop_price = w.stop_price, time_in_force = w.time_in_force,
        expires_at = w.expires_at,
        original_terms = CASE WHEN (w.quantity, w.limit_price, w.stop_price, w.time_in_force, w.expires_at)
            IS NOT DISTINCT FROM (x.quantity, x.limit_price, x.stop_price, x.time_in_force, x.expires_at)
            THEN x.original_terms ELSE COALESCE(x.original_terms, jsonb_build_object({_TERMS_NOW})) END,
        ended = w.ended, filled_quantity = w.filled_quantity, filled_value = w.filled_value,
        open_cancel = w.open_cancel, open_replace = w.open_replace,
        current_id = COALESCE(w.current_id, x.current_id),
        venue_sequence = COALESCE(NULLIF(w.venue_sequence, 0), x.venue_sequence),
        last_error = w.last_error, lease_expires_at = NULL, next_attempt_at = NULL, parked_at = NULL,
        placed_at = CASE WHEN w.at_venue THEN COALESCE(x.placed_at, statement_timestamp()) ELSE x.placed_at END,
        updated_at = statement_timestamp(), stamp = GREATEST(x.stamp, {_STAMP})
    FROM w WHERE x.id = w.id AND x.version = w.version AND x.id = ANY(ARRAY(SELECT id FROM w))
    RETURNING x.id AS order_id, x.owner_id, x.stamp
), logged AS (
    INSERT INTO orders_orderevent
        (order_id, sequence, event, from_status, to_status, attempt, actor, reason, detail, at, owner_id, stamp)
    SELECT order_id, sequence, event, from_status, to_status, attempt, %(actor)s, reason, detail, statement_timestamp(),
        owner_id, stamp
    FROM ROWS FROM (json_to_recordset(%(events)s::json) AS (order_id uuid, sequence int, event text, from_status text,
        to_status text, attempt int, reason text, detail jsonb)) WITH ORDINALITY AS e (order_id, sequence, event,
        from_status, to_status, attempt, reason, detail, n) JOIN moved USING (order_id)
    ORDER BY n
), t AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(positions)s::json) AS t (owner_id int, instrument text, bought_quantity numeric,
        bought_value numeric, sold_quantity numeric, sold_value numeric, realized numeric, version bigint)
), held AS (
    UPDATE orders_position p SET bought_quantity = t.bought_quantity, bought_value = t.bought_value,
        sold_quantity = t.sold_quantity, sold_value = t.sold_value, realized = t.realized, version = p.version + 1,
        updated_at = statement_timestamp()
    FROM t WHERE p.owner_id = t.owner_id AND p.venue_id = %(venue)s AND p.instrument = t.instrument
        AND p.version = t.version
    RETURNING 1
), first_held AS (
    INSERT INTO orders_position (owner_id, venue_id, instrument, bought_quantity, bought_value, sold_quantity,
        sold_value, realized, version, updated_at)
    SELECT owner_id, %(venue)s, instrument, bought_quantity, bought_value, sold_quantity, sold_value, realized, 1,
        statement_timestamp()
    FROM t WHERE version = 0
    ON CONFLICT (owner_id, venue_id, instrument) DO NOTHING
    RETURNING 1
), kept AS (
    INSERT INTO exchanges_unmatchedreport (venue_id, stream, sequence, reason, report)
    SELECT %(venue)s, %(stream)s, sequence, reason, report
    FROM json_to_recordset(%(unmatched)s::json) AS u (sequence bigint, reason text, report jsonb)
    ON CONFLICT (venue_id, stream, sequence) DO NOTHING
), checked AS (
    UPDATE exchanges_reportsession SET next_sequence = %(next)s,
        lease_expires_at = statement_timestamp() + %(lease)s::float8 * interval '1 second'
    WHERE venue_id = %(venue)s AND stream = %(stream)s AND token = %(token)s AND next_sequence = %(from)s
    RETURNING 1
)
SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM held) + (SELECT count(*) FROM first_held),
    (SELECT count(*) FROM checked)
"""


class ReportedOrder(NamedTuple):
    """An order that reports are about, locked; and what is stored of the executions that they concern.

    `sequences` are those of its reports. `fresh` are the executions of the batch that were not stored before. `gone`
    are executions that stored ones take back or correct. `known` are the ids of stored executions that the batch
    refers to, with what they were reported with. The last six are the owner's position in the instrument at the venue;
    all of them are None if there is none, or if nothing is fresh.
    """

    id: UUID
    owner_id: int
    instrument: str
    side: str
    client_order_id: str
    status: str
    version: int
    attempt: int
    in_doubt: bool
    venue_order_id: str
    quantity: int
    time_in_force: str
    ended: str
    filled_quantity: int
    filled_value: Decimal
    open_cancel: UUID | None
    open_replace: UUID | None
    current_id: UUID | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    expires_at: datetime | None
    traceparent: str | None
    sequences: list[int]
    fresh: list[str] | None
    gone: list[str] | None
    known: list[str] | None
    known_quantities: list[int] | None
    known_prices: list[Decimal] | None
    bought_quantity: Decimal | None
    bought_value: Decimal
    sold_quantity: Decimal
    sold_value: Decimal
    realized: Decimal
    position_version: int


def take_reported(
    venue: str, reports: Sequence[Mapping[str, Any]], *, concerned: Sequence[str], referred: Sequence[str]
) -> list[ReportedOrder]:
    """Lock the orders of a venue that reports are about, and store the executions among these that are new.

    A report's order is the one that `named`, else `original`, else its `venue_order_id` names; the first two may be
    the id of a request about the order. `concerned` are the
    executions that the reports name, and `referred` those that they take back or correct. The caller must have opened
    a transaction, in which `put_reported` follows.
    """
    parameters = {"venue": venue, "reports": _document(reports), "concerned": concerned, "referred": referred}
    return [ReportedOrder._make(row) for row in fetch(_TAKE_REPORTED, parameters)]


class Put(NamedTuple):
    """How many orders and positions were written, and how many checkpoints moved on: 0 or 1."""

    orders: int
    positions: int
    checkpoints: int


def put_reported(
    *,
    orders: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    positions: Sequence[Mapping[str, Any]],
    unmatched: Sequence[Mapping[str, Any]],
    **checkpoint: Any,
) -> Put:
    """Write what reports came to, in one statement with the checkpoint of their stream.

    An order or a position is written only as the version that was taken. Unless all that was given was written, the
    caller must roll its transaction back.
    """
    documents = {"orders": orders, "events": events, "positions": positions, "unmatched": unmatched}
    rows = {name: _document(document) for name, document in documents.items()}
    put = Put._make(fetch(_PUT_REPORTED, {**rows, **checkpoint})[0])
    if events:
        doorbell.ring(settings.FEED_CHANNEL)
    return put


KEPT_AT_ONCE = 250

_AS_UUID = """CASE WHEN u.report->>'{0}' ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$'
            THEN (u.report->>'{0}')::uuid END"""
_NAMED, _ORIGINAL = _AS_UUID.format("client_order_id"), _AS_UUID.format("original_client_order_id")


def _named_by_kept(orders: str, requests: str) -> str:
    return f"""COALESCE(
            (SELECT id FROM {orders} WHERE venue_id = u.venue_id AND id = {_NAMED}),
            (SELECT id FROM {orders} WHERE venue_id = u.venue_id AND id = {_ORIGINAL}),
            (SELECT order_id FROM {requests} WHERE venue_id = u.venue_id AND id = {_NAMED} LIMIT 1),
            (SELECT order_id FROM {requests} WHERE venue_id = u.venue_id AND id = {_ORIGINAL} LIMIT 1),
            (SELECT (array_agg(id))[1] FROM {orders} WHERE venue_order_id = u.report->>'venue_order_id'
                AND venue_order_id <> '' AND venue_id = u.venue_id HAVING count(*) = 1))"""


# Where two reports of an order do not commute, an older one is not applied after a newer one. Archived orders are
# looked for only where all reports are tried: they may come back now and could not before. One that a report does not
# fit stays, because it would come back every time.
_KEPT_REPORTS = f"""
SELECT u.id, u.stream, u.sequence, u.report FROM (
    SELECT u.*, COALESCE({_named_by_kept("orders_order", "orders_orderrequest")},
        CASE WHEN %(seconds)s::float8 IS NULL AND u.reason = %(no_order)s
            THEN {_named_by_kept("orders_archivedorder", "orders_archivedrequest")} END) AS order_id
    FROM exchanges_unmatchedreport u
    WHERE u.venue_id = %(venue)s AND u.id > %(after)s AND (u.reason = %(no_order)s
        OR (%(seconds)s::float8 IS NULL AND starts_with(u.reason, %(does_not_fit)s)))
      AND (%(seconds)s::float8 IS NULL OR u.at > statement_timestamp() - %(seconds)s * interval '1 second')
    ORDER BY u.id OFFSET 0
) u WHERE u.order_id IS NOT NULL AND (u.report->>'kind' NOT IN ('replaced', 'restated', 'done_for_day')
    OR u.sequence > COALESCE((SELECT venue_sequence FROM orders_order WHERE id = u.order_id),
        (SELECT venue_sequence FROM orders_archivedorder WHERE id = u.order_id)))
ORDER BY u.id LIMIT %(limit)s
"""


class KeptReport(NamedTuple):
    """A report that was kept because it could not be applied."""

    id: int
    stream: str
    sequence: int
    report: dict[str, str | None]


def kept_reports(
    venue: str, no_order: str, does_not_fit: str, *, after: int, seconds: float | None
) -> list[KeptReport]:
    """Of the reports that a venue sent about no order, or with `seconds` None about one that they did not fit, those
    whose order is known now: up to `KEPT_AT_ONCE` above the id `after`, kept in the last `seconds`. With `seconds`
    None the orders of the former may be archived.
    """
    given = {"venue": venue, "no_order": no_order, "does_not_fit": does_not_fit, "after": after, "seconds": seconds}
    return [KeptReport._make(row) for row in fetch(_KEPT_REPORTS, {**given, "limit": KEPT_AT_ONCE})]


def lock_orders(ids: Sequence[UUID]) -> None:
    """Lock orders, named by their own ids or those of requests, in the order of their ids, for this transaction."""
    fetch(_LOCK_ORDERS, {"ids": list(ids)})


_LOCK_ORDERS = """
SELECT x.id FROM orders_order x WHERE x.id IN (SELECT unnest(%(ids)s::uuid[])
    UNION SELECT order_id FROM orders_orderrequest WHERE id = ANY(%(ids)s::uuid[]))
ORDER BY x.id FOR NO KEY UPDATE OF x
"""

PARKED_FIRST_SECONDS = 60.0
PARKED_LONGEST_SECONDS = 3600.0
"""The time between look-ups of a parked order doubles each time, within these bounds. So an operator who decides late
finds a recent answer of the venue, and the venue is not asked too often."""

_UNTIL_ASKED_AGAIN = f"""LEAST({PARKED_LONGEST_SECONDS}, GREATEST({PARKED_FIRST_SECONDS},
    extract(epoch FROM statement_timestamp() - o.parked_at))) * interval '1 second'"""


# A subquery in place of the CTE may be run again for each row of a join, and its limit would not hold.
def _claim_lookups(parked: str, wait: str) -> str:
    return f"""
WITH due AS MATERIALIZED (
    SELECT id FROM orders_order WHERE venue_id = %(venue)s AND status = 'unconfirmed' AND parked_at {parked}
      AND next_attempt_at <= statement_timestamp() ORDER BY next_attempt_at LIMIT %(limit)s
      FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE orders_order o SET next_attempt_at = statement_timestamp() + {wait} FROM due
WHERE o.id = due.id RETURNING o.id, o.attempt, o.parked_at IS NOT NULL, o.open_cancel IS NOT NULL, o.traceparent
"""


_CLAIM_LOOKUPS = _claim_lookups("IS NULL", "%(seconds)s * interval '1 second'")
_CLAIM_PARKED_LOOKUPS = _claim_lookups("IS NOT NULL", _UNTIL_ASKED_AGAIN)


class LookUp(NamedTuple):
    """An unconfirmed order to ask its venue about. What is found out says nothing about a newer attempt."""

    order_id: UUID
    attempt: int
    parked: bool
    canceling: bool = False
    """A cancel of it waits, so it is not sent again."""
    traceparent: str | None = None


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
