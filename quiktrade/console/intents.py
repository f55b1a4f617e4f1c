"""What an operator may do to chosen rows: an intent, asked for with a reason and answered row by row.

An intent starts from the list (rows ticked, or all that a filter found) or from a row's own page. Both lead to
one page that shows what was chosen and asks why; nothing changes before that page is sent. The chosen rows
travel with it, so that what was shown is what is acted on, whatever the filter would find by then.

The page is asked for with `keys`, or with a list's own parameters: then all that the list would show is chosen.
Where that is more than the intent takes at once, the page takes the oldest of them, names the command that takes
all, and leads back to the rest afterwards: no choice is lost.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldBooleanWidget

from quiktrade.console.pages import ConsoleAdmin, StyledAdmin
from quiktrade.outcomes import Outcome
from quiktrade.texts import MAX_TEXT, storable

SHOWN = 50
"""Chosen rows that the page lists; the rest is counted."""
COUNTED = 10_000
"""Rows that a filter chose are counted up to this number."""
REFUSALS_SHOWN = 20


class ReasonField(forms.CharField):
    """A reason, accepted whatever its characters and its length, as in `quiktrade.texts.kept_reason`."""

    def to_python(self, value: Any) -> str:
        return storable(super().to_python(value) or "", MAX_TEXT)


class ReasonForm(forms.Form):
    reason = ReasonField(
        max_length=MAX_TEXT,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2, "autofocus": True, "required": True}),
        error_messages={"required": "Say why: the reason is kept in the history."},
    )


@dataclass(frozen=True, kw_only=True)
class Intent:
    """`act(keys, actor, answers)` gives one outcome for each key; `most` bounds how many rows it takes at once.

    The answers are those of `form`: a reason, where the history keeps one, and whatever else an intent must ask for.
    `command` names the command of manage.py that does the same to all that a list's parameters find, or None if there
    is none.
    """

    name: str
    verb: str
    done: str
    icon: str
    permission: str
    explanation: str
    act: Callable[[Sequence[str], str, Mapping[str, str]], Sequence[Outcome]]
    form: type[forms.Form] = ReasonForm
    most: int = 1000
    grave: bool = False
    command: Callable[[QueryDict], str | None] = lambda asked: None


@dataclass(frozen=True)
class Choice:
    """The rows that an intent acts on. They are the first of the `of` rows that were chosen."""

    keys: Sequence[str]
    of: int
    query: str = ""
    """The list's parameters that found them, if they were not ticked one by one."""

    @property
    def whole(self) -> str:
        return f"{self.of:,}{'+' if self.query and self.of >= COUNTED else ''}"


