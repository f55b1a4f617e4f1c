"""Random histories of cancels and replaces against the real rows, and a scripted venue of every class.

Messages are lost, late and doubled, replies are lost, workers die between any two beats, and time passes. After every
step no order may be called canceled while it works, and none may be believed to have other terms than the venue's
while no request of it is open. When the faults stop, every request is decided, or is one that only a person may decide.
"""

import os
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from exchanges import registry
from exchanges.venue import (
    Capabilities,
    Done,
    NotSent,
    OutcomeUnknown,
    Report,
    ReportStatus,
    RequestRefused,
    ResendSafety,
    VenueError,
)
from orders import amendments, deciding, placement, request_verdicts, requests
from orders.amendments import CannotCancel, CannotReplace
from orders.models import Order, OrderRequest
from orders.placement import RequestAttempt
from orders.requests import Changes, ClaimedRequest
from orders.tests.factories import OrderFactory, VenueFactory
from orders.tests.scripted_venue import ALL, DEADLINE_SECONDS, SETTLE_SECONDS, WINDOW_SECONDS, Book, ScriptedVenue
from orders.tests.test_histories import check_histories
from quiktrade.tests.parameters import mostly_exhaustive

pytestmark = pytest.mark.django_db

LEASE_SECONDS = 30.0
HISTORIES = int(os.environ.get("QUIKTRADE_TEST_EXAMPLES", "6"))
STEPS = 50
ALICE: dict[str, Any] = {"actor": "client:alice", "reason": "Changed my mind."}


@dataclass
class OneOrder:
    """The order at the venue. It remembers requests for ever, for a while, or not at all, as its class has it."""

    safety: ResendSafety
    live: bool = True
    quantity: int = 100
    current: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    known_for: dict[str, float] = field(default_factory=dict)

    def take(self, request: ClaimedRequest, *, stale: bool) -> str:
        if stale and self.safety is ResendSafety.REFUSES_STALE_REQUESTS:
            return "stale"
        id_ = str(request.id)
        window = {ResendSafety.REFUSES_DUPLICATES: 1e9, ResendSafety.REFUSES_RECENT_DUPLICATES: WINDOW_SECONDS}
        if id_ in self.answers and self.known_for[id_] < window.get(self.safety, 0.0):
            return self.answers[id_]
        if not self.live:
            answer = "too_late"
        elif request.terms is None:
            self.live, answer = False, "done"
        else:
            self.quantity, self.current, answer = request.terms.quantity, id_, "done"
        self.answers[id_] = answer
        self.known_for.setdefault(id_, 0.0)
        return answer


@dataclass(eq=False)
class Attempted:
    request: ClaimedRequest
    permit: Any
    valid_until: datetime
    age: float = 0.0
    sent: bool = False


