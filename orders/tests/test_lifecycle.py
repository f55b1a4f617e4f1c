from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from exchanges.adapters.simulator import SimulatorVenue
from exchanges.models import UnmatchedReport
from exchanges.venue import OrderRejected, ReportKind
from orders import lifecycle, reports, selectors
from orders.lifecycle import TRANSITIONS, Event, LookUp, Step
from orders.models import Order, OrderEvent, Status, new_order_id
from orders.tests.factories import REQUEST_ID, UNREACHABLE, OrderFactory, UserFactory, VenueFactory, report
from orders.tests.threads import in_threads, somebody_waits_for_a_lock
from orders.verdicts import failed_step
from quiktrade.tests.processes import wait_until

pytestmark = pytest.mark.django_db

AT_VENUE = ("placed", "partially_filled", "pending_cancel", "pending_replace", "done_for_day", "filled")
REACHABLE = ("pending", "submitting", "unconfirmed", "failed", *AT_VENUE, "rejected", "canceled", "expired")

# Worked out by hand, and not read from the code.
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
    ("canceled", "acknowledged"): "placed",
    ("expired", "acknowledged"): "placed",
    ("rejected", "acknowledged"): "placed",
    ("submitting", "venue_unreachable"): "pending",
    ("submitting", "turned_away"): "pending",
    ("pending", "place_by_passed"): "expired",
    ("pending", "resend_window_passed"): "unconfirmed",
    ("pending", "resend_given_up"): "unconfirmed",
    ("unconfirmed", "not_sent"): "pending",
    ("unconfirmed", "venue_unreachable"): "pending",
    ("unconfirmed", "turned_away"): "pending",
    ("unconfirmed", "marked_placed"): "placed",
    ("unconfirmed", "marked_not_placed"): "failed",
    ("placed", "cancel_asked"): "pending_cancel",
    ("partially_filled", "cancel_asked"): "pending_cancel",
    ("pending_replace", "cancel_asked"): "pending_cancel",
    ("done_for_day", "cancel_asked"): "pending_cancel",
    ("filled", "cancel_asked"): "pending_cancel",
    ("pending", "cancel_asked"): "unconfirmed",  # in doubt
    ("submitting", "cancel_asked"): "submitting",
    ("unconfirmed", "cancel_asked"): "unconfirmed",
    ("pending_cancel", "cancel_withdrawn"): "placed",
    ("placed", "replace_asked"): "pending_replace",
    ("partially_filled", "replace_asked"): "pending_replace",
    ("done_for_day", "replace_asked"): "pending_replace",
    ("filled", "replace_asked"): "pending_replace",
    ("pending_replace", "replace_withdrawn"): "placed",
    ("pending_cancel", "replace_withdrawn"): "pending_cancel",
}

# What a report makes of an order: a status, "same" where it says nothing new, or "kept" where it does not fit and is
# left to operators. The order has 100; 40 of it are executed where it is partially filled, and what is canceled or
# expired ended here. Executions are of 10, busts and corrections of one not yet known, `replaced` and `restated` to 90.
SENT = ("pending", "submitting", "unconfirmed", "failed")
ENDED_HERE = ("canceled", "expired")
NEITHER = dict.fromkeys((*SENT, *ENDED_HERE), "kept")
STAYS = {
    status: status for status in ("partially_filled", "pending_cancel", "pending_replace", "done_for_day", "filled")
}
EVIDENCE = (*SENT, *ENDED_HERE, "placed", "rejected")
EXECUTED = {**dict.fromkeys(EVIDENCE, "partially_filled"), **STAYS}
REPORTED = {
    "acknowledged": {**dict.fromkeys((*SENT, *ENDED_HERE, "rejected"), "placed"), **dict.fromkeys(AT_VENUE, "same")},
    "rejected": {
        **dict.fromkeys(REACHABLE, "kept"),
        **dict.fromkeys(("submitting", "unconfirmed", "placed"), "rejected"),
        **dict.fromkeys(("rejected", "done_for_day"), "same"),
    },
    "executed": EXECUTED,
    "corrected": EXECUTED,
    "busted": {**dict.fromkeys(EVIDENCE, "placed"), **STAYS, "rejected": "rejected"},
    "canceled": {**dict.fromkeys(REACHABLE, "canceled"), "filled": "filled", "rejected": "same"},
    "expired": {**dict.fromkeys(REACHABLE, "expired"), "filled": "filled", "rejected": "same"},
    "done_for_day": {
        **NEITHER,
        **STAYS,
        **dict.fromkeys(("placed", "partially_filled", "filled"), "done_for_day"),
        **dict.fromkeys(("done_for_day", "rejected"), "same"),
    },
    "restated": {**NEITHER, **STAYS, **dict.fromkeys(("placed", "done_for_day"), "placed"), "rejected": "kept"},
    "replaced": {
        **NEITHER,
        **STAYS,
        **dict.fromkeys(("placed", "pending_replace"), "placed"),
        "filled": "same",
        "rejected": "kept",
    },
    "cancel_pending": dict.fromkeys(REACHABLE, "same"),
    "replace_pending": dict.fromkeys(REACHABLE, "same"),
    "cancel_refused": {**dict.fromkeys(REACHABLE, "same"), "pending_cancel": "placed"},
    "replace_refused": {**dict.fromkeys(REACHABLE, "same"), "pending_replace": "placed"},
}
ANSWERS = ("cancel_pending", "replace_pending", "replaced", "cancel_refused", "replace_refused")


