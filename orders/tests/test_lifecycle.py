import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from orders import lifecycle, selectors
from orders.lifecycle import TRANSITIONS, Event, Step
from orders.models import Order, OrderEvent, Status, new_order_id
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory

pytestmark = pytest.mark.django_db

REACHABLE = ("pending", "submitting", "unconfirmed", "failed", "placed", "rejected", "canceled")

# Worked out by hand from the design, not read from the code.
LEGAL = {
    ("pending", "claimed"): "submitting",
    ("submitting", "acknowledged"): "placed",
    ("submitting", "rejected_by_venue"): "rejected",
    ("submitting", "not_sent"): "pending",
    ("submitting", "outcome_unknown"): "unconfirmed",
    ("unconfirmed", "acknowledged"): "placed",
    ("unconfirmed", "rejected_by_venue"): "rejected",
    ("unconfirmed", "not_found"): "pending",
    ("pending", "attempts_exhausted"): "failed",
    ("pending", "cancel_requested"): "canceled",
    ("failed", "requeued"): "pending",
    ("failed", "cancel_requested"): "canceled",
    ("pending", "acknowledged"): "placed",
    ("failed", "acknowledged"): "placed",
}


def step_for(order: Order, event: Event, **more: Any) -> Step:
    more.setdefault("venue_order_id", "V1" if event == Event.ACKNOWLEDGED else "")
    more.setdefault("delay", 30.0 if event == Event.CLAIMED else None)
    return Step(order_id=order.pk, event=event, **more)


def history(order_id: UUID) -> list[tuple[int, str, str, str]]:
    return list(selectors.history(order_id).values_list("sequence", "event", "from_status", "to_status"))


@pytest.mark.parametrize(("status", "event"), [*product(REACHABLE, Event.values)])
def test_every_pair_of_status_and_event_does_what_the_design_says(status: str, event: str) -> None:
    order = OrderFactory(status=status)
    before = history(order.pk)

    moved, stale = lifecycle.advance([step_for(order, Event(event))], actor="system:test")

    after = Order.objects.get(pk=order.pk)
    if (status, event) in LEGAL:
        assert [m.status for m in moved] == [after.status] == [LEGAL[status, event]]
        assert not stale
        assert history(order.pk) == [*before, (len(before) + 1, event, status, after.status)]
        assert after.version == order.version + 1
    else:
        assert not moved
        assert [step.order_id for step in stale] == [order.pk]
        assert (after.status, after.version) == (status, order.version)
        assert history(order.pk) == before


def test_the_table_in_the_code_is_the_table_of_the_design() -> None:
    assert {(str(before), str(event)): str(after) for (before, event), after in TRANSITIONS.items()} == LEGAL


def test_submitting_and_failed_are_reached_from_pending_alone() -> None:
    assert {before for (before, _), after in TRANSITIONS.items() if after in ("submitting", "failed")} == {"pending"}


@pytest.mark.parametrize("event", [Event.NOT_SENT, Event.OUTCOME_UNKNOWN, Event.REJECTED_BY_VENUE])
def test_a_late_negative_answer_does_not_count_against_a_newer_attempt(event: Event) -> None:
    order = OrderFactory(status="submitting", attempts=3)

    result = lifecycle.advance([step_for(order, event, attempt=2)], actor="system:test")

    assert not result.moved
    assert Order.objects.get(pk=order.pk).status == "submitting"
    assert lifecycle.advance([step_for(order, event, attempt=3)], actor="system:test").moved


def test_a_late_acknowledgement_counts_at_any_attempt() -> None:
    order = OrderFactory(status="submitting", attempts=3)

    lifecycle.advance([step_for(order, Event.ACKNOWLEDGED, venue_order_id="V7")], actor="system:test")

    placed = Order.objects.get(pk=order.pk)
    assert (placed.status, placed.venue_order_id, placed.lease_expires_at) == ("placed", "V7", None)
    assert placed.placed_at is not None


