"""Whether, and how fast, orders may be sent to a venue: its circuit and its rate, in rows that all workers share.

A venue that leaves `SILENCES_TO_OPEN` requests in a row without an answer opens its circuit: its orders wait,
and spend no attempts. After a while one of them is sent as a probe; the wait doubles with each probe that
fails, up to `LONGEST_WAIT_SECONDS`. The first answer of any kind, a refusal included, closes the circuit.

`permit()` locks the venue's row until the caller's transaction ends, so that claims for one venue follow one
another and its limits hold over all workers. It waits for nothing else.
"""

import logging
from dataclasses import dataclass

from django.db import connection

from exchanges.statements import fetch

logger = logging.getLogger(__name__)

SILENCES_TO_OPEN = 5
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 15.0
PROBE_SECONDS = 10.0
"""A probe whose worker died is followed by another after this long: longer than any venue's deadline."""

_LOCK = """
SELECT v.max_in_flight, v.max_per_second, v.halted_at IS NOT NULL,
    LEAST(v.max_per_second, h.tokens + v.max_per_second
        * GREATEST(extract(epoch FROM statement_timestamp() - h.tokens_at)::float8, 0)),
    h.silences, h.retry_at IS NOT NULL, h.retry_at > statement_timestamp()
FROM exchanges_venuehealth h JOIN exchanges_venue v ON v.code = h.venue_id
WHERE h.venue_id = %(venue)s FOR NO KEY UPDATE OF h
"""


@dataclass(frozen=True, slots=True)
class Permit:
    """How many orders may be sent now, at most; `in_flight` is what the venue allows under way in all."""

    sends: int
    in_flight: int
    probe: bool = False
    """The circuit is open, and one order may be sent to find out whether the venue is back."""
    troubled: bool = False
    """Requests went unanswered lately: answers are worth reporting."""
    rated: bool = False
    """The sends are counted: `spend()` them."""


NONE = Permit(0, 0)


def permit(code: str, wanted: int) -> Permit:
    """Ask for up to `wanted` sends. Inside a transaction; the venue is locked until it ends."""
    rows = fetch(_LOCK, {"venue": code})
    if not rows:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO exchanges_venuehealth (venue_id, silences, probes, last_error, tokens, tokens_at)"
                " VALUES (%s, 0, 0, '', 1, statement_timestamp()) ON CONFLICT DO NOTHING",
                [code],
            )
        rows = fetch(_LOCK, {"venue": code})
    in_flight, rate, halted, tokens, silences, is_open, waiting = rows[0]
    if halted or waiting:
        return NONE
    sends = min(wanted, int(tokens)) if rate is not None else wanted
    if not is_open:
        return Permit(sends, in_flight, troubled=silences > 0, rated=rate is not None)
    if sends > 0:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE exchanges_venuehealth SET retry_at = statement_timestamp() + %s * interval '1 second'"
                " WHERE venue_id = %s",
                [PROBE_SECONDS, code],
            )
    return Permit(min(sends, 1), in_flight, probe=True, troubled=True, rated=rate is not None)


def spend(code: str, sends: int) -> None:
    """Take so many sends out of the venue's bucket. In the transaction of `permit()`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE exchanges_venuehealth h SET tokens = LEAST(v.max_per_second, h.tokens + v.max_per_second"
            " * GREATEST(extract(epoch FROM statement_timestamp() - h.tokens_at)::float8, 0)) - %s,"
            " tokens_at = statement_timestamp() FROM exchanges_venue v WHERE h.venue_id = %s AND v.code = h.venue_id",
            [sends, code],
        )


def record_answer(code: str) -> None:
    """The venue spoke: its circuit is closed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH before AS (SELECT venue_id, retry_at FROM exchanges_venuehealth WHERE venue_id = %s"
            " AND silences > 0 FOR NO KEY UPDATE), closed AS (UPDATE exchanges_venuehealth h SET silences = 0,"
            " probes = 0, opened_at = NULL, retry_at = NULL FROM before WHERE h.venue_id = before.venue_id)"
            " SELECT retry_at IS NOT NULL FROM before",
            [code],
        )
        if cursor.fetchone() == (True,):
            _tell(code, "circuit_closed", "The venue answers again.")


def record_silence(code: str, *, requests: int, probe: bool, error: str) -> None:
    """So many requests in a row went unanswered, the probe among them if `probe`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH before AS (SELECT venue_id, opened_at FROM exchanges_venuehealth WHERE venue_id = %(code)s"
            " FOR NO KEY UPDATE), counted AS (UPDATE exchanges_venuehealth h SET silences = h.silences + %(requests)s,"
            " last_error = %(error)s, probes = h.probes + %(probe)s, opened_at = COALESCE(h.opened_at,"
            " CASE WHEN h.silences + %(requests)s >= %(limit)s THEN statement_timestamp() END),"
            " retry_at = CASE WHEN h.opened_at IS NULL AND h.silences + %(requests)s >= %(limit)s OR %(probe)s > 0"
            " THEN statement_timestamp() + LEAST(%(longest)s, %(first)s * power(2, LEAST(h.probes + %(probe)s, 30)))"
            " * (0.5 + random() / 2) * interval '1 second' ELSE h.retry_at END"
            " FROM before WHERE h.venue_id = before.venue_id RETURNING h.opened_at)"
            " SELECT before.opened_at IS NULL AND counted.opened_at IS NOT NULL FROM before, counted",
            {
                "code": code,
                "requests": requests,
                "error": error[:500],
                "probe": int(probe),
                "limit": SILENCES_TO_OPEN,
                "longest": LONGEST_WAIT_SECONDS,
                "first": FIRST_WAIT_SECONDS,
            },
        )
        if cursor.fetchone() == (True,):
            _tell(code, "circuit_opened", f"It does not answer: {error}")


CLOCK_MARGIN_SECONDS = 60.0


def pull_back(code: str) -> bool:
    """Have the next probe sent now, and the bucket filled again, if their times are further ahead than any wait.

    They were written while the database's clock was ahead. Says whether there was such a time.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE exchanges_venuehealth SET tokens_at = LEAST(tokens_at, statement_timestamp()),"
            " opened_at = CASE WHEN opened_at > statement_timestamp() THEN statement_timestamp() ELSE opened_at END,"
            " retry_at = CASE WHEN retry_at > statement_timestamp() + %(furthest)s * interval '1 second'"
            " THEN statement_timestamp() ELSE retry_at END"
            " WHERE venue_id = %(venue)s AND (retry_at > statement_timestamp() + %(furthest)s * interval '1 second'"
            " OR tokens_at > statement_timestamp() + %(margin)s * interval '1 second')",
            {
                "venue": code,
                "furthest": max(LONGEST_WAIT_SECONDS, PROBE_SECONDS) + CLOCK_MARGIN_SECONDS,
                "margin": CLOCK_MARGIN_SECONDS,
            },
        )
        return bool(cursor.rowcount)


def _tell(code: str, event: str, reason: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO exchanges_venueevent (venue_id, event, actor, reason, at)"
            " VALUES (%s, %s, 'system:health', %s, statement_timestamp())",
            [code, event, reason[:500]],
        )
    logger.warning("Venue's circuit changed", extra={"event": f"venue.{event}", "venue": code, "reason": reason})