def step_for(order: Order, event: Event, **more: Any) -> Step:
    more.setdefault("venue_order_id", "V1" if event in (Event.ACKNOWLEDGED, Event.MARKED_PLACED) else "")
    more.setdefault("delay", 30.0 if event == Event.CLAIMED else None)
    if event in (Event.CANCEL_ASKED, Event.CANCEL_WITHDRAWN, Event.REPLACE_ASKED, Event.REPLACE_WITHDRAWN):
        more.setdefault("request_id", REQUEST_ID)
    return Step(order_id=order.pk, event=event, **more)


def history(order_id: UUID) -> list[tuple[int, str, str, str]]:
    return list(selectors.history(order_id).values_list("sequence", "event", "from_status", "to_status"))


BY_REPORTS_ALONE = {event for _, event in lifecycle.REPORTED} - {Event.REJECTED_BY_VENUE}


@pytest.mark.parametrize(("status", "event"), [*product(REACHABLE, sorted(set(Event) - BY_REPORTS_ALONE))])
def test_every_pair_of_status_and_event_does_what_is_worked_out_here(status: str, event: str) -> None:
    order = OrderFactory(status=status)
    before = history(order.pk)
    if (status, event) == ("pending", "cancel_asked"):
        Order.objects.filter(pk=order.pk).update(in_doubt=True)
    if (status, event) == ("pending_cancel", "replace_withdrawn"):
        Order.objects.filter(pk=order.pk).update(open_replace=REQUEST_ID)

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


def test_no_step_does_what_only_a_report_does() -> None:
    orders = [OrderFactory(status=status) for status in REACHABLE]
    for event in BY_REPORTS_ALONE:
        assert not lifecycle.advance([step_for(order, event) for order in orders], actor="system:test").moved


@pytest.mark.parametrize(("status", "kind"), [*product(REACHABLE, REPORTED)])
def test_every_pair_of_status_and_report_does_what_is_worked_out_here(status: str, kind: str) -> None:
    order = OrderFactory(status=status)
    before, expected = history(order.pk), REPORTED[kind][status]
    given: dict[str, Any] = {"quantity": 90 if kind in ("replaced", "restated") else 10, "price": Decimal(10)}
    if kind in ("busted", "corrected"):
        given["refers_to"] = "not known"
    if kind in ANSWERS:
        given |= {"client_order_id": str(REQUEST_ID), "original_client_order_id": str(order.pk)}

    report(order.pk, "XSIM", ReportKind(kind), **given)

    after = Order.objects.get(pk=order.pk)
    assert UnmatchedReport.objects.exists() == (expected == "kept")
    if expected in ("same", "kept"):
        assert (after.status, history(order.pk)) == (status, before)
    else:
        event = reports.EVENTS[ReportKind(kind)]
        assert after.status == expected
        assert history(order.pk) == [*before, (len(before) + 1, event, status, expected)]


def test_the_table_in_the_code_is_the_one_worked_out_here() -> None:
    by_steps = {edge: after for edge, after in TRANSITIONS.items() if edge not in lifecycle.REPORTED}
    assert {(str(before), str(event)) for before, event in by_steps} == set(LEGAL)
    assert all(after in (LEGAL[before, event], lifecycle.STANDING) for (before, event), after in by_steps.items())
    by_reports = {
        (status, str(reports.EVENTS[ReportKind(kind)]))
        for kind, outcomes in REPORTED.items()
        for status, after in outcomes.items()
        if after not in ("same", "kept")
    }
    assert by_reports <= {(str(before), str(event)) for before, event in TRANSITIONS}
    assert {TRANSITIONS[edge] for edge in lifecycle.REPORTED} == {lifecycle.STANDING}


