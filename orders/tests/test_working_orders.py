"""Comparing the orders that work with their venue, at a real exchange whose reports were not read."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db.models import F
from django.utils import timezone

from exchanges.adapters.simulator import SimulatorVenue
from exchanges.leases import Checkpoint, LeaseLost
from exchanges.models import ReportSession, UnmatchedReport
from exchanges.tests.running import RunningExchange, call, running_exchange
from exchanges.venue import ExecutionReport, ReportKind
from orders import lifecycle, reconciliation, working
from orders.engine import DatabaseThread
from orders.lifecycle import Event, Step
from orders.models import Execution, Order, OrderEvent, Position
from orders.reports import ACTOR, NO_ORDER, _as_report, apply_kept, ingest, repair
from orders.tests.factories import OrderFactory, VenueFactory
from orders.tests.test_reports import fill, said, session, told
from orders.working import Watch

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = 5.0
TERMS = {"instrument": "US0378331005", "side": "buy", "quantity": 100, "limit_price": "10.25"}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    with running_exchange(tmp_path_factory.mktemp("exchange")) as running:
        yield running


@pytest.fixture
def exchange(market: RunningExchange) -> RunningExchange:
    """The exchange, with nothing at work."""
    for order in market.admin("GET", "/orders?open=1")[1]["orders"]:
        ask(market, order["client_order_id"], "cancel")
    VenueFactory(settings={"url": market.url, "settle_seconds": 0.000_001})
    return market


def ask(exchange: RunningExchange, order_id: object, verb: str, **terms: Any) -> None:
    answer = call(exchange.url, "POST", f"/orders/{order_id}/{verb}", {"request_id": str(uuid4()), **terms})
    assert answer[0] == 200, answer


def at_work(exchange: RunningExchange, **given: Any) -> Order:
    """An order that works here and at the exchange."""
    order = OrderFactory(status="submitting")
    status, content = exchange.place(client_order_id=str(order.pk), **TERMS | given)
    assert status == 201, content
    acknowledge(order, content["venue_order_id"])
    return row(order)


def acknowledge(order: Order, venue_order_id: str) -> None:
    step = Step(order_id=order.pk, event=Event.ACKNOWLEDGED, venue_order_id=venue_order_id)
    assert lifecycle.advance([step], actor="system:test").moved


def take_from(exchange: RunningExchange, quantity: int) -> None:
    """Somebody else sells this much."""
    status, _ = exchange.place(client_order_id=str(uuid4()), **TERMS | {"side": "sell", "quantity": quantity})
    assert status == 201


def row(order: Order) -> Order:
    return Order.objects.get(pk=order.pk)


def read_so_far(exchange: RunningExchange, *, short_by: int = 0) -> Checkpoint:
    """A session that has read the stream to its end, as it believes."""
    page = exchange.admin("GET", "/reports?limit=1")[1]
    given = {"token": uuid4(), "holder": "node-1", "lease_expires_at": timezone.now()}
    next_sequence = page["last"] + 1 - short_by
    at, _ = ReportSession.objects.update_or_create(
        venue_id="XSIM", stream=page["stream"], defaults={**given, "next_sequence": next_sequence}
    )
    return Checkpoint("XSIM", at.stream, at.token, next_sequence)


def compare(exchange: RunningExchange, at: Checkpoint, venue: SimulatorVenue | None = None, **options: Any) -> int:
    async def run() -> int:
        asked = venue or SimulatorVenue({"url": exchange.url})
        database = DatabaseThread("test")
        try:
            watch = Watch("XSIM", asked, lambda: at, database, LEASE)
            return await watch.compare(**{"everything": True, **options})
        finally:
            await asked.close()
            await database.close()

    return asyncio.run(run())


def events(order: Order) -> list[tuple[str, str, str]]:
    columns = ("event", "to_status", "actor")
    return list(OrderEvent.objects.filter(order=order, actor=ACTOR).order_by("sequence").values_list(*columns))


# ---- What is repaired ----


def test_executions_and_the_end_of_an_order_are_repaired_by_reports(exchange: RunningExchange) -> None:
    order = at_work(exchange)
    take_from(exchange, 40)
    ask(exchange, order.pk, "cancel")

    assert compare(exchange, read_so_far(exchange)) == 2

    assert told(order) == ("canceled", 40, Decimal("410"))
    assert events(order) == [("executed", "partially_filled", ACTOR), ("canceled_at_venue", "canceled", ACTOR)]
    executed = Execution.objects.get()
    assert executed.execution_id.endswith(f"-e{executed.venue_sequence}")
    assert Position.objects.get().bought_quantity == 40
    assert compare(exchange, read_so_far(exchange)) == 0


def test_terms_that_the_venue_has_changed_are_taken_over(exchange: RunningExchange) -> None:
    order = at_work(exchange)
    ask(exchange, order.pk, "replace", quantity=70)
    compare(exchange, read_so_far(exchange))
    assert (row(order).quantity, row(order).status) == (70, "placed")
    assert events(order) == [("restated", "placed", ACTOR)]


def test_what_agrees_is_left_alone(exchange: RunningExchange) -> None:
    order = at_work(exchange)
    assert compare(exchange, read_so_far(exchange)) == 0
    assert row(order).version == order.version


def test_a_report_that_may_be_on_its_way_is_waited_for(
    exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "CATCH_UP_SECONDS", 0.2)
    order = at_work(exchange)
    take_from(exchange, 100)
    assert compare(exchange, read_so_far(exchange, short_by=1)) == 0
    assert told(order)[:2] == ("placed", 0)


def test_orders_with_recent_news_are_not_compared_every_minute(exchange: RunningExchange) -> None:
    order = at_work(exchange)
    take_from(exchange, 100)
    at = read_so_far(exchange)
    assert compare(exchange, at, everything=False, quiet_seconds=60.0) == 0
    Order.objects.filter(pk=order.pk).update(updated_at=F("updated_at") - timedelta(seconds=61))
    assert compare(exchange, at, everything=False, quiet_seconds=60.0) == 1
    assert told(order)[:2] == ("filled", 100)


def test_all_orders_are_compared_window_by_window(exchange: RunningExchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "WINDOW", 2)
    orders = [at_work(exchange) for _ in range(5)]
    for order in orders:
        ask(exchange, order.pk, "cancel")
    compare(exchange, read_so_far(exchange))
    assert [row(order).status for order in orders] == ["canceled"] * 5


# ---- What is not: people are told ----


def test_an_order_does_not_end_before_all_its_executions_are_known(
    exchange: RunningExchange, caplog: pytest.LogCaptureFixture
) -> None:
    class Forgetful(SimulatorVenue):
        async def executions(self, stream: str, after: int) -> AsyncIterator[Sequence[ExecutionReport]]:
            yield []

    order = at_work(exchange)
    take_from(exchange, 40)
    ask(exchange, order.pk, "cancel")
    with caplog.at_level(logging.ERROR):
        assert compare(exchange, read_so_far(exchange), Forgetful({"url": exchange.url})) == 0
    assert told(order)[:2] == ("placed", 0)
    assert [vars(record)["event"] for record in caplog.records] == ["order.executions_differ"]


def test_an_order_that_its_venue_does_not_know_is_told_and_left(
    exchange: RunningExchange, caplog: pytest.LogCaptureFixture
) -> None:
    order = OrderFactory(status="placed")
    with caplog.at_level(logging.ERROR):
        assert compare(exchange, read_so_far(exchange)) == 0
    assert row(order).status == "placed"
    assert [vars(record)["event"] for record in caplog.records] == ["order.unknown_at_venue"]


def test_an_order_that_ended_here_and_works_at_its_venue_is_told(
    exchange: RunningExchange, caplog: pytest.LogCaptureFixture
) -> None:
    order = at_work(exchange)
    at = read_so_far(exchange)
    at = ingest([said(order, ReportKind.CANCELED, at.next_sequence)], at, lease=LEASE)
    with caplog.at_level(logging.ERROR):
        assert compare(exchange, at) == 0
    assert row(order).status == "canceled"
    assert [vars(record)["event"] for record in caplog.records] == ["order.works_at_venue"]


# ---- The writing of a repair ----


def test_a_repair_leaves_alone_what_has_had_news_meanwhile() -> None:
    at, order = session(), OrderFactory(status="placed")
    found = said(order, ReportKind.CANCELED, -1)
    assert repair([found], at, versions={order.pk: order.version - 1}, lease=LEASE) == 0
    assert told(order)[0] == "placed"
    assert repair([found], at, versions={order.pk: order.version}, lease=LEASE) == 1
    assert told(order)[0] == "canceled"
    assert ReportSession.objects.get().next_sequence == at.next_sequence


def test_a_repair_is_written_by_the_holder_of_the_lease_alone() -> None:
    at, order = session(), OrderFactory(status="placed")
    ReportSession.objects.update(token=uuid4())
    with pytest.raises(LeaseLost):
        repair([said(order, ReportKind.CANCELED, -1)], at, versions={order.pk: order.version}, lease=LEASE)
    assert told(order)[0] == "placed"


def test_a_repair_does_not_count_an_execution_that_was_reported() -> None:
    at, order = session(), OrderFactory(status="placed")
    at = ingest([fill(order, 1, 40)], at, lease=LEASE)
    repair([fill(order, 1, 40)], at, versions={}, lease=LEASE)
    assert told(order)[:2] == ("partially_filled", 40)


# ---- Orders that a look-up finds ended ----


def test_an_unconfirmed_order_that_was_canceled_at_its_venue_is_canceled_here(exchange: RunningExchange) -> None:
    order = OrderFactory(status="unconfirmed")
    exchange.place(client_order_id=str(order.pk), **TERMS)
    ask(exchange, order.pk, "cancel")
    (outcome,) = reconciliation.reconcile_orders([order.pk], actor="operator:ann")
    assert (outcome.done, row(order).status) == (True, "canceled")
    last = OrderEvent.objects.filter(order=order).latest("sequence")
    assert (last.event, last.actor, last.from_status) == ("canceled_at_venue", "operator:ann", "unconfirmed")


def test_an_unconfirmed_order_that_executed_at_its_venue_gets_its_executions_and_nothing_invented(
    exchange: RunningExchange,
) -> None:
    order = OrderFactory(status="unconfirmed")
    exchange.place(client_order_id=str(order.pk), **TERMS)
    take_from(exchange, 40)
    ask(exchange, order.pk, "cancel")
    reconciliation.reconcile_orders([order.pk], actor="operator:ann")
    assert told(order)[:2] == ("placed", 0)
    compare(exchange, read_so_far(exchange))
    assert told(order)[:2] == ("canceled", 40)


# ---- Reports that were kept ----


def unknown_to_us(at: Checkpoint, *given: ExecutionReport) -> Checkpoint:
    at = ingest(given, at, lease=LEASE)
    assert UnmatchedReport.objects.filter(reason=NO_ORDER).count() == len(given)
    return at


def by_the_venues_id(sequence: int, kind: ReportKind = ReportKind.EXECUTED, **more: Any) -> ExecutionReport:
    """A report that names its order by the venue's id alone."""
    given: dict[str, Any] = {"client_order_id": "telephone", "venue_order_id": "V-77", **more}
    if kind is ReportKind.EXECUTED:
        given |= {"execution_id": f"E{sequence}", "quantity": 40, "price": Decimal("10.25")}
    return ExecutionReport(sequence=sequence, kind=kind, at=timezone.now(), **given)


