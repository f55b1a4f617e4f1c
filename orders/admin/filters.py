"""The filters of the list. A filter on time also limits the primary key, which begins with the time."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_time
from unfold.contrib.filters.admin import ChoicesCheckboxFilter, RadioFilter, RangeDateTimeFilter, TextFilter

from orders.attention import FAILED, doubtful
from orders.models import LOOKED_UP, PARKED, Order, Status

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SKEW = timedelta(minutes=1)
"""An id is made by a web process, `created_at` by the database: their clocks may differ by this much."""


def created_between(orders: QuerySet[Order], start: datetime | None, end: datetime | None) -> QuerySet[Order]:
    if start is not None:
        orders = orders.filter(pk__gte=_first_id(start, -SKEW), created_at__gte=start)
    if end is not None:
        orders = orders.filter(pk__lte=_first_id(end, SKEW), created_at__lte=end)
    return orders


def _first_id(at: datetime, later: timedelta) -> UUID:
    """The least UUIDv7 of the millisecond that is this much later; its clock has 48 bits, and begins in 1970."""
    milliseconds = (at - EPOCH + later) // timedelta(milliseconds=1)
    return UUID(int=min(max(0, milliseconds), 2**48 - 1) << 80)


class NeedsOperatorFilter(RadioFilter):  # type: ignore[misc]
    title = "need of an operator"
    parameter_name = "needs"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("operator", "Failed or parked"),
            ("parked", "Parked (outcome unknown)"),
            ("doubtful", "In doubt for more than a minute"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        match self.value():
            case "operator":
                return queryset.filter(FAILED | PARKED)
            case "parked":
                return queryset.filter(PARKED)
            case "doubtful":
                return queryset.filter(doubtful())
        return queryset


class AgeFilter(RadioFilter):  # type: ignore[misc]
    title = "age"
    parameter_name = "age"
    spans = (
        ("15m", "15 minutes", timedelta(minutes=15)),
        ("1h", "1 hour", timedelta(hours=1)),
        ("1d", "1 day", timedelta(days=1)),
        ("7d", "7 days", timedelta(days=7)),
    )

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(f"lt{key}", f"At most {text}") for key, text, _ in self.spans] + [
            (f"gt{key}", f"More than {text}") for key, text, _ in self.spans
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        asked = self.value() or ""
        for key, _, length in self.spans:
            at = timezone.now() - length
            if asked == f"lt{key}":
                return created_between(queryset, at, None)
            if asked == f"gt{key}":
                return created_between(queryset, None, at)
        return queryset


class StatusFilter(ChoicesCheckboxFilter):  # type: ignore[misc]
    """Filters by the word that the list shows: parked orders are not among those being looked up."""

    def choices(self, changelist: Any) -> Any:
        for choice in super().choices(changelist):
            form = choice["form"]
            form.fields["status__exact"].choices += [("parked", "Parked")]
            yield choice

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        asked = set(self.value() or ())
        if not asked:
            return queryset
        found = Q(status__in=asked & set(Status.values) - {Status.UNCONFIRMED})
        if "parked" in asked:
            found |= PARKED
        if Status.UNCONFIRMED in asked:
            found |= LOOKED_UP
        return queryset.filter(found)


class ClientFilter(TextFilter):  # type: ignore[misc]
    """Filters by the client's full name, with the index that the client's own list uses."""

    title = "client"
    parameter_name = "client"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        name = (self.value() or "").strip()
        if not name:
            return queryset
        owner = User.objects.filter(username=name).values_list("pk", flat=True).first()
        return queryset.none() if owner is None else queryset.filter(owner_id=owner)


class CreatedFilter(RangeDateTimeFilter):  # type: ignore[misc]
    """From and to, in UTC; a date without a time means the whole day."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = "time of acceptance (UTC)"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        return created_between(queryset, self._at("from", time.min), self._at("to", time.max))

    def _at(self, end: str, default: time) -> datetime | None:
        day, hour = (self.used_parameters.get(f"{self.parameter_name}_{end}_{part}") or "" for part in (0, 1))
        try:
            on = parse_date(day)
            at = parse_time(hour) or default
        except ValueError:
            return None
        return datetime.combine(on, at, UTC) if on else None
