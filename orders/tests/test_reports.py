"""Ingesting a venue's reports: what the fold says of them is what the rows say, however they are cut into batches."""

import logging
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.db.models import F, Sum
from django.utils import timezone

from exchanges import registry
from exchanges.models import ReportSession, UnmatchedReport, Venue
from exchanges.venue import ExecutionReport, ReportKind, ResendSafety
from orders import amendments, lifecycle, reports, requests, selectors
from orders.facts import Facts, fold, standing
from orders.lifecycle import Event, Step
from orders.models import AT_VENUE, Execution, Order, OrderEvent, OrderRequest, Position
from orders.reports import Checkpoint, LeaseLost, ingest
from orders.requests import Changes
from orders.tests import appendix_d
from orders.tests.appendix_d import QUANTITY, SCENARIOS, Scenario
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from orders.tests.scripted_venue import Book, ScriptedVenue

pytestmark = pytest.mark.django_db

LEASE = 5.0


def session(venue: str = "XSIM") -> Checkpoint:
    VenueFactory(code=venue)
    row = ReportSession.objects.create(
        venue_id=venue, stream="journal-1", token=uuid4(), holder="node-1", lease_expires_at=timezone.now()
    )
    return Checkpoint(venue, row.stream, row.token, 1)


def said(order: Order, kind: ReportKind, sequence: int, **more: Any) -> ExecutionReport:
    more = {"client_order_id": str(order.pk), "venue_order_id": order.venue_order_id or f"V{sequence}", **more}
    return ExecutionReport(sequence=sequence, kind=kind, **more)


def fill(order: Order, sequence: int, quantity: int, price: str = "10.25", **more: Any) -> ExecutionReport:
    given = {"execution_id": f"E{sequence}", "quantity": quantity, "price": Decimal(price), **more}
    return said(order, ReportKind.EXECUTED, sequence, **given)


def told(order: Order) -> tuple[str, int, Decimal]:
    row = Order.objects.get(pk=order.pk)
    return row.status, row.filled_quantity, row.filled_value


def history(order: Order) -> list[tuple[str, str, str]]:
    return list(selectors.history(order.pk).values_list("event", "from_status", "to_status"))


# ---- The scenarios, through SQL ----


def leaves(row: Order) -> int:
    multi_day = row.time_in_force == "gtc"
    return Facts(row.quantity, multi_day=multi_day, ended=row.ended, filled=row.filled_quantity).leaves


def ask(order_id: UUID, verb: str, request_id: str) -> None:
    """As the service will that takes requests. Before the order is at the venue the request waits on its row."""
    event = Event.CANCEL_ASKED if verb == "cancel" else Event.REPLACE_ASKED
    step = Step(order_id=order_id, event=event, request_id=UUID(request_id))
    if Order.objects.get(pk=order_id).status in AT_VENUE:
        assert lifecycle.advance([step], actor="client:alice").moved
    else:
        Order.objects.filter(pk=order_id).update(**{f"open_{verb}": request_id})


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_of_the_appendix_leaves_the_row_that_its_table_says(scenario: Scenario) -> None:
    at, got = session(), []
    order = OrderFactory(status="submitting", quantity=QUANTITY, time_in_force=scenario.time_in_force)
    for step in scenario.steps:
        if request := appendix_d.asked(step.message, str(order.pk)):
            ask(order.pk, *request)
        else:
            at = ingest([appendix_d.report(step.message, str(order.pk), at.next_sequence)], at, lease=LEASE)
        row = Order.objects.get(pk=order.pk)
        average = row.filled_value / row.filled_quantity if step.average_price is not None else None
        got.append(replace(step, status=row.status, cumulative=row.filled_quantity, leaves=leaves(row)))
        assert average == step.average_price
    assert got == list(scenario.steps)
    assert not UnmatchedReport.objects.exists()
    assert OrderEvent.objects.filter(order=order).count() == Order.objects.get(pk=order.pk).version


# ---- SQL against the fold, in batches of 1 to 250 ----