def test_failures_are_counted_and_a_requeue_starts_the_count_anew_but_not_the_attempts() -> None:
    order = OrderFactory(status="failed", attempts=4)
    assert (order.failures, order.attempt) == (4, 4)

    lifecycle.advance([step_for(order, Event.REQUEUED, reason="venue is back")], actor="operator:olga")

    requeued = Order.objects.get(pk=order.pk)
    assert (requeued.failures, requeued.attempt, requeued.last_error) == (0, 4, "")
    event = selectors.history(order.pk).last()
    assert event is not None
    assert (event.actor, event.reason, event.attempt) == ("operator:olga", "venue is back", 4)


def test_one_statement_moves_many_orders_and_leaves_the_stale_ones() -> None:
    orders = [OrderFactory(status="submitting") for _ in range(3)] + [OrderFactory(status="placed")]

    moved, stale = lifecycle.advance(
        [step_for(order, Event.ACKNOWLEDGED, venue_order_id=f"V{n}") for n, order in enumerate(orders)],
        actor="system:test",
    )

    assert {m.id for m in moved} == {order.pk for order in orders[:3]}
    assert [step.order_id for step in stale] == [orders[3].pk]
    assert Order.objects.get(pk=orders[2].pk).venue_order_id == "V2"


def test_unknown_orders_are_stale() -> None:
    step = Step(order_id=new_order_id(), event=Event.CANCEL_REQUESTED)
    assert lifecycle.advance([step], actor="system:test") == ([], [step])


# ---- Claims ----


def test_a_claim_takes_due_orders_of_its_venue_longest_due_first() -> None:
    VenueFactory(code="XOTH")
    later = OrderFactory()
    sooner = OrderFactory()
    Order.objects.filter(pk=sooner.pk).update(next_attempt_at="2020-01-01T00:00:00Z")
    OrderFactory(attempts=1, delay=3600.0)
    OrderFactory(venue=VenueFactory(code="XOTH"))

    claimed = lifecycle.claim("XSIM", limit=10, lease=30, actor="system:test")

    assert {order.id for order in claimed} == {sooner.pk, later.pk}
    assert [order.id for order in lifecycle.claim("XSIM", limit=10, lease=30, actor="system:test")] == []
    order = Order.objects.get(pk=sooner.pk)
    assert (order.status, order.attempt) == ("submitting", 1)
    assert order.lease_expires_at is not None


def test_a_claim_is_limited_to_the_longest_due() -> None:
    orders = [OrderFactory() for _ in range(3)]
    Order.objects.filter(pk=orders[2].pk).update(next_attempt_at="2020-01-01T00:00:00Z")

    (claimed,) = lifecycle.claim("XSIM", limit=1, lease=30, actor="system:test")

    assert claimed.id == orders[2].pk


def test_a_claim_at_a_halted_venue_takes_nothing() -> None:
    OrderFactory(venue=VenueFactory(halted_at="2026-01-01T00:00:00Z", halted_by="operator:olga", halt_reason="test"))

    assert lifecycle.claim("XSIM", limit=10, lease=30, actor="system:test") == []
    assert selectors.work_due().place is None


def test_the_sweep_takes_only_attempts_whose_lease_ran_out() -> None:
    OrderFactory(status="submitting")
    dead = OrderFactory(status="submitting")
    Order.objects.filter(pk=dead.pk).update(lease_expires_at="2020-01-01T00:00:00Z")

    (swept,) = lifecycle.sweep("XSIM", delay=2.0, limit=10, actor="system:sweep")

    assert (swept.id, swept.status) == (dead.pk, "unconfirmed")
    assert Order.objects.get(pk=dead.pk).next_attempt_at is not None
    assert lifecycle.sweep("XSIM", delay=2.0, limit=10, actor="system:sweep") == []


# ---- What the database itself refuses ----


