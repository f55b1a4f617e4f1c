"""The outcomes of attempts are written, whatever they are: one that cannot be written affects no other, and every
failure is logged."""

import logging
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import DataError, IntegrityError, connection

from exchanges.models import Venue
from exchanges.venue import Acknowledgement, NewOrder, ReportKind
from orders import lifecycle, placement, recording
from orders.lifecycle import Event, LookUp, MovedOrder, Step
from orders.models import Order, OrderEvent
from orders.placement import Attempt
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory, report
from orders.tests.scripted_venue import answering, run_engine

pytestmark = pytest.mark.django_db(transaction=True)


def too_long_for_its_column() -> Acknowledgement:
    """An outcome that no adapter can make, because it bypasses the checks of `exchanges.venue`."""
    acknowledgement = Acknowledgement(venue_order_id="V")
    object.__setattr__(acknowledgement, "venue_order_id", "V" * 65)
    return acknowledgement


def status_of(order_id: UUID) -> str:
    return Order.objects.get(pk=order_id).status


def statuses(order_ids: list[UUID]) -> set[str]:
    return set(Order.objects.filter(pk__in=order_ids).values_list("status", flat=True))


def test_an_outcome_that_cannot_be_written_is_recorded_as_unknown_and_spoils_no_other() -> None:
    owner = UserFactory()

    async def answer(order: NewOrder) -> Acknowledgement:
        return (
            too_long_for_its_column() if order.client_order_id == str(poison) else Acknowledgement(venue_order_id="V")
        )

    with answering(answer):
        poison, *others = [OrderFactory(owner=owner).pk for _ in range(20)]
        run_engine()

    assert statuses(others) == {"placed"}
    unknown = Order.objects.get(pk=poison)
    assert (unknown.status, unknown.attempt) == ("unconfirmed", 1)
    assert unknown.next_attempt_at is not None
    assert unknown.last_error == "unwritable: acknowledged: " + "V" * 65
    assert OrderEvent.objects.get(order=poison, event="outcome_unknown").detail["code"] == "unwritable"


