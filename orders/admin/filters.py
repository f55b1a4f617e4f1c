"""The list's filters. What concerns time is put to the primary key too, which begins with it."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_time
from unfold.contrib.filters.admin import RadioFilter, RangeDateTimeFilter

from orders.attention import FAILED, PARKED, doubtful
from orders.models import Order

SKEW = timedelta(minutes=1)
"""An id is made by a web process, `created_at` by the database: their clocks may differ by this much."""


def created_between(orders: QuerySet[Order], start: datetime | None, end: datetime | None) -> QuerySet[Order]:
    if start is not None:
        orders = orders.filter(pk__gte=_first_id(start - SKEW), created_at__gte=start)
    if end is not None:
        orders = orders.filter(pk__lte=_first_id(end + SKEW), created_at__lte=end)
    return orders


def _first_id(at: datetime) -> UUID:
    """The least UUIDv7 of that millisecond."""
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


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


class CreatedFilter(RangeDateTimeFilter):  # type: ignore[misc]
    """From and to, in UTC; a day alone means all of it."""

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
