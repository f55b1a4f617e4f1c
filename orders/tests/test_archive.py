"""An order that was moved to the archive is found, told and corrected as before; nothing of it is lost or doubled."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.utils import Error
from django.utils import timezone
from rest_framework.test import APIClient

from exchanges.models import ReportSession, UnmatchedReport
from exchanges.venue import ExecutionReport, ReportKind
from orders import (
    amendments,
    archive,
    cancels,
    executions,
    feed,
    reconciliation,
    recording,
    reports,
    retention,
    selectors,
    services,
)
from orders.archive_models import ArchiveMonth, ClientKey
from orders.executions import Place
from orders.lifecycle import Event, Step
from orders.models import Order, OrderEvent, OrderRequest, Status, new_order_id
from orders.models import Position as PositionRow
from orders.reports import NO_ORDER, Checkpoint, ingest
from orders.requests import Changes
from orders.selectors import Position
from orders.tests.archiving import emptied_archive, move_all, rows, sides, soon
from orders.tests.factories import OrderFactory, UserFactory, report
from orders.webhook_models import WebhookDelivery, WebhookEndpoint
from quiktrade.database.statements import fetch

pytestmark = pytest.mark.django_db(transaction=True)
ORDERS = "/api/v1/orders"


@pytest.fixture(autouse=True)
def archived_of_a_test(transactional_db: None) -> Iterator[None]:
    with emptied_archive():
        yield


def filled(**given: Any) -> Order:
    return OrderFactory(status=Status.FILLED, **given)


def test_a_filled_order_moves_with_all_that_belongs_to_it() -> None:
    order = filled()
    working = OrderFactory(status=Status.PLACED)
    assert sides(order) == (1 + 4 + 1, 0)  # accepted, claimed, acknowledged, executed; one execution
    assert move_all() == (1, 4, 1, 0)
    assert sides(order) == (0, 6)
    assert sides(working) == (1 + 3, 0)


@pytest.mark.parametrize("status", [Status.FILLED, Status.CANCELED, Status.EXPIRED, Status.REJECTED])
def test_whatever_has_ended_moves(status: Status) -> None:
    order = OrderFactory(status=status)
    move_all()
    assert sides(order)[0] == 0


@pytest.mark.parametrize(
    "status",
    [Status.PENDING, Status.SUBMITTING, Status.UNCONFIRMED, Status.FAILED, Status.PLACED, Status.PARTIALLY_FILLED]
    + [Status.PENDING_CANCEL, Status.PENDING_REPLACE],
)
def test_whatever_has_not_ended_stays(status: Status) -> None:
    order = OrderFactory(status=status)
    move_all()
    assert sides(order)[1] == 0


def test_what_is_done_for_the_day_has_ended_if_it_is_of_one_day() -> None:
    day, gtc = (OrderFactory(status=Status.DONE_FOR_DAY, time_in_force=lasts) for lasts in ("day", "gtc"))
    move_all()
    assert (sides(day)[0], sides(gtc)[1]) == (0, 0)


def test_an_order_that_had_news_lately_stays() -> None:
    order = OrderFactory(status=Status.CANCELED)
    before = timezone.now() - timedelta(days=8)
    assert archive.candidates(UUID(int=0), before, limit=10) == []
    archive.make_partitions({archive.month_of(order.pk)})
    archive.keep_keys([order.pk])
    assert archive.move([order.pk], ended_before=before).orders == 0
    assert archive.move([order.pk], ended_before=soon()).orders == 1


def test_an_order_whose_key_was_not_kept_stays() -> None:
    order = filled()
    archive.make_partitions({archive.month_of(order.pk)})
    assert archive.move([order.pk], ended_before=soon()).orders == 0


def test_an_order_that_somebody_has_locked_is_left_for_later() -> None:
    order = filled()
    archive.make_partitions({archive.month_of(order.pk)})
    archive.keep_keys([order.pk])
    other = connection.copy()
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT id FROM orders_order WHERE id = %s FOR NO KEY UPDATE", [order.pk])
            with other.cursor() as theirs:
                theirs.execute("SELECT set_config('quiktrade.mover', 'on', false)")
                theirs.execute(archive._MOVE, {"ids": [order.pk], "ended_before": soon()})
                assert theirs.fetchone()[0] == 0
    finally:
        other.close()
    assert sides(order)[1] == 0


def test_an_order_whose_history_is_not_whole_stays() -> None:
    order = filled()
    Order.objects.filter(pk=order.pk).update(version=9)
    run = retention.move_orders(soon(), seconds=30.0)
    assert (run.moved.orders, run.left) == (0, 1)


def test_an_order_that_cannot_be_moved_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    one, two = filled(), filled()
    archive.make_partitions({archive.month_of(one.pk)})
    with connection.cursor() as cursor:  # as if it were in the archive already
        cursor.execute(f"INSERT INTO {archive.ORDER} SELECT * FROM orders_order WHERE id = %s", [one.pk])
    run = retention.move_orders(soon(), seconds=30.0)
    assert (run.moved.orders, run.left, sides(one), sides(two)[0]) == (1, 1, (6, 1), 0)
    (line,) = [record.__dict__ for record in caplog.records if record.__dict__.get("event") == "archive.not_moved"]
    assert (line["orders"], line["first_id"]) == (1, one.pk)


def test_a_batch_ends_where_its_orders_have_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = [filled() for _ in range(4)]  # with 4 events each
    ids = [order.pk for order in orders]
    for events, count in ((1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (99, 4)):
        assert archive.candidates(UUID(int=0), soon(), limit=10, events=events) == ids[:count]
    assert archive.candidates(UUID(int=0), soon(), limit=3) == ids[:3]
    monkeypatch.setattr(retention, "BATCH_EVENTS", 5)
    moved: list[int] = []
    retention.move_orders(soon(), seconds=30.0, progress=lambda run: moved.append(run.moved.orders))
    assert moved == [2, 4]


def test_an_order_that_takes_too_long_to_be_moved_is_left(
    slow_rows: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    orders = [filled(client_order_id=name) for name in ("a", "slow", "b")]
    run = retention.move_orders(soon(), seconds=30.0)
    assert (run.moved.orders, [sides(order)[1] for order in orders]) == (2, [6, 0, 6])
    told = [record.__dict__ for record in caplog.records if record.__dict__.get("event") == "archive.takes_too_long"]
    assert [line["order_id"] for line in told] == [orders[1].pk]
    assert retention.move_orders(soon(), seconds=30.0).left == 1  # alone


@pytest.fixture
def slow_rows() -> Iterator[None]:
    """The deletion of an order called so ends as a statement ends that takes too long."""
    with connection.cursor() as cursor:
        cursor.execute("""CREATE FUNCTION take_too_long() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = '57014'; END $$""")
        cursor.execute("""CREATE TRIGGER slow BEFORE DELETE ON orders_order FOR EACH ROW
            WHEN (OLD.client_order_id = 'slow') EXECUTE FUNCTION take_too_long()""")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER slow ON orders_order")
        cursor.execute("DROP FUNCTION take_too_long()")


def test_an_order_with_a_request_that_is_not_decided_stays() -> None:
    order = filled()
    OrderRequest.objects.bulk_create(
        [
            OrderRequest(
                order=order, owner=order.owner, venue=order.venue, kind="cancel", status="unconfirmed",
                look_up_at=timezone.now(), actor="client:a",
            )
        ]
    )  # fmt: skip
    assert move_all().orders == 0
    OrderRequest.objects.update(status="moot", look_up_at=None, resolved_at=timezone.now())
    assert move_all() == (1, 4, 1, 1)


def test_an_order_of_which_a_webhook_has_yet_to_be_told_stays() -> None:
    order = filled()
    last = OrderEvent.objects.get(order=order, event="executed")
    endpoint = WebhookEndpoint.objects.create(
        owner=order.owner, url="https://example.com/", secret="x", cursor_stamp=last.stamp, cursor_id=last.pk - 1
    )
    assert move_all().orders == 0
    WebhookEndpoint.objects.update(cursor_id=last.pk)
    delivery = WebhookDelivery.objects.create(endpoint=endpoint, event=last, status="dead", ended_at=timezone.now())
    assert move_all().orders == 0
    delivery.delete()
    assert move_all().orders == 1


def test_the_archive_has_the_columns_of_the_tables_in_use() -> None:
    with connection.cursor() as cursor:
        for model, table in archive.TABLES.items():
            shapes = []
            for name in (model._meta.db_table, table):
                cursor.execute(
                    "SELECT column_name, data_type, character_maximum_length, numeric_precision, numeric_scale"
                    " FROM information_schema.columns WHERE table_name = %s ORDER BY 1",
                    [name],
                )
                shapes.append(cursor.fetchall())
            assert shapes[0] == shapes[1], f"a migration must change {table}, too"


# ---- Only the mover ----


@pytest.mark.parametrize("table", ["orders_orderevent", "orders_execution"])
def test_history_is_not_deleted_even_by_who_says_that_it_is_the_mover(table: str) -> None:
    filled()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL quiktrade.mover = 'on'")
        with pytest.raises(Error, match="append-only"), transaction.atomic():
            cursor.execute(f"DELETE FROM {table}")
    assert rows(table)


@pytest.mark.parametrize("table", archive.TABLES.values())
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET owner_id = owner_id"])
def test_nobody_else_changes_the_archive(table: str, statement: str) -> None:
    order = OrderFactory(status=Status.PLACED)
    amendments.request_cancel(order.pk, actor="client:a", reason="Not wanted.")
    cancel = Order.objects.get(pk=order.pk).open_cancel
    report(order.pk, "XSIM", ReportKind.EXECUTED, quantity=order.quantity, price=Decimal(1))
    report(order.pk, "XSIM", ReportKind.CANCEL_REFUSED, client_order_id=str(cancel))
    assert move_all().requests == 1
    with pytest.raises(Error, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement.format(table))


# ---- Repeats ----


def body(**given: Any) -> dict[str, Any]:
    return {
        "type": "limit",
        "side": "buy",
        "instrument": "US0378331005",
        "quantity": 100,
        "limit_price": "10.25",
    } | given


def test_a_repeat_of_an_archived_order_is_answered_with_that_order(alice: APIClient) -> None:
    first = alice.post(ORDERS, body(client_order_id="mine"), format="json")
    alice.post(f"{ORDERS}/{first.data['id']}/cancel", {}, format="json")
    assert move_all().orders == 1
    again = alice.post(ORDERS, body(client_order_id="mine"), format="json")
    assert (again.status_code, again.data["id"], again.data["status"]) == (200, first.data["id"], "canceled")
    other = alice.post(ORDERS, body(client_order_id="mine", quantity=7), format="json")
    assert (other.status_code, other.data["order_id"]) == (409, str(first.data["id"]))
    assert rows("orders_order") == 0


def test_another_clients_id_is_not_taken_by_it(alice: APIClient, bob: APIClient) -> None:
    first = alice.post(ORDERS, body(client_order_id="mine"), format="json")
    alice.post(f"{ORDERS}/{first.data['id']}/cancel", {}, format="json")
    move_all()
    assert bob.post(ORDERS, body(client_order_id="mine"), format="json").status_code == 201


def test_of_a_batch_the_new_ones_are_stored_and_the_archived_ones_are_answered(alice: APIClient) -> None:
    first = alice.post(ORDERS, body(client_order_id="old"), format="json")
    alice.post(f"{ORDERS}/{first.data['id']}/cancel", {}, format="json")
    move_all()
    both = {"orders": [body(client_order_id="old"), body(client_order_id="new")]}
    results = alice.post(f"{ORDERS}/batch", both, format="json").data["results"]
    assert [result["status"] for result in results] == [200, 201]
    assert results[0]["order"]["id"] == first.data["id"]


def replaced(order: Order) -> UUID:
    """The id of a replace of the order that its venue has done, after which it was filled."""
    asked = amendments.request_replace(
        order.pk, Changes(quantity=80), actor="client:a", reason="Less.", client_order_id="change-1"
    )
    report(order.pk, "XSIM", ReportKind.REPLACED, client_order_id=str(asked.request_id), quantity=80)
    report(order.pk, "XSIM", ReportKind.EXECUTED, quantity=80, price=Decimal("10.25"))
    return asked.request_id


def test_a_repeat_of_a_replace_of_an_archived_order_is_answered_with_that_one() -> None:
    order = OrderFactory(status=Status.PLACED)
    request_id = replaced(order)
    assert move_all() == (1, 6, 1, 1)
    given: dict[str, Any] = {"actor": "client:a", "reason": "Less."}
    again = amendments.request_replace(order.pk, Changes(quantity=80), client_order_id="change-1", **given)
    assert (again.request_id, again.replayed) == (request_id, True)
    with pytest.raises(amendments.RequestIdTaken):
        amendments.request_replace(order.pk, Changes(quantity=70), client_order_id="change-1", **given)
    with pytest.raises(amendments.CannotReplace, match="filled, which is final"):
        amendments.request_replace(order.pk, Changes(quantity=70), client_order_id="change-2", **given)


def test_a_repeat_of_a_replace_of_an_archived_order_is_never_a_429(alice: APIClient, settings: Any) -> None:
    order = OrderFactory(status=Status.PLACED, owner=User.objects.get(username="alice"))
    replaced(order)
    assert move_all().requests == 1
    settings.ORDER_RATE = 1
    alice.post(f"{ORDERS}/batch", {"orders": [body()] * 60}, format="json")  # nothing is left for a minute
    answers = [
        alice.post(
            f"{ORDERS}/{order.pk}/replace", {"quantity": 80, "client_order_id": own_id}, format="json"
        ).status_code
        for own_id in ("change-1", "change-2", "change-1")
    ]
    assert answers == [200, 429, 200]


def test_an_id_of_an_archived_request_is_not_taken_by_a_new_one() -> None:
    order = OrderFactory(status=Status.PLACED)
    replaced(order)
    move_all()
    others = [OrderFactory(status=Status.PLACED, owner=order.owner) for _ in range(2)]
    given: dict[str, Any] = {"actor": "client:a", "reason": "Less.", "client_order_id": "change-1"}
    with pytest.raises(amendments.RequestIdTaken):
        amendments.request_replace(others[0].pk, Changes(quantity=80), **given)
    with pytest.raises(amendments.RequestIdTaken):
        amendments.request_cancel(others[1].pk, **given)
    assert {Order.objects.get(pk=each.pk).status for each in others} == {Status.PLACED}


def test_an_order_whose_id_is_freed_while_it_is_submitted_is_stored(
    alice: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = User.objects.get(username="alice")
    ClientKey.objects.create(owner=owner, client_order_id="mine", of="order", order_id=new_order_id())
    look = selectors.submitted

    def freed(owner_id: int, ids: Sequence[str]) -> Any:
        ClientKey.objects.all().delete()
        return look(owner_id, ids)

    monkeypatch.setattr(selectors, "submitted", freed)
    answer = alice.post(ORDERS, body(client_order_id="mine"), format="json")
    assert (answer.status_code, Order.objects.get().pk) == (201, UUID(str(answer.data["id"])))


# ---- Late news ----


def late(order: Order, kind: ReportKind, **given: Any) -> None:
    """As the factory's report, of an order that may be archived."""
    at = checkpoint(order)
    named = {"client_order_id": str(order.pk), "venue_order_id": order.venue_order_id, "execution_id": ""}
    ingest([ExecutionReport(sequence=at.next_sequence, kind=kind, **{**named, **given})], at, lease=30.0)


