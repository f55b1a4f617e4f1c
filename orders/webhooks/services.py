"""What clients and operators do with webhooks. Each function owns its transaction."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Count
from django.db.models.functions import Now

from orders import archive, feed
from orders.webhook_models import WebhookDelivery, WebhookEndpoint
from orders.webhooks import rows
from quiktrade.errors import Refusal
from quiktrade.jobs import doorbell
from quiktrade.outcomes import Outcome
from quiktrade.signing import new_secret
from quiktrade.texts import MAX_ACTOR, kept_reason, storable

logger = logging.getLogger(__name__)

MOST_ENDPOINTS = 10
"""Of one client."""
MOST_REPLAYED = 5_000
"""Events that one call makes due again."""
OVERLAP_HOURS = 24
LONGEST_OVERLAP_HOURS = 168

FROM_ITS_CLIENT = "Disabled by the client."


class TooManyWebhooks(Refusal):
    status: ClassVar[int] = 409
    kind: ClassVar[str] = "too-many-webhooks"

    def __init__(self) -> None:
        super().__init__(f"You have {MOST_ENDPOINTS} webhooks, the most that an account may have. Delete one first.")


class WebhookDisabled(Refusal):
    status: ClassVar[int] = 409
    kind: ClassVar[str] = "webhook-disabled"

    def __init__(self) -> None:
        super().__init__("This webhook is disabled, so nothing is sent to it. Enable it first.")


def endpoints_of(owner_id: int) -> Any:
    return WebhookEndpoint.objects.filter(owner_id=owner_id, deleted_at=None)


def create_endpoint(
    owner_id: int, *, url: str, event_types: Sequence[str] = (), description: str = ""
) -> WebhookEndpoint:
    """Register a checked URL. It is told of what happens from now on. Raises: TooManyWebhooks."""
    with transaction.atomic():
        get_user_model().objects.select_for_update(no_key=True).get(pk=owner_id)  # two at once would each count nine
        if endpoints_of(owner_id).count() >= MOST_ENDPOINTS:
            raise TooManyWebhooks
        endpoint = WebhookEndpoint.objects.create(
            owner_id=owner_id,
            url=url,
            event_types=list(event_types),
            description=description,
            secret=new_secret(),
            cursor_stamp=feed.horizon().stamp,
            cursor_id=0,
        )
        endpoint.refresh_from_db()
    _tell("Webhook created", "created", endpoint)
    return endpoint


def change_endpoint(endpoint: WebhookEndpoint, changes: dict[str, Any]) -> WebhookEndpoint:
    """Write a checked `url`, `event_types` or `description`. A new address begins without the old one's failures."""
    health = _WELL if "url" in changes and changes["url"] != endpoint.url else {}
    return _write(endpoint, "Webhook changed", "changed", **changes, **health)


def delete_endpoint(endpoint: WebhookEndpoint) -> None:
    """Nothing more is sent to it, but for what is under way. Its rows are removed later, in small parts."""
    secrets: dict[str, Any] = {"secret": "", "old_secret": "", "old_secret_until": None}
    _write(endpoint, "Webhook deleted", "deleted", deleted_at=Now(), **secrets)


def disable_endpoint(endpoint: WebhookEndpoint, *, actor: str, reason: str) -> WebhookEndpoint:
    """Nothing is sent until it is enabled. If it is disabled already, that stays as it is."""
    if endpoint.disabled_at is not None:
        return endpoint
    disabled: dict[str, Any] = {"disabled_at": Now(), "disabled_by": storable(actor, MAX_ACTOR)}
    return _write(endpoint, "Webhook disabled", "disabled", **disabled, disabled_reason=kept_reason(reason))


