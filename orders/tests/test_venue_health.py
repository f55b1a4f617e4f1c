"""Circuits and limits: rows that all workers share."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection, transaction

from exchanges import circuit
from exchanges.models import Venue, VenueEvent, VenueHealth
from exchanges.services import halt_venue, resume_venue
from exchanges.venue import NotSent, OutcomeUnknown, VenueTrouble
from orders import placement, selectors
from orders.lifecycle import Event, Step
from orders.models import Order
from orders.placement import Attempt, claim_orders
from orders.tests.factories import OrderFactory, VenueFactory
from orders.tests.threads import in_threads, somebody_waits_for_a_lock
from quiktrade.tests.processes import wait_until

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def venue(db: None) -> Venue:
    venue: Venue = VenueFactory()
    return venue


def silence(times: int, *, probe: bool = False) -> None:
    circuit.record_silence("XSIM", requests=times, probe=probe, error="connect_failed")


def permit(wanted: int = 10) -> circuit.Permit:
    with transaction.atomic():
        return circuit.permit("XSIM", wanted)


def make_due_for_a_probe() -> None:
    VenueHealth.objects.update(retry_at="2020-01-01T00:00:00Z")


def test_a_venue_that_answers_may_be_sent_all_that_is_wanted() -> None:
    assert permit(10) == circuit.Permit(10, 1024)


def test_five_silences_in_a_row_open_the_circuit_and_four_do_not() -> None:
    permit()
    silence(4)
    assert permit().sends == 10
    silence(1)
    assert permit() == circuit.NONE
    assert list(VenueEvent.objects.values_list("event", flat=True)) == ["circuit_opened"]


def test_an_answer_starts_the_count_anew() -> None:
    permit()
    silence(4)
    circuit.record_answer("XSIM")
    silence(4)
    assert permit().sends == 10


def test_when_the_wait_is_over_one_probe_is_sent_and_no_more() -> None:
    permit()
    silence(5)
    make_due_for_a_probe()
    assert permit() == circuit.Permit(1, 1024, probe=True, troubled=True)
    assert permit() == circuit.NONE


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
    circuit.record_answer("XSIM")
    assert permit() == circuit.Permit(10, 1024)
    events = VenueEvent.objects.order_by("id").values_list("event", flat=True)
    assert list(events) == ["circuit_opened", "circuit_closed"]


def test_orders_behind_an_open_circuit_are_not_due() -> None:
    OrderFactory()
    permit()
    silence(5)
    assert selectors.venues_with_due_work() == []
    due = selectors.work_due().place
    assert due is not None
    assert due > 0
    assert claim_orders("XSIM", wanted=10, actor="system:test").orders == []


def attempt(answered: bool, *, troubled: bool = False) -> Attempt:
    order = OrderFactory(status="submitting")
    event = Event.ACKNOWLEDGED if answered else Event.VENUE_UNREACHABLE
    step = Step(order_id=order.pk, event=event, venue_order_id="V" if answered else "", reason="connect_failed")
    return Attempt(step, "XSIM", answered, circuit.Permit(1, 1024, troubled=troubled))


def test_attempts_report_on_their_venue_when_they_are_recorded() -> None:
    permit()
    placement.record_attempts([attempt(False) for _ in range(5)], actor="system:test")
    assert permit() == circuit.NONE
    placement.record_attempts([attempt(True, troubled=True)], actor="system:test")
    assert permit().sends == 10


def test_one_answer_among_silences_keeps_the_circuit_closed() -> None:
    permit()
    placement.record_attempts([*(attempt(False) for _ in range(9)), attempt(True)], actor="system:test")
    assert permit().sends == 10


def test_a_halted_venue_may_not_be_sent_to() -> None:
    OrderFactory()
    Venue.objects.update(halted_at="2026-01-01T00:00:00Z", halted_by="operator:olga", halt_reason="test")
    assert permit() == circuit.NONE
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
def test_a_claim_waits_for_one_that_is_not_committed_and_counts_its_orders() -> None:
    Venue.objects.update(max_in_flight=7)
    for _ in range(20):
        OrderFactory()
    permit()
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            first = claim_orders("XSIM", wanted=5, actor="system:1").orders
            claiming = pool.submit(in_threads, 1, lambda n: claim_orders("XSIM", wanted=5, actor="system:2").orders)
            wait_until(lambda: claiming.done() or somebody_waits_for_a_lock())
        [second] = claiming.result()

    assert [len(first), len(second)] == [5, 2]


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


# ---- What the venue itself says: paused, locked out ----


def standing() -> tuple[str, float]:
    """The venue's trouble, and the seconds until it is probed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT trouble, extract(epoch FROM retry_at - statement_timestamp()) FROM exchanges_venuehealth"
        )
        trouble, seconds = cursor.fetchone()
    return trouble, float(seconds)


def history() -> list[str]:
    return list(VenueEvent.objects.order_by("id").values_list("event", flat=True))


def pause(seconds: float | None, *, probe: bool = False) -> None:
    circuit.record_pause("XSIM", seconds=seconds, probe=probe, error="rate_limited")


def lock_out(*, probe: bool = False) -> None:
    circuit.record_lock_out("XSIM", probe=probe, error="not_authorized: HTTP 401")


