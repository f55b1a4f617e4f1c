"""The engine against the simulated exchange as a real process, on committed rows."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exchanges.adapters import http_calls
from exchanges.models import Venue
from exchanges.tests.running import RunningExchange, running_exchange
from orders import services
from orders.engine import Engine
from orders.models import Order, OrderEvent
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory

pytestmark = pytest.mark.django_db(transaction=True)


PATIENT: dict[str, Any] = {"timeout_seconds": 60.0, "settle_seconds": 0.1}
"""A machine that is slow for a while does not end an attempt at a venue with these settings, nor does its lease."""


@pytest.fixture
def exchange(tmp_path: Path, settings: Any) -> Iterator[RunningExchange]:
    settings.PLACEMENT_LEASE_SECONDS = 600.0
    with running_exchange(tmp_path, "--reject-instrument", "US5949181045") as running:
        VenueFactory(settings={"url": running.url, **PATIENT})
        yield running


def run_engine(seconds: float = 60.0, linger: float = 0.0) -> Engine:
    engine = Engine()

    async def run() -> None:
        await engine.run(seconds=seconds, linger=linger)
        await engine.close()

    asyncio.run(run())
    return engine


def test_every_due_order_is_placed_once(exchange: RunningExchange) -> None:
    owner = UserFactory()
    orders = {str(OrderFactory(owner=owner).pk) for _ in range(50)}

    run_engine()

    assert {order["client_order_id"] for order in exchange.orders()} == orders
    assert len(exchange.orders()) == len(orders)
    assert set(Order.objects.values_list("status", "attempt")) == {("placed", 1)}
    events = OrderEvent.objects.values_list("event", flat=True)
    assert sorted(events) == sorted(["accepted", "claimed", "acknowledged"] * 50)


def test_what_the_venue_refuses_is_rejected_with_its_reason(exchange: RunningExchange) -> None:
    order = OrderFactory(instrument="US5949181045")

    run_engine()

    rejected = Order.objects.get(pk=order.pk)
    assert rejected.status == "rejected"
    assert rejected.last_error.startswith("instrument_not_tradable")


def test_a_refused_connection_puts_the_order_back_with_a_later_time(
    exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.verdicts.UNREACHABLE_SECONDS", 3600.0)  # so that the run ends after one attempt
    order = OrderFactory()
    exchange.set_faults(refuse=True)

    run_engine()

    waiting = Order.objects.get(pk=order.pk)
    assert (waiting.status, waiting.attempt, waiting.failures) == ("pending", 1, 0)
    assert "connect" in waiting.last_error
    assert OrderEvent.objects.filter(order=order, event="venue_unreachable").count() == 1


def test_attempts_that_never_arrive_end_in_failed_and_a_requeue_places_the_order(
    exchange: RunningExchange, settings: object
) -> None:
    settings.PLACEMENT_MAX_ATTEMPTS = 3  # type: ignore[attr-defined]
    settings.PLACEMENT_BACKOFF_BASE_SECONDS = 0.001  # type: ignore[attr-defined]
    order = OrderFactory()
    exchange.set_faults(enforce_valid_until={"clock_ahead": 3600})  # every order comes too late for it

    run_engine(linger=0.3)

    failed = Order.objects.get(pk=order.pk)
    assert (failed.status, failed.attempt) == ("failed", 3)
    assert exchange.orders() == []

    exchange.set_faults()
    services.requeue_orders([order.pk], actor="operator:olga", reason="The venue is back.")
    run_engine()

    assert Order.objects.get(pk=order.pk).status == "placed"
    assert len(exchange.orders()) == 1


@pytest.mark.parametrize("fault", ["accept_then_drop", "truncate", "http_5xx", "reset"])
def test_an_answer_that_proves_nothing_leaves_the_order_unconfirmed(exchange: RunningExchange, fault: str) -> None:
    order = OrderFactory()
    exchange.set_faults(**{fault: {"count": 1}})

    run_engine()

    unconfirmed = Order.objects.get(pk=order.pk)
    assert unconfirmed.status == "unconfirmed"
    assert unconfirmed.next_attempt_at is not None
    assert len(exchange.orders()) <= 1


def test_a_stalled_venue_is_given_up_after_its_deadline(
    exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_calls, "CONNECT_SHARE", 60.0)  # a slow machine must not end the attempt before it is sent
    Venue.objects.update(settings={"url": exchange.url, "timeout_seconds": 1.0})
    order = OrderFactory()
    exchange.set_faults(stall={"seconds": 60, "count": 1})

    run_engine()

    assert Order.objects.get(pk=order.pk).status == "unconfirmed"


def test_a_dead_venue_does_not_keep_another_from_its_orders(
    exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.verdicts.UNREACHABLE_SECONDS", 3600.0)  # so that the run ends when all were tried
    dead = VenueFactory(code="XDED", settings={"url": "http://127.0.0.1:9"})
    owner = UserFactory()
    lost = [OrderFactory(owner=owner, venue=dead).pk for _ in range(10)]
    good = [OrderFactory(owner=owner).pk for _ in range(10)]

    run_engine()

    assert set(Order.objects.filter(pk__in=good).values_list("status", flat=True)) == {"placed"}
    assert set(Order.objects.filter(pk__in=lost).values_list("status", flat=True)) == {"pending"}


def test_no_more_requests_are_under_way_than_the_venue_allows(exchange: RunningExchange) -> None:
    Venue.objects.update(max_in_flight=3)
    owner = UserFactory()
    for _ in range(12):
        OrderFactory(owner=owner)
    exchange.set_faults(latency={"seconds": 0.05})

    run_engine()

    assert Order.objects.filter(status="placed").count() == 12
    assert exchange.stats()["most_under_way"] <= 3


def test_a_venue_with_settings_that_cannot_work_keeps_its_orders_waiting(exchange: RunningExchange) -> None:
    broken = VenueFactory(code="XBRK", settings={})
    order = OrderFactory(venue=broken)

    run_engine(seconds=0.3)

    assert Order.objects.get(pk=order.pk).status == "pending"


def test_an_engine_that_is_told_to_stop_claims_no_more(exchange: RunningExchange) -> None:
    OrderFactory()

    engine = Engine()

    async def run() -> None:
        await engine.run(seconds=60.0, stopping=lambda: True)
        await engine.close()

    asyncio.run(run())

    assert exchange.orders() == []
    assert Order.objects.get().status == "pending"


def test_a_node_keeps_to_what_its_adapter_can_have_under_way(exchange: RunningExchange) -> None:
    Venue.objects.update(max_in_flight=100, settings={"url": exchange.url, "in_flight": 2, **PATIENT})
    owner = UserFactory()
    for _ in range(8):
        OrderFactory(owner=owner)
    exchange.set_faults(latency={"seconds": 0.05})

    run_engine()

    assert Order.objects.filter(status="placed").count() == 8
    assert exchange.stats()["most_under_way"] <= 2
