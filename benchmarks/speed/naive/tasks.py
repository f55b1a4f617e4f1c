"""The tasks that place an order and deliver a webhook, and what stores either with one task each."""
# mypy: disable-error-code="attr-defined, misc"

import asyncio
import http.client
import json
from datetime import UTC, datetime
from functools import cache
from uuid import uuid4

import aiohttp
import orjson
import uvloop
from django.conf import settings
from django.utils import timezone
from django_q.tasks import async_task
from standardwebhooks import Webhook

from benchmarks.speed.naive.models import Delivery, Order


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


@cache
def _sender() -> tuple[asyncio.AbstractEventLoop, aiohttp.ClientSession]:
    """One loop and one session for each worker process, which keeps its connection alive."""

    async def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    loop = uvloop.new_event_loop()
    return loop, loop.run_until_complete(session())


def deliver(delivery_id: int) -> None:
    taken_at = timezone.now()
    delivery = Delivery.objects.get(pk=delivery_id)
    body, now = orjson.dumps(delivery.content).decode(), datetime.now(UTC)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": delivery.message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(delivery.secret).sign(delivery.message_id, now, body),
    }
    loop, session = _sender()

    async def post() -> int:
        async with session.post(delivery.url, data=body.encode(), headers=headers) as response:
            await response.read()
            return response.status

    delivery.code = loop.run_until_complete(post())
    delivery.status = "delivered" if delivery.code < 300 else "failed"
    delivery.taken_at = taken_at
    delivery.delivered_at = timezone.now()
    delivery.save(update_fields=["status", "code", "taken_at", "delivered_at"])


def notify(count: int) -> None:
    """Empty the table, and store `count` deliveries with a task for each. Their bodies are as long as the product's."""
    Delivery.objects.all().delete()
    run = uuid4().hex[:8]
    data = {
        "cursor": "0123.1234567.1234567",
        "order_id": str(uuid4()),
        "client_order_id": str(uuid4()),
        "sequence": 1,
        "event": "accepted",
        "status": "pending",
        "filled_quantity": 0,
        "leaves_quantity": 100,
        "execution": None,
        "by": "client",
        "reason": "",
        "at": "2026-11-25T12:00:00.123456Z",
    }
    deliveries = Delivery.objects.bulk_create(
        Delivery(
            message_id=f"evt_{run}{number}",
            url=f"http://127.0.0.1:{settings.VENUE_PORT}/",
            secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",  # noqa: S106  of nobody
            content={"type": "order.accepted", "timestamp": data["at"], "data": data},
        )
        for number in range(count)
    )
    for delivery in deliveries:
        async_task("benchmarks.speed.naive.tasks.deliver", delivery.pk)
