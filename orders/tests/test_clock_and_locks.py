"""Leases run on the database's clock, and nobody who takes work waits for a row that another has locked."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from django.db import connection, transaction
from django.utils import timezone

from orders import lifecycle
from orders.lifecycle import Event, Step
from orders.models import Order
from orders.tests.factories import OrderFactory
from orders.tests.threads import somebody_waits_for_a_lock
from orders.webhook_models import WebhookDelivery
from quiktrade.tests.processes import database_url_of_tests, wait_until

HOUR = 3600


# ---- The clock ----


@contextmanager
def database_ahead(seconds: float) -> Iterator[None]:
    """Have the database's clock be ahead of this process's: functions of the same name hide the database's own."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS ahead")
        for name in ("statement_timestamp", "transaction_timestamp", "now", "clock_timestamp"):
            cursor.execute(
                f"CREATE OR REPLACE FUNCTION ahead.{name}() RETURNS timestamptz LANGUAGE sql STABLE AS"
                f" $$ SELECT pg_catalog.clock_timestamp() + interval '{seconds} seconds' $$"
            )
        cursor.execute("SET search_path = ahead, pg_catalog, public")
        try:
            yield
        finally:
            cursor.execute("RESET search_path")
            cursor.execute("DROP SCHEMA ahead CASCADE")


def claim() -> list[UUID]:
    return [order.id for order in lifecycle.claim("XSIM", limit=10, in_flight=100, lease=30, actor="system:test")]


def sweep() -> list[UUID]:
    return [order.id for order in lifecycle.sweep("XSIM", delay=2.0, limit=10, actor="system:sweep")]


@pytest.mark.django_db
def test_a_lease_is_set_by_the_databases_clock() -> None:
    order = OrderFactory()
    with database_ahead(HOUR):
        assert claim() == [order.pk]
        assert sweep() == []
    lease = Order.objects.values_list("lease_expires_at", flat=True).get()
    assert lease is not None
    assert lease - timezone.now() > timedelta(seconds=HOUR)


@pytest.mark.django_db
def test_a_lease_runs_out_by_the_databases_clock() -> None:
    order = OrderFactory()
    assert claim() == [order.pk]
    assert sweep() == []
    with database_ahead(HOUR):
        assert sweep() == [order.pk]


@pytest.mark.django_db
def test_an_order_is_due_by_the_databases_clock() -> None:
    order = OrderFactory(attempts=1, delay=HOUR / 2)
    assert claim() == []
    with database_ahead(HOUR):
        assert claim() == [order.pk]


@pytest.mark.django_db
def test_a_look_up_is_due_by_the_databases_clock() -> None:
    order = OrderFactory(status="unconfirmed", delay=HOUR / 2)
    assert lifecycle.claim_lookups("XSIM", limit=10, seconds=5) == []
    with database_ahead(HOUR):
        assert [each.order_id for each in lifecycle.claim_lookups("XSIM", limit=10, seconds=5)] == [order.pk]


# ---- Locked rows ----


@contextmanager
def locked(row: Order | WebhookDelivery) -> Iterator[None]:
    """Have somebody else hold the row, as a claim under way does."""
    with psycopg.connect(database_url_of_tests()) as other, connection.cursor() as cursor:
        other.execute(f"SELECT FROM {row._meta.db_table} WHERE id = %s FOR UPDATE", [row.pk])
        cursor.execute("SET lock_timeout = '3s'")  # whoever waits is told so
        try:
            yield
        finally:
            cursor.execute("RESET lock_timeout")
            other.rollback()


def overtake() -> list[UUID]:
    return [order.id for order in lifecycle.overtake(limit=10, actor="system:sweep")]


def look_up() -> list[UUID]:
    return [each.order_id for each in lifecycle.claim_lookups("XSIM", limit=10, seconds=5)]


LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("take", "order", "due"),
    [
        (claim, {}, {"next_attempt_at": LONG_AGO}),
        (sweep, {"status": "submitting"}, {"lease_expires_at": LONG_AGO}),
        (overtake, {}, {"place_by": LONG_AGO}),
        (look_up, {"status": "unconfirmed"}, {"next_attempt_at": LONG_AGO}),
    ],
    ids=["claim", "sweep", "overtake", "look_up"],
)
def test_whoever_takes_work_passes_a_locked_order_by(
    take: Callable[[], list[UUID]], order: dict[str, str], due: dict[str, str]
) -> None:
    held, free = OrderFactory(**order), OrderFactory(**order)
    Order.objects.update(**due)
    with locked(held):
        assert take() == [free.pk]
    assert take() == [held.pk]


@pytest.mark.django_db(transaction=True)
def test_an_acknowledgement_that_waited_for_the_sweep_is_applied_to_what_the_sweep_left() -> None:
    order = OrderFactory(status="submitting")
    Order.objects.update(lease_expires_at=LONG_AGO)
    answer = Step(order_id=order.pk, event=Event.ACKNOWLEDGED, venue_order_id="V1")
    with ThreadPoolExecutor(1) as worker:
        with transaction.atomic():
            assert sweep() == [order.pk]
            late = worker.submit(_advance_and_hang_up, answer)
            wait_until(somebody_waits_for_a_lock)
        assert [moved.status for moved in late.result()] == ["placed"]


def _advance_and_hang_up(step: Step) -> list[lifecycle.MovedOrder]:
    try:
        return lifecycle.advance([step], actor="system:test").moved
    finally:
        connection.close()