def market(seed: int, orders: Sequence[Order]) -> list[ExecutionReport]:
    """What a venue says of many orders at once: executions, busts and corrections of them, answers, ends; some
    executions twice or early."""
    chance = random.Random(seed)
    lives = []
    for order in orders:
        life, left = [said(order, ReportKind.ACKNOWLEDGED, 0)], order.quantity
        while left > 0 and chance.random() < 0.8:
            quantity, name = chance.randint(1, left), f"{order.pk}/{len(life)}"
            left -= quantity
            life.append(fill(order, 0, quantity, f"{chance.randint(1, 99)}.5", execution_id=name))
            if chance.random() < 0.2:
                corrected = {"quantity": chance.randint(1, 9), "price": Decimal("1.00000001")}
                life.append(said(order, ReportKind.CORRECTED, 0, execution_id=f"{name}c", refers_to=name, **corrected))
                name += "c"
            if chance.random() < 0.2:
                life.append(said(order, ReportKind.BUSTED, 0, execution_id=f"{name}b", refers_to=name))
        answer = {"client_order_id": str(order.open_replace), "original_client_order_id": str(order.pk)}
        if order.open_replace and chance.random() < 0.8:
            kind = chance.choice((ReportKind.REPLACED, ReportKind.REPLACE_REFUSED))
            life.insert(chance.randint(1, len(life)), said(order, kind, 0, quantity=chance.randint(1, 200), **answer))
        kinds = (ReportKind.CANCELED, ReportKind.EXPIRED, ReportKind.DONE_FOR_DAY, ReportKind.RESTATED, None)
        if end := chance.choice(kinds):
            life.append(said(order, end, 0))
        for report in chance.choices([report for report in life if report.execution_id] or life[:1], k=2):
            life.insert(chance.randint(0, len(life)), report)  # once more, or too early
        lives.append(life)
    told: list[ExecutionReport] = []
    while lives:
        life = chance.choice(lives)
        told.append(replace(life.pop(0), sequence=len(told) + 1))
        lives = [life for life in lives if life]
    return told


def check_against_the_fold(seed: int, count: int) -> None:
    chance, owner = random.Random(seed), UserFactory()
    at = session()
    orders = [
        OrderFactory(owner=owner, status="placed", side=side, time_in_force=tif)
        for side, tif in zip(
            chance.choices(("buy", "sell"), k=count), chance.choices(("day", "gtc"), k=count), strict=True
        )
    ]
    for order in orders[::3]:
        ask(order.pk, "replace", str(uuid4()))
    orders = list(Order.objects.filter(pk__in=[order.pk for order in orders]))
    batch = market(seed, orders)
    expected = {}
    for order in orders:
        facts = Facts(
            order.quantity, order.time_in_force == "gtc", at_venue=True, open_replace=str(order.open_replace or "")
        )
        for report in batch:
            if str(order.pk) in (report.client_order_id, report.original_client_order_id):
                facts = fold(facts, report) or facts
        expected[order.pk] = (standing(facts), facts.quantity, facts.filled, facts.value, facts.ended)

    begin = 0
    while begin < len(batch):
        end = begin + chance.choice((1, 2, 7, 25, 250))
        at = ingest(batch[begin:end], at, lease=LEASE)
        begin = end

    columns = ("status", "quantity", "filled_quantity", "filled_value", "ended")
    assert {pk: tuple(row) for pk, *row in Order.objects.values_list("pk", *columns)} == expected
    check_sums()


def check_sums() -> None:
    """What an order has executed is the sum of its executions that count, and a position that of its orders."""
    gone = set(Execution.objects.exclude(refers_to="").values_list("order", "refers_to"))
    for order in Order.objects.all():
        counting = [e for e in order.executions.exclude(kind="busted") if (order.pk, e.execution_id) not in gone]
        assert order.filled_quantity == sum(e.quantity for e in counting)
        assert order.filled_value == sum((e.quantity * e.price for e in counting if e.price), Decimal(0))
        assert [e.sequence for e in selectors.history(order.pk)] == list(range(1, order.version + 1))
    for side, name in (("buy", "bought"), ("sell", "sold")):
        of_orders = Order.objects.filter(side=side).aggregate(q=Sum("filled_quantity"), v=Sum("filled_value"))
        held = Position.objects.aggregate(q=Sum(f"{name}_quantity"), v=Sum(f"{name}_value"))
        assert (of_orders["q"] or 0, of_orders["v"] or 0) == (held["q"] or 0, held["v"] or 0)
    assert not Order.objects.filter(version__lt=F("attempt")).exists()


