from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.utils import timezone

from exchanges.tests.running import RunningExchange, running_exchange
from exchanges.venue import Capabilities, OutcomeUnknown, Report, ReportStatus, ResendSafety, VenueError
from orders import reconciliation, selectors, services
from orders.lifecycle import Event, Step
from orders.models import Order, OrderEvent
from orders.reconciliation import Park, conclude, mark_not_placed, mark_placed
from orders.selectors import Doubt
from orders.tests.factories import OrderFactory, VenueFactory

ID = UUID("019a1c2e-7b1f-7c3d-9a55-0242ac120002")
WORKING = Report(client_order_id=str(ID), status=ReportStatus.WORKING, venue_order_id="V1")
FILLED = Report(client_order_id=str(ID), status=ReportStatus.FILLED, venue_order_id="V1")
REJECTED = Report(client_order_id=str(ID), status=ReportStatus.REJECTED, code="no", text="No.")
SILENT = OutcomeUnknown("timeout")


def capabilities(safety: ResendSafety) -> Capabilities:
    recent = safety is ResendSafety.REFUSES_RECENT_DUPLICATES
    return Capabilities(
        duplicate_window_seconds=60.0 if recent else None,
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
        (None, ResendSafety.REFUSES_RECENT_DUPLICATES, Event.NOT_FOUND),
        (None, ResendSafety.NOTHING, Park),
    ],
)
def test_the_answer_and_the_venues_class_decide(
    answer: Report | VenueError | None, safety: ResendSafety, expected: object
) -> None:
    conclusion = conclude(ID, 1, answer, capabilities(safety), Doubt(10.0, 0))

    if isinstance(conclusion, Step):
        assert conclusion.event == expected
        assert conclusion.attempt == (None if expected == Event.ACKNOWLEDGED else 1)
    elif conclusion is None:
        assert expected is None
    else:
        assert expected is Park


# The window is 60 s. An attempt may take its lease of 30 s and linger for 2 s, and must be there before it closes.
@pytest.mark.parametrize(("age", "resend_within"), [(10.0, 18.0), (27.0, 1.0), (28.0, None), (600.0, None)])
def test_where_duplicates_are_refused_for_a_while_a_resend_is_safe_as_long(
    age: float, resend_within: float | None
) -> None:
    safety = ResendSafety.REFUSES_RECENT_DUPLICATES
    conclusion = conclude(ID, 1, None, capabilities(safety), Doubt(age, 0))
    if resend_within is None:
        assert isinstance(conclusion, Park)
    else:
        assert isinstance(conclusion, Step)
        assert conclusion.resend_within == pytest.approx(resend_within)


@pytest.mark.django_db
def test_the_first_attempt_that_may_have_arrived_counts() -> None:
    order = OrderFactory(status="unconfirmed", attempts=3)  # two attempts before it are proved not sent
    events = OrderEvent.objects.filter(order=order, event="claimed").order_by("sequence")
    third = events[2].at

    age = selectors.doubts([order.pk])[order.pk].age

    assert age == pytest.approx((timezone.now() - third).total_seconds(), abs=1.0)


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


# ---- An operator's word on a parked order ----


@pytest.fixture
def parked(tmp_path: Path) -> Iterator[tuple[Order, RunningExchange]]:
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url, "resend_safety": "nothing", "settle_seconds": 0.001})
        order = OrderFactory(status="unconfirmed", parked=True)
        Order.objects.update(updated_at="2020-01-01T00:00:00Z")
        yield order, exchange


@pytest.mark.django_db
def test_an_order_that_is_not_at_the_venue_can_be_marked_so_and_requeued(
    parked: tuple[Order, RunningExchange],
) -> None:
    order, _ = parked

    result = mark_not_placed(order.pk, actor="operator:olga", reason="Not on the venue's screen.")

    assert (result.done, result.explanation) == (True, "failed")
    event = selectors.history(order.pk).last()
    assert event is not None
    assert (event.event, event.actor, event.reason) == (
        "marked_not_placed",
        "operator:olga",
        "Not on the venue's screen.",
    )
    (requeued,) = services.requeue_orders([order.pk], actor="operator:olga", reason="Again.")
    assert requeued.done


@pytest.mark.django_db
@pytest.mark.parametrize("verb", ["placed", "not placed"])
def test_the_venues_word_goes_before_the_operators(parked: tuple[Order, RunningExchange], verb: str) -> None:
    order, exchange = parked
    exchange.place(client_order_id=str(order.pk))

    if verb == "placed":
        result = mark_placed(order.pk, venue_order_id="wrong", actor="operator:olga", reason="On the screen.")
    else:
        result = mark_not_placed(order.pk, actor="operator:olga", reason="Not on the screen.")

    assert not result.done
    assert "recorded instead" in result.explanation
    placed = Order.objects.get(pk=order.pk)
    assert (placed.status, placed.venue_order_id) == ("placed", exchange.orders()[0]["venue_order_id"])