def test_a_report_that_was_kept_is_applied_when_its_order_becomes_known() -> None:
    order = OrderFactory(status="submitting")
    at = unknown_to_us(session(), by_the_venues_id(1), by_the_venues_id(2))
    assert apply_kept(at, lease=LEASE) == 0
    acknowledge(order, "V-77")

    assert apply_kept(at, lease=LEASE, seconds=600.0) == 2

    assert told(order) == ("partially_filled", 80, Decimal("820"))
    assert not UnmatchedReport.objects.exists()
    last = OrderEvent.objects.filter(order=order).latest("sequence")
    assert (last.actor, last.detail["stream"], last.detail["sequence"]) == ("venue:XSIM", "journal-1", 2)
    assert Execution.objects.count() == 2


def test_many_kept_reports_are_applied_by_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orders.lifecycle.KEPT_AT_ONCE", 2)
    order = OrderFactory(status="submitting")
    at = unknown_to_us(session(), *[by_the_venues_id(sequence) for sequence in range(1, 6)])
    acknowledge(order, "V-77")
    assert apply_kept(at, lease=LEASE) == 5
    assert told(order)[1] == 200


def test_reports_of_long_ago_are_tried_every_minute_only() -> None:
    order = OrderFactory(status="submitting")
    at = unknown_to_us(session(), by_the_venues_id(1))
    UnmatchedReport.objects.update(at=timezone.now() - timedelta(seconds=700))
    acknowledge(order, "V-77")
    assert apply_kept(at, lease=LEASE, seconds=600.0) == 0
    assert apply_kept(at, lease=LEASE) == 1


