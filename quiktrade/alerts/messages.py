"""What a channel is told, in its own form: pure functions of an incident."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from django.conf import settings
from django.urls import NoReverseMatch, reverse

from quiktrade.alerts.channels import PAGERDUTY, SLACK, TEAMS, WEBHOOK, Channel
from quiktrade.models import Incident, IncidentEvent
from quiktrade.texts import shown

OPENED, ACKNOWLEDGED, RESOLVED = IncidentEvent.Event
PAGERDUTY_ACTIONS: Final = {OPENED: "trigger", ACKNOWLEDGED: "acknowledge", RESOLVED: "resolve"}
PAGERDUTY_SEVERITIES: Final = {Incident.Severity.PAGE: "critical", Incident.Severity.TICKET: "warning"}
MOST_SUMMARY = 1024
"""PagerDuty takes no more."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """`id` is the same at every attempt. `incident` is the same for all that is told of one incident."""

    id: str
    what: str
    incident: str
    kind: str
    title: str
    subject: str
    severity: str
    sentence: str
    advice: str
    at: datetime
    opened_at: datetime
    resolved_at: datetime | None = None
    acknowledged_by: str = ""
    acknowledged_for: str = ""
    link: str = ""
    dedup_key: str = ""
    """By which PagerDuty knows the incident, if that is not `incident`."""

    @property
    def headline(self) -> str:
        what = {OPENED: "", ACKNOWLEDGED: "Acknowledged: ", RESOLVED: "Over: "}[IncidentEvent.Event(self.what)]
        about = f" ({self.subject})" if self.subject else ""
        return shown(f"{what}{self.title}{about}")

    @property
    def lines(self) -> list[str]:
        """What a person reads: plain sentences."""
        said = [self.sentence]
        if self.what == OPENED:
            said += [self.advice, f"Since {_stamp(self.opened_at)}."]
        elif self.what == ACKNOWLEDGED:
            said += [f"{self.acknowledged_by} looks after it: {self.acknowledged_for}"]
        elif self.resolved_at is not None:
            said = [f"It was: {self.sentence}", f"From {_stamp(self.opened_at)} to {_stamp(self.resolved_at)}."]
        return [*filter(None, said), *filter(None, [self.link])]


def source() -> str:
    """Which installation speaks: there may be several in one channel."""
    names = [name.lstrip(".") for name in settings.ALLOWED_HOSTS if name != "*"]
    return names[0] if names else settings.NODE_NAME


def link(incident: object) -> str:
    """The incident's page, where the settings say at which address operators find the console."""
    try:
        path = reverse("admin:quiktrade_incident_change", args=[incident])
    except NoReverseMatch:  # the API has no pages
        path = f"/admin/quiktrade/incident/{incident}/change/"
    return f"{settings.CSRF_TRUSTED_ORIGINS[0]}{path}" if settings.CSRF_TRUSTED_ORIGINS else ""


def body(channel: Channel, message: Message) -> bytes:
    """What is posted to a channel that takes HTTP."""
    return orjson.dumps(_BODIES[channel.kind](channel, message), option=orjson.OPT_UTC_Z)


def _webhook(channel: Channel, message: Message) -> dict[str, Any]:
    return {
        "type": f"incident.{message.what}",
        "timestamp": message.at.astimezone(UTC),
        "data": {
            "incident": message.incident,
            "installation": source(),
            "kind": message.kind,
            "title": message.title,
            "subject": message.subject,
            "severity": message.severity,
            "sentence": message.sentence,
            "advice": message.advice,
            "opened_at": message.opened_at.astimezone(UTC),
            "resolved_at": message.resolved_at.astimezone(UTC) if message.resolved_at else None,
            "acknowledged_by": message.acknowledged_by,
            "acknowledged_for": message.acknowledged_for,
            "link": message.link,
        },
    }


def _pagerduty(channel: Channel, message: Message) -> dict[str, Any]:
    """Events API v2. All that is said of one incident has one key, by which PagerDuty knows it."""
    event = {
        "routing_key": channel.secret,
        "event_action": PAGERDUTY_ACTIONS[IncidentEvent.Event(message.what)],
        "dedup_key": message.dedup_key or message.incident,
    }
    if message.what != OPENED:
        return event
    return event | {
        "payload": {
            "summary": f"{message.headline}: {message.sentence}"[:MOST_SUMMARY],
            "source": source(),
            "severity": PAGERDUTY_SEVERITIES[Incident.Severity(message.severity)],
            "timestamp": message.opened_at.astimezone(UTC),
            "component": message.subject,
            "class": message.kind,
            "custom_details": {"advice": message.advice},
        },
        "client": "QuikTrade",
        **({"client_url": message.link} if message.link else {}),
    }


def _slack(channel: Channel, message: Message) -> dict[str, Any]:
    text = "\n".join([f"*{source()}: {message.headline}*", *message.lines])
    return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}


def _teams(channel: Channel, message: Message) -> dict[str, Any]:
    blocks = [
        {"type": "TextBlock", "text": _plain(line), "wrap": True, **style}
        for line, style in [
            (f"{source()}: {message.headline}", {"weight": "Bolder", "size": "Medium"}),
            *((line, {}) for line in message.lines),
        ]
    ]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": blocks,
    }
    return {
        "type": "message",
        "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}],
    }


_BODIES: dict[str, Callable[[Channel, Message], dict[str, Any]]] = {
    WEBHOOK: _webhook,
    PAGERDUTY: _pagerduty,
    SLACK: _slack,
    TEAMS: _teams,
}


def _plain(line: str) -> str:
    """A card reads Markdown: what a venue said must make no link."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>#" else character for character in line)


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
