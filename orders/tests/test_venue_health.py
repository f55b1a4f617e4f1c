"""Circuits and limits: rows that all workers share."""

import time
from typing import Any

import pytest
from django.db import connection, transaction

from exchanges import health
from exchanges.models import Venue, VenueEvent, VenueHealth
from orders import selectors, services
from orders.lifecycle import Event, Step
from orders.models import Order
from orders.services import Attempt, claim_orders
from orders.tests.factories import OrderFactory, VenueFactory
from orders.tests.threads import in_threads

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def venue(db: None) -> Venue:
    venue: Venue = VenueFactory()
    return venue


def silence(times: int, *, probe: bool = False) -> None:
    health.record_silence("XSIM", requests=times, probe=probe, error="connect_failed")


def permit(wanted: int = 10) -> health.Permit:
    with transaction.atomic():
        return health.permit("XSIM", wanted)


def make_due_for_a_probe() -> None:
    VenueHealth.objects.update(retry_at="2020-01-01T00:00:00Z")


def test_a_venue_that_answers_may_be_sent_all_that_is_wanted() -> None:
    assert permit(10) == health.Permit(10, 1024)


def test_five_silences_in_a_row_open_the_circuit_and_four_do_not() -> None:
    permit()
    silence(4)
    assert permit().sends == 10
    silence(1)
    assert permit() == health.NONE
    assert list(VenueEvent.objects.values_list("event", flat=True)) == ["circuit_opened"]


def test_an_answer_starts_the_count_anew() -> None:
    permit()
    silence(4)
    health.record_answer("XSIM")
    silence(4)
    assert permit().sends == 10


def test_when_the_wait_is_over_one_probe_is_sent_and_no_more() -> None:
    permit()
    silence(5)
    make_due_for_a_probe()
    assert permit() == health.Permit(1, 1024, probe=True, troubled=True)
    assert permit() == health.NONE


def test_a_probe_that_fails_doubles_the_wait_up_to_its_bound() -> None:
    permit()
    silence(5)
    waits = []
    for _ in range(8):
        silence(1, probe=True)
        with connection.cursor() as cursor:
            cursor.execute("SELECT extract(epoch FROM retry_at - statement_timestamp()) FROM exchanges_venuehealth")
            waits.append(float(cursor.fetchone()[0]))
    for wait, longest in zip(waits, (1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 15.0), strict=True):
        assert 0.3 * longest <= wait <= longest


def test_silences_of_requests_that_were_under_way_do_not_lengthen_the_wait() -> None:
    permit()
    silence(5)
    before = VenueHealth.objects.get()
    silence(100)
    after = VenueHealth.objects.get()
    assert (after.retry_at, after.probes) == (before.retry_at, before.probes)


def test_a_probe_that_is_answered_closes_the_circuit_and_says_so() -> None:
    permit()
    silence(5)
    make_due_for_a_probe()
    permit()
    health.record_answer("XSIM")
    assert permit() == health.Permit(10, 1024)
    events = VenueEvent.objects.order_by("id").values_list("event", flat=True)
    assert list(events) == ["circuit_opened", "circuit_closed"]


def test_orders_behind_an_open_circuit_are_not_due() -> None:
    OrderFactory()
    permit()
    silence(5)
    assert selectors.venues_with_due_orders() == []
    due = selectors.work_due().place
    assert due is not None
    assert due > 0
    assert claim_orders("XSIM", wanted=10, actor="system:test").orders == []


def attempt(answered: bool, *, troubled: bool = False) -> Attempt:
    order = OrderFactory(status="submitting")
    event = Event.ACKNOWLEDGED if answered else Event.VENUE_UNREACHABLE
    step = Step(order_id=order.pk, event=event, venue_order_id="V" if answered else "", reason="connect_failed")
    return Attempt(step, "XSIM", answered, health.Permit(1, 1024, troubled=troubled))


def test_attempts_report_on_their_venue_when_they_are_recorded() -> None:
    permit()
    services.record_attempts([attempt(False) for _ in range(5)], actor="system:test")
    assert permit() == health.NONE
    services.record_attempts([attempt(True, troubled=True)], actor="system:test")
    assert permit().sends == 10


def test_one_answer_among_silences_keeps_the_circuit_closed() -> None:
    permit()
    services.record_attempts([*(attempt(False) for _ in range(9)), attempt(True)], actor="system:test")
    assert permit().sends == 10


def test_a_halted_venue_may_not_be_sent_to() -> None:
    OrderFactory()
    Venue.objects.update(halted_at="2026-01-01T00:00:00Z", halted_by="operator:olga", halt_reason="test")
    assert permit() == health.NONE
    assert claim_orders("XSIM", wanted=10, actor="system:test").orders == []
    assert selectors.work_due().place is None


def test_the_rate_is_a_bucket_of_one_second() -> None:
    Venue.objects.update(max_per_second=5)
    for _ in range(20):
        OrderFactory()
    permit()
    VenueHealth.objects.update(tokens=100, tokens_at="2020-01-01T00:00:00Z")

    first = claim_orders("XSIM", wanted=20, actor="system:test").orders
    VenueHealth.objects.update(tokens_at="2100-01-01T00:00:00Z")
    second = claim_orders("XSIM", wanted=20, actor="system:test").orders

    assert (len(first), len(second)) == (5, 0)


@pytest.mark.django_db(transaction=True)
def test_the_limit_of_orders_under_way_holds_over_all_workers() -> None:
    Venue.objects.update(max_in_flight=7)
    for _ in range(40):
        OrderFactory()

    claims = in_threads(8, lambda n: claim_orders("XSIM", wanted=5, actor=f"system:{n}").orders)

    assert sum(len(orders) for orders in claims) == Order.objects.filter(status="submitting").count() == 7


@pytest.mark.django_db(transaction=True)
def test_one_worker_probes_and_the_others_wait() -> None:
    for _ in range(10):
        OrderFactory()
    permit()
    silence(5)
    make_due_for_a_probe()

    claims = in_threads(8, lambda n: claim_orders("XSIM", wanted=5, actor=f"system:{n}").orders)

    assert sorted(len(orders) for orders in claims) == [0] * 7 + [1]


@pytest.mark.django_db(transaction=True)
def test_the_rate_holds_over_all_workers() -> None:
    Venue.objects.update(max_per_second=6)
    for _ in range(40):
        OrderFactory()
    permit()
    VenueHealth.objects.update(tokens=6, tokens_at="2100-01-01T00:00:00Z")  # full, and not yet filling

    started = time.monotonic()
    claims: list[Any] = in_threads(8, lambda n: claim_orders("XSIM", wanted=5, actor=f"system:{n}").orders)
    seconds = time.monotonic() - started

    assert 6 <= sum(len(orders) for orders in claims) <= 6 + 6 * seconds