class IntentAdmin(ConsoleAdmin):
    """A page whose rows have intents, offered to those who have their permission."""

    intents: tuple[Intent, ...] = ()

    def intents_for(self, obj: Model) -> Iterable[Intent]:
        """The intents that make sense for the row in its present state. The service decides; this hides buttons."""
        return self.intents

    def chosen_rows(self, intent: Intent, keys: Sequence[str]) -> dict[str, Any]:
        """The chosen rows as a table: `headers` and `rows`."""
        raise NotImplementedError

    def followed(self, entries: Sequence[LogEntry]) -> str | None:
        """The page that shows what becomes of the rows in these log entries; None for the page that the operator came
        from."""
        return None

    def get_urls(self) -> list[URLPattern]:
        views = [
            path(f"{intent.name}/", self.admin_site.admin_view(self._view(intent)), name=self._url_name(intent))
            for intent in self.intents
        ]
        return views + super().get_urls()

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {
            intent.name: (self._list_action(intent), intent.name, f"{intent.verb} …")
            for intent in self.intents
            if request.user.has_perm(intent.permission)
        }

    def action_checkbox(self, obj: Model) -> SafeString:
        """The check box, with the intents that its row would accept: the buttons count them."""
        names = " ".join(intent.name for intent in self.intents_for(obj))
        box = {"class": "action-select", "aria-label": f"Select {obj}", "data-intents": names}
        return SafeString(UnfoldBooleanWidget(box, lambda value: False).render(ACTION_CHECKBOX_NAME, str(obj.pk)))

    action_checkbox.short_description = StyledAdmin.action_checkbox.short_description  # type: ignore[attr-defined]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        offered = [intent for intent in self.intents if request.user.has_perm(intent.permission)]
        return super().changelist_view(request, {"intents": offered, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        buttons = []
        extra_context = {"show_history": False, **(extra_context or {})}  # the page itself shows it
        if obj := self.get_object(request, object_id):
            query = urlencode({"keys": obj.pk, "next": request.get_full_path()})
            buttons = [
                {"intent": intent, "url": f"{self._url(intent)}?{query}"}
                for intent in self.intents_for(obj)
                if request.user.has_perm(intent.permission)
            ]
        return super().change_view(request, object_id, form_url, {"intents": buttons, **(extra_context or {})})

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page itself shows the history; Django's own has only what was done in the console."""
        return HttpResponseRedirect(f"{self._page_of(object_id)}#history")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Read once for each request, so that all parts of a page show the same moment."""
        read = request.__dict__.setdefault("_read", {})
        if (object_id, from_field) not in read:
            read[object_id, from_field] = super().get_object(request, object_id, from_field)
        return read[object_id, from_field]

    def _url_name(self, intent: Intent) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{intent.name}"

    def _url(self, intent: Intent) -> str:
        return reverse(f"{self.admin_site.name}:{self._url_name(intent)}")

    def _list_action(self, intent: Intent) -> Callable[..., HttpResponse | None]:
        def ask(admin: IntentAdmin, request: HttpRequest, found: QuerySet[Any]) -> HttpResponse | None:
            if request.POST.get("select_across") == "1":
                choice = self._all_of(intent, found, request.GET)
            else:
                # Ticked rows stay chosen: a row that changed since may no longer match the filter.
                choice = self._first_of(intent, request.POST.getlist(ACTION_CHECKBOX_NAME))
            return self._page(request, intent, choice, intent.form(), back=request.get_full_path())

        return ask

    def _view(self, intent: Intent) -> Callable[[HttpRequest], HttpResponse]:
        def view(request: HttpRequest) -> HttpResponse:
            if not request.user.has_perm(intent.permission):
                raise PermissionDenied
            sent = request.POST if request.method == "POST" else request.GET
            back = self._back(sent.get("next", ""))
            if request.method == "GET" and "keys" not in sent and sent:
                choice = self._all_of(intent, self._found(request), sent)
            else:
                choice = self._first_of(intent, sent.get("keys", "").split(","))
            form = intent.form(request.POST) if request.method == "POST" else intent.form()
            if choice.keys and len(choice.keys) == choice.of and form.is_valid():
                entries = self._carry_out(request, intent, choice.keys, form.cleaned_data)
                self._offer_the_rest(request, intent, sent)
                return HttpResponseRedirect(self._afterwards(choice.keys, entries, back))
            return self._page(request, intent, choice, form, back=back) or HttpResponseRedirect(back)

        return view

    def _first_of(self, intent: Intent, sent: Sequence[str]) -> Choice:
        keys = list(filter(self._is_key, sent))
        return Choice(keys[: intent.most], len(keys))

    def _all_of(self, intent: Intent, found: QuerySet[Any], asked: QueryDict) -> Choice:
        """All rows that a filter found, oldest first, so that the rows that waited longest are not left over."""
        keys = [str(key) for key in found.order_by("pk").values_list("pk", flat=True)[: intent.most + 1]]
        of = len(keys) if len(keys) <= intent.most else found.order_by()[:COUNTED].count()
        return Choice(keys[: intent.most], of, asked.urlencode())

    def _found(self, request: HttpRequest) -> QuerySet[Any]:
        """The rows that the list shows for the parameters of this request; none for unknown parameters."""
        try:
            found: QuerySet[Any] = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            return self.get_queryset(request).none()
        return found

    def _afterwards(self, keys: Sequence[str], entries: Sequence[LogEntry], back: str) -> str:
        """The row's own page if the operator came from there, otherwise the rows that were acted on."""
        if len(keys) == 1 and urlsplit(back).path == self._page_of(keys[0]):
            return back
        return (self.followed(entries) if entries else None) or back

    def _offer_the_rest(self, request: HttpRequest, intent: Intent, sent: QueryDict) -> None:
        if rest := sent.get("rest"):
            again = format_html(
                '<a href="{}?{}" class="underline">{} the rest …</a>', self._url(intent), rest, intent.verb
            )
            messages.info(request, format_html("There were more than could be taken at once. {}", again))

    def _is_key(self, text: str) -> bool:
        try:
            return bool(text) and self.opts.pk.clean(text, None) is not None
        except ValidationError:
            return False

    def _back(self, url: str) -> str:
        if url_has_allowed_host_and_scheme(url, allowed_hosts=None):
            return url
        return reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_changelist")

    def _page(
        self, request: HttpRequest, intent: Intent, choice: Choice, form: forms.Form, *, back: str
    ) -> HttpResponse | None:
        """The page that asks for the reason; None, with a message, if nothing is chosen."""
        keys = choice.keys
        if not keys:
            messages.warning(request, "Nothing is chosen.")
            return None
        names = self.opts.verbose_name if len(keys) == 1 else f"{len(keys):,} {self.opts.verbose_name_plural}"
        too_many = choice.of > len(keys)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{intent.verb} {names}",
            "intent": intent,
            "chosen": self.chosen_rows(intent, keys[:SHOWN]),
            "more": max(0, len(keys) - SHOWN),
            "keys": ",".join(keys),
            "most": f"{intent.most:,}",
            "too_many": f"{choice.whole} {self.opts.verbose_name_plural}" if too_many else "",
            "command": intent.command(QueryDict(choice.query)) if too_many and choice.query else None,
            "rest": choice.query if too_many else "",
            "form": form,
            "action": self._url(intent),
            "back": back,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "console/reason.html", context)

    def _carry_out(
        self, request: HttpRequest, intent: Intent, keys: Sequence[str], answers: Mapping[str, str]
    ) -> Sequence[LogEntry]:
        """Act, and show what was done and what was refused. Returns the log entries, one for each row."""
        outcomes = intent.act(keys, f"operator:{request.user.get_username()}", answers)
        done = [outcome.key for outcome in outcomes if outcome.done]
        refused = [outcome for outcome in outcomes if not outcome.done]
        entries: Sequence[LogEntry] = ()
        if done:
            assert request.user.pk is not None, "the admin lets only users in"
            entries = LogEntry.objects.log_actions(
                user_id=request.user.pk,
                queryset=self.model._default_manager.filter(pk__in=done),
                action_flag=CHANGE,
                change_message=": ".join(filter(None, (capfirst(intent.done), answers.get("reason", "")))),
            )
            messages.success(request, f"{capfirst(intent.done)} {self._counted(len(done))}.")
        if refused:
            line = '<li><a href="{}" class="underline">{}</a>: {}</li>'
            shown = refused[:REFUSALS_SHOWN]
            parts = ((self._page_of(outcome.key), outcome.key, outcome.explanation) for outcome in shown)
            lines = format_html_join("", line, parts)
            if more := len(refused) - len(shown):
                lines += format_html("<li>… and {} more</li>", f"{more:,}")
            heading = f"{self._counted(len(refused))} not {intent.done}:"
            messages.warning(request, format_html('{}<ul class="console-refused">{}</ul>', heading, lines))
        return entries

    def _counted(self, count: int) -> str:
        return f"{count:,} {self.opts.verbose_name if count == 1 else self.opts.verbose_name_plural}"

    def _page_of(self, key: str) -> str:
        return reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change", args=[key])
