"""Random histories of faults against the real rows and services, and a scripted venue of every class.

Hypothesis chooses what happens next: claims, requests that are lost, late or doubled, replies that are lost or
reordered, workers that die between any two beats or wake up after their lease, time that passes. After every
step no order may be live twice, or be called ended while it is live; when the faults stop, every order ends.

`test_safeguards` takes the safeguards away, one by one, and expects a violation: a suite that passes without the
fence would prove nothing about the fence.
"""

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from exchanges import registry
from exchanges.models import Venue
from exchanges.venue import NotSent, OrderRejected, OutcomeUnknown, ResendSafety, VenueError
from orders import placement, reconciliation, services, submission, verdicts
from orders.lifecycle import Event, MovedOrder, Step
from orders.models import PARKED, Order, OrderEvent
from orders.placement import Attempt
from orders.submission import NewOrderRequest
from orders.tests.scripted_venue import DEADLINE_SECONDS, SETTLE_SECONDS, Book, ScriptedVenue
from quiktrade.tests.parameters import mostly_exhaustive

pytestmark = pytest.mark.django_db

EXAMPLES = int(os.environ.get("QUIKTRADE_TEST_EXAMPLES", "20"))
"""The number of histories for each class of venue. For more of them, set QUIKTRADE_TEST_EXAMPLES=2000."""

LEASE_SECONDS = 30.0
RECOGNISE_DUPLICATES = (ResendSafety.REFUSES_DUPLICATES, ResendSafety.REFUSES_RECENT_DUPLICATES)
"""With any other venue a request that something on the way repeats is placed twice, whatever its sender does."""
ENDED = ("failed", "rejected", "canceled", "expired")


@dataclass
class Attempted:
    """One worker's claim of one order."""

    order: MovedOrder
    permit: Any
    valid_until: datetime
    age: float = 0.0
    sent: bool = False


@dataclass
class Request:
    """On the wire."""

    attempt: Attempted
    age: float = 0.0


@dataclass
class Reply:
    attempt: Attempted
    answer: str


