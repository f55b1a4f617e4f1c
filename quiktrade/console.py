"""The console as a whole: its sidebar, its head and its first page. Named in settings.UNFOLD."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from exchanges.admin import trouble, venue_state
from exchanges.console.times import age, exact
from exchanges.models import Venue
from orders import attention, selectors
from orders.admin import cells
from orders.attention import Counts
from quiktrade.admin import node_state
from quiktrade.models import WorkerNode
from quiktrade.recent import recent_actions

NEEDS_SHOWN = 10
NODES_SHOWN = 10


@dataclass(frozen=True)
class Page:
    """An entry of the sidebar, for those who may see it; `badge` counts what needs an operator there."""

    title: str
    icon: str
    permission: str
    model: str
    query: dict[str, str] = field(default_factory=dict)
    badge: Callable[[HttpRequest], int] = lambda request: 0

    @property
    def url(self) -> str:
        url = reverse(f"admin:{self.model}_changelist")
        return f"{url}?{urlencode(self.query)}" if self.query else url


FAILED = {"status__exact": "failed"}
PARKED = {"needs": "parked"}
PAGES = {
    "Orders": (
        Page("All orders", "receipt_long", "orders.view_order", "orders_order"),
        Page("Failed", "error", "orders.view_order", "orders_order", FAILED, lambda request: _counts(request).failed),
        Page("Parked", "help", "orders.view_order", "orders_order", PARKED, lambda request: _counts(request).parked),
    ),
    "Exchanges": (
        Page(
            "Venues",
            "account_balance",
            "exchanges.view_venue",
            "exchanges_venue",
            badge=lambda request: Venue.objects.filter(halted_at__isnull=False).count(),
        ),
    ),
    "System": (
        Page("Worker nodes", "dns", "quiktrade.view_workernode", "quiktrade_workernode"),
        Page("Schedules", "schedule", "django_q.view_schedule", "django_q_schedule"),
        Page("Queued jobs", "hourglass_empty", "django_q.view_ormq", "django_q_ormq"),
        Page("Failed jobs", "bug_report", "django_q.view_failure", "django_q_failure"),
    ),
    "Accounts": (
        Page("Users", "person", "auth.view_user", "auth_user"),
        Page("Groups", "group", "auth.view_group", "auth_group"),
    ),
}


def stylesheet(request: HttpRequest) -> str:
    return static("quiktrade/console.css")


def icon(request: HttpRequest) -> str:
    return static("quiktrade/favicon.svg")


def environment(request: HttpRequest) -> list[str]:
    return ["Production", "danger"] if settings.PRODUCTION else ["Local", "info"]


def headline(request: HttpRequest) -> str:
    """What needs an operator, under the site's name on every page."""
    if not request.user.has_perm("orders.view_order"):
        return ""
    counts = _counts(request)
    needs = [(counts.failed, "failed"), (counts.parked, "parked")]
    return " · ".join(f"{attention.shown(count)} {what}" for count, what in needs if count) or "Nothing needs you"


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    overview = Page("Overview", "dashboard", "", "")
    start = _entry(request, overview, url=reverse("admin:index"), badge=0)
    groups: list[dict[str, Any]] = [{"items": [start]}]
    for title, pages in PAGES.items():
        seen = [page for page in pages if request.user.has_perm(page.permission)]
        if seen:
            items = [_entry(request, page, url=page.url, badge=page.badge(request)) for page in seen]
            groups.append({"title": title, "separator": True, "items": items})
    return groups


def _entry(request: HttpRequest, page: Page, *, url: str, badge: int) -> dict[str, Any]:
    here, query = url.partition("?")[::2]
    active = request.path == here or (page.model and request.path.startswith(here))
    if page.model == "orders_order" and request.path == here:
        active = request.GET.urlencode() == query  # the three lists of orders share a path
    elif page.query:
        active = False
    return {
        "title": page.title,
        "icon": page.icon,
        "link": url,
        "active": bool(active),
        "badge": attention.shown(badge) if badge else None,
    }


def first_page(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What is wrong, since when and why, before everything else."""
    may = request.user.has_perm
    if may("orders.view_order"):
        context |= {"cards": _cards(_counts(request)), "needs": _needs()}
    if may("exchanges.view_venue"):
        context["venues"] = _venues()
    if may("quiktrade.view_workernode"):
        context["nodes"] = _nodes()
    context["recent"] = recent_actions(request)
    return context


def _cards(counts: Counts) -> list[dict[str, str]]:
    oldest = selectors.oldest_due_at()
    return [
        _card("Failed", counts.failed, "danger", FAILED, "Requeue or cancel them"),
        _card("Parked", counts.parked, "danger", PARKED, "Outcome unknown: find out at the venue"),
        _card("Being looked up", counts.looked_up, "warning", {"status__exact": "unconfirmed"}, "Sent, not confirmed"),
        _card(
            "Waiting to be sent",
            counts.waiting,
            "info",
            {"status__exact": "pending"},
            f"Longest due for {age(oldest)}" if oldest else "None is due",
        ),
        _card("Being sent", counts.being_sent, "info", {"status__exact": "submitting"}, "At this moment"),
    ]


def _card(title: str, count: int, kind: str, query: dict[str, str], note: str) -> dict[str, str]:
    url = f"{reverse('admin:orders_order_changelist')}?{urlencode(query)}"
    return {"title": title, "count": attention.shown(count), "kind": kind if count else "", "url": url, "note": note}


def _needs() -> dict[str, Any]:
    orders = attention.orders_for_an_operator(NEEDS_SHOWN)
    return {
        "headers": ["Order", "Status", "For", "Venue", "Terms", "Last error"],
        "rows": [
            [
                cells.link(order),
                cells.status_label(order),
                exact(age(order.updated_at), order.updated_at),
                order.venue_id,
                cells.terms(order),
                cells.error(order),
            ]
            for order in orders
        ],
    }


def _venues() -> dict[str, Any]:
    return {
        "headers": ["Venue", "State", "Since", "Reason"],
        "rows": [
            [_venue_link(venue), venue_state(venue), *trouble(venue)]
            for venue in Venue.objects.select_related("health")
        ],
    }


def _venue_link(venue: Venue) -> SafeString:
    url = reverse("admin:exchanges_venue_change", args=[venue.pk])
    return format_html('<a href="{}" class="text-link">{}</a>', url, venue)


def _nodes() -> dict[str, Any]:
    return {
        "headers": ["Worker node", "State", "Last heartbeat"],
        "rows": [
            [node.name, node_state(node), exact(f"{age(node.heartbeat_at)} ago", node.heartbeat_at)]
            for node in WorkerNode.objects.order_by("-heartbeat_at")[:NODES_SHOWN]
        ],
    }


def _counts(request: HttpRequest) -> Counts:
    """Asked once for each page: its head, its sidebar and its cards show the same numbers."""
    counts: Counts | None = getattr(request, "_attention", None)
    if counts is None:
        counts = attention.counts()
        request._attention = counts  # type: ignore[attr-defined]
    return counts