def test_a_cancel_that_another_request_asked_for_is_not_withdrawn() -> None:
    order = OrderFactory(status="pending_cancel")
    step = step_for(order, Event.CANCEL_WITHDRAWN, request_id=new_order_id())
    assert lifecycle.advance([step], actor="system:test").stale


def test_a_replace_that_another_request_asked_for_is_not_withdrawn() -> None:
    order = OrderFactory(status="pending_replace")
    step = step_for(order, Event.REPLACE_WITHDRAWN, request_id=new_order_id())
    assert lifecycle.advance([step], actor="system:test").stale


def test_an_order_that_is_not_in_doubt_waits_for_no_venue_to_cancel_it() -> None:
    order = OrderFactory(status="pending")
    assert lifecycle.advance([step_for(order, Event.CANCEL_ASKED)], actor="system:test").stale


@pytest.mark.parametrize("status", ["submitting", "unconfirmed"])
def test_a_cancel_changes_nothing_of_an_attempt_and_is_asked_for_once(status: str) -> None:
    order = OrderFactory(status=status, **({"parked": True} if status == "unconfirmed" else {}))
    for asked in (1, 0):
        assert len(lifecycle.advance([step_for(order, Event.CANCEL_ASKED)], actor="system:test").moved) == asked
    after = Order.objects.get(pk=order.pk)
    for name in ("lease_expires_at", "next_attempt_at", "parked_at", "last_error", "attempt"):
        assert getattr(after, name) == getattr(order, name), name
    assert after.open_cancel == REQUEST_ID
    assert after.cancel_requested_at is not None


def test_an_order_that_a_cancel_waits_for_is_not_sent_again() -> None:
    order = OrderFactory(status="unconfirmed")
    lifecycle.advance([step_for(order, Event.CANCEL_ASKED)], actor="system:test")
    again = step_for(order, Event.NOT_FOUND, attempt=1, in_doubt=True)
    assert lifecycle.advance([again], actor="system:test").stale
    Order.objects.filter(pk=order.pk).update(status="pending")
    assert lifecycle.claim("XSIM", limit=1, in_flight=1, lease=30, actor="system:test") == []


def test_an_acknowledgement_leads_to_where_the_order_stands_by_then() -> None:
    order = OrderFactory(status="submitting")
    Order.objects.filter(pk=order.pk).update(open_cancel=REQUEST_ID)  # asked for while it was being sent
    (moved,) = lifecycle.advance([step_for(order, Event.ACKNOWLEDGED)], actor="system:test").moved
    assert moved.status == "pending_cancel"


def test_only_pending_leads_to_submitting() -> None:
    ways = {before for (before, event), after in TRANSITIONS.items() if after == "submitting" != before}
    assert ways == {"pending"}


def test_only_an_operators_word_makes_a_doubtful_order_failed() -> None:
    ways = {(before, event) for (before, event), after in TRANSITIONS.items() if after == "failed"}
    assert ways == {("pending", "attempts_exhausted"), ("unconfirmed", "marked_not_placed")}


@pytest.mark.parametrize("event", [Event.VENUE_UNREACHABLE, Event.TURNED_AWAY])
def test_a_venue_that_was_not_there_or_takes_nothing_costs_no_attempt(event: Event) -> None:
    order = OrderFactory(status="submitting")
    lifecycle.advance([step_for(order, event, attempt=1)], actor="system:test")
    assert Order.objects.get(pk=order.pk).failures == 0


def test_an_acknowledgement_does_not_wake_an_order_that_ended_at_the_venue() -> None:
    order = OrderFactory(status="canceled")
    Order.objects.filter(pk=order.pk).update(venue_order_id="V1")  # as the venue half of its life will leave it
    assert lifecycle.advance([step_for(order, Event.ACKNOWLEDGED)], actor="system:test").stale


# ---- Doubt: the venue did not know the order, and an attempt may still arrive there ----


def order_in_doubt(**fields: Any) -> Order:
    order = OrderFactory(status="unconfirmed", **fields)
    lifecycle.advance([step_for(order, Event.NOT_FOUND, attempt=1, in_doubt=True)], actor="system:test")
    return Order.objects.get(pk=order.pk)


