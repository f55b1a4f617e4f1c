"""Whether, and how fast, orders may be sent to a venue: its circuit and its rate, in rows that all workers share.

A venue's circuit is open while it is in trouble: its orders wait, and spend no attempts. There are three kinds.

    silent      it left `SILENCES_TO_OPEN` requests in a row without an answer
    paused      it asked for a pause: nothing is sent to it, and it is asked nothing, before that is over
    locked_out  it refuses our credentials: a person must renew them

Each ends with a probe: after a while one order is sent, and the wait doubles with each probe that fails. A pause ends
so too: if all waiting orders were sent at once, the venue might ask for the next pause. Any answer ends a silence, a
refusal of the order included; the other two end with the answer to a probe. If two kinds apply, the row holds the
worse: a venue that locked us out stays so even if it is also silent or busy.

`permit()` locks the venue's row until the caller's transaction ends, so that claims for one venue follow one
another and its limits hold over all workers. It waits for nothing else.
"""

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from django.db import connection, transaction

from exchanges.models import VenueHealth
from exchanges.venue import LONGEST_PAUSE_SECONDS, VenueError, VenueTrouble
from quiktrade.database.statements import fetch
from quiktrade.texts import storable

logger = logging.getLogger(__name__)

SILENCES_TO_OPEN = 5
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 15.0
LONGEST_LOCK_OUT_SECONDS = 60.0
"""Venues lock accounts that keep trying, and nobody renews a key within seconds."""
PROBE_SECONDS = 10.0
"""A probe whose worker died is followed by another after this long: longer than any venue's deadline."""

LONG_PAUSE_SECONDS = 300.0
"""A pause of this length needs a person, because orders wait and clients ask about them."""

SILENT, PAUSED, LOCKED_OUT = VenueHealth.Trouble.values

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
    """How many orders may be sent now, at most; `in_flight` is how many the venue allows in flight in total."""

    sends: int
    in_flight: int
    probe: bool = False
    """The circuit is open, and one order may be sent to find out whether the venue is back."""
    troubled: bool = False
    """Requests went unanswered recently, so answers should be reported."""
    rated: bool = False
    """The venue has a rate limit, so the caller must `spend()` the sends."""
    halted: bool = False
    """Only cancels may be sent: a halt stops orders, and not the way out of them."""


NONE = Permit(0, 0)


def permit(code: str, wanted: int, *, cancels: bool = False) -> Permit:
    """Ask for up to `wanted` sends. Inside a transaction; the venue is locked until it ends.

    With `cancels` there are some among them, which a halted venue gets, too.
    """
    rows = fetch(_LOCK, {"venue": code})
    if not rows:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO exchanges_venuehealth (venue_id, trouble, silences, probes, last_error, tokens, tokens_at)"
                " VALUES (%s, '', 0, 0, '', 1, statement_timestamp()) ON CONFLICT DO NOTHING",
                [code],
            )
        rows = fetch(_LOCK, {"venue": code})
    in_flight, rate, halted, tokens, silences, is_open, waiting = rows[0]
    if (halted and not cancels) or waiting:
        return NONE
    sends = min(wanted, int(tokens)) if rate is not None else wanted
    if not is_open:
        return Permit(sends, in_flight, troubled=silences > 0, rated=rate is not None, halted=halted)
    if sends > 0:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE exchanges_venuehealth SET retry_at = statement_timestamp() + %s * interval '1 second'"
                " WHERE venue_id = %s",
                [PROBE_SECONDS, code],
            )
    return Permit(min(sends, 1), in_flight, probe=True, troubled=True, rated=rate is not None, halted=halted)


