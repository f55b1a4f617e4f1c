"""Sends what channels are to be told of incidents: each notice at least once, until it is sent or its tries are spent.

Each channel has a thread of its own while there is something for it, so that one that hangs delays no other. A notice
is claimed under a lease, sent with no transaction open, and recorded. If its process dies meanwhile, another one sends
it when the lease has ended.
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from quiktrade.alerts.channels import Channel, named
from quiktrade.alerts.judging import TEST, kinds
from quiktrade.alerts.messages import Message, link
from quiktrade.alerts.sending import NotSent, send
from quiktrade.database.statements import fetch
from quiktrade.texts import storable

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""Longer than `sending.DEADLINE_SECONDS` and the step that is under way then."""
RETRY_SECONDS = (5, 10, 20, 60, 120, 300, 600, 900, 1200)
"""The waits after the first failure, the second … A failure after the last of them is the end: ten tries in all. But an
incident that is open, and that nobody looks after, is tried on at the last wait."""
MOST_TRIES = len(RETRY_SECONDS) + 1
FORGOTTEN_SECONDS = 86_400
"""A notice of a channel that is not configured any more is given up after this time."""

_OPENED_FIRST = """
NOT (n.what <> 'opened' AND EXISTS (SELECT FROM quiktrade_notice o WHERE o.incident_id = n.incident_id
    AND o.channel = n.channel AND o.what = 'opened' AND o.sent_at IS NULL AND o.given_up_at IS NULL))
"""
"""What is over must not be heard of before it began: a pager would keep it for ever."""

_TO_BE_TOLD = """
(n.tries < %(most)s OR n.what = 'opened' AND EXISTS (SELECT FROM quiktrade_incident t
    WHERE t.id = n.incident_id AND t.resolved_at IS NULL AND t.acknowledged_at IS NULL))
"""

_DUE = f"""
SELECT DISTINCT channel FROM quiktrade_notice n
WHERE sent_at IS NULL AND given_up_at IS NULL AND due_at <= statement_timestamp() AND channel = ANY(%(channels)s)
    AND {_TO_BE_TOLD} AND {_OPENED_FIRST}
"""

_CLAIM = f"""
UPDATE quiktrade_notice c SET tries = c.tries + 1,
    due_at = statement_timestamp() + %(lease)s * interval '1 second'
FROM (
    SELECT id FROM quiktrade_notice n
    WHERE sent_at IS NULL AND given_up_at IS NULL AND due_at <= statement_timestamp() AND channel = %(channel)s
        AND (%(incident)s::uuid IS NULL OR incident_id = %(incident)s) AND {_TO_BE_TOLD} AND {_OPENED_FIRST}
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
) due, quiktrade_incident i
WHERE c.id = due.id AND i.id = c.incident_id
RETURNING c.id, c.tries, c.what, i.id, i.kind, i.subject, i.severity, i.sentence, i.advice, i.opened_at, i.resolved_at,
    i.acknowledged_by, i.acknowledged_for, statement_timestamp()
"""

_SENT = """
UPDATE quiktrade_notice SET sent_at = statement_timestamp(), given_up_at = NULL, error = ''
WHERE id = %(id)s AND sent_at IS NULL RETURNING id
"""

_FAILED = f"""
UPDATE quiktrade_notice n SET error = %(error)s,
    due_at = statement_timestamp() + %(wait)s * interval '1 second',
    given_up_at = CASE WHEN %(only)s OR NOT {_TO_BE_TOLD} THEN statement_timestamp() END
WHERE id = %(id)s AND tries = %(tries)s AND sent_at IS NULL RETURNING given_up_at IS NOT NULL
"""
"""Whoever claimed it later knows better."""

_GIVE_UP = f"""
UPDATE quiktrade_notice n SET given_up_at = statement_timestamp(), error = CASE
    WHEN tries < %(most)s THEN 'The channel is not configured any more.'
    WHEN error <> '' THEN error
    ELSE 'Its sender ended before there was an answer, each time or the last.' END
WHERE sent_at IS NULL AND given_up_at IS NULL AND (NOT {_TO_BE_TOLD} AND due_at <= statement_timestamp()
    OR NOT channel = ANY(%(channels)s) AND due_at < statement_timestamp() - %(seconds)s * interval '1 second')
RETURNING id
"""