@pytest.mark.parametrize("seed", range(3))
def test_reports_in_batches_of_any_size_leave_what_the_fold_says(seed: int) -> None:
    check_against_the_fold(seed, 30)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_more_reports_leave_what_the_fold_says(seed: int) -> None:
    check_against_the_fold(seed, int(os.environ.get("QUIKTRADE_TEST_ORDERS", "100")))


# ---- The checkpoint ----


def test_a_batch_is_written_once_and_the_lease_renewed() -> None:
    at, order = session(), OrderFactory(status="placed")
    batch = [fill(order, 1, 40), fill(order, 2, 60)]

    after = ingest(batch, at, lease=LEASE)

    assert after == replace(at, next_sequence=3)
    assert ingest(batch, after, lease=LEASE) == after
    assert told(order) == ("filled", 100, Decimal("1025"))
    assert history(order)[-2:] == [
        ("executed", "placed", "partially_filled"),
        ("executed", "partially_filled", "filled"),
    ]
    row = ReportSession.objects.get()
    assert row.next_sequence == 3
    assert row.lease_expires_at > timezone.now()


def test_an_execution_that_is_reported_again_counts_once() -> None:
    at, order = session(), OrderFactory(status="placed")
    at = ingest([fill(order, 1, 40, execution_id="E")], at, lease=LEASE)
    ingest([fill(order, 2, 40, execution_id="E")], at, lease=LEASE)
    assert told(order) == ("partially_filled", 40, Decimal(410))
    assert not UnmatchedReport.objects.exists()


@pytest.mark.parametrize("lost", [{"token": uuid4()}, {"next_sequence": 2}, {"stream": "journal-2"}])
def test_who_lost_the_stream_writes_nothing(lost: dict[str, Any]) -> None:
    at, order = session(), OrderFactory(status="placed")
    ReportSession.objects.update(**lost)
    with pytest.raises(LeaseLost):
        ingest([fill(order, 1, 40)], at, lease=LEASE)
    assert told(order) == ("placed", 0, Decimal(0))
    assert not Execution.objects.exists()


def test_a_missing_report_is_not_passed_over() -> None:
    at, order = session(), OrderFactory(status="placed")
    with pytest.raises(ValueError, match="the reports 1 to 3 some are missing"):
        ingest([fill(order, 1, 40), fill(order, 3, 60)], at, lease=LEASE)
    assert told(order) == ("placed", 0, Decimal(0))


# ---- Which order a report is about ----


@pytest.mark.parametrize(
    "names",
    [
        {"client_order_id": str(uuid4()), "original_client_order_id": "{order}"},
        {"client_order_id": "telephone", "venue_order_id": "V-7"},
    ],
)
def test_an_order_is_found_by_the_id_that_was_replaced_and_by_the_venues_own(names: dict[str, str]) -> None:
    at, order = session(), OrderFactory(status="placed", venue_order_id="V-7")
    names = {name: text.format(order=order.pk) for name, text in names.items()}
    ingest([fill(order, 1, 40, **names)], at, lease=LEASE)
    assert told(order)[:2] == ("partially_filled", 40)


def test_a_report_about_no_order_of_ours_is_kept_and_the_others_are_written() -> None:
    at, order = session(), OrderFactory(status="placed")
    stranger = str(uuid4())

    ingest([fill(order, 1, 40, client_order_id=stranger, venue_order_id="?"), fill(order, 2, 60)], at, lease=LEASE)

    kept = UnmatchedReport.objects.get()
    assert (kept.sequence, kept.reason) == (1, "It is about no order of ours.")
    assert (kept.report["client_order_id"], kept.report["quantity"], kept.report["price"]) == (stranger, "40", "10.25")
    assert told(order)[:2] == ("partially_filled", 60)


