"""The console's incidents: what people were told of, how each channel was reached, and who looks after it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter

from quiktrade.alerts import incidents
from quiktrade.alerts.judging import kinds
from quiktrade.console.intents import Intent, IntentAdmin
from quiktrade.console.pages import ReadOnlyAdmin, clipped, label, two, who
from quiktrade.console.times import age, ahead, exact, span, stamp
from quiktrade.models import Incident, Notice
from quiktrade.outcomes import Outcome

PERMISSION = "quiktrade.acknowledge_incident"


def _acknowledge(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    return incidents.acknowledge([UUID(key) for key in keys], actor=actor, reason=answers["reason"])


ACKNOWLEDGE = Intent(
    name="acknowledge",
    verb="Acknowledge",
    done="acknowledged",
    icon="person_check",
    permission=PERMISSION,
    explanation="You look after it, and your reason tells the others how. A pager stops calling. When it is over, "
    "everybody who was told of it is told of that, too.",
    act=_acknowledge,
    most=100,
)


def title_of(incident: Incident) -> str:
    kind = kinds().get(incident.kind)
    return kind.title if kind else incident.kind


def state_of(incident: Incident) -> SafeString:
    if incident.resolved_at is not None:
        return label("Over", "success")
    if incident.acknowledged_at is not None:
        return label("Acknowledged", "info", title=incident.acknowledged_for)
    severe = incident.severity == Incident.Severity.PAGE
    return label("Open", "danger" if severe else "warning", title="Nobody has acknowledged it.")


def notice_state(notice: Notice) -> SafeString:
    if notice.sent_at is not None:
        return label("Sent", "success")
    if notice.given_up_at is not None:
        return label("Given up", "danger")
    return label("Failing" if notice.error else "Waits", "warning" if notice.error else "info")


class StateFilter(RadioFilter):  # type: ignore[misc]
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "Open"), ("acknowledged", "Acknowledged"), ("over", "Over")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Incident]) -> QuerySet[Incident]:
        match self.value():
            case "open":
                return queryset.filter(resolved_at=None, acknowledged_at=None)
            case "acknowledged":
                return queryset.filter(resolved_at=None, acknowledged_at__isnull=False)
            case "over":
                return queryset.filter(resolved_at__isnull=False)
        return queryset


@admin.register(Incident)
class IncidentAdmin(ReadOnlyAdmin, IntentAdmin):
    intents = (ACKNOWLEDGE,)
    list_display = ("state", "what", "said", "since", "lasted", "by")
    list_display_links = ("what",)
    list_filter = (StateFilter,)
    list_max_show_all = 0
    show_full_result_count = False
    fields = ()  # the page shows the row in its own way
    change_form_template = "console/incident.html"
    list_before_template = "console/send_test.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Incident]:
        return super().get_queryset(request).filter(opened_at__isnull=False)

    def get_urls(self) -> list[URLPattern]:
        test = path("test/", self.admin_site.admin_view(self.send_test), name="quiktrade_incident_test")
        return [test, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        may_test = request.user.has_perm(PERMISSION)
        return super().changelist_view(request, {"may_test": may_test, **(extra_context or {})})

    def intents_for(self, obj: Model) -> Iterable[Intent]:
        assert isinstance(obj, Incident)
        return self.intents if obj.resolved_at is None and obj.acknowledged_at is None else ()

    def chosen_rows(self, intent: Intent, keys: Sequence[str]) -> dict[str, Any]:
        found = Incident.objects.filter(pk__in=keys, opened_at__isnull=False)
        return {
            "headers": ["Incident", "State", "What is wrong"],
            "rows": [[title_of(each), state_of(each), each.sentence] for each in found],
        }

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context: dict[str, Any] = {}
        if incident := self.get_object(request, object_id):
            context = {
                "title": f"Incident – {title_of(incident)}",
                "subtitle": None,
                "heading": title_of(incident),
                "incident": incident,
                "state": state_of(incident),
                "facts": self._facts(incident),
                "notices": {
                    "headers": ["Channel", "Told", "State", "Tries", "When", "Error"],
                    "rows": [
                        [each.channel, each.what, notice_state(each), str(each.tries), _when(each), each.error]
                        for each in incident.notices.order_by("id")
                    ],
                },
                "history": {
                    "headers": ["Time (UTC)", "Event", "Actor", "Reason"],
                    "rows": [
                        [stamp(event.at), event.get_event_display(), who(event.actor), event.reason]
                        for event in incident.events.order_by("-id")
                    ],
                },
            }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    @staticmethod
    def _facts(incident: Incident) -> list[tuple[str, SafeString | str]]:
        assert incident.opened_at is not None, "the list has no others"
        facts: list[tuple[str, SafeString | str]] = [
            ("Kind", incident.kind),
            ("Concerns", incident.subject),
            ("Severity", incident.get_severity_display()),
            ("First seen", stamp(incident.first_seen_at)),
            ("Opened", stamp(incident.opened_at)),
            ("Last seen", stamp(incident.seen_at)),
            ("Over", stamp(incident.resolved_at) if incident.resolved_at else ""),
            ("Value at last", f"{incident.value:,.6g}"),
            ("Value at worst", f"{incident.worst:,.6g}"),
        ]
        if incident.acknowledged_at:
            by = format_html("{}, {}", who(incident.acknowledged_by), stamp(incident.acknowledged_at))
            facts.append(("Acknowledged by", by))
        return facts

    def send_test(self, request: HttpRequest) -> HttpResponse:
        """Ask first, then have every channel told; the test's own page shows how that went."""
        if not request.user.has_perm(PERMISSION):
            raise PermissionDenied
        if request.method == "POST" and settings.ALERTS:
            incident = incidents.make_test(actor=f"operator:{request.user.get_username()}")
            messages.success(request, "The channels are told within some seconds. This page shows how that goes.")
            return HttpResponseRedirect(reverse("admin:quiktrade_incident_change", args=[incident.pk]))
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Send a test",
            "channels": {
                "headers": ["Channel", "Told last", "State", "Error"],
                "rows": [_channel_row(channel.name) for channel in settings.ALERTS],
            },
        }
        return TemplateResponse(request, "console/test_alert.html", context)

    @admin.display(description="state")
    def state(self, incident: Incident) -> SafeString:
        return state_of(incident)

    @admin.display(description="incident")
    def what(self, incident: Incident) -> SafeString:
        return two(title_of(incident), incident.subject or incident.kind)

    @admin.display(description="what is wrong")
    def said(self, incident: Incident) -> SafeString:
        return clipped(incident.sentence)

    @admin.display(description="since")
    def since(self, incident: Incident) -> SafeString:
        return exact(f"{age(incident.first_seen_at)} ago", incident.first_seen_at)

    @admin.display(description="lasted")
    def lasted(self, incident: Incident) -> str | None:
        return span(incident.resolved_at - incident.first_seen_at) if incident.resolved_at else None

    @admin.display(description="acknowledged")
    def by(self, incident: Incident) -> SafeString | None:
        if incident.acknowledged_at is None:
            return None
        return two(who(incident.acknowledged_by), clipped(incident.acknowledged_for))


def _when(notice: Notice) -> SafeString | str:
    at = notice.sent_at or notice.given_up_at
    return exact(f"{age(at)} ago", at) if at else exact(f"tried {ahead(notice.due_at)}", notice.due_at)


def _channel_row(name: str) -> list[SafeString | str]:
    last = Notice.objects.filter(channel=name, tries__gt=0).order_by("-id").first()
    return [name, *(["never", "", ""] if last is None else [_when(last), notice_state(last), last.error])]
