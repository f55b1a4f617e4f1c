"""The scenarios of FIX's appendix D in which something is asked for, through the rows of requests.

The service takes the request, the engine's claim sends it, and the venue decides it by the answer to the call or by
its report. Whichever of them comes, or fails to come, order and request end as the table says.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from exchanges.models import ReportSession, UnmatchedReport
from exchanges.registry import capabilities_of
from exchanges.venue import Done, OutcomeUnknown, Report, ReportStatus, RequestRefused, Taken, VenueError
from orders import amendments, deciding, requests
from orders.amendments import CannotReplace
from orders.facts import leaves_quantity
from orders.models import OPEN, Order, OrderEvent, OrderRequest
from orders.reports import Checkpoint, ingest
from orders.request_verdicts import after_attempt
from orders.requests import Changes, ClaimedRequest
from orders.tests import appendix_d
from orders.tests.appendix_d import QUANTITY, SCENARIOS, Scenario, Step
from orders.tests.factories import UNREACHABLE, OrderFactory, VenueFactory
from quiktrade.tests.parameters import mostly_exhaustive

pytestmark = pytest.mark.django_db

LEASE = 30.0
PAST = "2020-01-01T00:00:00Z"
CAPABILITIES = capabilities_of("simulator", {"url": UNREACHABLE})
ASKING = [scenario for scenario in SCENARIOS if any(step.message.startswith("ask") for step in scenario.steps)]
AT_VENUE = {
    "placed": ReportStatus.WORKING,
    "partially_filled": ReportStatus.PARTIALLY_FILLED,
    "filled": ReportStatus.FILLED,
}


class Play:
    """One scenario, with what the venue answers to the calls: `taken` at once, `decided` just before its report says
    the same, or `nothing`."""

    def __init__(self, scenario: Scenario, answers: str) -> None:
        self.scenario, self.answers = scenario, answers
        self.order = OrderFactory(status="submitting", quantity=QUANTITY, time_in_force=scenario.time_in_force)
        self.rows: dict[str, UUID] = {}
        self.claimed: dict[UUID, ClaimedRequest] = {}
        session = ReportSession.objects.create(
            venue_id="XSIM", stream="journal-1", token=uuid4(), holder="node-1", lease_expires_at=timezone.now()
        )
        self.at = Checkpoint("XSIM", session.stream, session.token, 1)

    def run(self) -> Iterator[tuple[Step, dict[str, str]]]:
        """After each message what is shown, and the requests that are decided."""
        for step in self.scenario.steps:
            if found := re.fullmatch(r"ask (cancel|replace) (\w)", step.message):
                if step.decided:
                    with pytest.raises(CannotReplace):
                        self.ask(*found.groups())
                    return
                self.ask(*found.groups())
            else:
                self.hear(step)
            self.send()
            yield self.shown(step), self.decided()

    def ask(self, kind: str, letter: str) -> None:
        by: dict[str, Any] = {"actor": "client:alice", "reason": "Not wanted so any more."}
        if kind == "cancel":
            amendments.request_cancel(self.order.pk, **by)
        else:
            quantity = re.search(rf"replaced {letter} (\d+)", " ".join(step.message for step in self.scenario.steps))
            changes = Changes(quantity=int(quantity[1])) if quantity else Changes(limit_price=Decimal("10.5"))
            amendments.request_replace(self.order.pk, changes, **by)
        self.rows[letter] = OrderRequest.objects.latest("created_at", "id").pk

    def send(self) -> None:
        """Claim what is due for the first time. What had no answer is not sent again here."""
        for kind in (requests.CANCEL, requests.REPLACE):
            if OrderRequest.objects.filter(kind=kind, status="pending", attempt=0).exists():
                (claimed,) = requests.claim("XSIM", kind, limit=9, in_flight=99, lease=LEASE)
                self.claimed[claimed.id] = claimed
                if self.answers != "decided":
                    self.answer(claimed, Taken() if self.answers == "taken" else OutcomeUnknown("timeout"))

    @staticmethod
    def answer(claimed: ClaimedRequest, answer: Done | Taken | VenueError) -> None:
        verdict = after_attempt(claimed, answer, CAPABILITIES, lease_left=LEASE)
        deciding.record("XSIM", [verdict], actor="system:placement")

    def hear(self, step: Step) -> None:
        """The venue reports; if it decides a request, it has answered so before, or is asked after it."""
        letter = step.decided[0] if step.decided else ""
        claimed = self.claimed.get(self.rows[letter]) if letter else None
        report = appendix_d.report(step.message, str(self.order.pk), self.at.next_sequence)
        ids = {appendix_d.request_id(str(self.order.pk), name): str(id_) for name, id_ in self.rows.items()}
        report = replace(report, client_order_id=ids.get(report.client_order_id, report.client_order_id))
        refused = "refused" in step.message
        if claimed and self.answers == "decided":
            done = Done(
                venue_order_id=report.venue_order_id,
                quantity=report.quantity or None,
                cumulative_quantity=step.cumulative,
            )
            self.answer(claimed, RequestRefused("too_late") if refused else done)
        self.at = ingest([report], self.at, lease=LEASE)
        if claimed and self.answers == "nothing" and refused:
            assert OrderRequest.objects.get(pk=claimed.id).status in OPEN, "it may have been done before"
            self.look_up(step)

    def look_up(self, step: Step) -> None:
        OrderRequest.objects.filter(status__in=OPEN).update(look_up_at=PAST, settled_at=PAST)
        said = Report(
            client_order_id=str(self.order.pk),
            status=AT_VENUE[step.status],
            venue_order_id=Order.objects.get(pk=self.order.pk).venue_order_id,
            quantity=step.cumulative + step.leaves,
            cumulative_quantity=step.cumulative,
        )
        due = requests.claim_lookups("XSIM", limit=9, seconds=1.0)
        deciding.record_look_ups("XSIM", due, {self.order.pk: said}, CAPABILITIES, actor="system:reconciliation")

    def shown(self, step: Step) -> Step:
        row = Order.objects.get(pk=self.order.pk)
        return replace(step, status=row.status, cumulative=row.filled_quantity, leaves=leaves_quantity(row))

    def decided(self) -> dict[str, str]:
        statuses = dict(OrderRequest.objects.exclude(status__in=OPEN).values_list("id", "status"))
        return {letter: statuses[id_] for letter, id_ in self.rows.items() if id_ in statuses}


@pytest.mark.parametrize("answers", mostly_exhaustive(["taken", "decided", "nothing"], "nothing"))
@pytest.mark.parametrize("scenario", ASKING, ids=lambda scenario: scenario.name)
def test_a_request_ends_as_the_table_of_the_appendix_says(scenario: Scenario, answers: str) -> None:
    VenueFactory()
    play = Play(scenario, answers)
    expected: dict[str, str] = {}
    for step, (shown, decided) in zip(scenario.steps, play.run(), strict=False):
        expected |= dict([step.decided]) if step.decided else {}
        assert (shown, decided) == (step, expected)
    assert not UnmatchedReport.objects.exists()
    assert OrderEvent.objects.filter(order=play.order).count() == Order.objects.get(pk=play.order.pk).version
    assert set(OrderRequest.objects.values_list("status", flat=True)) <= {"accepted", "refused"}


def test_most_scenarios_of_the_appendix_ask_for_something() -> None:
    assert len(ASKING) == 27
