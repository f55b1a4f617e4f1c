"""The console's webhooks: how clients' receivers do, and what did not reach them. A secret is shown nowhere here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesCheckboxFilter, RadioFilter

from orders.admin import cells
from orders.admin.filters import ClientFilter
from orders.admin.listing import BoundedPaginator
from orders.webhook_models import WebhookDelivery, WebhookEndpoint
from orders.webhooks import services
from quiktrade.console.intents import Intent, IntentAdmin
from quiktrade.console.pages import ReadOnlyAdmin, clipped, code, label, two
from quiktrade.console.times import age, ahead, exact, stamp
from quiktrade.outcomes import Outcome

Status = WebhookDelivery.Status
ENTRIES_SHOWN = 100
MOST_COUNTED = 1_000


def _disable(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    return services.disable_endpoints([UUID(key) for key in keys], actor=actor, reason=answers["reason"])


def _enable(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    return services.enable_endpoints([UUID(key) for key in keys], actor=actor, reason=answers["reason"])


def _resend(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    return services.resend_deliveries([int(key) for key in keys], actor=actor, reason=answers["reason"])


DISABLE = Intent(
    name="disable",
    verb="Disable",
    done="disabled",
    icon="pause_circle",
    permission="orders.operate_webhook",
    explanation="Nothing more is sent to them until they are enabled, by an operator or by their client, who reads "
    "your reason. What waits, waits.",
    act=_disable,
    most=100,
    grave=True,
)
ENABLE = Intent(
    name="enable",
    verb="Enable",
    done="enabled",
    icon="play_circle",
    permission="orders.operate_webhook",
    explanation="What waited is sent, and what happens from now on. What happened while they were disabled is not "
    "sent by itself: their clients may replay it.",
    act=_enable,
    most=100,
)
RESEND = Intent(
    name="resend",
    verb="Send again",
    done="sent again",
    icon="replay",
    permission="orders.operate_webhook",
    explanation="Dead letters get all their attempts again, the first at once. A receiver knows a repeated event by "
    "its webhook-id.",
    act=_resend,
)


def endpoint_state(endpoint: WebhookEndpoint) -> SafeString:
    if endpoint.disabled_at is not None:
        return label("Disabled", "danger", title=endpoint.disabled_reason)
    if endpoint.failing_since is not None:
        return label("Failing", "warning", title=endpoint.last_error)
    if endpoint.slow:
        return label("Slow", "warning", title="Its last answer took long.")
    return label("Active", "success")


def shown_url(url: str) -> str:
    """The address without its query, in which clients put keys."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}{'?…' if parts.query else ''}"


def _counted(count: int) -> str:
    return f"{count:,}{'+' if count == MOST_COUNTED else ''}"


class StateFilter(RadioFilter):  # type: ignore[misc]
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("disabled", "Disabled"), ("failing", "Failing"), ("active", "Active")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> QuerySet[WebhookEndpoint]:
        match self.value():
            case "disabled":
                return queryset.filter(disabled_at__isnull=False)
            case "failing":
                return queryset.filter(disabled_at=None, failing_since__isnull=False)
            case "active":
                return queryset.filter(disabled_at=None, failing_since=None)
        return queryset