def test_an_outcome_that_cannot_even_be_unknown_is_left_to_its_lease(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner, record = UserFactory(), placement.record_attempts

    async def answer(order: NewOrder) -> Acknowledgement:
        return Acknowledgement(venue_order_id="V")

    def refuse_one(attempts: list[Attempt], *, actor: str) -> list[MovedOrder]:
        if any(attempt.step.order_id == poison for attempt in attempts):
            raise DataError("not this one")
        return record(attempts, actor=actor)

    monkeypatch.setattr(placement, "record_attempts", refuse_one)
    with answering(answer):
        poison, *others = [OrderFactory(owner=owner).pk for _ in range(5)]
        run_engine()

    assert statuses(others) == {"placed"}
    assert status_of(poison) == "submitting"
    assert [r.levelno for r in caplog.records if getattr(r, "order_id", None) == poison] == [logging.ERROR] * 2


def test_what_an_adapter_must_not_answer_is_unknown_and_not_lost() -> None:
    async def answer(order: NewOrder) -> Acknowledgement:
        return None  # type: ignore[return-value]

    with answering(answer):
        order = OrderFactory()
        run_engine()

    assert status_of(order.pk) == "unconfirmed"


def test_a_recorder_that_cannot_go_on_ends_the_run_and_hands_over() -> None:
    told: list[str] = []
    owner = UserFactory()

    async def answer(order: NewOrder) -> Acknowledgement:
        return Acknowledgement(venue_order_id="V")

    def fail(moved: list[MovedOrder]) -> None:
        raise RuntimeError("the disk is full")

    with answering(answer):
        Venue.objects.update(max_in_flight=1)
        for _ in range(10):
            OrderFactory(owner=owner)
        with pytest.raises(RuntimeError, match="the disk is full"):
            run_engine(recorded=fail, hand_over=lambda: told.append("handed over"))
        waiting = Order.objects.filter(status="pending").count()
        run_engine()

    assert told == ["handed over"]
    assert waiting >= 5  # it claimed no more
    assert Order.objects.filter(status="pending").count() == 0


def test_of_look_ups_one_that_cannot_be_written_spoils_no_other(caplog: pytest.LogCaptureFixture) -> None:
    owner = UserFactory()
    poison, *others = [OrderFactory(owner=owner, status="unconfirmed").pk for _ in range(5)]
    steps = [
        Step(order_id=pk, event=Event.ACKNOWLEDGED, venue_order_id="V" * (65 if pk == poison else 64))
        for pk in (*others[:2], poison, *others[2:])
    ]

    moved = recording.record_outcomes(steps, actor="system:test")

    assert {order.id for order in moved} == set(others)
    assert statuses(others) == {"placed"}
    assert status_of(poison) == "unconfirmed"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("seconds", [1e15, 3e11, float("inf")])
def test_no_order_is_put_off_for_more_than_a_day(seconds: float) -> None:
    order = OrderFactory(status="submitting")
    step = Step(order_id=order.pk, event=Event.OUTCOME_UNKNOWN, delay=seconds)
    lifecycle.advance([step], actor="system:test")
    lifecycle.postpone([LookUp(order.pk, 1, False)], seconds=seconds, error="\0" * 1000)
    lifecycle.claim_lookups("XSIM", limit=1, seconds=seconds)
    lifecycle.advance([Step(order_id=order.pk, event=Event.NOT_FOUND, resend_within=seconds)], actor="system:test")
    found = Order.objects.get(pk=order.pk)
    assert found.resend_before is not None
    assert (found.resend_before - found.updated_at).total_seconds() == 86_400


@pytest.mark.parametrize("column", ["next_attempt_at", "lease_expires_at", "resend_before"])
@pytest.mark.parametrize("time", ["11480-01-01T00:00:00Z", "infinity", "-infinity"])
def test_a_time_that_python_cannot_read_is_not_stored(column: str, time: str) -> None:
    order = OrderFactory(status="submitting")
    with pytest.raises(IntegrityError, match="order_times_readable"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE orders_order SET {column} = %s WHERE id = %s", [time, order.pk])


def test_a_venue_whose_claim_fails_keeps_no_other_from_its_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    claim_orders = placement.claim_orders

    def claim(code: str, **options: Any) -> placement.Claim:
        if code == "ABCD":
            raise ValueError("nobody foresaw this")
        return claim_orders(code, **options)

    async def take(order: NewOrder) -> Acknowledgement:
        return Acknowledgement(venue_order_id="V")

    monkeypatch.setattr(placement, "claim_orders", claim)
    with answering(take) as venue:
        other = VenueFactory(code="ABCD", adapter="scripted", settings=venue.settings, is_default=False)
        OrderFactory(venue=other)
        placed = OrderFactory(venue=venue).pk
        run_engine(seconds=3.0)
    assert status_of(placed) == "placed"


@pytest.mark.parametrize(("venue_order_id", "levels"), [("V-1", []), ("V-2", [logging.ERROR])])
@pytest.mark.parametrize("kind", ["executed", "canceled"])
def test_an_acknowledgement_behind_a_report_is_told_only_if_it_is_of_another_order_at_the_venue(
    kind: str, venue_order_id: str, levels: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    order = OrderFactory(status="submitting")
    report(order.pk, "XSIM", ReportKind(kind), venue_order_id="V-1", quantity=40, price=Decimal(10))
    reported = status_of(order.pk)
    step = Step(order_id=order.pk, event=Event.ACKNOWLEDGED, attempt=None, venue_order_id=venue_order_id)

    recording.record_outcomes([step], actor="system:placement")

    assert [record.levelno for record in caplog.records] == levels
    row = Order.objects.get(pk=order.pk)
    assert (row.status, row.venue_order_id) == (reported, "V-1")