def checkpoint(order: Order) -> Checkpoint:
    session = ReportSession.objects.get(venue_id=order.venue_id, stream="factory")
    return Checkpoint(order.venue_id, session.stream, session.token, session.next_sequence)


def held(order: Order) -> tuple[int, int, int]:
    position = PositionRow.objects.get(owner=order.owner)
    return int(position.bought_quantity), int(position.sold_quantity), int(position.realized)


def traded(order: Order) -> str:
    """The venue's id of what was executed of the order."""
    (trade,) = executions.page_of_executions(
        order.owner_id, {"order": order.pk}, after=None, newest_first=True, limit=9
    )
    return trade.execution_id


def test_a_bust_of_an_archived_execution_is_applied_to_its_order_and_position() -> None:
    order = filled()
    busted = traded(order)
    move_all()
    late(order, ReportKind.BUSTED, execution_id="bust-1", refers_to=busted)
    now = Order.objects.get(pk=order.pk)
    assert (now.status, now.filled_quantity, held(order)) == (Status.PLACED, 0, (0, 0, 0))
    assert sides(order) == (1 + 5 + 2, 0)
    assert not UnmatchedReport.objects.exists()


@pytest.mark.parametrize("named", ["client_order_id", "original_client_order_id", "venue_order_id"])
def test_a_late_execution_counts_whichever_id_names_the_archived_order(named: str) -> None:
    order = OrderFactory(status=Status.CANCELED)
    Order.objects.filter(pk=order.pk).update(venue_order_id="V-late")
    order.refresh_from_db()
    ReportSession.objects.create(
        venue_id="XSIM", stream="factory", token=order.pk, holder="f", lease_expires_at=timezone.now()
    )
    move_all()
    ids = {"client_order_id": "", "venue_order_id": "V-late"}
    late(
        order,
        ReportKind.EXECUTED,
        execution_id="late-1",
        quantity=40,
        price=Decimal(2),
        **{**ids, named: "V-late" if named == "venue_order_id" else str(order.pk)},
    )
    assert Order.objects.get(pk=order.pk).filled_quantity == 40
    assert held(order) == (40, 0, 0)


