"""Filters that are reached by links: from the first page to the orders of one cause, and from an operator's action to
its orders. Each is shown only while it is in use."""

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from unfold.contrib.filters.admin import RadioFilter

from orders.attention import caused_by
from orders.models import Order, Status
from quiktrade.console.times import stamp


class FollowedFilter(RadioFilter):  # type: ignore[misc]
    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(self.value(), self.told())] if self.value() else []

    def told(self) -> str:
        return str(self.value())


NO_CAUSE = "(none)"
"""The cause of orders that have no last error. An empty parameter asks for all orders, as with every filter."""


class CauseFilter(FollowedFilter):
    title = "cause (what the last error begins with)"
    parameter_name = "cause"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        cause = self.value()
        return queryset.filter(caused_by("" if cause == NO_CAUSE else cause)) if cause else queryset


_ACT = re.compile(r"([0-9]{1,9})-([0-9]{1,18})-([0-9]{1,18})")
LOOKED_THROUGH = 10_000
"""At most this many entries of the console's log are searched for one action: other entries may lie between its own."""


def act(entries: Sequence[LogEntry]) -> str:
    """The value of ActedFilter for an action: who acted, and the first and the last of its log entries."""
    keys = sorted(entry.pk for entry in entries)
    return f"{entries[0].user_id}-{keys[0]}-{keys[-1]}"


class ActedFilter(FollowedFilter):
    """The orders of one action of an operator, as the console's log names them."""

    title = "what was done"
    parameter_name = "acted"

    @cached_property
    def entries(self) -> list[LogEntry]:
        found = _ACT.fullmatch(self.value() or "")
        if found is None:
            return []
        user, first, last = map(int, found.groups())
        named = LogEntry.objects.filter(user_id=user, pk__range=(first, min(last, first + LOOKED_THROUGH)))
        return list(named.filter(content_type__app_label="orders", content_type__model="order").select_related("user"))

    def told(self) -> str:
        if not self.entries:
            return "Nothing"
        entry = self.entries[0]
        return f"{entry.change_message} ({entry.user.get_username()}, {stamp(entry.action_time)})"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        if self.value() is None:
            return queryset
        return queryset.filter(pk__in=[UUID(entry.object_id) for entry in self.entries])

    def ends(self) -> list[tuple[str, str, int]]:
        """How many of these orders have each status: status, its name, count."""
        orders = Order.objects.filter(pk__in=[entry.object_id for entry in self.entries])
        found = orders.order_by().values_list("status").annotate(Count("pk"))
        return [(status, str(Status(status).label), count) for status, count in sorted(found, key=lambda s: -s[1])]