class Claimed(NamedTuple):
    id: int
    tries: int
    what: str
    incident: UUID
    kind: str
    subject: str
    severity: str
    sentence: str
    advice: str
    opened_at: datetime
    resolved_at: datetime | None
    acknowledged_by: str
    acknowledged_for: str
    at: datetime

    def message(self) -> Message:
        kind = kinds().get(self.kind)
        return Message(
            id=f"alert_{self.id}",
            what=self.what,
            incident=str(self.incident),
            kind=self.kind,
            title=kind.title if kind else self.kind,
            subject=self.subject,
            severity=self.severity,
            sentence=self.sentence,
            advice=self.advice,
            at=self.at,
            opened_at=self.opened_at,
            resolved_at=self.resolved_at,
            acknowledged_by=self.acknowledged_by,
            acknowledged_for=self.acknowledged_for,
            link=link(self.incident),
        )


_busy: set[str] = set()
"""The channels for which a thread of this process sends."""
_lock = threading.Lock()


def send_due() -> list[threading.Thread]:
    """Have threads send what is due, and return them at once.

    A process that ends does not wait for them, so that no channel keeps one from ending. What it then has under way is
    sent again by another one.
    """
    started: list[threading.Thread] = []
    if not settings.ALERTS:
        return started
    for (name,) in fetch(_DUE, {"channels": [channel.name for channel in settings.ALERTS], "most": MOST_TRIES}):
        channel = named(settings.ALERTS, name)
        if channel is not None and _take(name):
            work = partial(_send_all, channel)
            started += start(work, name=f"alerts-{channel.kind}", otherwise=partial(_busy.discard, name))
    return started


def start(work: Callable[[], None], *, name: str, otherwise: Callable[[], object]) -> list[threading.Thread]:
    """Start one thread. If this process can have none, `otherwise` is called, and the next look tries again."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        otherwise()
        logger.error("Alerts cannot be sent for now", extra={"event": "alerts.no_thread", "error": error})
        return []
    return [thread]


def give_up() -> None:
    """Give up what nobody will record: it is for a channel of yesterday, or whoever sent it the last time has died."""
    names = [channel.name for channel in settings.ALERTS]
    fetch(_GIVE_UP, {"channels": names, "seconds": FORGOTTEN_SECONDS, "most": MOST_TRIES})


def _take(name: str) -> bool:
    with _lock:
        if name in _busy:
            return False
        _busy.add(name)
        return True


def _send_all(channel: Channel) -> None:
    try:
        while send_one(channel) is not None:
            pass
    except DatabaseError as error:
        fields = {"event": "alerts.not_recorded", "channel": channel.name, "error": str(error).strip()}
        logger.error("Alerts cannot be read or recorded, trying again", extra=fields)
    finally:
        _busy.discard(channel.name)
        connection.close()


def send_one(channel: Channel, incident: UUID | None = None) -> tuple[Claimed, str] | None:
    """Send the channel's next notice, of this incident or of any. None is due: None. Else it, and why it was not sent.

    Raises: django.db.Error, and then it may be sent once more later.
    """
    values = {"channel": channel.name, "incident": incident, "lease": LEASE_SECONDS, "most": MOST_TRIES}
    rows = fetch(_CLAIM, values)
    if not rows:
        return None
    claimed = Claimed._make(rows[0])
    if not connection.in_atomic_block:
        connection.close()  # nothing is held while the channel takes its time
    error = attempt(channel, claimed.message())
    if not error:
        fetch(_SENT, {"id": claimed.id})
        fields = {"event": "alerts.sent", "channel": channel.name, "incident": claimed.incident, "what": claimed.what}
        logger.info("Alert sent", extra=fields)
    else:
        _record_failure(channel, claimed, error)
    return claimed, error


def attempt(channel: Channel, message: Message) -> str:
    """Send once. Returns why it was not sent, or nothing."""
    try:
        send(channel, message)
    except NotSent as error:
        return storable(str(error))
    except Exception:
        fields = {"event": "alerts.failed", "channel": channel.name}
        logger.exception("An alert failed in a way nobody foresaw", extra=fields)
        return "It could not be sent, by an error of ours."
    return ""


def _record_failure(channel: Channel, claimed: Claimed, error: str) -> None:
    wait = RETRY_SECONDS[min(claimed.tries, len(RETRY_SECONDS)) - 1]
    values = {"id": claimed.id, "tries": claimed.tries, "error": error, "wait": wait, "most": MOST_TRIES}
    rows = fetch(_FAILED, {**values, "only": claimed.kind == TEST.name})
    fields = {"channel": channel.name, "incident": claimed.incident, "tries": claimed.tries, "error": error}
    if rows and rows[0][0]:
        logger.error("Alert given up", extra={"event": "alerts.given_up", **fields})
    else:
        logger.warning("Alert not sent, trying again", extra={"event": "alerts.not_sent", **fields})