def test_an_order_of_another_venue_is_not_touched() -> None:
    at, order = session(), OrderFactory(status="placed", venue=VenueFactory(code="XOTH"))
    ingest([fill(order, 1, 40)], at, lease=LEASE)
    assert told(order) == ("placed", 0, Decimal(0))
    assert UnmatchedReport.objects.get().reason == "It is about no order of ours."


# ---- Bad input ----


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"quantity": 0}, "Its quantity is 0; one from 1 to 1000000000000000 is required."),
        ({"quantity": 10**15 + 1}, "Its quantity is 1000000000000001; one from 1 to 1000000000000000 is required."),
        ({"price": Decimal("-1")}, "Its price is -1; one above 0 with at most 8 decimal places is required."),
        ({"price": None}, "Its price is None; one above 0 with at most 8 decimal places is required."),
        ({"price": Decimal("NaN")}, "Its price is NaN; one above 0 with at most 8 decimal places is required."),
        (
            {"price": Decimal("0.000000001")},
            "Its price is 1E-9; one above 0 with at most 8 decimal places is required.",
        ),
        ({"execution_id": ""}, "It has no execution_id."),
        ({"execution_id": "E\0"}, "Its execution_id is not of at most 64 printable characters."),
        ({"venue_order_id": ""}, "It has no venue_order_id."),
        ({"at": datetime(2026, 1, 1)}, "Its time has no time zone or is none that can be stored."),  # noqa: DTZ001
        ({"at": datetime(9999, 1, 1, tzinfo=UTC)}, "Its time has no time zone or is none that can be stored."),
        ({"kind": ReportKind.BUSTED}, "It does not say which execution it takes back or corrects."),
        (
            {"kind": ReportKind.REPLACED, "quantity": -1},
            "Its quantity is -1; one from 0 to 1000000000000000 is required.",
        ),
    ],
)
def test_an_unusable_report_is_kept_and_spoils_no_other(given: dict[str, Any], reason: str) -> None:
    at, order = session(), OrderFactory(status="placed")
    ingest([replace(fill(order, 1, 40), **given), fill(order, 2, 60)], at, lease=LEASE)
    assert [kept.reason for kept in UnmatchedReport.objects.all()] == [reason]
    assert told(order)[:2] == ("partially_filled", 60)


def test_a_report_that_cannot_be_written_is_kept_and_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    at, order, other = session(), OrderFactory(status="placed"), OrderFactory(status="placed")
    Order.objects.filter(pk=other.pk).update(filled_quantity=2**63 - 1)
    batch = [fill(order, 1, 10), fill(order, 2, 10), fill(other, 3, 10), fill(order, 4, 10)]

    after = ingest(batch, at, lease=LEASE)

    assert after.next_sequence == 5
    assert told(order)[:2] == ("partially_filled", 30)
    (kept,) = UnmatchedReport.objects.all()
    assert kept.sequence == 3
    assert kept.reason.startswith("It cannot be written: ")
    assert not other.executions.exists()


@pytest.mark.parametrize("given", [{"quantity": 41}, {"price": Decimal(11)}, {"client_order_id": "{other}"}])
def test_an_execution_id_that_is_used_again_for_something_else_is_kept(given: dict[str, Any]) -> None:
    at, order, other = session(), OrderFactory(status="placed"), OrderFactory(status="placed")
    given = {
        name: value.format(other=other.pk) if name == "client_order_id" else value for name, value in given.items()
    }
    at = ingest([fill(order, 1, 40)], at, lease=LEASE)

    ingest(
        [fill(order, 2, 40, execution_id="E1"), fill(order, 3, **{"quantity": 40, "execution_id": "E1", **given})],
        at,
        lease=LEASE,
    )

    kept = UnmatchedReport.objects.get()
    assert (kept.sequence, kept.reason) == (3, "Its execution_id was used before, for something else.")
    assert (told(order)[1], told(other)[1]) == (40, 0)


def test_a_report_that_does_not_fit_its_order_is_kept() -> None:
    at, order = session(), OrderFactory(status="pending")
    ingest([said(order, ReportKind.DONE_FOR_DAY, 1)], at, lease=LEASE)
    assert UnmatchedReport.objects.get().reason == "It does not fit an order that is pending."
    assert told(order)[0] == "pending"


