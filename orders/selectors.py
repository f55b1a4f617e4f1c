"""Reads. None of them locks a row or depends on a cache."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from exchanges.models import Venue
from orders.models import Order, OrderEvent, Status

_SECONDS_UNTIL_DUE = """
SELECT extract(epoch FROM place - statement_timestamp())::float8,
       extract(epoch FROM sweep - statement_timestamp())::float8,
       extract(epoch FROM reconcile - statement_timestamp())::float8
FROM (SELECT
    (SELECT min(due.next_attempt_at) FROM exchanges_venue v CROSS JOIN LATERAL (
        SELECT o.next_attempt_at FROM orders_order o WHERE o.venue_id = v.code AND o.status = 'pending'
        ORDER BY o.next_attempt_at LIMIT 1) due WHERE v.halted_at IS NULL) AS place,
    (SELECT min(lease_expires_at) FROM orders_order WHERE status = 'submitting') AS sweep,
    (SELECT min(next_attempt_at) FROM orders_order WHERE status = 'unconfirmed') AS reconcile) AS next
"""


@dataclass(frozen=True, slots=True)
class WorkDue:
    """Seconds until there is work of each kind; at most 0 when it is due now, None when there is none."""

    place: float | None
    sweep: float | None
    reconcile: float | None


def work_due() -> WorkDue:
    """What the order rows need next. Three index look-ups; orders of halted venues do not count."""
    with connection.cursor() as cursor:
        cursor.execute(_SECONDS_UNTIL_DUE)
        return WorkDue(*cursor.fetchone())


def venues_with_due_orders() -> list[Venue]:
    due = Order.objects.filter(venue=OuterRef("pk"), status=Status.PENDING, next_attempt_at__lte=Now())
    return list(Venue.objects.filter(Exists(due), halted_at__isnull=True))


def oldest_due_at() -> datetime | None:
    """Since when the longest-waiting due order has been due, at venues that are not halted."""
    due = Order.objects.filter(status=Status.PENDING, next_attempt_at__lte=Now(), venue__halted_at__isnull=True)
    return due.order_by("next_attempt_at").values_list("next_attempt_at", flat=True).first()


def orders_of(owner_id: int) -> QuerySet[Order]:
    """The orders that this client may see."""
    return Order.objects.filter(owner_id=owner_id)


def history(order_id: UUID) -> QuerySet[OrderEvent]:
    return OrderEvent.objects.filter(order_id=order_id).order_by("sequence")
