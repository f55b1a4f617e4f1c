"""The database's clock was ahead for a while and is right again: what it delayed happens in good time."""

import time
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone
from django_q.models import OrmQ, Schedule

from exchanges import circuit
from exchanges.models import VenueHealth
from exchanges.venue import ResendSafety
from orders import lifecycle, placement, tasks, verdicts
from orders.lifecycle import Event, Step
from orders.models import Order
from orders.tests.factories import UNREACHABLE, OrderFactory, VenueFactory, silent_venue
from orders.tests.test_reconcile import ID, capabilities
from orders.verdicts import Doubt
from quiktrade.jobs.broker import PostgresBroker
from quiktrade.models import WorkerNode

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
TIMES = ("next_attempt_at", "lease_expires_at", "parked_at", "updated_at")


def seconds_until(order: Order, name: str = "next_attempt_at") -> float:
    at = getattr(Order.objects.get(pk=order.pk), name)
    return float((at - timezone.now()).total_seconds())


def written_an_hour_ahead(order: Order) -> Order:
    Order.objects.filter(pk=order.pk).update(**{name: F(name) + HOUR for name in TIMES})
    return order


def claim() -> list[Any]:
    return lifecycle.claim("XSIM", limit=10, in_flight=100, lease=30, actor="system:test")


def test_a_pending_order_is_placed_after_the_next_sweep() -> None:
    order = written_an_hour_ahead(OrderFactory())
    assert claim() == []
    placement.sweep_orders()
    assert [claimed.id for claimed in claim()] == [order.pk]


# The longest waits there are: a back-off of 60 s, a lease of 30 s with the settle time of 2 s, an hour while parked.
@pytest.mark.parametrize(
    ("order", "seconds"),
    [
        ({"attempts": 1, "delay": 60.0}, 60),
        ({"status": "unconfirmed", "delay": 32.0}, 32),
        ({"status": "unconfirmed", "parked": True}, 3600),
    ],
)
def test_what_waits_within_its_bounds_is_left_alone(order: dict[str, Any], seconds: int) -> None:
    waiting = OrderFactory(**order)
    Order.objects.update(next_attempt_at=timezone.now() + timedelta(seconds=seconds))
    before = Order.objects.values().get()
    placement.sweep_orders()
    assert Order.objects.values().get(pk=waiting.pk) == before


@pytest.mark.parametrize(("parked", "soon"), [(False, 2), (True, 2)])
def test_an_unconfirmed_order_is_looked_up_after_the_settle_time(parked: bool, soon: int) -> None:
    order = written_an_hour_ahead(OrderFactory(status="unconfirmed", parked=parked))
    Order.objects.update(next_attempt_at=timezone.now() + (2 if parked else 1) * HOUR + timedelta(minutes=5))
    placement.sweep_orders()
    assert 0 < seconds_until(order) <= soon
    assert seconds_until(order, "updated_at") <= 0
    assert Order.objects.get(pk=order.pk).parked is parked


def test_an_attempt_keeps_a_whole_lease_for_it_may_have_begun_just_now() -> None:
    order = written_an_hour_ahead(OrderFactory(status="submitting"))
    placement.sweep_orders()
    assert 20 < seconds_until(order, "lease_expires_at") <= 30
    assert Order.objects.get(pk=order.pk).status == "submitting"


@pytest.mark.parametrize(("status", "name"), [("submitting", "lease_expires_at"), ("unconfirmed", "next_attempt_at")])
def test_a_request_that_the_venue_takes_until_then_stays_in_question_until_then(status: str, name: str) -> None:
    VenueFactory(settings={"url": UNREACHABLE, "resend_safety": "refuses_stale_requests"})
    order = written_an_hour_ahead(OrderFactory(status=status))
    placement.sweep_orders()
    assert seconds_until(order, name) > 3000


def test_a_window_for_a_resend_that_was_measured_by_the_wrong_clock_counts_as_over() -> None:
    order = OrderFactory(status="unconfirmed")
    step = Step(order_id=order.pk, event=Event.NOT_FOUND, attempt=1, in_doubt=True, resend_within=60.0)
    lifecycle.advance([step], actor="system:test")
    Order.objects.update(next_attempt_at=F("next_attempt_at") + HOUR, resend_before=F("resend_before") + HOUR)
    placement.sweep_orders()
    assert claim() == []
    (moved,) = lifecycle.overtake(limit=10, actor="system:sweep")
    assert moved.event == "resend_window_passed"


def test_an_order_of_the_future_is_not_sent_again_where_its_age_matters() -> None:
    conclusion = verdicts.conclude(ID, 1, None, capabilities(ResendSafety.REFUSES_RECENT_DUPLICATES), Doubt(-3500.0, 0))
    assert isinstance(conclusion, verdicts.Park)


def test_a_silent_venue_is_probed_and_a_limited_one_served() -> None:
    venue = silent_venue()
    VenueHealth.objects.update(retry_at=timezone.now() + HOUR, tokens_at=timezone.now() + HOUR)
    placement.sweep_orders()
    assert circuit.permit(venue.code, 1).probe
    assert VenueHealth.objects.get().tokens_at <= timezone.now()


def test_a_silent_venue_is_not_probed_before_its_time() -> None:
    venue = silent_venue()
    VenueHealth.objects.update(retry_at=timezone.now() + timedelta(seconds=circuit.LONGEST_WAIT_SECONDS))
    placement.sweep_orders()
    assert circuit.permit(venue.code, 1) == circuit.NONE


def test_a_pause_lasts_as_long_as_the_venue_wishes() -> None:
    venue = silent_venue()
    circuit.record_pause(venue.code, seconds=7200.0, probe=False, error="429")
    placement.sweep_orders()
    assert circuit.permit(venue.code, 1) == circuit.NONE


def test_schedules_run_again() -> None:
    in_time = timezone.now() + timedelta(seconds=59)
    for name, next_run in (("place_due_orders", timezone.now() + HOUR), ("sweep_orders", in_time)):
        Schedule.objects.update_or_create(
            name=name, defaults={"next_run": next_run}
        )  # tests may have emptied the table
    tasks.sweep_orders()
    assert Schedule.objects.get(name="place_due_orders").next_run <= timezone.now()
    assert Schedule.objects.get(name="sweep_orders").next_run == in_time


def test_the_sweep_runs_every_minute_whatever_the_schedules_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_swept_at", time.monotonic() - 61)
    assert tasks.demand().jobs == [tasks.SWEEP]
    assert tasks.demand().jobs == []


@pytest.mark.parametrize(("ahead", "taken"), [(3600, 1), (120, 0)])
def test_a_job_that_is_locked_for_longer_than_any_claim_is_due(ahead: int, taken: int) -> None:
    broker = PostgresBroker()
    OrmQ.objects.create(key=broker.list_key, payload="x", lock=timezone.now() + timedelta(seconds=ahead))
    assert len(broker._rows()) == taken


def test_a_heartbeat_of_the_future_is_no_sign_of_life(client: Any) -> None:
    now = timezone.now()
    WorkerNode.objects.create(name="dead", started_at=now, heartbeat_at=now + HOUR)
    assert client.get("/readyz").json()["checks"]["job_cluster"]["ok"] is False
    WorkerNode.objects.create(name="alive", started_at=now, heartbeat_at=now)
    assert client.get("/readyz").json()["checks"]["job_cluster"]["ok"] is True
