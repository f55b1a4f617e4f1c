"""The console's lists of what was executed and what clients hold. Read-only; whoever sees orders sees these."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Model, OuterRef, QuerySet, Subquery
from django.db.models.expressions import Combinable
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RelatedCheckboxFilter, TextFilter

from exchanges.models import Venue
from orders.admin import cells
from orders.admin.filters import ClientFilter
from orders.admin.listing import BoundedList, BoundedPaginator, in_time
from orders.models import Execution, Position
from orders.positions import cost
from quiktrade.console.pages import ConsoleList, ReadOnlyAdmin, clipped, code, label, two
from quiktrade.console.times import age, exact
from quiktrade.database import replica
from quiktrade.decimals import decimal_text, divided

LIST_SECONDS = 3
"""As for the list of orders: no filter may block the database."""
POSITIONS_SHOWN = 200


class SeenWithOrders(ReadOnlyAdmin):
    """A read-only page of rows that belong to orders."""

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("orders.view_order")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("orders.view_order")


class OrderFilter(TextFilter):  # type: ignore[misc]
    """Filters by an order's id, which the order's page gives."""

    title = "order (its id)"
    parameter_name = "order"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        text = (self.value() or "").strip()
        if not text:
            return queryset
        try:
            return queryset.filter(order_id=UUID(text))
        except ValueError:
            return queryset.none()


class ExecutionList(BoundedList):
    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str | Combinable]:
        """Newest first. Those of one client are sorted by the index of that client's own list."""
        return ["-executed_at", "-pk"] if request.GET.get("client", "").strip() else ["-pk"]


@admin.register(Execution)
class ExecutionAdmin(SeenWithOrders):
    list_display = ("time", "trade", "counts", "name", "order_link", "venue_code", "client")
    list_display_links = None
    list_select_related = ("order", "owner")
    list_filter = (ClientFilter, OrderFilter, ("venue", RelatedCheckboxFilter))
    paginator = BoundedPaginator
    show_full_result_count = False
    list_max_show_all = 0

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleList]:
        return ExecutionList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Execution]:
        """Executions, each with what became of it. A report that takes one back is shown at that one."""
        later = Execution.objects.filter(
            venue=OuterRef("venue"), refers_to=OuterRef("execution_id"), order=OuterRef("order")
        ).exclude(refers_to="")
        trades: QuerySet[Execution] = super().get_queryset(request).exclude(kind=Execution.Kind.BUSTED)
        return trades.annotate(
            busted_by=Subquery(later.filter(kind=Execution.Kind.BUSTED).values("execution_id")[:1]),
            corrected_by=Subquery(later.filter(kind=Execution.Kind.CORRECTED).values("execution_id")[:1]),
        )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        shown = in_time(LIST_SECONDS, lambda: super(ExecutionAdmin, self).changelist_view(request, extra_context))
        return shown or self.too_many(request)

    def too_many(self, request: HttpRequest) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": "Too many executions"}
        return TemplateResponse(request, "console/too_many.html", context, status=503)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.positions_view)
        return [path("positions/", view, name="orders_position_changelist"), *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        raise PermissionDenied  # the list has all of it

    @admin.display(description="executed")
    def time(self, execution: Execution) -> SafeString:
        return exact(f"{age(execution.executed_at)} ago", execution.executed_at)

    @admin.display(description="trade")
    def trade(self, execution: Execution) -> str:
        what = f"{execution.get_side_display()} {execution.quantity:,} {execution.instrument}"
        return f"{what} at {cells.decimal(execution.price)}"

    @admin.display(description="counts")
    def counts(self, execution: Any) -> SafeString:
        if execution.busted_by:
            return two(label("Taken back", "danger"), code(execution.busted_by))
        if execution.corrected_by:
            return two(label("Corrected", "warning"), code(execution.corrected_by))
        if execution.refers_to:
            return two(label("Correction", "info"), code(execution.refers_to))
        return label("Yes", "success")

    @admin.display(description="venue's id of it")
    def name(self, execution: Execution) -> SafeString:
        return code(clipped(execution.execution_id))

    @admin.display(description="order")
    def order_link(self, execution: Execution) -> SafeString:
        return cells.link(execution.order)

    @admin.display(description="venue")
    def venue_code(self, execution: Execution) -> str:
        return execution.venue_id

    @admin.display(description="client")
    def client(self, execution: Execution) -> SafeString:
        return clipped(execution.owner.get_username())

    # ---- Positions: their key has three columns, and Django's own lists take one ----

    def positions_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = {name: request.GET.get(name, "").strip() for name in ("client", "instrument", "venue")}
        rows, venues = replica.read(
            lambda: (
                list(_positions(asked)[: POSITIONS_SHOWN + 1]),
                list(Venue.objects.values_list("code", flat=True)),
            )
        )
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "opts": Position._meta,
            "title": "Positions",
            "asked": asked,
            "venues": venues,
            "table": {"headers": POSITION_COLUMNS, "rows": [_position(row) for row in rows[:POSITIONS_SHOWN]]},
            "more": len(rows) > POSITIONS_SHOWN,
            "shown": POSITIONS_SHOWN,
        }
        return TemplateResponse(request, "console/positions.html", context)


POSITION_COLUMNS = ["Client", "Instrument", "Venue", "Held", "Average cost", "Cost", "Realized", "Bought", "Sold", ""]


def _positions(asked: dict[str, str]) -> QuerySet[Position]:
    """By the key, whose index has them in this order."""
    held = Position.objects.select_related("owner").order_by("owner_id", "venue_id", "instrument")
    if asked["client"]:
        owner = User.objects.filter(username=asked["client"]).values_list("pk", flat=True).first()
        held = held.none() if owner is None else held.filter(owner_id=owner)
    if asked["instrument"]:
        held = held.filter(instrument=asked["instrument"].upper())
    if asked["venue"]:
        held = held.filter(venue_id=asked["venue"])
    return held


def _position(row: Position) -> list[SafeString | str]:
    quantity = int(row.bought_quantity) - int(row.sold_quantity)
    paid = cost(row.bought_value, row.sold_value, row.realized)
    query = urlencode({"client": row.owner.get_username(), "venue__code__exact": row.venue_id})
    trades = f"{reverse('admin:orders_execution_changelist')}?{query}"
    return [
        clipped(row.owner.get_username()),
        code(row.instrument),
        row.venue_id,
        format_html('<b class="text-important">{}</b>', f"{quantity:,}"),
        decimal_text(divided(paid, quantity)) if quantity else "",
        decimal_text(paid),
        decimal_text(row.realized),
        f"{int(row.bought_quantity):,}",
        f"{int(row.sold_quantity):,}",
        format_html(
            '<a href="{}" class="text-link">{}</a>', trades, exact(f"{age(row.updated_at)} ago", row.updated_at)
        ),
    ]
