"""The console's orders: to look at, and to requeue, reconcile and cancel. A status is never edited here."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesCheckboxFilter, RelatedCheckboxFilter

from orders import archive, selectors
from orders.admin import cells, executions, requests, webhooks  # noqa: F401  they register their own pages
from orders.admin.filters import AgeFilter, ClientFilter, CreatedFilter, NeedsOperatorFilter, StatusFilter
from orders.admin.following import ActedFilter, CauseFilter, act
from orders.admin.intents import INTENTS, REQUEUE, applies
from orders.admin.listing import BoundedPaginator, OrderList, in_time
from orders.admin.search import HELP, search
from orders.admin.timeline import picture
from orders.executions import page_of_executions
from orders.models import Order
from quiktrade.console.intents import Intent, IntentAdmin
from quiktrade.console.pages import ReadOnlyAdmin, clipped, lines
from quiktrade.console.times import age, exact

LIST_SECONDS = 3
"""A list that takes longer is cancelled: no filter may block the database."""

EVENTS_SHOWN = 500
EXECUTIONS_SHOWN = 500


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin, IntentAdmin):
    intents = INTENTS
    list_display = (
        "status_label",
        "name",
        "age",
        "waits_for",
        "attempts",
        "error",
        "terms",
        "venue_code",
        "client",
    )
    list_display_links = ("name",)
    list_select_related = ("owner", "venue__health")
    list_filter = (
        NeedsOperatorFilter,
        ("status", StatusFilter),
        ClientFilter,
        ("venue", RelatedCheckboxFilter),
        ("side", ChoicesCheckboxFilter),
        ("type", ChoicesCheckboxFilter),
        AgeFilter,
        ("created_at", CreatedFilter),
        CauseFilter,
        ActedFilter,
    )
    list_before_template = "console/acted.html"
    search_fields = ("pk",)  # shows the box; `search` decides what is looked for
    search_help_text = HELP
    paginator = BoundedPaginator
    show_full_result_count = False
    list_max_show_all = 0
    fields = ()  # the page shows the order in its own way
    change_form_template = "console/order.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[OrderList]:
        return OrderList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Order], search_term: str
    ) -> tuple[QuerySet[Order], bool]:
        return search(queryset, search_term), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.method == "POST":  # an action, whose service owns its transaction
            return super().changelist_view(request, extra_context)
        shown = in_time(LIST_SECONDS, lambda: super(OrderAdmin, self).changelist_view(request, extra_context))
        if shown is None:
            context = {**self.admin_site.each_context(request), "opts": self.opts, "title": "Too many orders"}
            return TemplateResponse(request, "console/too_many.html", context, status=503)
        return shown

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context: dict[str, Any] = {"title": "Order", "subtitle": None}
        if order := self.get_object(request, object_id):
            archived = not Order.objects.filter(pk=order.pk).exists()
            if archived:
                trades = page_of_executions(
                    order.owner_id, {"order": order.pk}, after=None, newest_first=False, limit=EXECUTIONS_SHOWN
                )
                rows = [cells.execution_row(trade) for trade in trades]
                context["executions"] = {"headers": cells.EXECUTIONS, "rows": rows}
            # Events later than the order that was read are left out: the table ends with the status in the page's head.
            events = selectors.whole_history(order.pk, upto=order.version, limit=EVENTS_SHOWN)
            context |= {
                "title": cells.title(order),
                "standing": cells.standing(order),
                "terms": cells.terms(order),
                "last_error": order.last_error,
                "facts": cells.facts(order, archived=archived),
                "archived": archived,
                "timeline": picture(order, events),
                "history": {"headers": cells.HISTORY, "rows": [cells.history_row(event, order) for event in events]},
            }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Order | None:
        """The order, in use or archived. Lists have those in use; a search shows archived ones above its list."""
        found: Order | None = super().get_object(request, object_id, from_field)
        if found is not None or not self.has_view_permission(request):
            return found
        try:
            order_id = UUID(object_id)
        except ValueError:
            return None
        return archive.orders_anywhere([order_id]).get(order_id)

    def intents_for(self, obj: Model) -> Iterable[Intent]:
        assert isinstance(obj, Order)
        return [intent for intent in self.intents if applies(intent, obj)]

    def chosen_rows(self, intent: Intent, keys: Sequence[str]) -> dict[str, Any]:
        orders = Order.objects.filter(pk__in=keys).select_related("venue").order_by("-pk")
        return {
            "headers": ["Order", "Venue", "Terms", "Status", "Last error", ""],
            "rows": [
                cells.chosen_row(order, applies=applies(intent, order), requeues=intent is REQUEUE) for order in orders
            ],
        }

    def followed(self, entries: Sequence[LogEntry]) -> str:
        return f"{reverse('admin:orders_order_changelist')}?acted={act(entries)}"

    @admin.display(description="status")
    def status_label(self, order: Order) -> SafeString:
        return cells.status_label(order)

    @admin.display(description="order")
    def name(self, order: Order) -> SafeString:
        return cells.name(order)

    @admin.display(description="age")
    def age(self, order: Order) -> SafeString:
        return exact(age(order.created_at), order.created_at)

    @admin.display(description="waits for")
    def waits_for(self, order: Order) -> SafeString:
        return cells.waits_for(order)

    @admin.display(description="tries")
    def attempts(self, order: Order) -> int:
        return order.attempt

    @admin.display(description="last error")
    def error(self, order: Order) -> SafeString:
        return cells.error(order)

    @admin.display(description="venue")
    def venue_code(self, order: Order) -> str:
        return order.venue_id

    @admin.display(description="terms")
    def terms(self, order: Order) -> SafeString:
        return lines(cells.trade(order), cells.conditions(order), *cells.deadlines(order))

    @admin.display(description="client")
    def client(self, order: Order) -> SafeString:
        return clipped(order.owner.get_username())
