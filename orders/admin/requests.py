"""The console's list of requests to cancel and to replace orders at their venues. Read-only."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesCheckboxFilter, RadioFilter, RelatedCheckboxFilter

from orders.admin import cells
from orders.admin.executions import OrderFilter, SeenWithOrders
from orders.admin.listing import BoundedList, BoundedPaginator
from orders.models import OPEN, OrderRequest, RequestStatus
from quiktrade.console.pages import clipped, label, two, who
from quiktrade.console.times import age, exact

KINDS: Mapping[str, str] = {
    RequestStatus.WAITING: "info",
    RequestStatus.PENDING: "info",
    RequestStatus.SUBMITTING: "info",
    RequestStatus.SENT: "info",
    RequestStatus.UNCONFIRMED: "warning",
    RequestStatus.ACCEPTED: "success",
    RequestStatus.REFUSED: "danger",
    RequestStatus.FAILED: "danger",
}


class OpenFilter(RadioFilter):  # type: ignore[misc]
    title = "decided"
    parameter_name = "decided"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "Not yet"), ("yes", "Decided")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "no":
                return queryset.filter(status__in=OPEN)
            case "yes":
                return queryset.exclude(status__in=OPEN)
        return queryset


@admin.register(OrderRequest)
class OrderRequestAdmin(SeenWithOrders):
    list_display = ("status_label", "what", "order_link", "asked", "by", "attempts", "error", "venue_code")
    list_display_links = None
    list_select_related = ("order",)
    list_filter = (
        OpenFilter,
        ("kind", ChoicesCheckboxFilter),
        ("status", ChoicesCheckboxFilter),
        OrderFilter,
        ("venue", RelatedCheckboxFilter),
    )
    ordering = ("-pk",)
    paginator = BoundedPaginator
    show_full_result_count = False
    list_max_show_all = 0

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedList]:
        return BoundedList

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        raise PermissionDenied  # the list and the order's page have all of it

    @admin.display(description="status")
    def status_label(self, asked: OrderRequest) -> SafeString:
        return label(asked.get_status_display(), KINDS.get(asked.status, "default"))

    @admin.display(description="request")
    def what(self, asked: OrderRequest) -> SafeString | str:
        return two(str(asked.get_kind_display()), terms(asked)) if terms(asked) else str(asked.get_kind_display())

    @admin.display(description="order")
    def order_link(self, asked: OrderRequest) -> SafeString:
        return cells.link(asked.order)

    @admin.display(description="asked for")
    def asked(self, asked: OrderRequest) -> SafeString:
        return exact(f"{age(asked.created_at)} ago", asked.created_at)

    @admin.display(description="by")
    def by(self, asked: OrderRequest) -> SafeString:
        return two(who(asked.actor), clipped(asked.reason))

    @admin.display(description="tries")
    def attempts(self, asked: OrderRequest) -> int:
        return asked.attempt

    @admin.display(description="last error")
    def error(self, asked: OrderRequest) -> SafeString:
        return clipped(asked.last_error)

    @admin.display(description="venue")
    def venue_code(self, asked: OrderRequest) -> str:
        return asked.venue_id


def terms(asked: OrderRequest) -> str:
    """What a replace changes."""
    parts = [f"{asked.quantity:,}"] if asked.quantity is not None else []
    parts += [f"at {cells.decimal(asked.limit_price)}"] if asked.limit_price is not None else []
    parts += [f"from {cells.decimal(asked.stop_price)}"] if asked.stop_price is not None else []
    parts += [asked.time_in_force] if asked.time_in_force else []
    parts += [f"until {asked.expires_at:%Y-%m-%d %H:%M} UTC"] if asked.expires_at is not None else []
    return ", ".join(parts)
