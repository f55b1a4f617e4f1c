"""The task that places an order, and what stores orders with one task each."""
# mypy: disable-error-code="attr-defined, misc"

import http.client
import json
from functools import cache
from uuid import uuid4

from django.conf import settings
from django.utils import timezone
from django_q.tasks import async_task

from benchmarks.speed.naive.models import Order


@cache
def _venue() -> http.client.HTTPConnection:
    """One connection for each worker process, kept alive."""
    return http.client.HTTPConnection("127.0.0.1", settings.VENUE_PORT, timeout=30)


def place(order_id: int) -> None:
    taken_at = timezone.now()
    order = Order.objects.get(pk=order_id)
    body = {
        "client_order_id": order.client_order_id,
        "instrument": order.instrument,
        "side": order.side,
        "type": order.type,
        "quantity": order.quantity,
        "limit_price": format(order.limit_price, "f"),
        "time_in_force": order.time_in_force,
    }
    venue = _venue()
    venue.request("POST", "/orders", json.dumps(body), {"Content-Type": "application/json"})
    response = venue.getresponse()
    answer = json.loads(response.read())
    order.status = "placed" if response.status == 201 else "failed"
    order.venue_order_id = answer.get("venue_order_id", "")
    order.taken_at = taken_at
    order.placed_at = timezone.now()
    order.save(update_fields=["status", "venue_order_id", "taken_at", "placed_at"])


def submit(count: int) -> None:
    """Empty the tables, and store `count` orders with a task for each."""
    Order.objects.all().delete()
    run = uuid4().hex[:8]  # the venue refuses an id that it knows
    orders = Order.objects.bulk_create(
        Order(
            client_order_id=f"naive-{run}-{number}",
            instrument="US0378331005",
            side="buy",
            type="limit",
            quantity=100,
            limit_price="187.50",
            time_in_force="day",
            status="pending",
        )
        for number in range(count)
    )
    for order in orders:
        async_task("benchmarks.speed.naive.tasks.place", order.pk)