def test_a_late_execution_under_a_replace_of_an_archived_order_counts() -> None:
    order = OrderFactory(status=Status.PLACED)
    request_id = replaced(order)
    order.refresh_from_db()
    move_all()
    late(order, ReportKind.EXECUTED, client_order_id=str(request_id), execution_id="x", quantity=1, price=Decimal(2))
    assert Order.objects.get(pk=order.pk).filled_quantity == 81


def test_a_repeated_report_of_an_archived_execution_counts_once() -> None:
    order = filled()
    trade = traded(order)
    move_all()
    late(order, ReportKind.EXECUTED, execution_id=trade, quantity=100, price=Decimal("10.25"))
    assert (Order.objects.get(pk=order.pk).filled_quantity, held(order)) == (100, (100, 0, 0))
    assert move_all().orders == 1  # there was nothing new


def test_a_report_that_named_two_orders_before_one_was_archived_is_about_none() -> None:
    orders = [filled(venue_order_id="V-same"), OrderFactory(status=Status.PLACED, venue_order_id="V-same")]
    move_all()
    late(orders[0], ReportKind.EXECUTED, client_order_id="", execution_id="x", quantity=1, price=Decimal(1))
    assert UnmatchedReport.objects.get().reason == NO_ORDER
    assert Order.objects.get().filled_quantity == 0