def let_the_wait_end() -> None:
    VenueHealth.objects.update(retry_at="2020-01-01T00:00:00Z", paused_until="2020-01-01T00:00:00Z")


def test_a_pause_lasts_as_long_as_the_venue_asked_for_and_no_answer_shortens_it() -> None:
    permit()
    pause(290.0)
    pause(8.0)
    circuit.record_answer("XSIM", probe=True)
    silence(50, probe=True)
    trouble, seconds = standing()
    assert trouble == "paused"
    assert 200 < seconds <= 290
    assert permit() == circuit.NONE
    assert history() == ["paused"]
    assert VenueEvent.objects.get().reason == "It asked us to stay away for 290 s: rate_limited"


def test_after_a_pause_one_probe_is_sent_and_its_answer_lets_all_follow() -> None:
    permit()
    pause(60.0)
    let_the_wait_end()
    assert permit() == circuit.Permit(1, 1024, probe=True, troubled=True)
    assert permit() == circuit.NONE
    circuit.record_answer("XSIM")  # of a request that was under way before the pause
    assert standing()[0] == "paused"
    circuit.record_answer("XSIM", probe=True)
    assert permit() == circuit.Permit(10, 1024)
    assert history() == ["paused", "circuit_closed"]


def test_a_probe_that_meets_the_pause_again_sets_the_next_as_asked() -> None:
    permit()
    pause(600.0)
    let_the_wait_end()
    permit()
    pause(300.0, probe=True)
    trouble, seconds = standing()
    assert trouble == "paused"
    assert 200 < seconds <= 300
    assert history() == ["paused"]


def test_a_pause_of_unsaid_length_grows_with_each_probe_that_meets_it_again() -> None:
    permit()
    waits = []
    for probe in (False, True, True, True, True, True, True):
        pause(None, probe=probe)
        waits.append(standing()[1])
        let_the_wait_end()
    for wait, longest in zip(waits, (0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0), strict=True):
        assert 0.3 * longest <= wait <= longest


def test_a_pause_is_a_day_at_most_and_a_long_one_calls_a_person(caplog: pytest.LogCaptureFixture) -> None:
    permit()
    pause(1e300)
    assert 86_300 < standing()[1] <= 86_400
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_venue_that_was_silent_and_asks_for_a_pause_is_paused() -> None:
    permit()
    silence(5)
    pause(60.0, probe=True)
    assert standing()[0] == "paused"
    let_the_wait_end()
    silence(1, probe=True)
    assert standing()[0] == "silent"
    assert history() == ["circuit_opened", "paused", "circuit_opened"]


def test_refused_credentials_stop_the_venue_and_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    permit()
    for _ in range(3):
        lock_out()
    assert permit() == circuit.NONE
    let_the_wait_end()
    assert permit().probe
    lock_out(probe=True)
    pause(1.0)
    silence(9)
    assert standing()[0] == "locked_out"
    assert history() == ["locked_out"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_locked_venue_is_probed_ever_more_rarely_until_a_probe_is_let_in() -> None:
    permit()
    waits = []
    for probe in (False, True, True, True, True, True, True, True, True):
        lock_out(probe=probe)
        waits.append(standing()[1])
    for wait, longest in zip(waits, (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0), strict=True):
        assert 0.3 * longest <= wait <= longest
    circuit.record_answer("XSIM")
    assert standing()[0] == "locked_out"
    circuit.record_answer("XSIM", probe=True)
    assert permit() == circuit.Permit(10, 1024)


def test_the_worst_that_a_batch_says_of_its_venue_counts() -> None:
    permit()
    answers = [attempt(True), attempt(False)]
    limited = NotSent("rate_limited", answered=True, trouble=VenueTrouble.PAUSED, retry_after=30.0)
    longer = OutcomeUnknown("http_503", trouble=VenueTrouble.PAUSED, retry_after=600.0)
    troubled = [replace(attempt(True), error=error) for error in (longer, limited)]
    placement.record_attempts([*troubled, *answers], actor="system:test")
    trouble, seconds = standing()
    assert trouble == "paused"
    assert 500 < seconds <= 600


def test_what_was_held_back_says_nothing_of_the_venue() -> None:
    permit()
    silence(4)
    placement.record_attempts([replace(attempt(False), answered=None)], actor="system:test")
    assert VenueHealth.objects.get().silences == 4


def test_look_ups_wait_for_a_pause_and_for_a_lock_and_not_for_silence() -> None:
    permit()
    silence(5)
    assert circuit.look_ups("XSIM", 10) == 10
    for error in (NotSent("a", trouble=VenueTrouble.PAUSED), NotSent("b", trouble=VenueTrouble.LOCKED_OUT)):
        circuit.record_look_ups("XSIM", [error])
        VenueHealth.objects.update(retry_at="2100-01-01T00:00:00Z")
        assert circuit.look_ups("XSIM", 10) == 0
        let_the_wait_end()
        assert circuit.look_ups("XSIM", 10) == 1


def test_an_operator_who_resumes_a_venue_ends_its_pause() -> None:
    permit()
    pause(80_000.0)
    halt_venue("XSIM", actor="operator:olga", reason="its clock is wrong")
    resume_venue("XSIM", actor="operator:olga", reason="it says so itself")
    assert permit().probe
    circuit.record_answer("XSIM", probe=True)
    assert permit() == circuit.Permit(10, 1024)
