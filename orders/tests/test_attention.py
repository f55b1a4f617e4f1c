"""What needs a person: each kind of it is reported, and nothing else."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from exchanges import circuit
from exchanges.models import Venue, VenueHealth
from orders import amendments, attention
from orders.models import Order, OrderRequest
from orders.tests.factories import OrderFactory, VenueFactory, WorkerNodeFactory, silent_venue

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def worker(db: None) -> None:
    WorkerNodeFactory()


def ago(seconds: float) -> Any:
    return timezone.now() - timedelta(seconds=seconds)


def halted_venue() -> Venue:
    return VenueFactory(halted_at=timezone.now(), halted_by="operator:olga", halt_reason="wrong prices")


def sentences() -> list[str]:
    return [trouble.sentence for trouble in attention.state().troubles()]


def test_nothing_needs_a_person_while_orders_move() -> None:
    OrderFactory()
    OrderFactory(attempts=1, delay=-20.0)  # due for less than half a minute
    OrderFactory(attempts=1, delay=3600.0)
    OrderFactory(status="submitting")
    OrderFactory(status="unconfirmed")
    OrderFactory(status="placed")
    assert attention.state().heads() == []
    assert attention.groups() == []


def test_a_halted_venue_needs_a_person_with_the_orders_that_wait_there() -> None:
    venue = halted_venue()
    OrderFactory(venue=venue, attempts=1, delay=-300.0)
    OrderFactory(venue=venue, attempts=1, delay=300.0)
    assert sentences() == ["XSIM is halted by olga: wrong prices. 2 orders wait."]
    assert attention.state().heads() == ["XSIM halted"]


def test_a_silent_venue_needs_a_person_and_its_orders_are_not_overdue_besides() -> None:
    OrderFactory(venue=silent_venue(), attempts=1, delay=-300.0)
    assert sentences() == ["XSIM does not answer: no answer in 5 s. 1 order waits."]
    assert attention.state().heads() == ["XSIM silent"]


@pytest.fixture
def venue() -> Venue:
    venue = VenueFactory()
    circuit.permit("XSIM", 1)
    OrderFactory(attempts=1, delay=-300.0)
    return venue


@pytest.mark.usefixtures("venue")
def test_a_venue_that_refuses_our_credentials_needs_a_person_at_once() -> None:
    circuit.record_lock_out("XSIM", probe=False, error="unauthorized: key expired")
    (trouble,) = attention.state().troubles()
    assert trouble.sentence == "XSIM refuses our credentials: unauthorized: key expired. 1 order waits."
    assert trouble.advice.startswith("Renew its key")
    assert attention.state().heads() == ["XSIM refuses credentials"]


@pytest.mark.usefixtures("venue")
def test_a_long_pause_needs_a_person_and_says_until_when() -> None:
    circuit.record_pause("XSIM", seconds=300.0, probe=False, error="rate_limited: 429")
    until = VenueHealth.objects.get().paused_until
    assert until is not None
    assert sentences() == [
        f"XSIM asked us to send nothing until {until:%Y-%m-%d %H:%M:%S} UTC: rate_limited: 429. 1 order waits."
    ]
    assert attention.state().heads() == ["XSIM paused"]


@pytest.mark.usefixtures("venue")
def test_a_short_pause_needs_nobody_and_makes_no_order_overdue() -> None:
    circuit.record_pause("XSIM", seconds=299.0, probe=False, error="rate_limited: 429")
    assert attention.state().heads() == []


@pytest.mark.usefixtures("venue")
def test_a_pause_that_is_over_or_was_taken_back_needs_nobody() -> None:
    circuit.record_pause("XSIM", seconds=600.0, probe=False, error="rate_limited: 429")
    VenueHealth.objects.update(opened_at=ago(700), paused_until=ago(1))
    assert attention.state().heads() == []
    circuit.record_pause("XSIM", seconds=600.0, probe=False, error="rate_limited: 429")
    circuit.try_now("XSIM")
    assert attention.state().heads() == []


def test_a_halted_venue_that_refuses_our_credentials_says_both() -> None:
    halted_venue()
    circuit.permit("XSIM", 1)
    circuit.record_lock_out("XSIM", probe=False, error="unauthorized: key expired")
    assert attention.state().heads() == ["XSIM halted", "XSIM refuses credentials"]


def test_orders_that_should_have_been_sent_need_a_person() -> None:
    OrderFactory(attempts=1, delay=-31.0)
    OrderFactory(venue=VenueFactory(code="XPAR"))
    assert sentences() == ["1 order is overdue at XSIM: due for more than 30 s, and not sent."]


@pytest.mark.parametrize("silent_for", [16, 3600])
def test_a_worker_that_gives_no_sign_needs_a_person(silent_for: int) -> None:
    WorkerNodeFactory._meta.model.objects.update(heartbeat_at=ago(silent_for))
    assert attention.state().heads() == ["no worker"]


def test_that_no_worker_has_ever_run_needs_a_person() -> None:
    WorkerNodeFactory._meta.model.objects.all().delete()
    (trouble,) = attention.state().troubles()
    assert (trouble.head, trouble.since) == ("no worker", None)


def test_an_order_in_doubt_for_more_than_a_minute_needs_a_person() -> None:
    long, _ = OrderFactory(status="unconfirmed", error="read_timeout: 5 s"), OrderFactory(status="unconfirmed")
    Order.objects.filter(pk=long.pk).update(updated_at=ago(61))
    assert attention.state().heads() == ["1 in doubt"]
    assert [(group.need, group.cause, group.newest) for group in attention.groups()] == [
        ("doubtful", "read_timeout", long.pk)
    ]


def test_orders_are_grouped_by_what_they_need_their_venue_and_the_cause() -> None:
    paris = VenueFactory(code="XPAR")
    for error in ("refused: a", "refused: b", "Refused for good", "refusedly: c"):
        OrderFactory(status="failed", error=error)
    OrderFactory(status="failed", error="refused: a", venue=paris)
    newest = OrderFactory(status="failed", error="refused: z")
    OrderFactory(status="unconfirmed", parked=True, error="refused: a")
    found = {(group.need, group.venue, group.cause): group.orders for group in attention.groups()}
    assert found == {
        ("failed", "XSIM", "refused"): 3,
        ("failed", "XSIM", "Refused for good"): 1,
        ("failed", "XSIM", "refusedly"): 1,
        ("failed", "XPAR", "refused"): 1,
        ("parked", "XSIM", "refused"): 1,
    }
    largest = attention.groups()[0]
    assert (largest.newest, largest.error) == (newest.pk, "refused: z")


def test_what_a_group_counts_is_what_its_cause_finds() -> None:
    for error in ("refused: a", "refused: b", "refused", "refusedly: c", "Refused: d"):
        OrderFactory(status="failed", error=error)
    found = Order.objects.filter(attention.FAILED & attention.caused_by("refused"))
    (count,) = [group.orders for group in attention.groups() if group.cause == "refused"]
    assert found.count() == count == 3


def test_a_count_is_exact_up_to_where_it_would_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [attention.shown(count) for count in (101, 9_999, 10_000)] == ["101", "9,999", "10,000+"]
    monkeypatch.setattr(attention, "COUNTED_TO", 2)
    monkeypatch.setattr(attention, "GROUPED", 2)
    for _ in range(3):
        OrderFactory(status="failed")
    assert attention.state().counts.failed == 2
    assert sum(group.orders for group in attention.groups()) == 2


@pytest.mark.parametrize(("age", "heads"), [(299.0, []), (301.0, ["1 unanswered"])])
def test_a_cancel_without_an_answer_for_five_minutes_needs_a_person(age: float, heads: list[str]) -> None:
    order = OrderFactory(status="placed")
    amendments.request_cancel(order.pk, actor="client:alice", reason="Not wanted any more.")
    OrderRequest.objects.update(created_at=ago(age))
    assert attention.state().heads() == heads