def test_what_a_position_realized_is_computed_from_archived_executions_too() -> None:
    owner = UserFactory()
    prices = (("buy", "10"), ("buy", "20"), ("sell", "30"))
    orders = [
        OrderFactory(status=Status.PLACED, owner=owner, side=side, quantity=10, limit_price=Decimal(price))
        for side, price in prices
    ]
    for order, (_, price) in zip(orders, prices, strict=True):
        report(order.pk, "XSIM", ReportKind.EXECUTED, quantity=10, price=Decimal(price))
    assert held(orders[0]) == (20, 10, 150)  # 10 sold at 30, which cost 15 each
    first = traded(orders[0])
    move_all()
    late(orders[0], ReportKind.BUSTED, execution_id="bust", refers_to=first)
    assert held(orders[0]) == (10, 10, 100)  # bought at 20, sold at 30; nothing is held


def test_a_late_acknowledgement_of_an_archived_order_is_recorded() -> None:
    order = OrderFactory(status=Status.CANCELED)
    move_all()
    step = Step(order_id=order.pk, event=Event.ACKNOWLEDGED, venue_order_id="V-9")
    assert [moved.status for moved in recording.record_outcomes([step], actor="system:placement")] == ["placed"]
    assert sides(order) == (1 + 3, 0)


def test_an_order_that_came_back_goes_again_when_it_has_ended_again() -> None:
    order = filled()
    move_all()
    assert archive.bring_back([order.pk]) == (1, 4, 1, 0)
    assert archive.bring_back([order.pk]) == (0, 0, 0, 0)
    assert sides(order) == (6, 0)
    assert move_all() == (1, 4, 1, 0)
    assert ArchiveMonth.objects.get().orders == 1