@pytest.mark.parametrize("event", [Event.CANCEL_REQUESTED, Event.ATTEMPTS_EXHAUSTED, Event.PLACE_BY_PASSED])
def test_an_order_in_doubt_is_not_called_ended_on_our_word(event: Event) -> None:
    order = order_in_doubt()
    assert lifecycle.advance([step_for(order, event)], actor="system:test").stale
    assert lifecycle.advance([step_for(order, Event.RESEND_GIVEN_UP)], actor="system:test").moved


def test_an_order_in_doubt_whose_place_by_passes_waits_for_an_operator() -> None:
    order = order_in_doubt(place_by="2020-01-01T00:00:00Z")
    (moved,) = lifecycle.overtake(limit=10, actor="system:sweep")
    assert (moved.event, moved.status) == ("resend_given_up", "unconfirmed")
    parked = Order.objects.get(pk=order.pk)
    assert parked.parked
    assert parked.last_error == (
        "Its place_by passed: it is not sent again. It was sent without an answer before, and may be at the venue."
    )


@pytest.mark.parametrize(("by_content", "expected"), [(True, "rejected"), (False, "unconfirmed")])
def test_a_refusal_ends_an_order_in_doubt_if_any_copy_of_it_is_refused(by_content: bool, expected: str) -> None:
    order_in_doubt()
    (claimed,) = lifecycle.claim("XSIM", limit=1, in_flight=1, lease=30, actor="system:test")
    forgetful = replace(SimulatorVenue({"url": UNREACHABLE}).capabilities, remembers_rejections=False)
    refusal = OrderRejected("invalid_field", by_content=by_content)
    step = failed_step(claimed, refusal, forgetful, lease_left=29.0, latency_ms=1.0)
    assert [moved.status for moved in lifecycle.advance([step], actor="system:test").moved] == [expected]


def test_doubt_lasts_from_one_event_to_the_next() -> None:
    order = order_in_doubt()
    lifecycle.claim("XSIM", limit=10, in_flight=100, lease=30, actor="system:test")
    lifecycle.advance([step_for(order, Event.NOT_SENT, attempt=2)], actor="system:test")

    assert Order.objects.get(pk=order.pk).in_doubt
    assert lifecycle.advance([step_for(order, Event.CANCEL_REQUESTED)], actor="system:test").stale


def test_an_operators_word_ends_the_doubt() -> None:
    order = order_in_doubt()
    for event in (Event.RESEND_GIVEN_UP, Event.MARKED_NOT_PLACED, Event.CANCEL_REQUESTED):
        assert lifecycle.advance([step_for(order, event, reason="x")], actor="operator:olga").moved
    assert Order.objects.get(pk=order.pk).status == "canceled"


@pytest.mark.parametrize(("attempt", "expected"), [(1, "pending"), (2, "unconfirmed")])
def test_late_proof_frees_an_order_in_question_only_if_it_is_of_that_attempt(attempt: int, expected: str) -> None:
    order = OrderFactory(status="unconfirmed")
    lifecycle.advance([step_for(order, Event.NOT_SENT, attempt=attempt)], actor="system:test")
    assert Order.objects.get(pk=order.pk).status == expected


@pytest.mark.parametrize("verb", ["park", "postpone"])
def test_a_stale_look_up_decides_nothing(verb: str) -> None:
    order = OrderFactory(status="unconfirmed", attempts=2)
    if verb == "park":
        lifecycle.park([LookUp(order.pk, 1, False)], error="x")
    else:
        lifecycle.postpone([LookUp(order.pk, 1, False)], seconds=1, error="x")
    after = Order.objects.get(pk=order.pk)
    assert (after.next_attempt_at, after.parked_at) == (order.next_attempt_at, None)


def test_a_late_look_up_does_not_wake_a_parked_order() -> None:
    order = OrderFactory(status="unconfirmed", parked=True)
    lifecycle.postpone([LookUp(order.pk, 1, True)], seconds=1, error="x")
    after = Order.objects.get(pk=order.pk)
    assert (after.parked_at, after.next_attempt_at) == (order.parked_at, order.next_attempt_at)


# ---- Deadlines ----


@pytest.mark.parametrize("status", ["pending", "expired"])
def test_an_order_is_never_claimed_after_its_place_by(status: str) -> None:
    order = OrderFactory(place_by="2020-01-01T00:00:00Z")
    if status == "expired":
        (moved,) = lifecycle.overtake(limit=10, actor="system:sweep")
        assert moved.status == "expired"
    assert lifecycle.claim("XSIM", limit=10, in_flight=100, lease=30, actor="system:test") == []
    assert Order.objects.get(pk=order.pk).status == status