def test_terms_of_before_do_not_replace_those_of_now() -> None:
    order = OrderFactory(status="submitting")
    at = unknown_to_us(session(), by_the_venues_id(1, ReportKind.RESTATED, quantity=50))
    acknowledge(order, "V-77")
    at = ingest([said(row(order), ReportKind.RESTATED, 2, quantity=70)], at, lease=LEASE)
    assert apply_kept(at, lease=LEASE) == 0
    assert row(order).quantity == 70
    assert UnmatchedReport.objects.count() == 1


def test_a_kept_report_is_applied_by_the_holder_of_the_lease_alone() -> None:
    order = OrderFactory(status="submitting")
    at = unknown_to_us(session(), by_the_venues_id(1))
    acknowledge(order, "V-77")
    ReportSession.objects.update(token=uuid4())
    with pytest.raises(LeaseLost):
        apply_kept(at, lease=LEASE)
    assert (told(order)[1], UnmatchedReport.objects.count()) == (0, 1)


def test_a_kept_report_that_still_cannot_be_applied_says_why() -> None:
    order, other = OrderFactory(status="submitting"), OrderFactory(status="placed")
    at = unknown_to_us(session(), by_the_venues_id(1))
    at = ingest([fill(other, 2, 7, execution_id="E1")], at, lease=LEASE)
    acknowledge(order, "V-77")
    assert apply_kept(at, lease=LEASE) == 0
    assert UnmatchedReport.objects.get().reason == "Its execution_id was used before, for something else."
    assert told(order)[1] == 0


def test_a_report_is_read_back_as_it_was() -> None:
    whole = by_the_venues_id(1, cumulative_quantity=40, stop_price=Decimal("9.5"), expires_at=timezone.now())
    unknown_to_us(session(), whole)
    assert _as_report(UnmatchedReport.objects.get().report) == whole
