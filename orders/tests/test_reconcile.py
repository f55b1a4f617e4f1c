from pathlib import Path
from uuid import UUID

import pytest

from exchanges.tests.running import running_exchange
from exchanges.venue import Capabilities, OutcomeUnknown, Report, ReportStatus, ResendSafety, VenueError
from orders import reconciliation
from orders.lifecycle import Event, Step
from orders.models import Order
from orders.reconciliation import Park, conclude
from orders.tests.factories import OrderFactory, VenueFactory

ID = UUID("019a1c2e-7b1f-7c3d-9a55-0242ac120002")
WORKING = Report(client_order_id=str(ID), status=ReportStatus.WORKING, venue_order_id="V1")
FILLED = Report(client_order_id=str(ID), status=ReportStatus.FILLED, venue_order_id="V1")
REJECTED = Report(client_order_id=str(ID), status=ReportStatus.REJECTED, code="no", text="No.")
SILENT = OutcomeUnknown("timeout")


def capabilities(safety: ResendSafety) -> Capabilities:
    return Capabilities(
        resend_safety=safety,
        deadline_seconds=5,
        settle_seconds=2,
        finds=True,
        order_types=frozenset(),
        times_in_force=frozenset(),
    )


@pytest.mark.parametrize(
    ("answer", "safety", "expected"),
    [
        (WORKING, ResendSafety.REFUSES_DUPLICATES, Event.ACKNOWLEDGED),
        (WORKING, ResendSafety.NOTHING, Event.ACKNOWLEDGED),
        (FILLED, ResendSafety.NOTHING, Event.ACKNOWLEDGED),
        (REJECTED, ResendSafety.REFUSES_DUPLICATES, Event.REJECTED_BY_VENUE),
        (SILENT, ResendSafety.REFUSES_DUPLICATES, None),
        (None, ResendSafety.REFUSES_DUPLICATES, Event.NOT_FOUND),
        (None, ResendSafety.REFUSES_STALE_REQUESTS, Event.NOT_FOUND),
        (None, ResendSafety.REFUSES_RECENT_DUPLICATES, Park),
        (None, ResendSafety.NOTHING, Park),
    ],
)
def test_the_answer_and_the_venues_class_decide(
    answer: Report | VenueError | None, safety: ResendSafety, expected: object
) -> None:
    conclusion = conclude(ID, 1, answer, capabilities(safety))

    if isinstance(conclusion, Step):
        assert conclusion.event == expected
        assert conclusion.attempt == (None if expected == Event.ACKNOWLEDGED else 1)
    elif conclusion is None:
        assert expected is None
    else:
        assert expected is Park


@pytest.mark.django_db
def test_an_order_that_the_venue_has_becomes_placed(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url})
        order = OrderFactory(status="unconfirmed", delay=0.0)
        exchange.place(client_order_id=str(order.pk))

        assert reconciliation.reconcile_due_orders() == 1

        placed = Order.objects.get(pk=order.pk)
        (record,) = exchange.orders()
        assert (placed.status, placed.venue_order_id) == ("placed", record["venue_order_id"])


@pytest.mark.django_db
def test_an_order_that_the_venue_does_not_know_goes_back_to_pending(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url})
        order = OrderFactory(status="unconfirmed", delay=0.0)

        reconciliation.reconcile_due_orders()

        assert Order.objects.get(pk=order.pk).status == "pending"


@pytest.mark.django_db
def test_an_order_of_a_venue_that_is_down_stays_unconfirmed_and_is_asked_about_again() -> None:
    order = OrderFactory(status="unconfirmed", delay=0.0)

    assert reconciliation.reconcile_due_orders() == 0

    waiting = Order.objects.get(pk=order.pk)
    assert waiting.status == "unconfirmed"
    assert waiting.next_attempt_at is not None
    assert waiting.last_error.startswith("Look-up failed")


@pytest.mark.django_db
def test_where_a_resend_is_not_safe_an_unknown_order_is_parked(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url, "resend_safety": "nothing"})
        order = OrderFactory(status="unconfirmed", delay=0.0)

        reconciliation.reconcile_due_orders()

        parked = Order.objects.get(pk=order.pk)
        assert (parked.status, parked.next_attempt_at) == ("unconfirmed", None)
        assert reconciliation.reconcile_due_orders() == 0


@pytest.mark.django_db
def test_an_operators_look_up_waits_until_no_request_can_be_on_its_way() -> None:
    order = OrderFactory(status="unconfirmed")

    (result,) = reconciliation.reconcile_orders([order.pk], actor="operator:olga")

    assert not result.done
    assert "may still be on its way" in result.explanation
