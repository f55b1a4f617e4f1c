"""Whether, and how fast, orders may be sent to a venue: its circuit and its rate, in rows that all workers share.

A venue's circuit is open while it is in trouble: its orders wait, and spend no attempts. There are three kinds.

    silent      it left `SILENCES_TO_OPEN` requests in a row without an answer
    paused      it asked for a pause: nothing is sent to it, and it is asked nothing, before that is over
    locked_out  it refuses our credentials: a person must renew them

Each ends with a probe: after a while one order is sent, and the wait doubles with each probe that fails. After a
pause, too: all that waited, sent at once, would be the next reason to ask for one. Any answer ends a silence, a
refusal of the order included; the other two end with the answer to a probe. Of two kinds at once the row says the
worse: what is locked out stays so, however silent or busy the venue is besides.

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
"""Venues lock accounts that keep on trying; nobody renews a key within seconds."""
PROBE_SECONDS = 10.0
"""A probe whose worker died is followed by another after this long: longer than any venue's deadline."""

LONG_PAUSE_SECONDS = 300.0
"""A venue that asks for so much calls a person: its orders wait, and its clients ask."""

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
                "INSERT INTO exchanges_venuehealth (venue_id, trouble, silences, probes, last_error, tokens, tokens_at)"
                " VALUES (%s, '', 0, 0, '', 1, statement_timestamp()) ON CONFLICT DO NOTHING",
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
    """Take this many sends out of the venue's rate limit. In the transaction of `permit()`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE exchanges_venuehealth h SET tokens = LEAST(v.max_per_second, h.tokens + v.max_per_second"
            " * GREATEST(extract(epoch FROM statement_timestamp() - h.tokens_at)::float8, 0)) - %s,"
            " tokens_at = statement_timestamp() FROM exchanges_venue v WHERE h.venue_id = %s AND v.code = h.venue_id",
            [sends, code],
        )


def record_answer(code: str, *, probe: bool = False) -> None:
    """The venue spoke. That ends a silence; other trouble ends with the answer to a probe, and not before its time."""
    with transaction.atomic(savepoint=False):
        was = _locked(code)
        if was is None or was.is_paused or not (was.silences or was.trouble):
            return
        if was.trouble in (PAUSED, LOCKED_OUT) and not probe:
            return  # an answer to what was sent before says nothing of now
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE exchanges_venuehealth SET trouble = '', silences = 0, probes = 0, opened_at = NULL,"
                " retry_at = NULL, paused_until = NULL WHERE venue_id = %s",
                [code],
            )
        if was.trouble:
            _tell(code, "circuit_closed", _ENDED[was.trouble])


def record_silence(code: str, *, requests: int, probe: bool, error: str) -> None:
    """So many requests in a row went unanswered, the probe among them if `probe`."""
    with transaction.atomic(savepoint=False):
        if (was := _locked(code)) is None:
            return
        silences = was.silences + requests
        # What is worse than silence stays: refused credentials until they are taken, a pause until it is over.
        stays = was.trouble == LOCKED_OUT or was.is_paused
        opens = not stays and (probe or silences >= SILENCES_TO_OPEN)
        reason = was.error if stays else error
        _record(was, SILENT if opens else was.trouble, error=reason, probe=probe, silences=silences)


def record_trouble(code: str, errors: Sequence[VenueError], *, probe: bool) -> None:
    """The venue said, by some of these errors, that it takes nothing now."""
    paused = [error for error in errors if error.trouble is VenueTrouble.PAUSED]
    locked_out = [error for error in errors if error.trouble is VenueTrouble.LOCKED_OUT]
    if paused:
        seconds = max((error.retry_after for error in paused if error.retry_after is not None), default=None)
        record_pause(code, seconds=seconds, probe=probe, error=str(paused[-1]))
    if locked_out:
        record_lock_out(code, probe=probe, error=str(locked_out[-1]))


def record_look_ups(code: str, answers: Iterable[object]) -> None:
    """What look-ups say of the venue. That it does not answer them opens no circuit: orders may go on."""
    errors = [answer if isinstance(answer, VenueError) else None for answer in answers]
    if troubled := [error for error in errors if error and error.trouble]:
        record_trouble(code, troubled, probe=True)
    elif any(error is None or error.answered for error in errors):
        record_answer(code)


def record_pause(code: str, *, seconds: float | None, probe: bool, error: str) -> None:
    """The venue asked for a pause of this many seconds, or did not say for how long."""
    with transaction.atomic(savepoint=False):
        if was := _locked(code):
            if seconds is None:
                seconds = _wait(was.probes, longest=LONGEST_WAIT_SECONDS)
            pause = min(max(seconds, FIRST_WAIT_SECONDS), LONGEST_PAUSE_SECONDS)
            _record(was, LOCKED_OUT if was.trouble == LOCKED_OUT else PAUSED, error=error, probe=probe, pause=pause)


def record_lock_out(code: str, *, probe: bool, error: str) -> None:
    """The venue refused our credentials."""
    with transaction.atomic(savepoint=False):
        if was := _locked(code):
            _record(was, LOCKED_OUT, error=error, probe=probe)


def try_now(code: str) -> None:
    """Have the next probe sent at once, whatever the venue asked for: an operator knows better."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE exchanges_venuehealth SET retry_at = statement_timestamp(), paused_until = NULL"
            " WHERE venue_id = %s AND retry_at IS NOT NULL",
            [code],
        )


def look_ups(code: str, wanted: int) -> int:
    """How many orders the venue may be asked about now: none before its time, one to find out how it stands."""
    rows = fetch(_LOOK_UPS, {"venue": code})
    trouble, waiting = rows[0] if rows else ("", False)
    if trouble not in (PAUSED, LOCKED_OUT):
        return wanted  # a silent venue is asked: look-ups spend nothing
    return 0 if waiting else min(wanted, 1)


_LOOK_UPS = "SELECT trouble, retry_at > statement_timestamp() FROM exchanges_venuehealth WHERE venue_id = %(venue)s"


class _Standing(NamedTuple):
    venue: str
    trouble: str
    silences: int
    probes: int
    error: str
    is_paused: bool
    """The venue asked to be left alone, and that time is not over."""


def _locked(code: str) -> _Standing | None:
    rows = fetch(
        "SELECT venue_id, trouble, silences, probes, last_error, COALESCE(paused_until > statement_timestamp(), false)"
        " FROM exchanges_venuehealth WHERE venue_id = %(venue)s FOR NO KEY UPDATE",
        {"venue": code},
    )
    return _Standing._make(rows[0]) if rows else None


def _wait(probes: int, *, longest: float) -> float:
    """Longer with each probe that failed, and not the same for all venues that one cause made silent."""
    return min(longest, FIRST_WAIT_SECONDS * 2.0 ** min(probes, 30)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _record(
    was: _Standing, trouble: str, *, error: str, probe: bool, silences: int = 0, pause: float | None = None
) -> None:
    """Write how the venue stands. When trouble begins, and after each probe that failed, the next probe is set."""
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
        # Nobody but a person renews credentials, or has a venue take a long pause back; the rest passes.
        grave = trouble == LOCKED_OUT or (pause or 0.0) >= LONG_PAUSE_SECONDS
        for_so_long = f" for {pause:.3g} s" if trouble == PAUSED else ""
        _tell(was.venue, event, f"{reason}{for_so_long}: {error}", logging.ERROR if grave else logging.WARNING)


# What a venue's history says of it.
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
    """Have the next probe sent now, and the bucket filled again, if their times are further ahead than any wait.

    They were written while the database's clock was ahead. Says whether there was such a time.
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