class Story:
    def __init__(self, safety: ResendSafety, seed: int) -> None:
        self.chance, self.venue = random.Random(seed), OneOrder(safety)
        self.held: list[Attempted] = []
        self.wire: list[list[Any]] = []  # an attempt, and the age of its message
        self.replies: list[tuple[Attempted, str]] = []
        row = VenueFactory(code="XSCR", adapter="scripted", settings={})
        self.order = OrderFactory(status="placed", venue=row, quantity=100)
        self.capabilities: Capabilities = registry.open_venue("scripted", {}).capabilities

    # ---- What may happen ----

    def a_client_replaces(self) -> None:
        try:
            changes = Changes(quantity=self.chance.randint(50, 150))
            amendments.request_replace(self.order.pk, changes, **ALICE)
        except (CannotReplace, amendments.InvalidChange):
            pass

    def a_client_cancels(self) -> None:
        if self.chance.random() < 0.2:
            try:
                amendments.request_cancel(self.order.pk, **ALICE)
            except CannotCancel:
                pass

    def a_worker_claims(self) -> None:
        claim = placement.claim_orders("XSCR", wanted=4, cancels=4, actor="system:test")
        for request in claim.requests:
            self.held.append(Attempted(request, claim.permit, request.lease_expires_at))

    def a_worker_dies(self) -> None:
        if self.held and self.chance.random() < 0.3:
            self.held.remove(self.chance.choice(self.held))

    def a_worker_sends(self) -> None:
        for attempt in [attempt for attempt in self.held if not attempt.sent][:1]:
            if attempt.age > LEASE_SECONDS - DEADLINE_SECONDS:
                self.record(attempt, NotSent("late", answered=True))
            elif self.chance.random() < 0.1:
                self.record(attempt, NotSent("stale_request", answered=True))
            else:
                attempt.sent = True
                self.wire.append([attempt, 0.0])

    def a_message_arrives(self) -> None:
        if self.wire:
            message = self.chance.choice(self.wire)
            known = self.venue.safety in (
                ResendSafety.REFUSES_DUPLICATES,
                ResendSafety.REFUSES_RECENT_DUPLICATES,
            )
            if not known or self.chance.random() < 0.7:  # otherwise it arrives once more
                self.wire.remove(message)
            attempt = message[0]
            answer = self.venue.take(attempt.request, stale=timezone.now() > attempt.valid_until)
            self.replies.append((attempt, answer))

    def a_message_is_lost(self) -> None:
        if self.wire and self.chance.random() < 0.5:
            self.wire.remove(self.chance.choice(self.wire))

    def a_reply_arrives(self) -> None:
        if self.replies:
            attempt, answer = self.replies.pop(self.chance.randrange(len(self.replies)))
            if attempt in self.held:
                errors: dict[str, VenueError] = {
                    "too_late": RequestRefused("too_late", by_end=True),
                    "stale": NotSent("stale_request", answered=True),
                }
                self.record(attempt, errors.get(answer) or Done(venue_order_id=self.order.venue_order_id))

    def a_reply_is_lost(self) -> None:
        if self.replies:
            self.replies.pop(self.chance.randrange(len(self.replies)))

    def a_worker_gives_up(self) -> None:
        for attempt in [attempt for attempt in self.held if attempt.sent][:1]:
            self.record(attempt, OutcomeUnknown("timeout"))

    def time_passes(self, seconds: int | None = None) -> None:
        seconds = seconds or self.chance.choice((1, 4, 11, 35))
        _let_time_pass(seconds)
        for attempt in {*self.held, *(message[0] for message in self.wire)}:
            attempt.age += seconds
            attempt.valid_until -= timedelta(seconds=seconds)
        for message in self.wire:
            message[1] += seconds
        for id_ in self.venue.known_for:
            self.venue.known_for[id_] += seconds
        self.wire = [message for message in self.wire if message[1] < SETTLE_SECONDS]

    def the_sweep_runs(self) -> None:
        placement.sweep_orders()

    def look_ups_run(self) -> None:
        due = requests.claim_lookups("XSCR", limit=9, seconds=11.0)
        if due:
            answers: dict[Any, Any] = {self.order.pk: self.venue_says()}
            deciding.record_look_ups("XSCR", due, answers, self.capabilities, actor="system:test")

    def venue_says(self) -> Report | VenueError:
        if self.chance.random() < 0.2:
            return OutcomeUnknown("timeout")
        return Report(
            client_order_id=str(self.order.pk),
            status=ReportStatus.WORKING if self.venue.live else ReportStatus.CANCELED,
            venue_order_id=self.order.venue_order_id,
            quantity=self.venue.quantity,
            cumulative_quantity=0,
        )

    def record(self, attempt: Attempted, answer: Done | VenueError) -> None:
        self.held.remove(attempt)
        left = LEASE_SECONDS - attempt.age
        verdict = request_verdicts.after_attempt(attempt.request, answer, self.capabilities, lease_left=left)
        error = answer if isinstance(answer, VenueError) else None
        placement.record_requests(
            [RequestAttempt(verdict, "XSCR", True, attempt.permit, error)], actor="system:placement"
        )

    # ---- What must hold ----

    def check(self) -> None:
        order = Order.objects.get(pk=self.order.pk)
        if order.status == "canceled":
            assert not self.venue.live, "canceled, but it works"
        elif order.open_cancel is None:
            assert self.venue.live, "it was canceled, and no cancel is open"
        if order.open_replace is None:
            assert order.quantity == self.venue.quantity, "it is believed to have other terms"
        open_ = set(OrderRequest.objects.filter(resolved_at=None).values_list("pk", flat=True))
        assert open_ == {order.open_cancel, order.open_replace} - {None}
        assert not OrderRequest.objects.filter(kind="cancel", status="accepted").exists() or not self.venue.live
        check_histories()

    def run(self) -> None:
        acts = (
            *(self.a_client_replaces, self.a_client_cancels, self.a_worker_dies, self.the_sweep_runs),
            *(self.a_worker_claims, self.a_worker_claims, self.a_worker_sends, self.a_worker_sends),
            *(self.a_message_arrives, self.a_message_arrives, self.a_message_is_lost),
            *(self.a_reply_arrives, self.a_reply_arrives, self.a_reply_is_lost, self.a_worker_gives_up),
            *(self.time_passes, self.look_ups_run, self.look_ups_run),
        )
        for _ in range(STEPS):
            self.chance.choice(acts)()
            self.check()
        self.settle()

    def settle(self) -> None:
        """The faults stop: what is open is decided, but for what only a person may decide."""
        for _ in range(8):
            self.a_worker_claims()
            while any(not attempt.sent for attempt in self.held):
                self.a_worker_sends()
            while self.wire:
                self.a_message_arrives()
            while self.replies:
                self.a_reply_arrives()
            self.held.clear()
            self.time_passes(61)
            self.the_sweep_runs()
            self.look_ups_run()
            self.check()
        left = OrderRequest.objects.filter(resolved_at=None)
        aged = self.venue.safety is ResendSafety.REFUSES_RECENT_DUPLICATES
        assert not left.exclude(kind="replace").exists(), "a cancel ends with its order"
        assert aged or not left.exists(), "only after the window nobody sends it again"


def _let_time_pass(seconds: int) -> None:
    times = ("next_attempt_at", "lease_expires_at", "look_up_at", "settled_at", "created_at", "updated_at")
    changes = ", ".join(f"{column} = {column} - %(by)s * interval '1 second'" for column in times)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE orders_orderrequest SET {changes}", {"by": seconds})


@pytest.mark.parametrize("seed", mostly_exhaustive(range(HISTORIES), 0, 1))
@pytest.mark.parametrize("safety", ResendSafety)
def test_random_histories_believe_of_no_order_otherwise_than_its_venue(safety: ResendSafety, seed: int) -> None:
    class Amending(ScriptedVenue):
        @property
        def capabilities(self) -> Capabilities:
            return Capabilities(
                resend_safety=safety,
                deadline_seconds=DEADLINE_SECONDS,
                settle_seconds=SETTLE_SECONDS,
                finds=True,
                order_types=ALL,
                times_in_force=ALL,
                duplicate_window_seconds=WINDOW_SECONDS,
                cancels=True,
                replaces=True,
            )

    registry.ADAPTERS["scripted"] = lambda values: Amending(Book(safety), values)
    try:
        Story(safety, seed).run()
    finally:
        del registry.ADAPTERS["scripted"]
