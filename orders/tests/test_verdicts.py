"""What an attempt or a look-up means for its order: the pure part, case by case."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from exchanges import registry
from exchanges.venue import (
    Acknowledgement,
    Capabilities,
    ExecutionReport,
    NewOrder,
    NotSent,
    OrderRejected,
    OutcomeUnknown,
    Report,
    ReportStatus,
    ResendSafety,
    VenueError,
)
from orders import lifecycle, recording
from orders.engine import Engine, ServedVenue, clock
from orders.lifecycle import Event, MovedOrder, Step
from orders.models import Order, new_order_id
from orders.selectors import VenueToServe
from orders.tests.factories import OrderFactory
from orders.tests.scripted_venue import Book, ScriptedVenue
from orders.verdicts import Doubt, Park, conclude, failed_step, is_evidence, look_up_delay

CAPABILITIES = Capabilities(
    resend_safety=ResendSafety.REFUSES_DUPLICATES,
    deadline_seconds=5,
    settle_seconds=2,
    finds=True,
    order_types=frozenset(),
    times_in_force=frozenset(),
)
FORGETS_REJECTIONS = replace(CAPABILITIES, remembers_rejections=False)


def claimed(**fields: Any) -> MovedOrder:
    given: dict[str, Any] = dict.fromkeys(MovedOrder.__match_args__)
    order = {"id": new_order_id(), "attempt": 3, "failures": 0, "in_doubt": False, "quantity": 1}
    return MovedOrder(**given | order | {"lease_expires_at": timezone.now() + timedelta(seconds=30)} | fields)


@pytest.mark.parametrize(
    ("error", "in_doubt", "capabilities", "expected"),
    [
        (OutcomeUnknown("timeout"), False, CAPABILITIES, Event.OUTCOME_UNKNOWN),
        (OutcomeUnknown("duplicate", answered=True), True, CAPABILITIES, Event.OUTCOME_UNKNOWN),
        (NotSent("connect_failed"), False, CAPABILITIES, Event.VENUE_UNREACHABLE),
        (NotSent("stale_request", answered=True), False, CAPABILITIES, Event.NOT_SENT),
        (OrderRejected("invalid_field"), False, CAPABILITIES, Event.REJECTED_BY_VENUE),
        (OrderRejected("trading_halted"), True, CAPABILITIES, Event.REJECTED_BY_VENUE),
        (OrderRejected("trading_halted"), False, FORGETS_REJECTIONS, Event.REJECTED_BY_VENUE),
        (OrderRejected("trading_halted"), True, FORGETS_REJECTIONS, Event.OUTCOME_UNKNOWN),
    ],
)
def test_what_an_attempt_without_an_acknowledgement_means(
    error: VenueError, in_doubt: bool, capabilities: Capabilities, expected: Event
) -> None:
    step = failed_step(claimed(in_doubt=in_doubt), error, capabilities, lease_left=20.0, latency_ms=1.0)
    assert (step.event, step.attempt) == (expected, 3)


@pytest.mark.parametrize(
    ("safety", "finds", "lease_left", "expected"),
    [
        (ResendSafety.REFUSES_DUPLICATES, True, 20.0, 2.0),
        (ResendSafety.REFUSES_STALE_REQUESTS, True, 20.0, 22.0),
        (ResendSafety.REFUSES_STALE_REQUESTS, True, -5.0, 2.0),
        (ResendSafety.NOTHING, False, 20.0, None),
    ],
)
def test_a_look_up_waits_until_it_can_prove_something(
    safety: ResendSafety, finds: bool, lease_left: float, expected: float | None
) -> None:
    assert look_up_delay(replace(CAPABILITIES, resend_safety=safety, finds=finds), lease_left=lease_left) == expected


def report(status: ReportStatus, venue_order_id: str = "V1") -> Report:
    return Report(client_order_id="a", status=status, venue_order_id=venue_order_id)


def test_a_report_without_the_venues_id_decides_nothing() -> None:
    said = report(ReportStatus.WORKING, venue_order_id="")
    assert conclude(new_order_id(), 1, said, CAPABILITIES, Doubt(10.0, 0)) is None


@pytest.mark.parametrize(
    ("status", "executed", "reports", "expected"),
    [
        (ReportStatus.CANCELED, 0, True, "canceled"),
        (ReportStatus.EXPIRED, 0, True, "expired"),
        (ReportStatus.CANCELED, 40, True, "acknowledged"),  # its executions come first, by the venue's session
        (ReportStatus.CANCELED, None, True, "acknowledged"),
        (ReportStatus.CANCELED, 40, False, "canceled"),  # nothing else will ever come
        (ReportStatus.EXPIRED, None, False, "expired"),
        (ReportStatus.DONE_FOR_DAY, 0, True, "acknowledged"),
        (ReportStatus.FILLED, 100, True, "acknowledged"),
        (ReportStatus.PARTIALLY_FILLED, 40, False, "acknowledged"),
        (ReportStatus.WORKING, 0, True, "acknowledged"),
    ],
)
def test_an_order_that_has_ended_at_its_venue_ends_here(
    status: ReportStatus, executed: int | None, reports: bool, expected: str
) -> None:
    said = replace(report(status), cumulative_quantity=executed)
    found = conclude(new_order_id(), 1, said, replace(CAPABILITIES, reports=reports), Doubt(10.0, 0))
    assert (found.kind if isinstance(found, ExecutionReport) else found.event) == expected  # type: ignore[union-attr]
    assert is_evidence(found)


@pytest.mark.parametrize(("rounds", "expected"), [(9, Step), (10, Park)])
def test_an_order_that_the_venue_never_knows_is_left_to_an_operator_in_the_end(rounds: int, expected: type) -> None:
    assert isinstance(conclude(new_order_id(), 1, None, CAPABILITIES, Doubt(600.0, rounds)), expected)


@pytest.mark.django_db
def test_an_order_in_doubt_whose_attempts_are_spent_is_left_to_an_operator(settings: Any) -> None:
    settings.PLACEMENT_MAX_ATTEMPTS = 1
    order = OrderFactory(status="unconfirmed")
    lifecycle.advance([Step(order_id=order.pk, event=Event.NOT_FOUND, attempt=1, in_doubt=True)], actor="system:test")
    lifecycle.claim("XSIM", limit=1, in_flight=10, lease=30, actor="system:test")

    recording.record_outcomes([Step(order_id=order.pk, event=Event.NOT_SENT, attempt=2)], actor="system:test")

    assert Order.objects.get(pk=order.pk).status == "unconfirmed"


# ---- The attempt itself ----


class Broken(ScriptedVenue):
    """Counts what is sent, and fails in a way that no adapter should."""

    sent = 0

    async def place(self, order: NewOrder) -> Acknowledgement:
        Broken.sent += 1
        raise RuntimeError("nobody foresaw this")


@pytest.fixture
def served() -> Iterator[ServedVenue]:
    Broken.sent = 0
    registry.ADAPTERS["broken"] = lambda values: Broken(Book(ResendSafety.NOTHING), values)
    yield ServedVenue(VenueToServe("XBRK", "broken", {}, 10), registry.open_venue("broken", {}))
    registry.ADAPTERS.pop("broken")


def attempt(served: ServedVenue, *, asked_at: float) -> Event:
    async def once() -> Event:
        engine = Engine()
        step, _ = await engine._attempt(served, claimed(), asked_at, asked_at)
        await engine.close()
        return step.event

    return asyncio.run(once())


def test_an_adapter_that_fails_leaves_the_outcome_unknown(served: ServedVenue) -> None:
    assert attempt(served, asked_at=clock()) == Event.OUTCOME_UNKNOWN
    assert Broken.sent == 1


def test_a_process_that_stood_still_for_most_of_its_lease_sends_nothing(served: ServedVenue) -> None:
    assert attempt(served, asked_at=clock() - 21) == Event.NOT_SENT
    assert Broken.sent == 0