def test_nothing_comes_back_from_a_month_that_is_being_dropped(caplog: pytest.LogCaptureFixture) -> None:
    order = filled()
    move_all()
    ArchiveMonth.objects.update(dropping_at=timezone.now())
    late(order, ReportKind.EXECUTED, execution_id="x", quantity=1, price=Decimal(1))
    assert UnmatchedReport.objects.get().reason == NO_ORDER
    assert "archive.not_brought_back" in {record.__dict__.get("event") for record in caplog.records}
    assert sides(order) == (0, 6)


def test_an_order_does_not_come_back_if_another_has_the_id_of_its_execution(caplog: pytest.LogCaptureFixture) -> None:
    order, other = filled(), OrderFactory(status=Status.PLACED)
    execution_id = traded(order)
    move_all()
    report(other.pk, "XSIM", ReportKind.EXECUTED, execution_id=execution_id, quantity=1, price=Decimal(1))
    late(order, ReportKind.BUSTED, execution_id="bust", refers_to=execution_id)
    assert UnmatchedReport.objects.get().report["execution_id"] == "bust"
    assert sides(order) == (0, 6)


def test_an_order_that_cannot_come_back_keeps_no_other_away() -> None:
    one, two = filled(), filled()
    other = OrderFactory(status=Status.PLACED)
    ids = [traded(one), traded(two)]
    move_all()
    report(other.pk, "XSIM", ReportKind.EXECUTED, execution_id=ids[0], quantity=1, price=Decimal(1))
    at = checkpoint(one)
    busts = [
        ExecutionReport(
            sequence=at.next_sequence + number, kind=ReportKind.BUSTED, client_order_id=str(order.pk),
            venue_order_id=order.venue_order_id, execution_id=f"bust-{number}", refers_to=ids[number],
        ) for number, order in enumerate((one, two))
    ]  # fmt: skip
    ingest(busts, at, lease=30.0)
    assert UnmatchedReport.objects.get().report["execution_id"] == "bust-0"
    assert (sides(one), held(two)) == ((0, 6), (0, 0, 0))


