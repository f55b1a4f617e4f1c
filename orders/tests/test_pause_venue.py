"""A venue that takes nothing now, because there was too much or because it refuses our credentials, is sent nothing,
and that costs its orders no attempts."""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from exchanges.models import VenueEvent, VenueHealth
from exchanges.venue import (
    Acknowledgement,
    NewOrder,
    NotSent,
    OutcomeUnknown,
    Report,
    ReportStatus,
    VenueError,
    VenueTrouble,
)
from orders import reconciliation, selectors
from orders.models import Order, OrderEvent
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from orders.tests.scripted_venue import answering, run_engine

pytestmark = pytest.mark.django_db(transaction=True)


def limited(seconds: float | None) -> VenueError:
    return NotSent("rate_limited", answered=True, trouble=VenueTrouble.PAUSED, retry_after=seconds)


class Line:
    """The venue's side: when each request arrived, and what the n-th gets, counted from 0."""

    def __init__(self, answer: Callable[[int], VenueError | None]) -> None:
        self.came: list[float] = []
        self.answer = answer

    async def place(self, order: NewOrder) -> Acknowledgement:
        number = len(self.came)
        self.came.append(time.monotonic())
        await asyncio.sleep(0.1)  # so that those claimed with it are on their way, too
        if error := self.answer(number):
            raise error
        return Acknowledgement(venue_order_id=f"V{number}")


def make_orders(count: int) -> None:
    owner = UserFactory()
    VenueFactory()
    for _ in range(count):
        OrderFactory(owner=owner)


@pytest.mark.exhaustive
def test_a_venue_that_asks_for_a_pause_is_left_alone_for_so_long_and_then_probed() -> None:
    line = Line(lambda number: limited(1.5) if number < 10 else None)
    with answering(line.place) as venue:
        venue.max_in_flight = 10  # so many are on their way when the first is turned away
        venue.save()
        make_orders(40)
        run_engine(linger=3.0)

    assert line.came[10] - line.came[9] >= 1.5
    assert set(Order.objects.values_list("status", "failures")) == {("placed", 0)}
    assert len(line.came) == 50
    assert OrderEvent.objects.filter(event="turned_away", reason="rate_limited").count() == 10
    assert list(VenueEvent.objects.order_by("id").values_list("event", flat=True)) == ["paused", "circuit_closed"]


def test_orders_that_are_claimed_but_not_sent_when_a_pause_begins_are_put_back() -> None:
    came: list[str] = []

    async def at_once(order: NewOrder) -> Acknowledgement:
        came.append(order.client_order_id)
        raise limited(60.0)

    with answering(at_once):
        make_orders(20)
        run_engine()

    assert len(came) == 1
    assert set(Order.objects.values_list("status", "attempt", "failures")) == {("pending", 1, 0)}
    assert OrderEvent.objects.filter(event="turned_away", reason__startswith="held_back").count() == 19


@pytest.mark.exhaustive
@pytest.mark.parametrize("seconds", [0.0, None])
def test_a_venue_that_limits_us_for_long_fails_no_order(seconds: float | None) -> None:
    line = Line(lambda number: limited(seconds))
    with answering(line.place):
        make_orders(30)
        run_engine(seconds=3.0, linger=3.0)
    assert set(Order.objects.values_list("status", "failures")) == {("pending", 0)}
    assert len(line.came) < 60  # one probe each half second, after those that were under way


@pytest.mark.exhaustive
def test_refused_credentials_stop_the_venue_and_one_probe_resumes_it(caplog: pytest.LogCaptureFixture) -> None:
    refused = NotSent("not_authorized", "HTTP 401", answered=True, trouble=VenueTrouble.LOCKED_OUT)
    line = Line(lambda number: refused if number < 20 + 2 else None)
    with answering(line.place):
        make_orders(20)
        run_engine(linger=3.0)
    assert set(Order.objects.values_list("status", "failures")) == {("placed", 0)}
    assert len(line.came) == 20 + 2 + 20  # all at once, two probes that are refused, and all of them
    assert list(VenueEvent.objects.order_by("id").values_list("event", flat=True)) == ["locked_out", "circuit_closed"]
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1


def test_maintenance_leaves_an_order_in_doubt_that_is_looked_up_after_the_pause() -> None:
    asked: list[str] = []

    async def find(client_order_id: str) -> Report | None:
        asked.append(client_order_id)
        return Report(client_order_id=client_order_id, status=ReportStatus.WORKING, venue_order_id="V1")

    line = Line(lambda number: OutcomeUnknown("http_503", trouble=VenueTrouble.PAUSED, retry_after=3600.0))
    with answering(line.place, find):
        make_orders(1)
        run_engine()
        order = Order.objects.get()
        assert order.status == "unconfirmed"
        (result,) = reconciliation.reconcile_orders([order.pk], actor="operator:olga")
        assert (result.done, asked) == (False, [])
        VenueHealth.objects.update(retry_at="2020-01-01T00:00:00Z", paused_until="2020-01-01T00:00:00Z")
        assert reconciliation.reconcile_orders([order.pk], actor="operator:olga")[0].done
    assert Order.objects.get().status == "placed"


def test_a_look_up_that_is_asked_to_wait_pauses_the_venue_and_keeps_the_others_waiting() -> None:
    asked: list[str] = []

    async def find(client_order_id: str) -> Report | None:
        asked.append(client_order_id)
        raise limited(3600.0)

    with answering(Line(lambda number: None).place, find):
        orders = [OrderFactory(status="unconfirmed", delay=0).pk for _ in range(3)]
        VenueHealth.objects.create(venue_id="XSIM", trouble="paused", retry_at="2020-01-01T00:00:00Z")
        assert reconciliation.reconcile_due_orders() == 0
    assert len(asked) == 1
    assert VenueHealth.objects.get().trouble == "paused"
    assert set(Order.objects.filter(pk__in=orders).values_list("status", flat=True)) == {"unconfirmed"}


def test_rounds_in_which_the_venue_was_in_trouble_are_not_counted_against_an_order() -> None:
    line = Line(lambda number: OutcomeUnknown("http_503", trouble=VenueTrouble.PAUSED, retry_after=0.0))

    async def find(client_order_id: str) -> Report | None:
        return None

    with answering(line.place, find):
        make_orders(1)
        run_engine()
        VenueHealth.objects.update(trouble="", retry_at=None, paused_until=None)
        order = Order.objects.get()
        assert reconciliation.reconcile_orders([order.pk], actor="operator:olga")[0].done
    assert selectors.doubts([order.pk])[order.pk].rounds == 0
