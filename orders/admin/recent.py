"""Recent actions in the console: who did what to which order, venue or account, and why."""

from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from exchanges.models import Venue
from orders.admin import cells
from orders.models import Order
from quiktrade.console.times import age, exact

SHOWN = 10


def recent_actions(request: HttpRequest) -> dict[str, Any]:
    """A table of those that the user may see."""
    models = [model for model in (Order, Venue, User, Group) if _may_see(request, model)]
    kinds = ContentType.objects.get_for_models(*models)
    entries = list(
        LogEntry.objects.filter(content_type__in=kinds.values())
        .select_related("user", "content_type")
        .order_by("-pk")[:SHOWN]
    )
    keys = [str(entry.object_id) for entry in entries if entry.content_type == kinds.get(Order)]
    orders = {str(order.pk): order for order in Order.objects.filter(pk__in=keys)}
    return {
        "headers": ["When", "Who", "What", "On"],
        "rows": [
            [
                exact(f"{age(entry.action_time)} ago", entry.action_time),
                entry.user.get_username(),
                entry.get_change_message() or "Added.",
                _what(entry, orders.get(str(entry.object_id))),
            ]
            for entry in entries
        ],
    }


def _may_see(request: HttpRequest, model: type[Any]) -> bool:
    return request.user.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")


def _what(entry: LogEntry, order: Order | None) -> SafeString:
    if order is not None:
        return format_html("{} {}", cells.link(order), cells.trade(order))
    url = entry.get_admin_url()
    return format_html('{} <a href="{}" class="text-link">{}</a>', entry.content_type, url, entry.object_repr)
