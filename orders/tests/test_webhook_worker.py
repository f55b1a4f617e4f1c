"""Webhooks delivered by a real worker node, which is killed, and which places orders beside receivers that are dead."""

import asyncio
import os
import signal

import psutil
import pytest
from aiohttp import web
from django.db.models.functions import Now

from orders import tasks
from orders.models import Order, OrderEvent
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from orders.tests.receiver import OK, Received, after, running_receiver
from orders.webhook_models import WebhookDelivery, WebhookEndpoint
from orders.webhooks import rows, services
from quiktrade.jobs import slots
from quiktrade.tests.processes import Processes, wait_until

LOOPBACK = {"QUIKTRADE_WEBHOOK_ALLOW": "127.0.0.0/8"}


def sender_of(received: Received) -> int:
    """The process at the other end of the connection."""
    (pid,) = {
        found.pid
        for found in psutil.net_connections("tcp4")
        if found.laddr and found.laddr.port == received.peer_port and found.pid not in (None, os.getpid())
    }
    assert pid is not None
    return pid


@pytest.mark.exhaustive
def test_every_event_arrives_though_the_process_that_delivers_is_killed(processes: Processes) -> None:
    killed: list[str] = []

    async def kill(received: Received) -> web.StreamResponse:
        os.kill(await asyncio.to_thread(sender_of, received), signal.SIGKILL)
        killed.append(received.id)
        return web.Response(status=204)

    with running_receiver(kill, OK) as receiver:
        endpoint = services.create_endpoint(UserFactory().pk, url=receiver.url)
        worker = processes.worker(**LOOPBACK)
        OrderFactory.create_batch(5, owner=endpoint.owner, status="canceled")
        wait_until(lambda: killed, worker)
        WebhookDelivery.objects.filter(status="sending").update(due_at=Now())  # the lease of the killed one runs out
        wait_until(lambda: endpoint.deliveries.filter(status="delivered").count() == 10, worker)

        assert set(receiver.ids) == {f"evt_{pk}" for pk in OrderEvent.objects.values_list("pk", flat=True)}
        assert killed[0] in receiver.ids[1:]  # at least once: the kill came after the request
        assert all(each.verified(endpoint.secret) for each in receiver.received)
        assert endpoint.secret not in worker.output


@pytest.mark.exhaustive
def test_orders_are_placed_beside_receivers_that_do_not_answer(processes: Processes) -> None:
    exchange = processes.exchange()
    VenueFactory(settings={"url": exchange.url})
    with running_receiver(after(600, OK)) as receiver:
        owners = UserFactory.create_batch(12)
        for owner in owners:
            services.create_endpoint(owner.pk, url=receiver.url)
            OrderFactory.create_batch(4, owner=owner, status="canceled")
        worker = processes.worker(**LOOPBACK)
        wait_until(lambda: len(receiver.received) >= 40, worker)
        senders = {sender_of(each) for each in receiver.received[:8]}
        orders = [OrderFactory().pk for _ in range(20)]
        wait_until(lambda: not Order.objects.filter(pk__in=orders).exclude(status="placed").exists(), worker)

        assert len(senders) == 1
        assert not WebhookDelivery.objects.filter(status="delivered").exists()


# ---- What the pusher asks ----


@pytest.fixture
def asked_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_webhooks_asked_at", 0.0)
    monkeypatch.setattr(tasks, "_swept_at", float("inf"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("asked_long_ago")
def test_a_job_is_started_for_an_event_and_not_a_second_one() -> None:
    endpoint = services.create_endpoint(UserFactory().pk, url="https://example.com/")
    OrderFactory(owner=endpoint.owner, status="canceled")
    with slots.take("webhooks"):
        assert tasks.DELIVER not in tasks.demand().jobs
    assert tasks.demand().jobs == [tasks.DELIVER]


def test_a_job_does_nothing_while_another_of_its_node_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_engine", lambda: pytest.fail("It delivers."))
    monkeypatch.setattr(rows, "remove_old", lambda seconds: pytest.fail("It removes."))
    with slots.take("webhooks"):
        tasks.deliver_webhooks()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("asked_long_ago")
def test_orders_come_before_webhooks_which_are_asked_for_next(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = services.create_endpoint(UserFactory().pk, url="https://example.com/")
    OrderFactory(owner=endpoint.owner)
    assert tasks.demand().jobs == [tasks.PLACE]
    monkeypatch.setattr(tasks, "_asked_at", 0.0)
    with slots.take("place"):
        assert tasks.demand().jobs == [tasks.DELIVER]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("asked_long_ago")
def test_webhooks_that_cannot_be_asked_for_hold_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_SECONDS_UNTIL_DUE", "SELECT 1 / 0")
    WebhookEndpoint.objects.all().delete()
    assert tasks.demand().jobs == []
    OrderFactory()
    assert tasks.demand().jobs == [tasks.PLACE]