def test_a_rejection_while_another_request_may_be_on_its_way_decides_nothing() -> None:
    at, order = session(), OrderFactory(status="unconfirmed")
    not_found = Step(order_id=order.pk, event=Event.NOT_FOUND, in_doubt=True)
    assert lifecycle.advance([not_found], actor="system:test").moved
    lifecycle.claim("XSIM", limit=1, in_flight=1, lease=30, actor="system:test")
    ingest([said(order, ReportKind.REJECTED, 1)], at, lease=LEASE)
    assert told(order)[0] == "submitting"
    assert "may still be on its way" in UnmatchedReport.objects.get().reason


def in_doubt(at: Checkpoint, *, remembers: bool = True) -> Order:
    """An unconfirmed order that was sent twice without an answer, at a venue that may forget whom it refused."""
    if not remembers:
        Venue.objects.filter(pk=at.venue).update(adapter="forgetful", settings={})
    order = OrderFactory(status="unconfirmed")
    take(order, Event.NOT_FOUND, in_doubt=True)
    take(order, Event.CLAIMED, delay=30.0)
    take(order, Event.OUTCOME_UNKNOWN, delay=30.0)
    return order


def take(order: Order, event: Event, **given: Any) -> None:
    assert lifecycle.advance([Step(order_id=order.pk, event=event, **given)], actor="system:test").moved


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(ResendSafety.REFUSES_DUPLICATES, forgets_rejections=True)
    monkeypatch.setitem(registry.ADAPTERS, "forgetful", lambda values: ScriptedVenue(book, values))


@pytest.mark.parametrize(("remembers", "status", "kept"), [(True, "rejected", 0), (False, "unconfirmed", 1)])
def test_a_reported_rejection_decides_an_order_in_doubt_as_a_look_up_would(
    forgetful: None, remembers: bool, status: str, kept: int
) -> None:
    at = session()
    order = in_doubt(at, remembers=remembers)
    at = ingest([said(order, ReportKind.REJECTED, 1)], at, lease=LEASE)
    assert (told(order)[0], UnmatchedReport.objects.count()) == (status, kept)
    take(order, Event.REJECTED_BY_VENUE) if kept else None  # by a look-up, or an attempt
    reports.apply_kept(at, lease=LEASE)
    assert (told(order)[0], UnmatchedReport.objects.count()) == ("rejected", 0)


def test_a_rejection_that_came_during_an_attempt_counts_after_it() -> None:
    at, order = session(), OrderFactory(status="unconfirmed")
    take(order, Event.NOT_FOUND, in_doubt=True)
    take(order, Event.CLAIMED, delay=30.0)
    at = ingest([said(order, ReportKind.REJECTED, 1)], at, lease=LEASE)
    assert reports.apply_kept(at, lease=LEASE) == 0
    take(order, Event.OUTCOME_UNKNOWN, delay=30.0)
    assert reports.apply_kept(at, lease=LEASE) == 1
    assert (told(order)[0], UnmatchedReport.objects.count()) == ("rejected", 0)


@pytest.mark.parametrize(("named", "status"), [("V-2", "placed"), ("V-1", "rejected")])
def test_the_rejection_of_one_copy_does_not_end_an_order_that_works_as_another(named: str, status: str) -> None:
    at = session()
    order = in_doubt(at)
    take(order, Event.ACKNOWLEDGED, venue_order_id="V-1")
    ingest([said(order, ReportKind.REJECTED, 1, venue_order_id=named)], at, lease=LEASE)
    assert (told(order)[0], UnmatchedReport.objects.count()) == (status, 0)


def test_a_rejection_that_was_kept_does_not_end_an_order_that_was_requeued(forgetful: None) -> None:
    at = session()
    order = in_doubt(at, remembers=False)
    at = ingest([said(order, ReportKind.REJECTED, 1)], at, lease=LEASE)
    for event, given in (
        (Event.MARKED_NOT_PLACED, {"reason": "Not on their screen."}),
        (Event.REQUEUED, {"reason": "Once more."}),
        (Event.CLAIMED, {"delay": 30.0}),
    ):
        take(order, event, **given)
    assert reports.apply_kept(at, lease=LEASE) == 0
    assert (told(order)[0], UnmatchedReport.objects.count()) == ("submitting", 1)