@pytest.mark.django_db
def test_an_order_can_be_marked_placed_under_the_id_that_the_venue_confirms(
    parked: tuple[Order, RunningExchange],
) -> None:
    order, exchange = parked
    exchange.place(client_order_id=str(order.pk))
    venue_order_id = exchange.orders()[0]["venue_order_id"]

    result = mark_placed(order.pk, venue_order_id=venue_order_id, actor="operator:olga", reason="On the screen.")

    assert result.done
    assert Order.objects.get(pk=order.pk).status == "placed"


@pytest.mark.django_db
@pytest.mark.parametrize(("age", "done"), [(20, False), (40, True)])
def test_an_operators_word_waits_until_no_request_can_be_on_its_way(
    parked: tuple[Order, RunningExchange], age: int, done: bool
) -> None:
    """A lease is 30 s: a request of the last attempt may leave as late as its end."""
    order, _ = parked
    Order.objects.update(updated_at=timezone.now() - timedelta(seconds=age))
    assert mark_not_placed(order.pk, actor="operator:olga", reason="Not on the screen.").done is done


@pytest.mark.django_db
@pytest.mark.parametrize("reason", ["", " ", "\t\n"])
def test_whoever_decides_says_why(parked: tuple[Order, RunningExchange], reason: str) -> None:
    order, _ = parked
    olga = {"actor": "operator:olga", "reason": reason}
    verbs = {
        "mark_placed": lambda: mark_placed(order.pk, venue_order_id="V1", **olga),
        "mark_not_placed": lambda: mark_not_placed(order.pk, **olga),
        "requeue": lambda: services.requeue_orders([OrderFactory(status="failed").pk], **olga),
        "cancel": lambda: services.cancel_orders([OrderFactory().pk], **olga),
    }
    for verb in verbs.values():
        with pytest.raises(ValueError, match="reason"):
            verb()
    statuses = Order.objects.values_list("status", flat=True)
    assert sorted(statuses) == ["failed", "pending", "unconfirmed"]


@pytest.mark.django_db
def test_a_swept_order_is_looked_up_only_after_the_settle_time() -> None:
    VenueFactory(settings={"url": "http://127.0.0.1:9", "settle_seconds": 12})
    order = OrderFactory(status="submitting")
    Order.objects.update(lease_expires_at="2020-01-01T00:00:00Z")

    assert services.sweep_orders() == 1

    swept = Order.objects.get(pk=order.pk)
    assert swept.next_attempt_at is not None
    assert swept.next_attempt_at - swept.updated_at == timedelta(seconds=12)


@pytest.mark.django_db
def test_an_order_that_the_venue_denies_is_not_marked_placed(parked: tuple[Order, RunningExchange]) -> None:
    order, _ = parked
    result = mark_placed(order.pk, venue_order_id="V1", actor="operator:olga", reason="On the screen.")
    assert not result.done
    assert "does not know" in result.explanation
    assert Order.objects.get(pk=order.pk).status == "unconfirmed"


@pytest.mark.django_db
@pytest.mark.parametrize("status", ["pending", "submitting", "failed", "placed", "unconfirmed"])
def test_only_a_parked_order_can_be_marked(status: str) -> None:
    order = OrderFactory(status=status)
    result = mark_not_placed(order.pk, actor="operator:olga", reason="x")
    assert not result.done
    assert Order.objects.get(pk=order.pk).status == status


@pytest.mark.django_db
def test_an_order_that_is_still_being_looked_up_cannot_be_marked_however_old(
    parked: tuple[Order, RunningExchange],
) -> None:
    order = OrderFactory(status="unconfirmed")
    Order.objects.update(updated_at="2020-01-01T00:00:00Z")
    result = mark_not_placed(order.pk, actor="operator:olga", reason="x")
    assert (result.done, "not parked" in result.explanation) == (False, True)


@pytest.mark.django_db
def test_a_venue_that_gives_no_answer_keeps_an_order_from_being_marked() -> None:
    order = OrderFactory(status="unconfirmed", parked=True)
    Order.objects.update(updated_at="2020-01-01T00:00:00Z")
    result = mark_not_placed(order.pk, actor="operator:olga", reason="x")
    assert not result.done
    assert "no answer" in result.explanation


@pytest.mark.django_db
def test_a_venue_that_cannot_be_opened_does_not_keep_others_from_being_served() -> None:
    VenueFactory(code="XBRK", settings={})
    VenueFactory()
    stuck = [OrderFactory(status="submitting", venue=VenueFactory(code=code)) for code in ("XBRK", "XSIM")]
    Order.objects.update(lease_expires_at="2020-01-01T00:00:00Z")

    assert services.sweep_orders() == 2
    assert {order.status for order in Order.objects.filter(pk__in=[order.pk for order in stuck])} == {"unconfirmed"}
    assert reconciliation.reconcile_due_orders() == 0