class WebhookAdmin(ReadOnlyAdmin, IntentAdmin):
    """What both pages have in common."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_max_show_all = 0
    fields = ()  # the page shows the row in its own way
    change_form_template = "console/webhook.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context: dict[str, Any] = {}
        if obj := self.get_object(request, object_id):
            done = LogEntry.objects.filter(
                content_type=ContentType.objects.get_for_model(self.model), object_id=str(obj.pk)
            ).select_related("user")
            context = {
                "subtitle": None,
                **self.shown(obj),
                "history": {
                    "headers": ["Time (UTC)", "Operator", "What and why"],
                    "rows": [
                        [stamp(entry.action_time), str(entry.user), entry.get_change_message()]
                        for entry in done.order_by("-action_time")[:ENTRIES_SHOWN]
                    ],
                },
            }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def shown(self, obj: Any) -> dict[str, Any]:
        """The page's `title`, `heading`, `state` and `facts`."""
        raise NotImplementedError


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(WebhookAdmin):
    intents = (DISABLE, ENABLE)
    list_display = ("state", "address", "types", "client", "last_success", "since", "error")
    list_display_links = ("address",)
    list_select_related = ("owner",)
    list_filter = (StateFilter, ClientFilter)

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookEndpoint]:
        return super().get_queryset(request).filter(deleted_at=None).defer("secret", "old_secret")

    def intents_for(self, obj: Model) -> Iterable[Intent]:
        assert isinstance(obj, WebhookEndpoint)
        return (DISABLE,) if obj.disabled_at is None else (ENABLE,)

    def chosen_rows(self, intent: Intent, keys: Sequence[str]) -> dict[str, Any]:
        endpoints = WebhookEndpoint.objects.filter(pk__in=keys, deleted_at=None).select_related("owner")
        rows = [[shown_url(each.url), each.owner.get_username(), endpoint_state(each)] for each in endpoints]
        return {"headers": ["Webhook", "Client", "State"], "rows": rows}

    def shown(self, obj: WebhookEndpoint) -> dict[str, Any]:
        waiting = obj.deliveries.filter(status__in=[Status.PENDING, Status.SENDING])[:MOST_COUNTED].count()
        dead = obj.deliveries.filter(status=Status.DEAD)[:MOST_COUNTED].count()
        error = f"{obj.disabled_reason} By {obj.disabled_by}." if obj.disabled_at else ""
        if obj.failing_since and not error:
            error = obj.last_error
        return {
            "title": f"Webhook of {obj.owner}",
            "heading": shown_url(obj.url),
            "state": endpoint_state(obj),
            "error": error,
            "facts": [
                ("Id", code(obj.pk)),
                ("Client", obj.owner.get_username()),
                ("Description", obj.description),
                ("Event types", ", ".join(obj.event_types) or "all"),
                ("Created", stamp(obj.created_at)),
                ("Disabled", stamp(obj.disabled_at) if obj.disabled_at else ""),
                ("Failing since", stamp(obj.failing_since) if obj.failing_since else ""),
                ("Failures in a row", str(obj.failures)),
                ("Pause ends", self._pause_ends(obj)),
                ("Last success", stamp(obj.last_success_at) if obj.last_success_at else ""),
                *([("Last error", obj.last_error)] if obj.last_error != error else []),
                ("Old secret ends", stamp(obj.old_secret_until) if obj.old_secret_until else ""),
                ("Deliveries", self._deliveries(obj, "All")),
                ("Waiting", self._deliveries(obj, _counted(waiting), Status.PENDING, Status.SENDING)),
                ("Dead letters", self._deliveries(obj, _counted(dead), Status.DEAD)),
            ],
        }

    @staticmethod
    def _pause_ends(endpoint: WebhookEndpoint) -> SafeString | str:
        until = endpoint.paused_until
        return exact(ahead(until), until) if until and until > timezone.now() else ""

    @staticmethod
    def _deliveries(endpoint: WebhookEndpoint, text: str, *statuses: Status) -> SafeString:
        """A link to the list of its deliveries, or of those that have one of these statuses."""
        query = urlencode({"q": str(endpoint.pk), "status__exact": statuses}, doseq=True)
        url = f"{reverse('admin:orders_webhookdelivery_changelist')}?{query}"
        return format_html('<a href="{}" class="text-link">{}</a>', url, text)

    @admin.display(description="state")
    def state(self, endpoint: WebhookEndpoint) -> SafeString:
        return endpoint_state(endpoint)

    @admin.display(description="webhook")
    def address(self, endpoint: WebhookEndpoint) -> SafeString:
        return two(clipped(shown_url(endpoint.url)), endpoint.description or str(endpoint.pk))

    @admin.display(description="event types")
    def types(self, endpoint: WebhookEndpoint) -> SafeString:
        return clipped(", ".join(kind.removeprefix("order.") for kind in endpoint.event_types) or "all")

    @admin.display(description="client")
    def client(self, endpoint: WebhookEndpoint) -> SafeString:
        return clipped(endpoint.owner.get_username())

    @admin.display(description="last success")
    def last_success(self, endpoint: WebhookEndpoint) -> SafeString | None:
        at = endpoint.last_success_at
        return exact(f"{age(at)} ago", at) if at else None

    @admin.display(description="failing")
    def since(self, endpoint: WebhookEndpoint) -> SafeString | None:
        return exact(f"for {age(endpoint.failing_since)}", endpoint.failing_since) if endpoint.failing_since else None

    @admin.display(description="why")
    def error(self, endpoint: WebhookEndpoint) -> SafeString | None:
        said = endpoint.disabled_reason or (endpoint.last_error if endpoint.failing_since else "")
        return clipped(said) if said else None