def enable_endpoint(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """It is told of what happens from now on, and of what was waiting when it was disabled.

    What happened meanwhile is not sent by itself: `replay` does that.
    """
    if endpoint.disabled_at is None:
        return endpoint
    enabled: dict[str, Any] = {"disabled_at": None, "disabled_by": "", "disabled_reason": ""}
    enabled |= {"cursor_stamp": feed.horizon().stamp, "cursor_id": 0}
    return _write(endpoint, "Webhook enabled", "enabled", **enabled, **_WELL)


def rotate_secret(endpoint: WebhookEndpoint, *, overlap_hours: int = OVERLAP_HOURS) -> WebhookEndpoint:
    """Give it a new secret. For the overlap the old one signs as well; a secret that was old before does not any
    more."""
    old: dict[str, Any] = {"old_secret": "", "old_secret_until": None}
    if overlap_hours:
        old = {"old_secret": endpoint.secret, "old_secret_until": Now() + timedelta(hours=overlap_hours)}
    return _write(endpoint, "Webhook's secret rotated", "rotated", secret=new_secret(), **old)


def send_test(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Send it an event of no order. One that is still under way is not doubled. Raises: WebhookDisabled."""
    _refuse_disabled(endpoint)
    with transaction.atomic():
        WebhookEndpoint.objects.select_for_update(no_key=True).get(pk=endpoint.pk)
        waiting = endpoint.deliveries.filter(event=None, ended_at=None).first()
        if waiting is None:
            waiting = WebhookDelivery.objects.create(endpoint=endpoint)
            waiting.refresh_from_db()
        doorbell.ring()
    return waiting


def resend(delivery: WebhookDelivery) -> WebhookDelivery:
    """Have a delivery that is over sent again, with all its attempts. Raises: WebhookDisabled."""
    _refuse_disabled(delivery.endpoint)
    rows.resend([delivery.pk])
    doorbell.ring()
    delivery.refresh_from_db()
    return delivery


class Replay(NamedTuple):
    deliveries: int
    next_from: datetime | None
    """There is more: replay again from this time."""
    archived: bool
    """Events of this time may be archived: those are not sent."""


def replay(endpoint: WebhookEndpoint, *, from_: datetime, to: datetime) -> Replay:
    """Send the events of a time again, those that it never had included. Raises: WebhookDisabled."""
    _refuse_disabled(endpoint)
    made = rows.replay(endpoint.pk, endpoint.owner_id, endpoint.event_types, from_, to, limit=MOST_REPLAYED)
    doorbell.ring()
    fields = {"event": "webhook.replayed", "endpoint": endpoint.pk, "deliveries": made.events}
    logger.info("Webhook's events are sent again", extra=fields)
    return Replay(made.events, made.next_from, archive.may_have_events(endpoint.owner_id, from_))


# ---- Operators ----


def disabled_by_itself() -> int:
    """How many endpoints were disabled because their receivers fail or are gone."""
    return WebhookEndpoint.objects.filter(deleted_at=None, disabled_by=rows.SYSTEM).count()


def disabled_by_itself_by_client(*, most: int) -> list[tuple[str, int]]:
    """The names of clients who have such endpoints, and how many."""
    found = WebhookEndpoint.objects.filter(deleted_at=None, disabled_by=rows.SYSTEM).values_list("owner__username")
    return list(found.annotate(Count("pk")).order_by("owner__username")[:most])


def disable_endpoints(ids: Sequence[UUID], *, actor: str, reason: str) -> list[Outcome]:
    def disable(endpoint: WebhookEndpoint) -> str:
        if endpoint.disabled_at is not None:
            return f"It has been disabled by {endpoint.disabled_by}: {endpoint.disabled_reason}"
        disable_endpoint(endpoint, actor=actor, reason=reason)
        return ""

    return _each(ids, disable)


def enable_endpoints(ids: Sequence[UUID], *, actor: str, reason: str) -> list[Outcome]:
    def enable(endpoint: WebhookEndpoint) -> str:
        if endpoint.disabled_at is None:
            return "It is not disabled."
        enable_endpoint(endpoint)
        return ""

    return _each(ids, enable)


def resend_deliveries(ids: Sequence[int], *, actor: str, reason: str) -> list[Outcome]:
    """Have dead letters sent again."""
    found = WebhookDelivery.objects.filter(pk__in=ids).select_related("endpoint").in_bulk()
    refused = {}
    for id_ in ids:
        if id_ not in found:
            refused[id_] = "There is no such delivery."
        elif found[id_].endpoint.disabled_at is not None or found[id_].endpoint.deleted_at is not None:
            refused[id_] = "Its webhook is disabled or deleted."
        elif found[id_].status != WebhookDelivery.Status.DEAD:
            refused[id_] = f"It is {found[id_].status}; only dead letters are sent again here."
    done = set(rows.resend([id_ for id_ in ids if id_ not in refused]))
    doorbell.ring()
    fields = {"event": "webhook.resent", "deliveries": len(done), "actor": actor, "reason": reason}
    logger.info("Dead letters are sent again", extra=fields)
    return [Outcome(id_, id_ in done, refused.get(id_, "")) for id_ in ids]


def _each(ids: Sequence[UUID], act: Callable[[WebhookEndpoint], str]) -> list[Outcome]:
    found = WebhookEndpoint.objects.filter(deleted_at=None).in_bulk(ids)
    outcomes = []
    for id_ in ids:
        refusal = act(found[id_]) if id_ in found else "There is no such webhook."
        outcomes.append(Outcome(id_, not refusal, refusal))
    return outcomes


_WELL: dict[str, Any] = {"failures": 0, "failing_since": None, "paused_until": None, "slow": False, "last_error": ""}


def _refuse_disabled(endpoint: WebhookEndpoint) -> None:
    if endpoint.disabled_at is not None:
        raise WebhookDisabled


def _write(endpoint: WebhookEndpoint, text: str, event: str, **changes: Any) -> WebhookEndpoint:
    """Write these columns alone: the cursor and the health are written by others meanwhile."""
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(**changes)
    endpoint.refresh_from_db()
    doorbell.ring()
    _tell(text, event, endpoint)
    return endpoint


def _tell(text: str, event: str, endpoint: WebhookEndpoint) -> None:
    logger.info(text, extra={"event": f"webhook.{event}", "endpoint": endpoint.pk, "owner": endpoint.owner_id})