# ---- What happens to an order ----


def test_evidence_ends_an_attempt() -> None:
    at, order = session(), OrderFactory(status="submitting")
    ingest([fill(order, 1, 40, venue_order_id="V-1")], at, lease=LEASE)
    row = Order.objects.get(pk=order.pk)
    assert (row.status, row.venue_order_id) == ("partially_filled", "V-1")
    assert (row.lease_expires_at, row.next_attempt_at) == (None, None)
    assert row.placed_at is not None


def test_the_first_terms_are_kept_when_the_venue_changes_them() -> None:
    at, order = session(), OrderFactory(status="placed")
    for sequence, quantity in ((1, 90), (2, 80)):
        at = ingest([said(order, ReportKind.RESTATED, sequence, quantity=quantity)], at, lease=LEASE)
    row = Order.objects.get(pk=order.pk)
    assert row.quantity == 80
    assert row.original_terms == {
        "instrument": "US0378331005",
        "side": "buy",
        "type": "limit",
        "quantity": 100,
        "limit_price": "10.25000000",
        "stop_price": None,
        "time_in_force": "day",
        "expires_at": None,
    }


def test_a_late_answer_to_a_replace_sets_nothing_back() -> None:
    at, order, request = session(), OrderFactory(status="placed"), uuid4()
    ask(order.pk, "replace", str(request))
    names = {"client_order_id": str(request), "original_client_order_id": str(order.pk)}
    replaced = said(order, ReportKind.REPLACED, 1, quantity=50, **names)
    ingest([replaced, said(order, ReportKind.RESTATED, 2, quantity=40)], at, lease=LEASE)
    assert reports.apply_found([replace(replaced, sequence=-1)], "XSIM", actor="system:test") == set()
    assert Order.objects.get(pk=order.pk).quantity == 40


def test_the_streams_word_on_a_replace_counts_after_its_answer() -> None:
    at, order, request = session(), OrderFactory(status="placed"), uuid4()
    ask(order.pk, "replace", str(request))
    names = {"client_order_id": str(request), "original_client_order_id": str(order.pk)}
    answer = said(order, ReportKind.REPLACED, -1, quantity=50, **names)
    assert reports.apply_found([answer], "XSIM", actor="system:test") == {str(order.pk)}
    ingest([replace(answer, sequence=1, quantity=60)], at, lease=LEASE)  # amended to what was filled
    assert Order.objects.get(pk=order.pk).quantity == 60


def test_an_accepted_replace_is_what_the_next_request_refers_to() -> None:
    at, order, request = session(), OrderFactory(status="placed"), uuid4()
    ask(order.pk, "replace", str(request))
    answer = {"client_order_id": str(request), "original_client_order_id": str(order.pk), "venue_order_id": "V-new"}
    ingest([said(order, ReportKind.REPLACED, 1, quantity=50, **answer)], at, lease=LEASE)
    row = Order.objects.get(pk=order.pk)
    assert (row.status, row.quantity, row.current_id, row.venue_order_id) == ("placed", 50, request, "V-new")


@pytest.mark.parametrize("in_doubt", [False, True])
@pytest.mark.parametrize("kind", ["cancel", "replace"])
def test_a_reported_refusal_decides_a_request_of_which_no_attempt_is_in_doubt(kind: str, in_doubt: bool) -> None:
    at, order = session(), OrderFactory(status="placed")
    alice: dict[str, Any] = {"actor": "client:alice", "reason": "Not wanted."}
    if kind == "cancel":
        amendments.request_cancel(order.pk, **alice)
    else:
        amendments.request_replace(order.pk, Changes(quantity=70), **alice)
    (claimed,) = requests.claim("XSIM", kind, limit=9, in_flight=9, lease=30.0)
    OrderRequest.objects.update(status="unconfirmed", in_doubt=in_doubt, lease_expires_at=None)
    names = {"client_order_id": str(claimed.id), "original_client_order_id": str(order.pk), "text": "halted"}
    ingest([said(order, ReportKind(f"{kind}_refused"), 1, **names)], at, lease=LEASE)
    row = OrderRequest.objects.get()
    assert (row.status, row.code) == (("unconfirmed", "halted") if in_doubt else ("refused", ""))
    assert told(order)[0] == (f"pending_{kind}" if in_doubt else "placed")
    assert bool(requests.claim_lookups("XSIM", limit=9, seconds=1.0)) is in_doubt