KINDS = {Status.PENDING: "info", Status.SENDING: "info", Status.DELIVERED: "success", Status.DEAD: "danger"}


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(WebhookAdmin):
    intents = (RESEND,)
    list_display = ("state", "message", "order", "client", "webhook", "attempts", "answer", "due")
    list_display_links = ("message",)
    list_select_related = ("endpoint__owner", "event__order")
    list_filter = (("status", ChoicesCheckboxFilter),)
    search_fields = ("pk",)  # shows the box; what is looked for is below
    search_help_text = "A webhook's id, or an event's: evt_…"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[WebhookDelivery], search_term: str
    ) -> tuple[QuerySet[WebhookDelivery], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        number = term.removeprefix("evt_")
        if number.isascii() and number.isdigit() and len(number) < 19:
            return queryset.filter(Q(event_id=int(number))), False
        try:
            return queryset.filter(endpoint_id=UUID(term)), False
        except ValueError:
            return queryset.none(), False

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookDelivery]:
        found = super().get_queryset(request).filter(endpoint__deleted_at=None)
        return found.defer("endpoint__secret", "endpoint__old_secret")

    def intents_for(self, obj: Model) -> Iterable[Intent]:
        assert isinstance(obj, WebhookDelivery)
        return self.intents if obj.status == Status.DEAD else ()

    def chosen_rows(self, intent: Intent, keys: Sequence[str]) -> dict[str, Any]:
        found = WebhookDelivery.objects.filter(pk__in=keys).select_related("endpoint__owner", "event")
        return {
            "headers": ["Event", "Type", "Client", "Webhook", "Status"],
            "rows": [
                [each.message_id, each.type, str(each.endpoint.owner), shown_url(each.endpoint.url), each.status]
                for each in found
            ],
        }

    def shown(self, obj: WebhookDelivery) -> dict[str, Any]:
        webhook = reverse("admin:orders_webhookendpoint_change", args=[obj.endpoint_id])
        return {
            "title": f"Delivery of {obj.type}",
            "heading": obj.message_id,
            "state": self.state(obj),
            "error": "" if obj.status == Status.DELIVERED else self._said(obj),
            "facts": [
                ("Type", obj.type),
                ("Order", self.order(obj)),
                ("Client", obj.endpoint.owner.get_username()),
                ("Webhook", format_html('<a href="{}" class="text-link">{}</a>', webhook, shown_url(obj.endpoint.url))),
                ("Attempts", str(obj.attempt)),
                ("Next attempt", self.due(obj)),
                ("Last answer", self._said(obj)),
                ("Took", f"{obj.latency_ms:,} ms" if obj.latency_ms is not None else ""),
                ("Created", stamp(obj.created_at)),
                ("Ended", stamp(obj.ended_at) if obj.ended_at else ""),
            ],
        }

    @staticmethod
    def _said(delivery: WebhookDelivery) -> str:
        status = f"HTTP {delivery.last_code}" if delivery.last_code is not None else ""
        return ": ".join(filter(None, (status, delivery.last_text)))

    @admin.display(description="status")
    def state(self, delivery: WebhookDelivery) -> SafeString:
        return label(delivery.get_status_display(), KINDS[Status(delivery.status)])

    @admin.display(description="event")
    def message(self, delivery: WebhookDelivery) -> SafeString:
        return two(delivery.message_id, delivery.type)

    @admin.display(description="order")
    def order(self, delivery: WebhookDelivery) -> SafeString | None:
        return cells.link(delivery.event.order) if delivery.event else None

    @admin.display(description="client")
    def client(self, delivery: WebhookDelivery) -> SafeString:
        return clipped(delivery.endpoint.owner.get_username())

    @admin.display(description="webhook")
    def webhook(self, delivery: WebhookDelivery) -> SafeString:
        return clipped(shown_url(delivery.endpoint.url))

    @admin.display(description="tries")
    def attempts(self, delivery: WebhookDelivery) -> int:
        return delivery.attempt

    @admin.display(description="last answer")
    def answer(self, delivery: WebhookDelivery) -> SafeString | None:
        said = self._said(delivery)
        return clipped(said) if said else None

    @admin.display(description="next attempt")
    def due(self, delivery: WebhookDelivery) -> SafeString | None:
        return exact(ahead(delivery.due_at), delivery.due_at) if delivery.status == Status.PENDING else None