def test_a_report_that_was_kept_is_applied_when_its_archived_order_can_come_back() -> None:
    order = OrderFactory(status=Status.PLACED)
    request_id = replaced(order)
    order.refresh_from_db()
    move_all()
    ArchiveMonth.objects.update(dropping_at=timezone.now())
    for number, named in enumerate((order.pk, request_id, "")):
        late(order, ReportKind.EXECUTED, client_order_id=str(named), execution_id=f"{number}", quantity=1,
            price=Decimal(1))  # fmt: skip
    late(order, ReportKind.DONE_FOR_DAY)  # it was filled later
    ReportSession.objects.filter(venue_id="XSIM").update(next_sequence=999)
    assert reports.apply_kept(checkpoint(order), lease=30.0) == 0
    ArchiveMonth.objects.update(dropping_at=None)
    assert reports.apply_kept(checkpoint(order), lease=30.0, seconds=600.0) == 0  # that is asked once a second
    assert reports.apply_kept(checkpoint(order), lease=30.0) == 4
    assert Order.objects.get(pk=order.pk).filled_quantity == 83


def test_an_archived_order_does_not_come_back_for_a_report_that_did_not_fit_it() -> None:
    order = filled()
    move_all()
    ArchiveMonth.objects.update(dropping_at=timezone.now())
    late(order, ReportKind.EXECUTED, execution_id="x", quantity=1, price=Decimal(1))
    ArchiveMonth.objects.update(dropping_at=None)
    UnmatchedReport.objects.update(reason=f"{reports.DOES_NOT_FIT} filled.")
    assert reports.apply_kept(checkpoint(order), lease=30.0) == 0
    assert sides(order) == (0, 6)


