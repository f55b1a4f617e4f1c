"""What needs an operator. Every read here is bounded, and served by the partial indexes on failed and unconfirmed
orders, so that the console asks on every page however many orders there are."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from orders.models import Order, Status

MOST = 100
"""Counts stop here: more is "100+"."""

PARKED = Q(status=Status.UNCONFIRMED, parked_at__isnull=False)
"""What `Order.parked` says, in a query. The status has its indexes used."""
FAILED = Q(status=Status.FAILED)

_COUNTS = """
SELECT (SELECT count(*) FROM (SELECT FROM orders_order WHERE status = 'failed' LIMIT %(limit)s) f),
    (SELECT count(*) FROM (SELECT FROM orders_order
        WHERE status = 'unconfirmed' AND parked_at IS NOT NULL LIMIT %(limit)s) p),
    (SELECT count(*) FROM (SELECT FROM orders_order
        WHERE status = 'unconfirmed' AND parked_at IS NULL LIMIT %(limit)s) u),
    (SELECT count(*) FROM (SELECT FROM orders_order WHERE status = 'pending' LIMIT %(limit)s) w),
    (SELECT count(*) FROM (SELECT FROM orders_order WHERE status = 'submitting' LIMIT %(limit)s) s)
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """Orders by what they wait for, each counted up to MOST."""

    failed: int
    parked: int
    looked_up: int
    waiting: int
    being_sent: int


def counts() -> Counts:
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS, {"limit": MOST})
        return Counts(*cursor.fetchone())


def shown(count: int) -> str:
    return f"{MOST}+" if count >= MOST else str(count)


def orders_for_an_operator(limit: int) -> list[Order]:
    """The newest failed and the newest parked orders, at most `limit`, newest first."""
    found = [order for need in (FAILED, PARKED) for order in Order.objects.filter(need).order_by("-pk")[:limit]]
    return sorted(found, key=lambda order: order.pk, reverse=True)[:limit]


def failed_orders(*, venue: str | None, accepted_before: datetime | None, error: str | None) -> QuerySet[Order]:
    """Failed orders, oldest first; `error` is a text within their last error, in any case."""
    orders = Order.objects.filter(FAILED).order_by("pk")
    if venue is not None:
        orders = orders.filter(venue_id=venue)
    if accepted_before is not None:
        orders = orders.filter(created_at__lte=accepted_before)
    if error is not None:
        orders = orders.filter(last_error__icontains=error)
    return orders


def due_orders() -> QuerySet[Order]:
    """Orders to be placed now, at venues that are not halted."""
    return Order.objects.filter(status=Status.PENDING, next_attempt_at__lte=Now(), venue__halted_at__isnull=True)


def unconfirmed_orders(*, venue: str | None) -> QuerySet[Order]:
    """Unconfirmed orders, parked ones included, oldest first."""
    orders = Order.objects.filter(status=Status.UNCONFIRMED).order_by("pk")
    return orders if venue is None else orders.filter(venue_id=venue)