def spend(code: str, sends: int) -> None:
    """Take this many sends out of the venue's rate limit. In the transaction of `permit()`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE exchanges_venuehealth h SET tokens = LEAST(v.max_per_second, h.tokens + v.max_per_second"
            " * GREATEST(extract(epoch FROM statement_timestamp() - h.tokens_at)::float8, 0)) - %s,"
            " tokens_at = statement_timestamp() FROM exchanges_venue v WHERE h.venue_id = %s AND v.code = h.venue_id",
            [sends, code],
        )


def record_answer(code: str, *, probe: bool = False) -> None:
    """Record that the venue answered. That ends a silence; other trouble ends only with the answer to a probe."""
    with transaction.atomic(savepoint=False):
        was = _locked(code)
        if was is None or was.is_paused or not (was.silences or was.trouble):
            return
        if was.trouble in (PAUSED, LOCKED_OUT) and not probe:
            return  # an answer to an earlier request says nothing about the present
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE exchanges_venuehealth SET trouble = '', silences = 0, probes = 0, opened_at = NULL,"
                " retry_at = NULL, paused_until = NULL WHERE venue_id = %s",
                [code],
            )
        if was.trouble:
            _tell(code, "circuit_closed", _ENDED[was.trouble])


def record_silence(code: str, *, requests: int, probe: bool, error: str) -> None:
    """Record that this many requests in a row went unanswered, including the probe if `probe`."""
    with transaction.atomic(savepoint=False):
        if (was := _locked(code)) is None:
            return
        silences = was.silences + requests
        # Worse trouble than silence stays: refused credentials until they are accepted, a pause until it is over.
        stays = was.trouble == LOCKED_OUT or was.is_paused
        opens = not stays and (probe or silences >= SILENCES_TO_OPEN)
        reason = was.error if stays else error
        _record(was, SILENT if opens else was.trouble, error=reason, probe=probe, silences=silences)


def record_trouble(code: str, errors: Sequence[VenueError], *, probe: bool) -> None:
    """Record that the venue said, in some of these errors, that it takes nothing now."""
    paused = [error for error in errors if error.trouble is VenueTrouble.PAUSED]
    locked_out = [error for error in errors if error.trouble is VenueTrouble.LOCKED_OUT]
    if paused:
        seconds = max((error.retry_after for error in paused if error.retry_after is not None), default=None)
        record_pause(code, seconds=seconds, probe=probe, error=str(paused[-1]))
    if locked_out:
        record_lock_out(code, probe=probe, error=str(locked_out[-1]))


def record_look_ups(code: str, answers: Iterable[object]) -> None:
    """Record what look-ups say about the venue. Unanswered look-ups do not open the circuit: orders may still be
    sent."""
    errors = [answer if isinstance(answer, VenueError) else None for answer in answers]
    if troubled := [error for error in errors if error and error.trouble]:
        record_trouble(code, troubled, probe=True)
    elif any(error is None or error.answered for error in errors):
        record_answer(code)


def record_pause(code: str, *, seconds: float | None, probe: bool, error: str) -> None:
    """Record that the venue asked for a pause of this many seconds, or of unknown length."""
    with transaction.atomic(savepoint=False):
        if was := _locked(code):
            if seconds is None:
                seconds = _wait(was.probes, longest=LONGEST_WAIT_SECONDS)
            pause = min(max(seconds, FIRST_WAIT_SECONDS), LONGEST_PAUSE_SECONDS)
            _record(was, LOCKED_OUT if was.trouble == LOCKED_OUT else PAUSED, error=error, probe=probe, pause=pause)


def record_lock_out(code: str, *, probe: bool, error: str) -> None:
    """Record that the venue refused our credentials."""
    with transaction.atomic(savepoint=False):
        if was := _locked(code):
            _record(was, LOCKED_OUT, error=error, probe=probe)


def try_now(code: str) -> None:
    """Make the next probe due at once, even during a pause: an operator asked for it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE exchanges_venuehealth SET retry_at = statement_timestamp(), paused_until = NULL"
            " WHERE venue_id = %s AND retry_at IS NOT NULL",
            [code],
        )


def look_ups(code: str, wanted: int) -> int:
    """How many orders the venue may be asked about now: none before the probe is due, and one as a probe."""
    rows = fetch(_LOOK_UPS, {"venue": code})
    trouble, waiting = rows[0] if rows else ("", False)
    if trouble not in (PAUSED, LOCKED_OUT):
        return wanted  # a silent venue is asked, because look-ups use up nothing
    return 0 if waiting else min(wanted, 1)


_LOOK_UPS = "SELECT trouble, retry_at > statement_timestamp() FROM exchanges_venuehealth WHERE venue_id = %(venue)s"


class _Standing(NamedTuple):
    venue: str
    trouble: str
    silences: int
    probes: int
    error: str
    is_paused: bool
    """Whether a pause that the venue asked for is not over."""


def _locked(code: str) -> _Standing | None:
    rows = fetch(
        "SELECT venue_id, trouble, silences, probes, last_error, COALESCE(paused_until > statement_timestamp(), false)"
        " FROM exchanges_venuehealth WHERE venue_id = %(venue)s FOR NO KEY UPDATE",
        {"venue": code},
    )
    return _Standing._make(rows[0]) if rows else None


