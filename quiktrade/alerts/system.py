"""What can be wrong with the system, apart from orders and venues."""

from collections.abc import Sequence

from django.conf import settings

from quiktrade.alerts.judging import PAGE, TICKET, Finding, Judge, Kind
from quiktrade.alerts.notices import MOST_TRIES
from quiktrade.database.statements import fetch
from quiktrade.texts import storable

OVERLOADED = Kind("overloaded", "Requests refused", PAGE)
DATABASE_TROUBLE = Kind("database_trouble", "Database trouble", TICKET)
REPLICA_BEHIND = Kind("replica_behind", "Replica behind", TICKET)
REFRESH_REUSED = Kind("refresh_reused", "Refresh token used twice", PAGE, at_once=True)
ARCHIVE_FAILS = Kind("archive_fails", "Write-ahead log not archived", PAGE, lasting_seconds=600.0)
ALERTS_UNSENT = Kind("alerts_unsent", "Alerts do not arrive", TICKET)

SIGHTED = {kind.name: kind for kind in (OVERLOADED, DATABASE_TROUBLE, REPLICA_BEHIND)}
ADVICE = {
    OVERLOADED: "Start more web processes (QUIKTRADE_WEB_WORKERS), or ask clients with many orders to send batches.",
    DATABASE_TROUBLE: "Look at the database's own log: restarts, a failover, a full disk, too many connections.",
    REPLICA_BEHIND: "Look at the standby's disk, network and long queries. Meanwhile lists are read from the primary.",
    REFRESH_REUSED: "Somebody else may have the client's tokens. Ask the client; give the account a new password.",
    ARCHIVE_FAILS: "Look at archive_command in the database's log. Until it works, a restore loses what came since, "
    "and the primary's disk fills up.",
    ALERTS_UNSENT: "Look at the incidents' notices for the error, mend the channel, and send a test.",
}

SEEN_SECONDS = 30.0
"""Who sees trouble repeats it every five seconds."""
KEPT_SECONDS = 86_400.0
BEHIND_BYTES = 100 * 1024 * 1024
REUSE_SECONDS = 3600.0
"""An incident of this kind stays open for so long after the last reuse."""
MOST = 100

_REPORT = """
WITH old AS (
    DELETE FROM quiktrade_sighting WHERE seen_at < statement_timestamp() - %(kept)s * interval '1 second'
        AND (kind, subject) <> (%(kind)s, %(subject)s)
)
INSERT INTO quiktrade_sighting (kind, subject, sentence, value, seen_at)
VALUES (%(kind)s, %(subject)s, %(sentence)s, %(value)s, statement_timestamp())
ON CONFLICT (kind, subject) DO UPDATE
    SET sentence = excluded.sentence, value = excluded.value, seen_at = excluded.seen_at
RETURNING kind
"""

_SIGHTINGS = """
SELECT kind, subject, sentence, value FROM quiktrade_sighting
WHERE seen_at > statement_timestamp() - %(seen)s * interval '1 second' ORDER BY kind, subject LIMIT %(most)s
"""

_STANDBYS = """
SELECT application_name, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float8 AS behind
FROM pg_stat_replication
WHERE NOT pg_is_in_recovery() AND pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) > %(most_behind)s
"""

_REUSED = """
SELECT u.username, count(*)::int FROM quiktrade_session s JOIN auth_user u ON u.id = s.user_id
WHERE s.revoked_for = 'reuse' AND s.revoked_at > statement_timestamp() - %(lately)s * interval '1 second'
GROUP BY u.username ORDER BY max(s.revoked_at) DESC LIMIT %(most)s
"""

_ARCHIVER = """
SELECT extract(epoch FROM statement_timestamp() - COALESCE(last_archived_time, stats_reset))::float8, last_failed_wal
FROM pg_stat_archiver
WHERE last_failed_time > COALESCE(last_archived_time, '-infinity') AND current_setting('archive_mode') <> 'off'
"""
"""The time since the last success says little: where nothing is written, nothing is to be archived."""

_UNSENT = """
SELECT n.channel, count(*)::int, (array_agg(n.error ORDER BY n.given_up_at DESC))[1]
FROM quiktrade_notice n JOIN quiktrade_incident i ON i.id = n.incident_id
WHERE (n.given_up_at > statement_timestamp() - %(lately)s * interval '1 second'
        OR n.sent_at IS NULL AND n.given_up_at IS NULL AND n.tries >= %(tries)s)
    AND n.channel = ANY(%(channels)s) AND NOT i.kind = ANY(%(but)s)
GROUP BY n.channel LIMIT %(most)s
"""


def report(found: Sequence[Finding]) -> None:
    """Have the next look know of trouble that only this process sees. It has to be repeated while it lasts."""
    for finding in found:
        values = {
            "kind": finding.kind.name,
            "subject": storable(finding.subject, 200),
            "sentence": storable(finding.sentence),
            "value": finding.value,
            "kept": KEPT_SECONDS,
        }
        fetch(_REPORT, values)


def _sighted() -> list[Finding]:
    rows = fetch(_SIGHTINGS, {"seen": SEEN_SECONDS, "most": MOST})
    found = [
        Finding(SIGHTED[kind], subject, sentence, ADVICE[SIGHTED[kind]], value)
        for kind, subject, sentence, value in rows
        if kind in SIGHTED
    ]
    for name, behind in fetch(_STANDBYS, {"most_behind": BEHIND_BYTES}):
        sentence = f"The standby {name} is {behind / 1024 / 1024:,.0f} MiB behind."
        found.append(Finding(REPLICA_BEHIND, f"standby {name}", sentence, ADVICE[REPLICA_BEHIND], behind))
    return found


def _reused() -> list[Finding]:
    return [
        Finding(
            REFRESH_REUSED,
            account,
            f"A refresh token of {account} was used again, {times} times within an hour. Its sessions were ended.",
            ADVICE[REFRESH_REUSED],
            times,
        )
        for account, times in fetch(_REUSED, {"lately": REUSE_SECONDS, "most": MOST})
    ]


def _archive() -> list[Finding]:
    return [
        Finding(
            ARCHIVE_FAILS,
            "",
            f"No segment of the write-ahead log was archived for {seconds / 60:.0f} minutes; {segment} failed last.",
            ADVICE[ARCHIVE_FAILS],
            seconds,
        )
        for seconds, segment in fetch(_ARCHIVER, {})
    ]


def _unsent() -> list[Finding]:
    """Channels that failed ten times, but not with this very news: that would keep itself alive."""
    values = {
        "lately": REUSE_SECONDS,
        "tries": MOST_TRIES,
        "channels": [channel.name for channel in settings.ALERTS],
        "but": [ALERTS_UNSENT.name, "test"],
        "most": MOST,
    }
    return [
        Finding(
            ALERTS_UNSENT,
            channel,
            f"{count} {'alert' if count == 1 else 'alerts'} to {channel} failed ten times: {error}",
            ADVICE[ALERTS_UNSENT],
            count,
        )
        for channel, count, error in fetch(_UNSENT, values)
    ]


JUDGES = (
    Judge((OVERLOADED, DATABASE_TROUBLE, REPLICA_BEHIND), _sighted),
    Judge((REFRESH_REUSED,), _reused),
    Judge((ARCHIVE_FAILS,), _archive),
    Judge((ALERTS_UNSENT,), _unsent),
)