def test_an_order_is_claimed_before_its_place_by() -> None:
    OrderFactory(place_by="2100-01-01T00:00:00Z")
    assert lifecycle.overtake(limit=10, actor="system:sweep") == []
    assert len(lifecycle.claim("XSIM", limit=10, in_flight=100, lease=30, actor="system:test")) == 1


def test_a_resend_that_the_venue_would_not_recognise_any_more_is_looked_up_instead() -> None:
    order = OrderFactory(status="unconfirmed")
    lifecycle.advance([step_for(order, Event.NOT_FOUND, attempt=1, resend_within=0.0)], actor="system:test")

    assert lifecycle.claim("XSIM", limit=10, in_flight=100, lease=30, actor="system:test") == []
    (moved,) = lifecycle.overtake(limit=10, actor="system:sweep")
    assert (moved.event, moved.status) == ("resend_window_passed", "unconfirmed")
    assert Order.objects.get(pk=order.pk).next_attempt_at is not None


def test_the_window_of_the_first_doubt_holds_for_all_later_attempts() -> None:
    order = OrderFactory(status="unconfirmed")
    lifecycle.advance([step_for(order, Event.NOT_FOUND, attempt=1, resend_within=60.0)], actor="system:test")
    first = Order.objects.get(pk=order.pk).resend_before
    lifecycle.claim("XSIM", limit=10, in_flight=100, lease=30, actor="system:test")
    lifecycle.advance([step_for(order, Event.OUTCOME_UNKNOWN, attempt=2)], actor="system:test")
    lifecycle.advance([step_for(order, Event.NOT_FOUND, attempt=2, resend_within=600.0)], actor="system:test")
    assert Order.objects.get(pk=order.pk).resend_before == first


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

    claimed = lifecycle.claim("XSIM", limit=10, in_flight=100, lease=30, actor="system:test")

    assert {order.id for order in claimed} == {sooner.pk, later.pk}
    assert [order.id for order in lifecycle.claim("XSIM", limit=10, in_flight=100, lease=30, actor="system:test")] == []
    order = Order.objects.get(pk=sooner.pk)
    assert (order.status, order.attempt) == ("submitting", 1)
    assert order.lease_expires_at is not None


def test_a_claim_is_limited_to_the_longest_due() -> None:
    orders = [OrderFactory() for _ in range(3)]
    Order.objects.filter(pk=orders[2].pk).update(next_attempt_at="2020-01-01T00:00:00Z")

    (claimed,) = lifecycle.claim("XSIM", limit=1, in_flight=100, lease=30, actor="system:test")

    assert claimed.id == orders[2].pk


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
        ({"status": "done_for_day"}, "order_at_venue_has_its_id"),
        ({"filled_quantity": -1}, "order_filled_not_negative"),
        ({"ended": "filled"}, "order_ended_known"),
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


@pytest.mark.django_db(transaction=True)
def test_sixteen_claims_at_once_share_the_orders_without_overlap() -> None:
    owner = UserFactory()
    orders = {OrderFactory(owner=owner).pk for _ in range(40)}

    claims = in_threads(16, lambda n: lifecycle.claim("XSIM", limit=5, in_flight=100, lease=30, actor=f"system:{n}"))

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
def test_a_writer_of_many_orders_locks_them_by_their_ids_however_they_are_named() -> None:
    orders = sorted((OrderFactory(status="submitting") for _ in range(4)), key=lambda order: order.pk)
    steps = [step_for(order, Event.ACKNOWLEDGED, venue_order_id="V") for order in reversed(orders)]
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Order.objects.select_for_update().get(pk=orders[0].pk)
            writing = pool.submit(in_threads, 1, lambda n: lifecycle.advance(steps, actor="system:test"))
            wait_until(somebody_waits_for_a_lock)
            others = Order.objects.select_for_update(skip_locked=True).exclude(pk=orders[0].pk)
            assert len(others) == 3  # it waits for the first one, and holds none
        [advanced] = writing.result()
    assert len(advanced.moved) == 4


@pytest.mark.django_db(transaction=True)
def test_writers_of_overlapping_batches_in_opposite_order_do_not_deadlock() -> None:
    orders = [OrderFactory(status="submitting") for _ in range(30)]

    def work(n: int) -> int:
        chosen = orders if n % 2 else orders[::-1]
        steps = [step_for(order, Event.ACKNOWLEDGED, venue_order_id="V") for order in chosen]
        return len(lifecycle.advance(steps, actor="system:test").moved)

    assert sum(in_threads(8, work)) == len(orders)
