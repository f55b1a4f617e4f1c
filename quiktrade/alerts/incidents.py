"""Incidents: who judges, what a look at everything means for them, and what people do with them.

Any number of processes may judge. One of them takes a turn by moving a row's time on, and only the judgement of the
latest turn is written, so that looks are counted one by one, and everybody is told once, whoever dies or stands still.
"""

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from quiktrade.alerts.channels import PAGERDUTY
from quiktrade.alerts.judging import DATABASE_AWAY, NOT_JUDGED, TEST, Finding, Judge, Kind, judges, kinds
from quiktrade.database.statements import fetch
from quiktrade.metrics import names
from quiktrade.models import Incident, IncidentEvent, Notice, Watch
from quiktrade.outcomes import Outcome
from quiktrade.texts import MAX_ACTOR, kept_reason, storable

logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
OPEN_AFTER = 2
"""Looks in a row that find the same trouble, until people are told of it."""
CLOSE_AFTER = 3
"""Looks in a row that do not find it any more, until it is over."""
LOOK_MILLISECONDS = 1000
"""The longest that a statement of a look may take. Most take less than one."""
CLOCK_MARGIN_SECONDS = 60.0
"""A time that is further ahead than this was written before the database's clock was set back."""
MOST_FINDINGS = 500
"""At one look. More of them would be told of by nobody's choice."""
UNKNOWN_SECONDS = 3600.0
"""An incident of a kind that this process does not know is over when nobody has seen it for so long."""
ACTOR = "system:alerts"

_TURN = """
WITH taken AS (
    UPDATE quiktrade_watch SET turn = turn + 1, next_at = statement_timestamp() + %(look)s * interval '1 second'
    WHERE id = 1 AND (next_at <= statement_timestamp()
        OR next_at > statement_timestamp() + (%(look)s + %(margin)s) * interval '1 second')
    RETURNING turn
), first AS (
    INSERT INTO quiktrade_watch (id, turn, next_at)
    SELECT 1, 1, statement_timestamp() + %(look)s * interval '1 second' WHERE NOT EXISTS (SELECT FROM quiktrade_watch)
    ON CONFLICT DO NOTHING RETURNING turn
)
SELECT turn FROM taken UNION ALL SELECT turn FROM first
"""

_JUDGE = """
WITH mine AS (SELECT FROM quiktrade_watch WHERE id = 1 AND turn = %(turn)s FOR UPDATE),
bad AS (
    SELECT b.* FROM json_to_recordset(%(bad)s::json) AS b(kind text, subject text, severity text, sentence text,
        advice text, value float8, looks int, lasting float8), mine
), seen AS (
    INSERT INTO quiktrade_incident AS i
        (kind, subject, severity, sentence, advice, value, worst, bad_looks, opened_at)
    SELECT kind, subject, severity, sentence, advice, value, value, looks,
        CASE WHEN looks >= %(open_after)s AND lasting = 0 THEN statement_timestamp() END
    FROM bad
    ON CONFLICT (kind, subject) WHERE resolved_at IS NULL DO UPDATE SET
        severity = excluded.severity, sentence = excluded.sentence, advice = excluded.advice,
        value = excluded.value, worst = GREATEST(i.worst, excluded.value),
        bad_looks = i.bad_looks + 1, good_looks = 0, seen_at = statement_timestamp(),
        opened_at = COALESCE(i.opened_at, CASE WHEN i.bad_looks + excluded.bad_looks >= %(open_after)s
            AND i.first_seen_at <= statement_timestamp() - interval '1 second' *
                (SELECT b.lasting FROM bad b WHERE b.kind = excluded.kind AND b.subject = excluded.subject)
            THEN statement_timestamp() END)
    RETURNING id, kind, subject, severity, sentence, opened_at, acknowledged_at
), better AS (
    UPDATE quiktrade_incident i SET good_looks = good_looks + 1,
        resolved_at = CASE WHEN good_looks + 1 >= %(close_after)s THEN statement_timestamp() END
    FROM mine
    WHERE i.resolved_at IS NULL AND i.opened_at IS NOT NULL
        AND (i.kind = ANY(%(asked)s) OR NOT i.kind = ANY(%(known)s)
            AND i.seen_at < statement_timestamp() - %(unknown)s * interval '1 second')
        AND NOT EXISTS (SELECT FROM bad b WHERE b.kind = i.kind AND b.subject = i.subject)
    RETURNING id, kind, subject, severity, sentence, resolved_at
), forgotten AS (
    DELETE FROM quiktrade_incident i USING mine
    WHERE i.resolved_at IS NULL AND i.opened_at IS NULL
        AND (i.kind = ANY(%(asked)s) OR NOT i.kind = ANY(%(known)s)
            AND i.seen_at < statement_timestamp() - %(unknown)s * interval '1 second')
        AND NOT EXISTS (SELECT FROM bad b WHERE b.kind = i.kind AND b.subject = i.subject)
), changed AS (
    SELECT id, 'opened' AS event, kind, subject, severity, sentence FROM seen WHERE opened_at = statement_timestamp()
    UNION ALL
    SELECT id, 'resolved', kind, subject, severity, sentence FROM better WHERE resolved_at IS NOT NULL
), told AS (
    INSERT INTO quiktrade_notice (incident_id, what, channel)
    SELECT s.id, 'opened', c.name FROM seen s CROSS JOIN unnest(%(channels)s::text[]) AS c(name)
    WHERE s.opened_at IS NOT NULL AND s.acknowledged_at IS NULL
        AND NOT EXISTS (SELECT FROM quiktrade_notice n
            WHERE n.incident_id = s.id AND n.what = 'opened' AND n.channel = c.name)
    UNION ALL
    SELECT b.id, 'resolved', n.channel FROM better b JOIN quiktrade_notice n ON n.incident_id = b.id
    WHERE b.resolved_at IS NOT NULL AND n.what = 'opened'
    ON CONFLICT DO NOTHING
), written AS (
    INSERT INTO quiktrade_incidentevent (incident_id, event, actor, reason)
    SELECT id, event, %(actor)s, sentence FROM changed
)
SELECT event, id, kind, subject, severity, sentence FROM changed
"""
"""`looks` is how much one look counts. A channel that was added while an incident is open is told of it, too.

The end is told to each channel that was told of the beginning, although the process that judges may not have it in its
settings while processes are replaced. Likewise it may not know a kind that others do.
"""


