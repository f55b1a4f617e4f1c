"""The list of orders, made for a table of any size: a bounded count, one order of rows, and a time limit."""

from collections.abc import Callable
from typing import Any

from django.core.paginator import Paginator
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections, transaction
from django.db.models import QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest, HttpResponse
from django.utils.functional import cached_property
from django.utils.safestring import SafeString
from psycopg.errors import QueryCanceled

from orders import archive
from orders.admin import cells
from orders.admin.following import ActedFilter
from orders.models import Order
from quiktrade.console.pages import ConsoleList
from quiktrade.database import replica
from quiktrade.database.statements import reads_from

COUNTED_TO = 10_000
ARCHIVED_SHOWN = 20


def in_time(seconds: float, show: Callable[[], HttpResponse]) -> HttpResponse | None:
    """The answer of a list; None if a statement of it took longer than this and was cancelled."""

    def show_in_time() -> HttpResponse:
        database = reads_from.get()
        with transaction.atomic(using=database):
            with connections[database or DEFAULT_DB_ALIAS].cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = '{seconds}s'")
            return show()

    try:
        return replica.read(show_in_time)
    except OperationalError as error:
        if not isinstance(error.__cause__, QueryCanceled):
            raise
        return None


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


class BoundedList(ConsoleList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count  # else the page's head would offer to "show all"


class OrderList(BoundedList):
    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str | Combinable]:
        """Newest first, whatever the address asks for: the primary key is the one index that orders them all.

        The orders of one client are sorted by that client's own index; by the key, all others would be read too.
        """
        return ["-created_at", "-pk"] if request.GET.get("client", "").strip() else ["-pk"]

    @property
    def archived(self) -> list[SafeString]:
        """Links to the archived orders that the search finds by an id: the list has those in use."""
        if not self.query:
            return []
        return [cells.link(order) for order in archive.search(self.query, limit=ARCHIVED_SHOWN)]

    @property
    def acted(self) -> ActedFilter | None:
        """The operator's action whose orders the list shows, if it shows those."""
        return next((spec for spec in self.filter_specs if isinstance(spec, ActedFilter)), None)