class Histories(RuleBasedStateMachine):
    safety = ResendSafety.REFUSES_DUPLICATES
    forgets_rejections = False
    settle = SETTLE_SECONDS
    claims_are_committed = True

    @initialize()
    def start(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("TRUNCATE orders_order, orders_orderevent, exchanges_venue, exchanges_venueevent CASCADE")
        self.book = Book(self.safety, forgets_rejections=self.forgets_rejections)
        registry.ADAPTERS["scripted"] = lambda values: ScriptedVenue(self.book, values)
        Venue.objects.create(
            code="XSCR", name="Scripted", adapter="scripted", settings={"settle_seconds": self.settle}, is_default=True
        )
        self.owner, _ = User.objects.get_or_create(username="alice")
        self.held: list[Attempted] = []
        self.wire: list[Request] = []
        self.replies: list[Reply] = []
        self.count = 0

    # ---- Clients and operators ----

    @rule(place_by=st.sampled_from([None, None, 60]), invalid=st.sampled_from([False, False, True]))
    def a_client_submits(self, place_by: int | None, invalid: bool = False) -> None:
        self.count += 1
        request = NewOrderRequest(
            client_order_id=f"c{self.count}",
            instrument="US0378331005",
            side="buy",
            type="market",
            quantity=1,
            place_by=timezone.now() + timedelta(seconds=place_by) if place_by else None,
        )
        submitted = submission.submit_order(request, owner_id=self.owner.pk, actor="client:alice")
        if invalid:
            self.book.invalid.add(str(submitted.order.id))

    @precondition(lambda self: self.count)
    @rule(n=st.integers(0, 9))
    def a_client_cancels(self, n: int) -> None:
        order = Order.objects.order_by("created_at", "id")[n % self.count]
        services.cancel_orders([order.pk], actor="client:alice", reason="changed my mind")

    @rule()
    def an_operator_requeues_what_failed(self) -> None:
        failed = list(Order.objects.filter(status="failed").values_list("pk", flat=True))
        services.requeue_orders(failed, actor="operator:olga", reason="again")

    @rule()
    def an_operator_says_that_what_is_parked_is_not_there(self) -> None:
        for pk in Order.objects.filter(PARKED).values_list("pk", flat=True):
            reconciliation.mark_not_placed(pk, actor="operator:olga", reason="not on the screen")

    # ---- Workers ----

    @rule(wanted=st.integers(1, 2))
    def a_worker_claims(self, wanted: int) -> None:
        before = {order.pk: order for order in Order.objects.filter(status="pending")}
        claim = placement.claim_orders("XSCR", wanted=wanted, actor="system:placement")
        for order in claim.orders:
            assert order.lease_expires_at is not None
            self.held.append(Attempted(order, claim.permit, order.lease_expires_at))
            if not self.claims_are_committed:
                _roll_back(before[order.id])

    @precondition(lambda self: self.held)
    @rule(n=st.integers(0, 9))
    def a_worker_dies(self, n: int) -> None:
        self.held.pop(n % len(self.held))

    @precondition(lambda self: any(not attempt.sent for attempt in self.held))
    @rule(n=st.integers(0, 9), refused=st.booleans())
    def a_worker_sends(self, n: int, refused: bool) -> None:
        unsent = [attempt for attempt in self.held if not attempt.sent]
        attempt = unsent[n % len(unsent)]
        if attempt.age > LEASE_SECONDS - DEADLINE_SECONDS:
            self._record(attempt, NotSent("late", answered=True))  # as the engine does: it woke up too late
        elif refused:
            self._record(attempt, NotSent("connect_failed"))
        else:
            attempt.sent = True
            self.wire.append(Request(attempt))

    @precondition(lambda self: any(attempt.sent for attempt in self.held))
    @rule(n=st.integers(0, 9))
    def a_worker_gives_up_waiting(self, n: int) -> None:
        waiting = [attempt for attempt in self.held if attempt.sent]
        self._record(waiting[n % len(waiting)], OutcomeUnknown("timeout"))

    # ---- The network and the venue ----

    @precondition(lambda self: self.wire)
    @rule(n=st.integers(0, 9), refuse=st.sampled_from([False, False, True]), twice=st.booleans())
    def a_request_arrives(self, n: int, refuse: bool, twice: bool) -> None:
        request = self.wire.pop(n % len(self.wire))
        if twice and self.safety in RECOGNISE_DUPLICATES:
            self.wire.append(Request(request.attempt, request.age))
        stale = timezone.now() > request.attempt.valid_until
        client_order_id = str(request.attempt.order.id)
        refuse = refuse or client_order_id in self.book.invalid
        answer = self.book.take(client_order_id, stale=stale, refuse=refuse)
        self.replies.append(Reply(request.attempt, answer))

    @precondition(lambda self: self.wire)
    @rule(n=st.integers(0, 9))
    def a_request_is_lost(self, n: int) -> None:
        self.wire.pop(n % len(self.wire))

    @precondition(lambda self: self.replies)
    @rule(n=st.integers(0, 9))
    def a_reply_arrives(self, n: int) -> None:
        reply = self.replies.pop(n % len(self.replies))
        if reply.attempt not in self.held:
            return  # its worker is dead, or gave up
        errors: dict[str, VenueError] = {
            "refused": OrderRejected("refused", by_content=str(reply.attempt.order.id) in self.book.invalid),
            "duplicate": OutcomeUnknown("duplicate_client_order_id", answered=True),
            "stale": NotSent("stale_request", answered=True),
        }
        self._record(reply.attempt, errors.get(reply.answer))

    @precondition(lambda self: self.replies)
    @rule(n=st.integers(0, 9))
    def a_reply_is_lost(self, n: int) -> None:
        self.replies.pop(n % len(self.replies))

    # ---- Time and the schedules ----

    @rule(seconds=st.sampled_from([1, 4, 11, 35, 130]))
    def time_passes(self, seconds: int) -> None:
        _let_time_pass(seconds)
        for attempt in self.held:
            attempt.age += seconds
            attempt.valid_until -= timedelta(seconds=seconds)
        for request in self.wire:
            request.age += seconds
            if request.attempt not in self.held:
                request.attempt.valid_until -= timedelta(seconds=seconds)
        for client_order_id in self.book.known_for:
            self.book.known_for[client_order_id] += seconds
        # What a settle time promises: a request does not outlive its attempt for longer.
        self.wire = [request for request in self.wire if request.age < SETTLE_SECONDS]

    @rule()
    def the_sweep_runs(self) -> None:
        placement.sweep_orders()

    @rule(reachable=st.booleans())
    def reconciliation_runs(self, reachable: bool) -> None:
        self.book.reachable = reachable
        reconciliation.reconcile_due_orders()
        self.book.reachable = True

    def _record(self, attempt: Attempted, error: VenueError | None) -> None:
        self.held.remove(attempt)
        order = attempt.order
        if error is None:
            step = Step(order_id=order.id, event=Event.ACKNOWLEDGED, venue_order_id=f"V-{order.id}")
        else:
            capabilities = ScriptedVenue(self.book, {"settle_seconds": self.settle}).capabilities
            left = LEASE_SECONDS - attempt.age
            step = verdicts.failed_step(order, error, capabilities, lease_left=left, latency_ms=1.0)
        attempts = [Attempt(step, "XSCR", error is None or error.answered, attempt.permit)]
        placement.record_attempts(attempts, actor="system:placement")

    # ---- What must hold ----

    @invariant()
    def no_order_is_live_twice(self) -> None:
        assert all(live <= 1 for live in self.book.live.values()), self.book.live

    @invariant()
    def no_order_that_is_called_ended_is_live(self) -> None:
        ended = Order.objects.filter(status__in=ENDED).values_list("pk", "status")
        assert [(pk, status) for pk, status in ended if self.book.live.get(str(pk))] == []

    @invariant()
    def an_order_is_called_placed_only_if_it_is_live(self) -> None:
        placed = Order.objects.filter(status="placed").values_list("pk", flat=True)
        assert [pk for pk in placed if not self.book.live.get(str(pk))] == []

    @invariant()
    def the_history_is_the_transitions(self) -> None:
        check_histories()

    def teardown(self) -> None:
        """The faults stop: everything that was accepted comes to an end, or waits for an operator."""
        if not hasattr(self, "book"):
            return
        for _ in range(6):
            while self.wire:
                self.a_request_arrives(0, False, False)
            self.replies.clear()
            self.time_passes(40)
            self.the_sweep_runs()
            self.reconciliation_runs(True)
            self.time_passes(40)
            self.held.clear()
            self.a_worker_claims(50)
            while self.held:
                self.a_worker_sends(0, False)
                while self.wire:
                    self.a_request_arrives(0, False, False)
                while self.replies:
                    self.a_reply_arrives(0)
            self.no_order_is_live_twice()
            self.no_order_that_is_called_ended_is_live()
        parked = Order.objects.filter(PARKED)
        safe = (ResendSafety.REFUSES_DUPLICATES, ResendSafety.REFUSES_STALE_REQUESTS)
        is_safe = self.safety in safe and not self.forgets_rejections
        needless = parked.filter(place_by=None) if is_safe else parked.none()
        assert not needless.exists(), "an order parks where a re-send is unsafe, or its time has passed in doubt"
        self.time_passes(4000)
        self.reconciliation_runs(True)
        overlooked = [pk for pk in parked.values_list("pk", flat=True) if self.book.live.get(str(pk))]
        assert overlooked == [], "the venue says that it has the order"
        left = Order.objects.exclude(status__in=("placed", *ENDED)).exclude(pk__in=parked)
        assert list(left.values_list("pk", "status")) == []


def check_histories() -> None:
    """Every order's events: from 1 without a gap, each from where the one before led, the last to where it is."""
    for order in Order.objects.all():
        events = list(OrderEvent.objects.filter(order=order).order_by("sequence"))
        assert [event.sequence for event in events] == list(range(1, order.version + 1))
        assert [event.from_status for event in events] == ["", *(event.to_status for event in events[:-1])]
        assert events[-1].to_status == order.status


def _let_time_pass(seconds: int) -> None:
    """Shift every time in the rows into the past, the append-only ones too."""
    orders = (
        "next_attempt_at",
        "lease_expires_at",
        "parked_at",
        "resend_before",
        "place_by",
        "updated_at",
        "created_at",
    )
    health = ("retry_at", "opened_at", "tokens_at")
    with connection.cursor() as cursor:
        _let_history_change(cursor)
        for table, columns in (
            ("orders_order", orders),
            ("orders_orderevent", ("at",)),
            ("exchanges_venuehealth", health),
        ):
            changes = ", ".join(f"{column} = {column} - %(by)s * interval '1 second'" for column in columns)
            cursor.execute(f"UPDATE {table} SET {changes}", {"by": seconds})


def _let_history_change(cursor: Any) -> None:
    """This lasts to the end of the test, whose transaction is rolled back."""
    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    cursor.execute("ALTER TABLE orders_orderevent DISABLE TRIGGER USER")


def _roll_back(order: Order) -> None:
    """Undo a claim as if it had been sent without being committed."""
    with connection.cursor() as cursor:
        _let_history_change(cursor)
        cursor.execute("DELETE FROM orders_orderevent WHERE order_id = %s AND sequence > %s", [order.pk, order.version])
        cursor.execute(
            "UPDATE orders_order SET status = 'pending', version = %s, attempt = %s, lease_expires_at = NULL,"
            " next_attempt_at = %s WHERE id = %s",
            [order.version, order.attempt, order.next_attempt_at, order.pk],
        )


def run_histories(machine: type[Histories], examples: int) -> None:
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
                print_blob=False,
                phases=(Phase.explicit, Phase.generate),
            ),
        )
    finally:
        registry.ADAPTERS.pop("scripted", None)


@pytest.mark.parametrize("safety", mostly_exhaustive(ResendSafety, ResendSafety.NOTHING))
def test_random_histories_place_no_order_twice_and_lose_none(safety: ResendSafety) -> None:
    run_histories(type("Histories", (Histories,), {"safety": safety}), examples=EXAMPLES)


@pytest.mark.exhaustive
def test_random_histories_hold_at_a_venue_that_takes_again_what_it_has_rejected() -> None:
    run_histories(type("Histories", (Histories,), {"forgets_rejections": True}), examples=EXAMPLES)
