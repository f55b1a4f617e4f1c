"""What can be wrong with orders and venues, for the people who are told of it: what needs an operator in the console,
once it has lasted."""

from django.utils import timezone

from orders import attention, selectors
from orders.attention import Trouble, TroubleKind
from orders.webhooks import services
from quiktrade.alerts.judging import PAGE, TICKET, Finding, Judge, Kind
from quiktrade.api.health import UNREAD_TOO_LONG_SECONDS

ATTENTION = {
    kind: Kind(kind.value, title, severity)
    for kind, title, severity in (
        (TroubleKind.NO_WORKER, "No worker", PAGE),
        (TroubleKind.OVERDUE, "Orders overdue", PAGE),
        (TroubleKind.DOUBTFUL, "Orders in doubt", PAGE),
        (TroubleKind.PARKED, "Orders parked", TICKET),
        (TroubleKind.FAILED, "Orders failed", TICKET),
        (TroubleKind.UNANSWERED, "Requests unanswered", TICKET),
        (TroubleKind.IN_TROUBLE, "Venue in trouble", PAGE),
        (TroubleKind.HALTED, "Venue halted for long", TICKET),
    )
}
LASTING_SECONDS = {TroubleKind.IN_TROUBLE: 60.0, TroubleKind.HALTED: 3600.0}
"""The console shows these at once, and people are told when they have lasted for so long."""
MOST_CLIENTS = 100
"""Of whose webhooks people are told."""
REPORTS_UNREAD = Kind("reports_unread", "Venue's reports unread", PAGE)
WEBHOOKS_DISABLED = Kind("webhooks_disabled", "Webhooks disabled", TICKET)


def _attention() -> list[Finding]:
    """By venue, where that can be told: somebody who looks after one venue's orders hides none of another's."""
    of_all = [found for found in attention.state().troubles() if found.kind != TroubleKind.UNANSWERED]
    return [_finding(found) for found in (*of_all, *attention.troubles_by_venue()) if _has_lasted(found)]


def _has_lasted(found: Trouble) -> bool:
    seconds = LASTING_SECONDS.get(found.kind)
    return seconds is None or found.since is None or (timezone.now() - found.since).total_seconds() > seconds


def _finding(found: Trouble) -> Finding:
    return Finding(ATTENTION[found.kind], found.venue, found.sentence, found.advice, max(1, found.orders))


def _reports() -> list[Finding]:
    return [
        Finding(
            REPORTS_UNREAD,
            venue,
            f"Nobody has read the reports of {venue} for {seconds:.0f} s: executions come late.",
            "Look at the session's log, and whether the venue can be reached. Nothing is lost meanwhile.",
            seconds,
        )
        for venue, seconds in sorted(selectors.reports_unread().items())
        if seconds > UNREAD_TOO_LONG_SECONDS
    ]


def _webhooks() -> list[Finding]:
    found = []
    for client, count in services.disabled_by_itself_by_client(most=MOST_CLIENTS):
        are = f"1 webhook of {client} is" if count == 1 else f"{count} webhooks of {client} are"
        sentence = f"{are} disabled, because the receiver is gone or failed for days."
        advice = "Tell the client. Enable sends what waited; the client replays the rest."
        found.append(Finding(WEBHOOKS_DISABLED, client, sentence, advice, count))
    return found


JUDGES = (
    Judge(tuple(ATTENTION.values()), _attention),
    Judge((REPORTS_UNREAD,), _reports),
    Judge((WEBHOOKS_DISABLED,), _webhooks),
)