def _wait(probes: int, *, longest: float) -> float:
    """Seconds to the next probe: more after each one that failed, and random, so that venues are not probed
    together."""
    return min(longest, FIRST_WAIT_SECONDS * 2.0 ** min(probes, 30)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _record(
    was: _Standing, trouble: str, *, error: str, probe: bool, silences: int = 0, pause: float | None = None
) -> None:
    """Write the venue's state. When trouble begins and after each failed probe, the time of the next probe is set."""
    begins = trouble != was.trouble
    probes = (was.probes if trouble in (was.trouble, SILENT) else 0) + probe
    longest = LONGEST_LOCK_OUT_SECONDS if trouble == LOCKED_OUT else LONGEST_WAIT_SECONDS
    wait = None
    if begins or probe:
        wait = _wait(probes, longest=longest) if pause is None else 0.0
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE exchanges_venuehealth SET trouble = %(trouble)s, silences = %(silences)s, last_error = %(error)s,"
            " probes = %(probes)s, opened_at = CASE WHEN %(begins)s THEN statement_timestamp() ELSE opened_at END,"
            " paused_until = GREATEST(paused_until, statement_timestamp() + %(pause)s::float8 * interval '1 second'),"
            " retry_at = GREATEST(paused_until, statement_timestamp() + %(pause)s::float8 * interval '1 second',"
            " CASE WHEN %(wait)s::float8 IS NULL THEN retry_at"
            " ELSE statement_timestamp() + %(wait)s::float8 * interval '1 second' END) WHERE venue_id = %(venue)s",
            {
                "venue": was.venue,
                "trouble": trouble,
                "silences": silences,
                "error": storable(error),
                "probes": probes,
                "begins": begins,
                "pause": pause,
                "wait": wait,
            },
        )
    if begins:
        event, reason = _BEGINS[trouble]
        # Only a person can renew credentials or have a venue withdraw a long pause; other trouble ends by itself.
        grave = trouble == LOCKED_OUT or (pause or 0.0) >= LONG_PAUSE_SECONDS
        for_so_long = f" for {pause:.3g} s" if trouble == PAUSED else ""
        _tell(was.venue, event, f"{reason}{for_so_long}: {error}", logging.ERROR if grave else logging.WARNING)


# What a venue's history says about the trouble.
_BEGINS = {
    SILENT: ("circuit_opened", "It does not answer"),
    PAUSED: ("paused", "It asked us to stay away"),
    LOCKED_OUT: ("locked_out", "It refuses our credentials"),
}
_ENDED = {
    SILENT: "The venue answers again.",
    PAUSED: "The venue takes orders again.",
    LOCKED_OUT: "The venue lets us in again.",
}


CLOCK_MARGIN_SECONDS = 60.0


def pull_back(code: str) -> bool:
    """Make the next probe due now and refill the rate limit, if their times are further ahead than any wait.

    They were written while the database's clock was ahead. Returns whether there was such a time.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE exchanges_venuehealth SET tokens_at = LEAST(tokens_at, statement_timestamp()),"
            " opened_at = CASE WHEN opened_at > statement_timestamp() THEN statement_timestamp() ELSE opened_at END,"
            " paused_until = CASE WHEN paused_until > statement_timestamp() + %(pause)s * interval '1 second'"
            " THEN NULL ELSE paused_until END,"
            " retry_at = CASE WHEN retry_at > statement_timestamp() + %(furthest)s * interval '1 second'"
            " AND retry_at > COALESCE(paused_until, retry_at - interval '1 second')"
            " OR paused_until > statement_timestamp() + %(pause)s * interval '1 second'"
            " THEN statement_timestamp() ELSE retry_at END"
            " WHERE venue_id = %(venue)s AND (retry_at > statement_timestamp() + %(furthest)s * interval '1 second'"
            " OR tokens_at > statement_timestamp() + %(margin)s * interval '1 second')",
            {
                "venue": code,
                "furthest": max(LONGEST_WAIT_SECONDS, LONGEST_LOCK_OUT_SECONDS, PROBE_SECONDS) + CLOCK_MARGIN_SECONDS,
                "pause": LONGEST_PAUSE_SECONDS + CLOCK_MARGIN_SECONDS,
                "margin": CLOCK_MARGIN_SECONDS,
            },
        )
        return bool(cursor.rowcount)


def _tell(code: str, event: str, reason: str, level: int = logging.WARNING) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO exchanges_venueevent (venue_id, event, actor, reason, at)"
            " VALUES (%s, %s, 'system:health', %s, statement_timestamp())",
            [code, event, storable(reason)],
        )
    logger.log(level, "Venue's circuit changed", extra={"event": f"venue.{event}", "venue": code, "reason": reason})
