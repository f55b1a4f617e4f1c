"""The console's sidebar, head and first page, which show orders, venues and the system together.

Named in settings.UNFOLD.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from exchanges.admin import trouble, venue_state
from exchanges.models import Venue
from orders import attention
from orders.admin.following import NO_CAUSE
from orders.admin.intents import RECONCILE, REQUEUE
from orders.admin.recent import recent_actions
from orders.attention import Group, OrderNeed, State, Trouble
from orders.webhooks import services
from quiktrade.alerts import incidents
from quiktrade.console.intents import Intent
from quiktrade.console.system import node_state
from quiktrade.console.times import age, exact
from quiktrade.database import replica
from quiktrade.models import WorkerNode

NODES_SHOWN = 10
NOTHING = "Nothing needs you"


@dataclass(frozen=True)
class Page:
    """An entry of the sidebar, for users who may see it; `badge` counts what needs an operator there."""

    title: str
    icon: str
    permission: str
    model: str
    query: dict[str, str] = field(default_factory=dict)
    badge: Callable[[HttpRequest], str] = lambda request: ""

    @property
    def url(self) -> str:
        url = reverse(f"admin:{self.model}_changelist")
        return f"{url}?{urlencode(self.query)}" if self.query else url


def _shown(count: int) -> str:
    return attention.shown(count) if count else ""


def _troubled(request: HttpRequest) -> int:
    """How many venues a person should look at."""
    return len({found.venue for found in _state(request).troubles() if found.venue})


FAILED = {"status__exact": "failed"}
DEAD = {"status__exact": "dead"}
PARKED = {"needs": "parked"}
DOUBTFUL = {"needs": "doubtful"}
PAGES = {
    "Orders": (
        Page("All orders", "receipt_long", "orders.view_order", "orders_order"),
        Page(
            "Failed",
            "error",
            "orders.view_order",
            "orders_order",
            FAILED,
            lambda request: _shown(_state(request).counts.failed),
        ),
        Page(
            "Parked",
            "help",
            "orders.view_order",
            "orders_order",
            PARKED,
            lambda request: _shown(_state(request).counts.parked),
        ),
    ),
    "Trading": (
        Page("Executions", "swap_horiz", "orders.view_order", "orders_execution"),
        Page("Positions", "account_balance_wallet", "orders.view_order", "orders_position"),
        Page("Requests", "edit_note", "orders.view_order", "orders_orderrequest"),
    ),
    "Webhooks": (
        Page(
            "Webhooks",
            "webhook",
            "orders.view_webhookendpoint",
            "orders_webhookendpoint",
            badge=lambda request: _shown(services.disabled_by_itself()),
        ),
        Page("Dead letters", "mark_email_unread", "orders.view_webhookdelivery", "orders_webhookdelivery", DEAD),
    ),
    "Exchanges": (
        Page(
            "Venues",
            "account_balance",
            "exchanges.view_venue",
            "exchanges_venue",
            badge=lambda request: _shown(_troubled(request)),
        ),
        Page("Unmatched reports", "link_off", "exchanges.view_venue", "exchanges_unmatchedreport"),
    ),
    "System": (
        Page(
            "Incidents",
            "notification_important",
            "quiktrade.view_incident",
            "quiktrade_incident",
            badge=lambda request: _shown(incidents.unacknowledged().count()),
        ),
        Page(
            "Worker nodes",
            "dns",
            "quiktrade.view_workernode",
            "quiktrade_workernode",
            badge=lambda request: "" if _state(request).counts.worker_runs else "none",
        ),
        Page("Schedules", "schedule", "django_q.view_schedule", "django_q_schedule"),
        Page("Queued jobs", "hourglass_empty", "django_q.view_ormq", "django_q_ormq"),
        Page("Failed jobs", "bug_report", "django_q.view_failure", "django_q_failure"),
    ),
    "Accounts": (
        Page("Users", "person", "auth.view_user", "auth_user"),
        Page("Service accounts", "smart_toy", "quiktrade.view_apiclient", "quiktrade_apiclient"),
        Page("Groups", "group", "auth.view_group", "auth_group"),
    ),
}


def headline(request: HttpRequest) -> str:
    """What needs an operator, under the site's name on every page."""
    if not request.user.has_perm("orders.view_order"):
        return ""
    needs = " · ".join(_state(request).heads()) or NOTHING
    return format_html('<span id="console-headline" title="{}">{}</span>', needs, needs)


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    overview = Page("Overview", "dashboard", "", "")
    needs = len(_state(request).heads()) if request.user.has_perm("orders.view_order") else 0
    start = _entry(request, overview, url=reverse("admin:index"), badge=_shown(needs))
    groups: list[dict[str, Any]] = [{"items": [start]}]
    for title, pages in PAGES.items():
        seen = [page for page in pages if request.user.has_perm(page.permission)]
        if seen:
            items = [_entry(request, page, url=page.url, badge=page.badge(request)) for page in seen]
            groups.append({"title": title, "separator": True, "items": items})
    return groups


def _entry(request: HttpRequest, page: Page, *, url: str, badge: str) -> dict[str, Any]:
    here, query = url.partition("?")[::2]
    active = request.path == here or (page.model and request.path.startswith(here) and request.path not in _lists())
    if page.model == "orders_order" and request.path == here:
        active = request.GET.urlencode() == query  # the three lists of orders share a path
    elif page.query:
        active = False
    return {
        "title": page.title,
        "icon": page.icon,
        "link": url,
        "active": bool(active),
        "badge": badge or None,
    }


