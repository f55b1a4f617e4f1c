"""The console's venues: halted and resumed by operators, added and changed by administrators."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, strip_tags
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RelatedCheckboxFilter
from unfold.widgets import UnfoldAdminSelectWidget

from exchanges import services
from exchanges.models import UnmatchedReport, Venue, VenueEvent, VenueHealth
from exchanges.registry import ADAPTERS, open_venue
from exchanges.venue_settings import SettingsField, unmasked
from quiktrade.console.intents import Intent, IntentAdmin
from quiktrade.console.pages import ReadOnlyAdmin, clipped, code, label, two, who
from quiktrade.console.times import age, ahead, exact, stamp
from quiktrade.outcomes import Outcome

EVENTS_SHOWN = 200


def _halt(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    return [_outcome(services.halt_venue, code, actor, answers["reason"]) for code in keys]


def _resume(keys: Sequence[str], actor: str, answers: Mapping[str, str]) -> list[Outcome]:
    return [_outcome(services.resume_venue, code, actor, answers["reason"]) for code in keys]


def _outcome(service: Any, code: str, actor: str, reason: str) -> Outcome:
    try:
        service(code, actor=actor, reason=reason)
    except services.VenueNotChanged as error:
        return Outcome(code, False, str(error))
    return Outcome(code, True, "")


HALT = Intent(
    name="halt",
    verb="Halt",
    done="halted",
    icon="pause_circle",
    permission="exchanges.halt_venue",
    explanation="No more orders are sent to it until it is resumed. Orders for it are still accepted, and wait. "
    "Cancels still go to it: a halt stops orders, and not the way out of them. Requests already under way are not "
    "called back.",
    act=_halt,
    grave=True,
)
RESUME = Intent(
    name="resume",
    verb="Resume",
    done="resumed",
    icon="play_circle",
    permission="exchanges.halt_venue",
    explanation="The orders that waited are sent at once.",
    act=_resume,
)


def venue_state(venue: Venue) -> SafeString:
    labels = []
    if venue.halted:
        labels.append(label("Halted", "danger", title="Nothing is sent to it; its orders wait."))
    if not venue.enabled:
        labels.append(label("Off", "warning", title="Orders for it are refused."))
    if circuit := venue.open_circuit:
        kind = "warning" if circuit.trouble == VenueHealth.Trouble.PAUSED else "danger"
        labels.append(label(circuit.get_trouble_display() or "Not answering", kind, title=circuit.last_error))
    return SafeString(" ".join(labels)) or label("Active", "success", title="Orders are accepted and sent.")


def halted_since(venue: Venue) -> SafeString | None:
    return exact(f"{age(venue.halted_at)} ago", venue.halted_at) if venue.halted_at else None


def trouble(venue: Venue) -> tuple[SafeString | str, str]:
    """Since when the venue is halted or in trouble, and why."""
    since, circuit = halted_since(venue), venue.open_circuit
    if since:
        return since, venue.halt_reason
    if circuit and circuit.opened_at:
        return exact(f"{age(circuit.opened_at)} ago", circuit.opened_at), circuit.last_error
    return "", ""


def venue_history(venue: Venue) -> list[tuple[datetime, str, str, str]]:
    """The venue's events and changes of its settings, newest first: time, event, actor, reason or change."""
    rows = [
        (event.at, event.get_event_display(), event.actor, event.reason)
        for event in VenueEvent.objects.filter(venue=venue)[:EVENTS_SHOWN]
    ]
    changes = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(Venue), object_id=venue.pk, change_message__startswith="["
    ).select_related("user")  # what an intent did is an event
    rows += [
        (entry.action_time, entry.get_action_flag_display(), f"operator:{entry.user}", entry.get_change_message())
        for entry in changes[:EVENTS_SHOWN]
    ]
    return sorted(rows, key=lambda row: row[0], reverse=True)[:EVENTS_SHOWN]


def next_probe(circuit: VenueHealth) -> SafeString:
    """When an order is sent as a probe. There is no probe without a due order."""
    assert circuit.retry_at is not None, "the circuit is open"
    return exact(f"{ahead(circuit.retry_at)}, with the first order that is due", circuit.retry_at)


def circuit_facts(venue: Venue) -> list[tuple[str, SafeString | str]]:
    health = venue.known_health
    if health is None:
        return [("Takes orders", "Unknown: nothing has been sent to it yet")]
    facts: list[tuple[str, SafeString | str]] = [("Takes orders", label("Yes", "success"))]
    if health.retry_at and health.opened_at:
        since = exact(f"for {age(health.opened_at)}", health.opened_at)
        facts = [
            ("Takes orders", format_html("{} {}", label("No", "danger"), since)),
            ("Trouble", health.get_trouble_display() or "Not answering"),
            ("Paused until", stamp(health.paused_until) if health.paused_until else ""),
            ("Next probe", next_probe(health)),
            ("Failed probes", f"{health.probes:,}"),
        ]
    facts.append(
        ("Unanswered", f"{health.silences:,} request{'' if health.silences == 1 else 's'} since its last answer")
    )
    if health.silences or health.retry_at:  # an error before its last answer is in the history, with its time
        facts.append(("Last error", health.last_error))
    return facts


class VenueForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Venue
        fields = ("name", "adapter", "settings", "enabled", "is_default", "max_in_flight", "max_per_second")

    settings = SettingsField(help_text="What the adapter needs, as JSON. Secrets are shown as dots, and stay.")
    adapter = forms.ChoiceField(
        choices=lambda: [(name, name) for name in sorted(ADAPTERS)], widget=UnfoldAdminSelectWidget
    )

    def clean_settings(self) -> dict[str, Any]:
        return unmasked(self.cleaned_data["settings"], self.instance.settings)

    def clean(self) -> dict[str, Any] | None:
        """Have the adapter itself check its settings."""
        super().clean()
        adapter, settings = self.cleaned_data.get("adapter"), self.cleaned_data.get("settings")
        if adapter and settings is not None:
            try:
                open_venue(adapter, settings)
            except (ValueError, ArithmeticError) as error:  # the latter: of a number without end
                self.add_error("settings", str(error))
        other = Venue.objects.filter(is_default=True).exclude(pk=self.instance.pk).first()
        if self.cleaned_data.get("is_default") and other:
            self.add_error("is_default", f"{other.code} is the default: take that from it first.")
        return self.cleaned_data


@admin.register(Venue)
class VenueAdmin(IntentAdmin):
    intents = (HALT, RESUME)
    form = VenueForm
    fields = ("code", *VenueForm.Meta.fields)
    sortable_by = ()
    list_display = (
        "code",
        "name",
        "state",
        "circuit",
        "since",
        "by",
        "reason",
        "adapter",
        "default",
        "max_in_flight",
        "max_per_second",
    )
    list_select_related = ("health",)
    change_form_template = "console/venue.html"

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return () if obj is None else ("code",)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """The settings are hidden from users who may not change the venue: they may contain a broker's keys."""
        hidden = () if obj is None or self.has_change_permission(request, obj) else ("settings",)
        return [name for name in self.fields if name not in hidden]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context: dict[str, Any] = {}
        if venue := self.get_object(request, object_id):
            context = {
                "title": f"{venue} – {strip_tags(venue_state(venue))}",
                "subtitle": None,
                "venue": venue,
                "state": venue_state(venue),
                "since": halted_since(venue),
                "halted_by": who(venue.halted_by),
                "circuit": circuit_facts(venue),
                "history": {
                    "headers": ["Time (UTC)", "Event", "Actor", "Reason"],
                    "rows": [
                        [stamp(at), event, who(actor), reason] for at, event, actor, reason in venue_history(venue)
                    ],
                },
            }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def intents_for(self, obj: Model) -> Iterable[Intent]:
        assert isinstance(obj, Venue)
        return (RESUME,) if obj.halted else (HALT,)

    def chosen_rows(self, intent: Intent, keys: Sequence[str]) -> dict[str, Any]:
        return {
            "headers": ["Venue", "State", "Since", "Reason"],
            "rows": [
                [str(venue), venue_state(venue), halted_since(venue) or "", venue.halt_reason]
                for venue in Venue.objects.filter(pk__in=keys).select_related("health")
            ],
        }

    @admin.display(description="state")
    def state(self, venue: Venue) -> SafeString:
        return venue_state(venue)

    @admin.display(description="answers")
    def circuit(self, venue: Venue) -> SafeString | str:
        if (circuit := venue.open_circuit) is None or circuit.opened_at is None or circuit.retry_at is None:
            return "yes"
        open_for = exact(f"not for {age(circuit.opened_at)}", circuit.opened_at)
        probe = exact(f"probe {ahead(circuit.retry_at)}", circuit.retry_at)
        return two(open_for, probe)

    @admin.display(description="halted")
    def since(self, venue: Venue) -> SafeString | None:
        return halted_since(venue)

    @admin.display(description="halted by")
    def by(self, venue: Venue) -> SafeString | None:
        return who(venue.halted_by) if venue.halted else None

    @admin.display(description="reason")
    def reason(self, venue: Venue) -> SafeString | None:
        return clipped(venue.halt_reason) if venue.halt_reason else None

    @admin.display(description="default")
    def default(self, venue: Venue) -> SafeString | None:
        return label("default", "info") if venue.is_default else None


@admin.register(UnmatchedReport)
class UnmatchedReportAdmin(ReadOnlyAdmin):
    """Reports of venues that fit no order, as they came, and why. Whoever sees venues sees these."""

    list_display = ("when", "venue_code", "why", "about", "stream", "sequence")
    list_display_links = ("when",)
    list_filter = (("venue", RelatedCheckboxFilter),)
    ordering = ("-pk",)
    fields = ("at", "venue_code", "stream", "sequence", "reason", "as_it_came")
    readonly_fields = ("venue_code", "as_it_came")

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("exchanges.view_venue")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("exchanges.view_venue")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return super().change_view(request, object_id, form_url, {"show_history": False, **(extra_context or {})})

    @admin.display(description="received")
    def when(self, kept: UnmatchedReport) -> SafeString:
        return exact(f"{age(kept.at)} ago", kept.at)

    @admin.display(description="venue")
    def venue_code(self, kept: UnmatchedReport) -> str:
        return kept.venue_id

    @admin.display(description="why it was kept")
    def why(self, kept: UnmatchedReport) -> str:
        return kept.reason

    @admin.display(description="about")
    def about(self, kept: UnmatchedReport) -> SafeString:
        told = kept.report if isinstance(kept.report, dict) else {}
        return two(str(told.get("kind") or ""), code(clipped(str(told.get("client_order_id") or ""))))

    @admin.display(description="report")
    def as_it_came(self, kept: UnmatchedReport) -> SafeString:
        text = json.dumps(kept.report, indent=2, ensure_ascii=False)
        return format_html('<pre class="console-code console-report">{}</pre>', text)
