"""The classes that the console's pages derive from."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.views.main import ChangeList as PlainChangeList
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from quiktrade.database import replica

if TYPE_CHECKING:  # unfold's classes have these interfaces, and no type information of their own
    StyledAdmin = admin.ModelAdmin[Any]
    StyledList = PlainChangeList
else:
    from unfold.admin import ModelAdmin as StyledAdmin
    from unfold.views import ChangeList as StyledList


class ConsoleList(StyledList):
    """A list that accepts the parameters of its filters, and no others.

    Django's own list lets the address filter by any column in any way: by a regular expression, by an impossible year,
    without an index.
    """

    def get_filters(self, request: HttpRequest) -> Any:
        found = super().get_filters(request)
        left = found[2]  # what no filter took
        if left:
            raise DisallowedModelAdminLookup(f"No filter of this list is called {', '.join(sorted(left))[:200]}")
        return found


class ConsoleAdmin(StyledAdmin):
    """A page of the console. Nothing is ever deleted here: what happened stays visible."""

    show_facets = admin.ShowFacets.NEVER  # they count whole tables
    list_per_page = 50
    list_fullwidth = True
    list_filter_submit = True
    empty_value_display = "–"

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleList]:
        return ConsoleList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"title": capfirst(self.opts.verbose_name_plural), **(extra_context or {})}
        if request.method == "POST":  # an action
            return super().changelist_view(request, context)
        return replica.read(lambda: super(ConsoleAdmin, self).changelist_view(request, context))


class ReadOnlyAdmin(ConsoleAdmin):
    """A read-only page: nobody adds or changes anything on it, superusers included."""

    sortable_by = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def who(actor: str) -> SafeString:
    """The name of an event's actor, with its kind: `operator:olga` is olga, in the console."""
    kind, _, name = actor.partition(":")
    if kind == "operator" and name.endswith(" (command)"):
        return format_html("{}", name)
    said = {"operator": "console", "client": "client", "system": "system"}.get(kind)
    return format_html("{} ({})", name, said) if said else format_html("{}", actor)


def label(text: object, kind: str, *, title: str = "") -> SafeString:
    """A coloured label; `kind` is info, success, warning, danger or default."""
    context = {"text": text, "type": kind, "label_title": title}
    return SafeString(render_to_string("unfold/helpers/label.html", context).strip())


def code(text: object) -> SafeString:
    """An identifier, in a fixed-width font because every character matters."""
    return format_html('<span class="console-code">{}</span>', text)


def muted(text: object) -> SafeString:
    return format_html('<span class="text-font-subtle-light dark:text-font-subtle-dark">{}</span>', text)


def two(first: SafeString | str, second: SafeString | str) -> SafeString:
    """A cell of two lines."""
    return lines(first, second)


def lines(first: SafeString | str, *others: SafeString | str) -> SafeString:
    small = format_html_join("", "<small>{}</small>", ((line,) for line in others))
    return format_html('<span class="console-two"><span>{}</span>{}</span>', first, small)


def clipped(text: str) -> SafeString:
    """A long text, cut to one line. Pointing at it shows the whole text."""
    return format_html('<span class="console-clipped" title="{}">{}</span>', text, text)