def _lists() -> set[str]:
    """The paths of all entries: one of them may lie beneath another's."""
    return {page.url.partition("?")[0] for pages in PAGES.values() for page in pages}


def first_page(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What is wrong, since when, why, and what to do about it. It stands first on the page."""
    return context | replica.read(lambda: _first_page(request))


def _first_page(request: HttpRequest) -> dict[str, Any]:
    context: dict[str, Any] = {}
    may, state = request.user.has_perm, _state(request)
    if may("orders.view_order"):
        operates = may("orders.operate_order")
        needs = [_trouble(found) for found in state.troubles()]
        needs += [_group(found, state, operates=operates) for found in attention.groups()]
        context |= {"cards": _cards(state), "needs": needs, "nothing": NOTHING}
    if may("exchanges.view_venue"):
        context["venues"] = _venues(state.venues)
    if may("quiktrade.view_workernode"):
        context["nodes"] = _nodes()
    context["recent"] = recent_actions(request)
    return context


def _trouble(found: Trouble) -> dict[str, Any]:
    url, where = reverse("admin:quiktrade_workernode_changelist"), "Look at the worker nodes"
    query = {"status__exact": "pending"}
    if found.venue:
        url, where = reverse("admin:exchanges_venue_change", args=[found.venue]), f"Look at {found.venue}"
        query["venue__code__exact"] = found.venue
    links = [{"text": where, "url": url, "icon": "visibility"}]
    if found.orders:
        waiting = f"{reverse('admin:orders_order_changelist')}?{urlencode(query)}"
        links.append({"text": "Orders that wait", "url": waiting, "icon": "receipt_long"})
    return {"sentence": found.sentence, "since": _ago(found.since), "advice": found.advice, "links": links}


@dataclass(frozen=True)
class Need:
    """How a group of orders is shown, and what an operator can do about the whole group."""

    need: OrderNeed
    intent: Intent
    query: dict[str, str]


NEEDS = {
    "failed": Need(attention.FAILED_NEED, REQUEUE, FAILED),
    "parked": Need(attention.PARKED_NEED, RECONCILE, PARKED),
    "doubtful": Need(attention.DOUBTFUL_NEED, RECONCILE, DOUBTFUL),
}


def _group(group: Group, state: State, *, operates: bool) -> dict[str, Any]:
    need = NEEDS[group.need]
    query = urlencode({**need.query, "venue__code__exact": group.venue, "cause": group.cause or NO_CAUSE})
    found = f"{reverse('admin:orders_order_changelist')}?{query}"
    newest = reverse("admin:orders_order_change", args=[group.newest])
    count = f"{group.orders:,}{'+' if getattr(state.counts, group.need) > attention.GROUPED else ''}"
    links: list[dict[str, Any]] = [
        {"text": "Look at it" if count == "1" else "Look at them", "url": found, "icon": "visibility"}
    ]
    if operates:
        act = f"{reverse(f'admin:orders_order_{need.intent.name}')}?{query}"
        links.append({"text": f"{need.intent.verb} {count} …", "url": act, "icon": need.intent.icon, "acts": True})
    return {
        "sentence": f"{need.need.heading(count)} at {group.venue}: {group.cause or 'no error is recorded'}",
        "since": _ago(group.since),
        "error": group.error if group.error != group.cause else "",
        "newest": {"url": newest, "text": "The order" if count == "1" else "The newest"},
        "advice": need.need.advice,
        "links": links,
    }


def _ago(at: datetime | None) -> SafeString:
    return exact(f"for {age(at)}", at) if at else SafeString("")


def _cards(state: State) -> list[dict[str, str]]:
    counts, due_at = state.counts, state.due_at
    due = due_at is not None and due_at <= timezone.now()
    return [
        _card("Failed", counts.failed, "danger", FAILED, "Requeue or cancel them"),
        _card("Parked", counts.parked, "danger", PARKED, "Outcome unknown: find out at the venue"),
        _card("Being looked up", counts.looked_up, "warning", {"status__exact": "unconfirmed"}, "Sent, not confirmed"),
        _card(
            "Waiting to be sent",
            state.waiting,
            "info",
            {"status__exact": "pending"},
            f"Longest due for {age(due_at)}" if due_at and due else "None is due",
        ),
        _card("Being sent", counts.being_sent, "info", {"status__exact": "submitting"}, "At this moment"),
    ]


def _card(title: str, count: int, kind: str, query: dict[str, str], note: str) -> dict[str, str]:
    url = f"{reverse('admin:orders_order_changelist')}?{urlencode(query)}"
    return {"title": title, "count": attention.shown(count), "kind": kind if count else "", "url": url, "note": note}


def _venues(venues: Sequence[Venue]) -> dict[str, Any]:
    return {
        "headers": ["Venue", "State", "Since", "Reason"],
        "rows": [[_venue_link(venue), venue_state(venue), *trouble(venue)] for venue in venues],
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


def _state(request: HttpRequest) -> State:
    """Read once for each page, so that its head, its sidebar and its cards show the same numbers."""
    state: State | None = getattr(request, "_attention", None)
    if state is None:
        state = replica.read(attention.state)
        request._attention = state  # type: ignore[attr-defined]
    return state
