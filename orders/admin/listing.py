"""The list of orders, made for a table of any size: a bounded count, one order of rows, and a time limit."""

from typing import Any

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest
from django.utils.functional import cached_property

from orders.admin.following import ActedFilter
from orders.models import Order
from quiktrade.console.pages import ConsoleList

COUNTED_TO = 10_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts up to COUNTED_TO only. To find an older order, a user filters or searches."""

    template_name = "console/pagination.html"
    object_list: QuerySet[Order]

    @cached_property
    def count(self) -> int:
        return self.object_list[:COUNTED_TO].count()  # in the list's order: one index serves page and count

    @property
    def shown_count(self) -> str:
        return f"{COUNTED_TO:,}+" if self.count >= COUNTED_TO else f"{self.count:,}"


class OrderList(ConsoleList):
    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str | Combinable]:
        """Newest first, whatever the address asks for: the primary key is the one index that orders them all.

        The orders of one client are sorted by that client's own index; by the key, all others would be read too.
        """
        return ["-created_at", "-pk"] if request.GET.get("client", "").strip() else ["-pk"]

    @property
    def acted(self) -> ActedFilter | None:
        """The operator's action whose orders the list shows, if it shows those."""
        return next((spec for spec in self.filter_specs if isinstance(spec, ActedFilter)), None)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count  # else the page's head would offer to "show all"