class Change(NamedTuple):
    event: str
    id: UUID
    kind: str
    subject: str
    severity: str
    sentence: str


def take_turn() -> int | None:
    """The number of this process's turn to judge; None if it is not due, or another process has it."""
    rows = fetch(_TURN, {"look": LOOK_SECONDS, "margin": CLOCK_MARGIN_SECONDS})
    return rows[0][0] if rows else None


def look() -> tuple[list[str], list[Finding]]:
    """The kinds that could be asked about, and all that is wrong of them. That others could not be is wrong, too."""
    asked = [NOT_JUDGED.name]
    found: list[Finding] = []
    for judge in judges():
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute(f"SET LOCAL statement_timeout = {LOOK_MILLISECONDS}")
                findings = judge.look()
        except DatabaseError as error:
            names.DATABASE_TROUBLE("alerts").inc()
            found.append(_not_judged(judge))
            fields = {"event": "alerts.not_judged", "kinds": [kind.name for kind in judge.kinds]}
            logger.error("A look for trouble failed", extra={**fields, "error": str(error).strip()})
            connection.close_if_unusable_or_obsolete()
        except Exception:
            found.append(_not_judged(judge))
            fields = {"event": "alerts.judge_failed", "kinds": [kind.name for kind in judge.kinds]}
            logger.exception("A look for trouble failed in a way nobody foresaw", extra=fields)
        else:
            asked += [kind.name for kind in judge.kinds]
            found += findings
    return asked, found


def _not_judged(judge: Judge) -> Finding:
    unknown = ", ".join(kind.name for kind in judge.kinds)
    sentence = f"Looks for trouble fail, so nobody would be told of any of these: {unknown}."
    advice = "The console may show whether there is any. The log says why: alerts.not_judged, alerts.judge_failed."
    return Finding(NOT_JUDGED, unknown, sentence, advice)


def judge(turn: int, asked: Sequence[str], found: Sequence[Finding]) -> list[Change]:
    """Write what a look means. Nothing is written if somebody else has had a turn since."""
    first = {(finding.kind.name, finding.subject): finding for finding in reversed(found)}
    bad = [
        {
            "kind": finding.kind.name,
            "subject": storable(finding.subject, 200),
            "severity": finding.kind.severity,
            "sentence": storable(finding.sentence),
            "advice": storable(finding.advice),
            "value": finding.value,
            "looks": OPEN_AFTER if finding.kind.at_once else 1,
            "lasting": finding.kind.lasting_seconds,
        }
        for finding in list(first.values())[:MOST_FINDINGS]
    ]
    values = {
        "turn": turn,
        "bad": json.dumps(bad),
        "asked": list(asked),
        "known": list(kinds()),
        "unknown": UNKNOWN_SECONDS,
        "channels": [channel.name for channel in settings.ALERTS],
        "open_after": OPEN_AFTER,
        "close_after": CLOSE_AFTER,
        "actor": ACTOR,
    }
    changes = [Change._make(row) for row in fetch(_JUDGE, values)]
    for change in changes:
        fields = {"incident": change.id, "kind": change.kind, "subject": change.subject, "what": change.sentence}
        if change.event == IncidentEvent.Event.OPENED:
            level = logging.ERROR if change.severity == Incident.Severity.PAGE else logging.WARNING
            logger.log(level, "Incident opened", extra={"event": "alerts.opened", **fields})
        else:
            logger.info("Incident is over", extra={"event": "alerts.resolved", **fields})
    return changes