# ---- Reading ----


def test_an_archived_order_is_read_as_before(alice: APIClient, bob: APIClient) -> None:
    order = filled(owner=User.objects.get(username="alice"))
    paths = [f"{ORDERS}/{order.pk}{rest}" for rest in ("", "/events", "/executions")]
    before = [alice.get(path).data for path in paths]
    move_all()
    assert [alice.get(path).data for path in paths] == before
    assert [bob.get(path).status_code for path in paths] == [404, 404, 404]


def test_cancel_and_replace_of_an_archived_order_are_refused_as_before(alice: APIClient) -> None:
    order = filled(owner=User.objects.get(username="alice"))
    asked = [("cancel", {}), ("replace", {"quantity": 200})]

    def answers() -> list[tuple[int, str]]:
        told = [alice.post(f"{ORDERS}/{order.pk}/{verb}", what, format="json") for verb, what in asked]
        return [(answer.status_code, answer.data["detail"]) for answer in told]

    before = answers()
    move_all()
    assert answers() == before == [(409, "It is filled, which is final.")] * 2


@pytest.mark.parametrize(("verb", "what", "last"), [("cancel", {}, "request_cancels"),
    ("replace", {"quantity": 200}, "_replay_archived")])  # fmt: skip
def test_an_order_that_is_removed_while_something_is_asked_of_it_is_not_found(
    alice: APIClient, monkeypatch: pytest.MonkeyPatch, verb: str, what: dict[str, Any], last: str
) -> None:
    order = filled(owner=User.objects.get(username="alice"))
    move_all()
    act = getattr(amendments, last)

    def after_removal(*args: Any, **given: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(archive.TABLES.values())}")
        return act(*args, **given)

    monkeypatch.setattr(amendments, last, after_removal)
    answer = alice.post(f"{ORDERS}/{order.pk}/{verb}", what, format="json")
    assert (answer.status_code, answer.data["detail"]) == (404, "You have no such order.")


def test_operators_are_told_why_an_archived_order_is_left_alone() -> None:
    order = filled()
    move_all()
    given = {"actor": "operator:olga", "reason": "A try."}
    results = [
        *services.requeue_orders([order.pk], **given),
        *services.cancel_orders([order.pk], **given),
        *cancels.cancel_anywhere([order.pk], **given),
        *reconciliation.reconcile_orders([order.pk], actor="operator:olga"),
        reconciliation.mark_not_placed(order.pk, **given),
    ]
    assert {result.explanation for result in results} == {
        "It is filled, which is final.",
        "It is filled, not unconfirmed.",
    }


ALL: dict[str, Any] = {"after": None, "newest_first": True, "limit": 100}


def walk(owner_id: int, *, newest_first: bool, size: int, **filters: Any) -> list[UUID]:
    """The ids of all orders, page after page."""
    found: list[UUID] = []
    after = None
    while True:
        page = selectors.page_of_orders(owner_id, filters, after=after, newest_first=newest_first, limit=size)
        if not page:
            return found
        found += [order.id for order in page]
        after = Position(page[-1].created_at, page[-1].id)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pages_have_each_order_once_in_use_or_archived(newest_first: bool, size: int) -> None:
    owner = UserFactory()
    statuses = [Status.PLACED, Status.FILLED, Status.FILLED, Status.PLACED, Status.FILLED, Status.PLACED]
    orders = [OrderFactory(owner=owner, status=status) for status in statuses]
    ids = [order.pk for order in orders]
    assert move_all().orders == 3
    expected = list(reversed(ids)) if newest_first else ids
    assert walk(owner.pk, newest_first=newest_first, size=size) == expected
    of_some = [order.pk for order in orders if order.status == Status.FILLED]
    assert sorted(walk(owner.pk, newest_first=newest_first, size=size, status=["filled"])) == sorted(of_some)