def test_positions_add_up_by_owner_and_instrument() -> None:
    at, owner = session(), UserFactory()
    buy, sell = OrderFactory(owner=owner, status="placed"), OrderFactory(owner=owner, status="placed", side="sell")
    other = OrderFactory(status="placed")
    batch = [fill(buy, 1, 40, "10"), fill(sell, 2, 15, "11"), fill(other, 3, 7, "12"), fill(buy, 4, 2, "10.5")]
    at = ingest(batch, at, lease=LEASE)
    ingest([said(buy, ReportKind.BUSTED, 5, execution_id="X", refers_to="E1")], at, lease=LEASE)
    columns = ("bought_quantity", "bought_value", "sold_quantity", "sold_value")
    held = {row.owner_id: tuple(getattr(row, name) for name in columns) for row in Position.objects.all()}
    assert held == {owner.pk: (2, Decimal(21), 15, Decimal(165)), other.owner_id: (7, Decimal(84), 0, 0)}


@pytest.mark.parametrize(
    ("status", "event", "level"),
    [
        ("placed", "order.executed_above_quantity", logging.ERROR),
        ("canceled", "order.executed_after_end", logging.WARNING),
    ],
)
def test_an_execution_that_should_not_be_counts_and_is_told(
    status: str, event: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    at, order = session(), OrderFactory(status="placed")
    quantity = 101 if status == "placed" else 40
    if status == "canceled":
        at = ingest([said(order, ReportKind.CANCELED, 1)], at, lease=LEASE)
    ingest([fill(order, at.next_sequence, quantity)], at, lease=LEASE)
    assert told(order)[1] == quantity
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == event]
    assert (record.levelno, record.order_id) == (level, order.pk)  # type: ignore[attr-defined]


def test_a_report_under_another_id_of_the_venue_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    at, order = session(), OrderFactory(status="placed", venue_order_id="V-1")
    ingest([fill(order, 1, 40, venue_order_id="V-2")], at, lease=LEASE)
    assert told(order)[1] == 40
    assert [record.levelno for record in caplog.records if getattr(record, "event", "") == "order.two_at_venue"] == [
        logging.ERROR
    ]


def test_the_status_in_sql_is_that_of_the_facts() -> None:
    """One row for each combination of what a status depends on."""
    rows = [
        (quantity_filled, ended, cancel, replace_)
        for quantity_filled in (0, 40, 100, 140)
        for ended in ("", "done_for_day", "canceled", "expired", "rejected")
        for cancel in ("", str(uuid4()))
        for replace_ in ("", str(uuid4()))
    ]
    case = lifecycle._standing("o.ended", "o.open_cancel", "o.open_replace")
    columns = "(quantity bigint, filled_quantity bigint, ended text, open_cancel uuid, open_replace uuid)"
    with connection.cursor() as cursor:
        for filled, ended, cancel, replace_ in rows:
            given = lifecycle._document(
                [
                    {
                        "quantity": 100,
                        "filled_quantity": filled,
                        "ended": ended,
                        "open_cancel": cancel or None,
                        "open_replace": replace_ or None,
                    }
                ]
            )
            cursor.execute(f"SELECT {case} FROM json_to_recordset(%s::json) AS o {columns}", [given])
            facts = Facts(100, filled=filled, ended=ended, open_cancel=cancel, open_replace=replace_)
            assert cursor.fetchone() == (standing(facts).value,)


def test_every_kind_of_report_has_its_event() -> None:
    silent = {ReportKind.CANCEL_PENDING, ReportKind.REPLACE_PENDING, ReportKind.UNREADABLE}
    assert set(reports.EVENTS) == set(ReportKind) - silent