# ---- What people do ----


def acknowledge(ids: Sequence[UUID], *, actor: str, reason: str) -> list[Outcome]:
    """Write who looks after incidents, and why nobody else need. Pagers are told, so that they stop."""
    reason = kept_reason(reason)
    pagers = [channel.name for channel in settings.ALERTS if channel.kind == PAGERDUTY]
    with transaction.atomic():
        rows = Incident.objects.select_for_update(no_key=True).exclude(opened_at=None).in_bulk(ids)
        outcomes = [Outcome(id_, not (why := _refusal(rows.get(id_))), why) for id_ in ids]
        done = [outcome.key for outcome in outcomes if outcome.done]
        Incident.objects.filter(pk__in=done).update(
            acknowledged_at=Now(), acknowledged_by=storable(actor, MAX_ACTOR), acknowledged_for=reason
        )
        _write(done, IncidentEvent.Event.ACKNOWLEDGED, actor=actor, reason=reason)
        paged = Notice.objects.filter(incident__in=done, what=IncidentEvent.Event.OPENED, channel__in=pagers)
        Notice.objects.bulk_create(
            Notice(incident_id=notice.incident_id, what=IncidentEvent.Event.ACKNOWLEDGED, channel=notice.channel)
            for notice in paged
        )
    for id_ in done:
        fields = {"event": "alerts.acknowledged", "incident": id_, "actor": actor, "reason": reason}
        logger.info("Incident acknowledged", extra=fields)
    return outcomes


def _refusal(incident: Incident | None) -> str:
    if incident is None:
        return "There is no such incident."
    if incident.resolved_at is not None:
        return "It is over."
    if incident.acknowledged_at is not None:
        return f"It was acknowledged by {incident.acknowledged_by}: {incident.acknowledged_for}"
    return ""


def make_test(*, actor: str) -> Incident:
    """An incident that is over at once: each channel is told that it opened, and that it is over."""
    sentence = f"This is a test of alerts. {actor} asked for it."
    advice = "There is nothing to do: whoever reads this is reached."
    with transaction.atomic():
        incident = _insert_over(TEST, sentence, advice, since=None, actor=actor)
        Notice.objects.bulk_create(
            Notice(incident=incident, what=what, channel=channel.name) for what in _BOTH for channel in settings.ALERTS
        )
    return incident


def record_outage(since: datetime, *, node: str) -> None:
    """Have the list show that the database was away, once for all processes that noticed. They told of it already."""
    sentence = f"The database could not be used by {node}."
    advice = "Orders were refused with 503 meanwhile, and none was lost."
    with transaction.atomic():
        Watch.objects.select_for_update().filter(pk=1).first()  # one process after the other
        if Incident.objects.filter(kind=DATABASE_AWAY.name, resolved_at__gte=since).exists():
            return
        _insert_over(DATABASE_AWAY, sentence, advice, since=since, actor=ACTOR)


_BOTH = (IncidentEvent.Event.OPENED, IncidentEvent.Event.RESOLVED)


def _insert_over(kind: Kind, sentence: str, advice: str, *, since: datetime | None, actor: str) -> Incident:
    """In a transaction: an incident that is over already. `since` None: it took no time."""
    incident = Incident.objects.create(
        kind=kind.name,
        severity=kind.severity,
        sentence=storable(sentence),
        advice=advice,
        value=1,
        worst=1,
        opened_at=since or Now(),
        resolved_at=Now(),
        **({"first_seen_at": since} if since else {}),
    )
    _write([incident.pk], *_BOTH, actor=actor, reason=sentence)
    return incident


def _write(ids: Sequence[UUID], *events: IncidentEvent.Event, actor: str, reason: str) -> None:
    IncidentEvent.objects.bulk_create(
        IncidentEvent(incident_id=id_, event=event, actor=storable(actor, MAX_ACTOR), reason=storable(reason))
        for id_ in ids
        for event in events
    )


def unacknowledged() -> QuerySet[Incident]:
    """Those that are open and that nobody looks after yet."""
    return Incident.objects.filter(resolved_at=None, acknowledged_at=None, opened_at__isnull=False)