def test_a_list_of_open_orders_does_not_read_the_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    order = filled()
    move_all()
    working = OrderFactory(owner=order.owner, status=Status.PLACED)
    asked: list[str] = []

    def noted(statement: str, parameters: Any) -> list[Any]:
        asked.append(statement)
        return fetch(statement, parameters)

    monkeypatch.setattr(selectors, "fetch", noted)
    page = selectors.page_of_orders(order.owner_id, {"status": ["placed", "partially_filled"]}, **ALL)
    assert ([each.id for each in page], len(asked)) == ([working.pk], 1)
    assert archive.ORDER not in asked[0]
    page = selectors.page_of_orders(order.owner_id, {"status": ["placed", "filled"]}, **ALL)
    assert [each.id for each in page] == [working.pk, order.pk]


def test_an_archived_order_is_listed_by_its_own_id_and_by_that_of_a_request() -> None:
    order = OrderFactory(status=Status.PLACED, client_order_id="mine")
    replaced(order)
    move_all()
    for client_order_id in ("mine", "change-1"):
        page = selectors.page_of_orders(order.owner_id, {"client_order_id": client_order_id}, **ALL)
        assert [each.id for each in page] == [order.pk]


def test_a_page_that_needs_nothing_of_the_archive_is_one_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    order = filled()
    move_all()
    newer = [OrderFactory(owner=order.owner) for _ in range(3)]
    asked: list[str] = []

    def counted(statement: str, parameters: Any) -> list[Any]:
        asked.append(statement)
        return fetch(statement, parameters)

    monkeypatch.setattr(selectors, "fetch", counted)
    page = selectors.page_of_orders(order.owner_id, {}, after=None, newest_first=True, limit=2)
    assert ([each.id for each in page], len(asked)) == ([newer[2].pk, newer[1].pk], 1)
    assert (selectors.page_of_orders(UserFactory().pk, {}, **ALL), len(asked)) == ([], 2)
    monkeypatch.setattr(archive, "newest_order_at", None)  # what is of the last days is not even asked for
    monkeypatch.setattr(archive, "LEAST_AGE", timedelta(days=7))
    assert len(selectors.page_of_orders(order.owner_id, {}, after=None, newest_first=True, limit=2)) == 2
    assert selectors.page_of_orders(order.owner_id, {"created_from": order.created_at}, **ALL)


def test_executions_are_listed_in_use_or_archived() -> None:
    owner = UserFactory()
    old, new = filled(owner=owner), filled(owner=owner)
    Order.objects.filter(pk=new.pk).update(version=9)  # so that it stays
    before = executions.page_of_executions(owner.pk, {}, **ALL)
    assert [trade.order_id for trade in before] == [new.pk, old.pk]
    move_all()
    assert executions.page_of_executions(owner.pk, {}, **ALL) == before
    newest = executions.page_of_executions(owner.pk, {}, after=None, newest_first=True, limit=1)
    place = Place(newest[0].executed_at, newest[0].id)
    assert executions.page_of_executions(owner.pk, {}, **{**ALL, "after": place}) == before[1:]
    assert executions.page_of_executions(owner.pk, {"order": old.pk}, **ALL) == before[1:]


def test_a_client_that_missed_archived_events_is_told_that_it_lost_them() -> None:
    owner = UserFactory()
    start = feed.horizon().cursor
    filled(owner=owner)
    last = feed.resume(start, feed.horizon(), owner_id=owner.pk, limit=100)[-1]
    move_all()
    OrderFactory(owner=owner)
    read = feed.resume(feed.cursor_of(last, start.cluster), feed.horizon(), owner_id=owner.pk, limit=100)
    assert [event.event for event in read] == ["accepted"]
    with pytest.raises(feed.Lost, match="more than 7 days ago"):
        feed.resume(start, feed.horizon(), owner_id=owner.pk, limit=100)