@pytest.mark.parametrize("statement", ["UPDATE orders_orderevent SET reason = 'x'", "DELETE FROM orders_orderevent"])
def test_the_history_can_be_neither_changed_nor_deleted(statement: str) -> None:
    OrderFactory()
    with pytest.raises(DatabaseError, match="append-only"), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"quantity": 0}, "order_quantity_positive"),
        ({"limit_price": -3}, "order_limit_price_positive"),
        ({"limit_price": None}, "order_limit_price_by_type"),
        ({"stop_price": 1}, "order_stop_price_by_type"),
        ({"status": "lost"}, "order_status_known"),
        ({"status": "placed"}, "order_at_venue_has_its_id"),
        ({"status": "submitting"}, "order_lease_iff_submitting"),
        ({"lease_expires_at": "2030-01-01T00:00:00Z"}, "order_lease_iff_submitting"),
        ({"next_attempt_at": None}, "order_pending_has_time"),
        ({"time_in_force": "gtd"}, "order_expires_at_by_tif"),
        ({"instrument": "us0378331005"}, "order_instrument_12"),
        ({"side": "hold"}, "order_side_known"),
        ({"type": "iceberg", "limit_price": None}, "order_type_known"),
    ],
)
def test_the_row_cannot_contradict_itself(change: dict[str, Any], constraint: str) -> None:
    order = OrderFactory()
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Order.objects.filter(pk=order.pk).update(**change)


def test_an_order_is_not_saved_or_deleted_around_the_lifecycle() -> None:
    order = OrderFactory()
    with pytest.raises(TypeError):
        order.save()
    with pytest.raises(TypeError):
        order.delete()


# ---- Races, on committed rows ----


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work(n)` in so many threads that start together, each with its own database connection."""
    start = threading.Barrier(count)

    def run(n: int) -> Any:
        try:
            start.wait()
            return work(n)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.django_db(transaction=True)
def test_sixteen_claims_at_once_share_the_orders_without_overlap() -> None:
    owner = UserFactory()
    orders = {OrderFactory(owner=owner).pk for _ in range(40)}

    claims = in_threads(16, lambda n: lifecycle.claim("XSIM", limit=5, lease=30, actor=f"system:{n}"))

    claimed = [order.id for claim in claims for order in claim]
    assert len(claimed) == len(set(claimed))
    assert set(claimed) <= orders
    assert Order.objects.filter(status="submitting").count() == len(claimed)
    assert set(Order.objects.filter(status="submitting").values_list("attempt", flat=True)) == {1}


@pytest.mark.django_db(transaction=True)
def test_sixteen_outcomes_for_one_attempt_count_once() -> None:
    order = OrderFactory(status="submitting")

    results = in_threads(
        16, lambda n: lifecycle.advance([step_for(order, Event.NOT_SENT, attempt=1)], actor=f"system:{n}")
    )

    assert sum(len(result.moved) for result in results) == 1
    assert Order.objects.get(pk=order.pk).failures == 1
    assert OrderEvent.objects.filter(order=order, event="not_sent").count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_acknowledgement_that_races_with_the_sweep_is_never_lost() -> None:
    orders = [OrderFactory(status="submitting") for _ in range(20)]
    Order.objects.update(lease_expires_at="2020-01-01T00:00:00Z")

    def work(n: int) -> Any:
        if n == 0:
            return lifecycle.sweep("XSIM", delay=60.0, limit=100, actor="system:sweep")
        steps = [step_for(order, Event.ACKNOWLEDGED, venue_order_id=f"V{i}") for i, order in enumerate(orders)]
        return lifecycle.advance(steps, actor="system:placement")

    in_threads(4, work)

    assert set(Order.objects.values_list("status", flat=True)) == {Status.PLACED}


@pytest.mark.django_db(transaction=True)
def test_writers_of_overlapping_batches_in_opposite_order_do_not_deadlock() -> None:
    orders = [OrderFactory(status="submitting") for _ in range(30)]

    def work(n: int) -> int:
        chosen = orders if n % 2 else orders[::-1]
        steps = [step_for(order, Event.ACKNOWLEDGED, venue_order_id="V") for order in chosen]
        return len(lifecycle.advance(steps, actor="system:test").moved)

    assert sum(in_threads(8, work)) == len(orders)
