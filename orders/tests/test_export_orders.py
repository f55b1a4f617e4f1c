"""The commands of the archive: what is moved, exported and dropped, and what is refused."""

import csv
import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from exchanges.models import ReportSession
from exchanges.venue import ExecutionReport, ReportKind
from orders import archive, exports, retention, tasks
from orders.archive_models import ArchiveMonth, ClientKey
from orders.models import Order, Position, Status
from orders.reports import Checkpoint, ingest
from orders.tests.archiving import emptied_archive, move_all, rows, sides, soon
from orders.tests.factories import OrderFactory, UserFactory, report
from orders.tests.test_move_orders import another_connection
from quiktrade.database.statements import fetch
from quiktrade.jobs import work
from quiktrade.tests.processes import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
NOW = f"{timezone.now():%Y-%m}"


@pytest.fixture(autouse=True)
def archived_of_a_test(transactional_db: None) -> Iterator[None]:
    with emptied_archive():
        yield


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def asked(*arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return answer


def month_of(order: Order) -> date:
    return archive.month_of(order.pk)


@pytest.fixture
def all_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a year had passed."""
    monkeypatch.setattr(retention, "now", lambda: timezone.now() + timedelta(days=365))


# ---- Moving ----


def test_move_orders_says_what_it_moved(all_are_old: None) -> None:
    order, working = OrderFactory(status=Status.FILLED), OrderFactory(status=Status.PLACED)
    told = asked("move_orders", "--keep-days", "30", "--dry-run")
    assert (told["orders"], told["months"]) == (1, {f"{month_of(order):%Y-%m}": 1})
    assert sides(order)[1] == 0
    told = asked("move_orders", "--keep-days", "30")
    assert [told[name] for name in ("orders", "events", "executions", "requests", "left")] == [1, 4, 1, 0, 0]
    assert (sides(order)[0], sides(working)[1]) == (0, 0)


def test_move_orders_leaves_what_is_not_old() -> None:
    order = OrderFactory(status=Status.FILLED)
    assert run("move_orders", "--keep-days", "8").startswith("Moved 0 orders, 0 events, 0 executions, 0 requests in")
    assert sides(order)[1] == 0


@pytest.mark.parametrize("days", ["7", "0", "-1"])
def test_move_orders_refuses_to_keep_less_than_clients_may_come_back_for(days: str) -> None:
    with pytest.raises(CommandError, match="--keep-days must be 8 or more"):
        run("move_orders", "--keep-days", days)


def test_move_orders_needs_to_know_what_is_old(settings: Any) -> None:
    settings.KEEP_DAYS = 0
    with pytest.raises(CommandError, match="QUIKTRADE_KEEP_DAYS"):
        run("move_orders")


def test_the_job_moves_what_is_old_where_an_archive_is_wanted(settings: Any, all_are_old: None) -> None:
    order = OrderFactory(status=Status.FILLED)
    settings.KEEP_DAYS = 0
    tasks.move_old_orders()
    assert sides(order)[1] == 0
    settings.KEEP_DAYS = 30
    tasks.move_old_orders()
    assert sides(order)[0] == 0


def test_the_job_gets_past_orders_that_must_stay(
    settings: Any, all_are_old: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.KEEP_DAYS = 30
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(tasks, "_moved_up_to", retention.BEGINNING)
    stay = [OrderFactory(status=Status.CANCELED) for _ in range(4)]
    Order.objects.update(version=9)
    last = OrderFactory(status=Status.CANCELED)
    stops = iter([False, True] * 3)  # each run looks at one batch
    monkeypatch.setattr(work, "stop_requested", lambda: next(stops))
    monkeypatch.setattr(retention, "_pause", lambda until, end, stopping: None)
    with caplog.at_level("INFO"):
        for _ in range(3):
            tasks.move_old_orders()
    assert ([sides(order)[1] for order in stay], sides(last)[0]) == ([0] * 4, 0)
    assert [
        record.__dict__["orders"] for record in caplog.records if record.__dict__.get("event") == "archive.left"
    ] == [2, 2]
    monkeypatch.setattr(work, "stop_requested", lambda: False)
    Order.objects.filter(pk=stay[0].pk).update(version=1 + 1)
    tasks.move_old_orders()  # it has come to the end
    tasks.move_old_orders()  # and begins again
    assert sides(stay[0])[0] == 0


def test_orders_that_stay_do_not_count_against_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = [OrderFactory(status=Status.CANCELED) for _ in range(3)]
    Order.objects.filter(pk__in=[orders[0].pk, orders[1].pk]).update(version=9)
    monkeypatch.setattr(retention, "BATCH", 2)
    waits: list[float] = []
    monkeypatch.setattr(retention, "_pause", lambda until, end, stopping: waits.append(until - time.monotonic()))
    retention.move_orders(soon(), seconds=60.0, rate=0.001)
    assert waits[0] < 0 < waits[1]


def test_a_rate_holds_the_mover_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        OrderFactory(status=Status.CANCELED)
    monkeypatch.setattr(retention, "BATCH", 2)
    waits: list[float] = []
    monkeypatch.setattr(retention, "_pause", lambda until, end, stopping: waits.append(until))
    assert retention.move_orders(soon(), seconds=60.0, rate=1.0).moved.orders == 4
    assert waits[1] - waits[0] > 0
    assert len(waits) == 2


# ---- Exporting ----


def test_json_lines_have_all_of_an_order(tmp_path: Path) -> None:
    order = OrderFactory(status=Status.FILLED, owner=UserFactory(username="alice"))
    move_all()
    told = asked("export_orders", NOW, "--to", str(tmp_path))
    (name,) = (name for name in told["files"] if name.endswith(".jsonl"))
    text = (tmp_path / name).read_bytes()
    assert told["files"][name] == hashlib.sha256(text).hexdigest()
    assert (tmp_path / f"{name}.sha256").read_text() == f"{told['files'][name]}  {name}\n"
    (document,) = map(json.loads, text.splitlines())
    expected = {"id": str(order.pk), "owner": "alice", "limit_price": "10.25", "quantity": 100, "status": "filled"}
    assert {key: document[key] for key in expected} == expected
    assert document["created_at"] == order.created_at.isoformat().replace("+00:00", "Z")
    assert [event["event"] for event in document["events"]] == ["accepted", "claimed", "acknowledged", "executed"]
    assert document["events"][3]["detail"]["filled_quantity"] == 100
    assert [(each["quantity"], each["price"]) for each in document["executions"]] == [(100, "10.25")]


def test_csv_has_a_file_for_each_kind_of_row(tmp_path: Path) -> None:
    order = OrderFactory(status=Status.FILLED, owner=UserFactory(username="alice"))
    move_all()
    told = asked("export_orders", NOW, "--to", str(tmp_path), "--format", "csv")
    tables = {}
    for name in told["files"]:
        with open(tmp_path / name, newline="") as file:
            tables[name.split(".")[2]] = list(csv.DictReader(file))
    assert {kind: len(table) for kind, table in tables.items()} == {
        "orders": 1, "events": 4, "executions": 1, "requests": 0,
    }  # fmt: skip
    (stored,) = tables["orders"]
    assert (stored["id"], stored["owner"], stored["limit_price"], stored["stop_price"]) == (
        str(order.pk), "alice", "10.25", "",
    )  # fmt: skip
    assert set(stored) == {field.column for field in Order._meta.local_concrete_fields} | {"owner"}
    assert json.loads(tables["events"][3]["detail"])["execution_id"] == tables["executions"][0]["execution_id"]


def test_a_month_that_changes_meanwhile_is_not_exported(tmp_path: Path) -> None:
    orders = [OrderFactory(status=Status.FILLED) for _ in range(2)]
    move_all()

    def meanwhile(count: int) -> None:
        archive.bring_back([orders[0].pk])

    with pytest.raises(exports.Refused, match="export it again"):
        exports.export(month_of(orders[0]), tmp_path, "jsonl", progress=meanwhile)
    assert list(tmp_path.iterdir()) == []
    assert ArchiveMonth.objects.get().exported_version is None


def test_two_exports_at_once_spoil_nothing_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = [OrderFactory(status=Status.CANCELED) for _ in range(3)]
    move_all()
    monkeypatch.setattr(exports, "_ORDERS", exports._ORDERS.replace("LIMIT 1000", "LIMIT 1"))
    others: list[exports.Exported] = []

    def meanwhile(count: int) -> None:
        if count == 1:
            others.append(exports.export(month_of(orders[0]), tmp_path, "jsonl"))

    done = exports.export(month_of(orders[0]), tmp_path, "jsonl", progress=meanwhile)
    assert [done] == others
    for name, digest in done.files.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert len(list(tmp_path.iterdir())) == 2


def test_each_form_has_checksums_of_its_own(tmp_path: Path) -> None:
    OrderFactory(status=Status.CANCELED)
    move_all()
    for form in exports.FORMATS:
        run("export_orders", NOW, "--to", str(tmp_path), "--format", form)
    told = "".join(file.read_text() for file in tmp_path.glob("*.sha256"))
    names = {file.name for file in tmp_path.iterdir() if file.suffix != ".sha256"}
    assert {line.split()[1] for line in told.splitlines()} == names
    assert len(names) == 5


def test_exports_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="nothing of 2001-01 in the archive"):
        run("export_orders", "2001-01", "--to", str(tmp_path))
    with pytest.raises(CommandError, match="--to is needed"):
        run("export_orders", "2001-01")
    with pytest.raises(CommandError, match="There is no directory"):
        run("export_orders", "2001-01", "--to", str(tmp_path / "none"))
    with pytest.raises(CommandError, match="'2001-13' is not a month; write 2026-01"):
        run("export_orders", "2001-13", "--to", str(tmp_path))


def test_the_months_of_the_archive_are_listed(tmp_path: Path) -> None:
    assert run("export_orders") == "The archive is empty.\n"
    OrderFactory(status=Status.FILLED)
    move_all()
    run("export_orders", NOW, "--to", str(tmp_path))
    (month,) = asked("export_orders")["months"]
    assert (month["month"], month["orders"], month["exported"], month["dropped_at"]) == (NOW, 1, True, None)
    assert NOW in run("export_orders")


# ---- Dropping ----


def drop(*more: str) -> str:
    return run("drop_archive", NOW, "--reason", "Five years are over.", "--yes", *more)


def test_a_month_that_was_not_exported_or_has_changed_is_not_dropped(tmp_path: Path) -> None:
    orders = [OrderFactory(status=Status.FILLED) for _ in range(2)]
    move_all()
    with pytest.raises(CommandError, match=f"{NOW} was not exported: manage.py export_orders {NOW}"):
        drop()
    run("export_orders", NOW, "--to", str(tmp_path))
    archive.bring_back([orders[0].pk])
    with pytest.raises(CommandError, match="export it again"):
        drop()
    assert rows(archive.ORDER) == 1


def test_a_month_that_was_exported_is_dropped_and_its_ids_stay_taken(alice: APIClient, tmp_path: Path) -> None:
    body = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1, "client_order_id": "mine"}
    stored = alice.post("/api/v1/orders", body, format="json").data
    alice.post(f"/api/v1/orders/{stored['id']}/cancel", {}, format="json")
    move_all()
    run("export_orders", NOW, "--to", str(tmp_path))
    assert drop() == f"Removed 1 orders of {NOW}.\n"
    assert [rows(table) for table in archive.TABLES.values()] == [0, 0, 0, 0]
    assert alice.get(f"/api/v1/orders/{stored['id']}").status_code == 404
    again = alice.post("/api/v1/orders", body, format="json")
    assert (again.status_code, again.data["order_id"]) == (409, str(stored["id"]))
    assert "is not stored any more" in again.data["detail"]
    with pytest.raises(CommandError, match="nothing of"):
        drop()
    later = OrderFactory(status=Status.CANCELED)
    assert move_all().orders == 1  # the month is made again
    assert sides(later)[0] == 0


def test_ids_are_free_again_only_where_that_was_asked_for(settings: Any, tmp_path: Path) -> None:
    OrderFactory(status=Status.CANCELED)
    move_all()
    assert ClientKey.objects.count() == 1
    run("export_orders", NOW, "--to", str(tmp_path))
    settings.KEEP_KEYS_DAYS = 365
    drop()
    assert ClientKey.objects.count() == 1  # the month is younger than that
    OrderFactory(status=Status.CANCELED)
    move_all()
    run("export_orders", NOW, "--to", str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exports, "now", lambda: timezone.now() + timedelta(days=500))
        drop()
    assert ClientKey.objects.count() == 1


def test_a_drop_that_was_cut_short_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    OrderFactory(status=Status.FILLED)
    move_all()
    run("export_orders", NOW, "--to", str(tmp_path))
    whole = exports._drop
    done: list[str] = []

    def cut(cursor: Any, table: str, name: str) -> None:
        if len(done) == 2:
            raise ConnectionError("The process was killed.")
        done.append(table)
        whole(cursor, table, name)

    monkeypatch.setattr(exports, "_drop", cut)
    with pytest.raises(ConnectionError):
        drop()
    monkeypatch.undo()
    late = OrderFactory(status=Status.FILLED)
    run_ = retention.move_orders(soon(), seconds=30.0)
    assert (run_.moved.orders, run_.left, sides(late)[1]) == (0, 1, 0)
    assert drop() == f"Removed 1 orders of {NOW}.\n"
    month = ArchiveMonth.objects.get()
    assert (month.orders, month.dropping_at, month.dropped_at is not None) == (0, None, True)
    assert move_all().orders == 1


@contextmanager
def hanging_drop(month: date) -> Iterator[Future[int]]:
    """A drop that waits for a transaction that reads the archive, until the end of the block."""
    with ThreadPoolExecutor(1) as pool, another_connection() as reader:
        reader.execute("BEGIN")
        reader.execute(f"SELECT count(*) FROM {archive.REQUEST}")
        drop = pool.submit(dropping, month)
        wait_until(lambda: drop.done() or bool(fetch(f"SELECT 1 {_DETACHING}", {})))
        assert not drop.done()
        yield drop
        reader.execute("ROLLBACK")


def dropping(month: date) -> int:
    try:
        return exports.drop(month)
    finally:
        connection.close()


_DETACHING = """FROM pg_stat_activity WHERE query LIKE 'ALTER TABLE%%DETACH%%' AND wait_event_type = 'Lock'
    AND state = 'active' AND datname = current_database()"""


def test_one_drop_runs_at_a_time(tmp_path: Path) -> None:
    order = OrderFactory(status=Status.FILLED)
    move_all()
    run("export_orders", NOW, "--to", str(tmp_path))
    with ThreadPoolExecutor(1) as pool, hanging_drop(month_of(order)) as first:
        second = pool.submit(dropping, month_of(order))
        wait_until(lambda: second.done() or len(fetch(f"SELECT 1 {_DETACHING}", {})) == 2)
        assert "Another drop_archive has not ended" in str(second.exception(timeout=0))
        assert ArchiveMonth.objects.get().dropping_at is not None
    assert first.result(timeout=30) == 1
    assert ArchiveMonth.objects.get().dropping_at is None


def test_a_drop_is_refused_until_that_of_another_month_is_finished(tmp_path: Path) -> None:
    order = OrderFactory(status=Status.FILLED)
    move_all()
    other = date(2020, 1, 1)
    archive.make_partitions({other})
    ArchiveMonth.objects.create(month=other, orders=1, exported_version=1)
    run("export_orders", NOW, "--to", str(tmp_path))
    with hanging_drop(month_of(order)) as first:
        fetch(f"SELECT pg_cancel_backend(pid) {_DETACHING}", {})
        assert isinstance(first.exception(timeout=30), OperationalError)
    with pytest.raises(exports.Refused, match=f"finish drop_archive {NOW} first"):
        exports.drop(other)
    assert ArchiveMonth.objects.get(month=other).dropping_at is None
    assert drop() == f"Removed 1 orders of {NOW}.\n"
    assert exports.drop(other) == 1


def test_a_position_keeps_what_it_realized_when_its_executions_were_dropped(tmp_path: Path) -> None:
    owner = UserFactory()
    OrderFactory(owner=owner, quantity=10, status=Status.FILLED)
    sold = OrderFactory(owner=owner, quantity=10, side="sell", status=Status.PLACED)
    report(sold.pk, "XSIM", ReportKind.EXECUTED, quantity=10, price=Decimal(30))
    Order.objects.filter(pk=sold.pk).update(version=9)  # so that it stays
    move_all()
    run("export_orders", NOW, "--to", str(tmp_path))
    drop()
    session = ReportSession.objects.get()
    at = Checkpoint("XSIM", session.stream, session.token, session.next_sequence)
    execution_id = sold.executions.get().execution_id
    Order.objects.filter(pk=sold.pk).update(version=4)
    bust = ExecutionReport(
        sequence=at.next_sequence, kind=ReportKind.BUSTED, client_order_id=str(sold.pk),
        venue_order_id=sold.venue_order_id, execution_id="bust", refers_to=execution_id,
    )  # fmt: skip
    ingest([bust], at, lease=30.0)
    position = Position.objects.get()
    assert [int(position.bought_quantity), int(position.sold_quantity)] == [10, 0]
    assert [position.bought_value, position.realized] == [Decimal("102.5"), Decimal("197.5")]
    assert position.incomplete


# ---- Console and command ----


@pytest.fixture
def console(client: Client) -> Client:
    client.force_login(UserFactory(group="Viewer"))
    return client


def test_the_console_shows_an_archived_order_and_finds_it(console: Client) -> None:
    order = OrderFactory(status=Status.FILLED, client_order_id="mine-1", venue_order_id="V-77")
    move_all()
    page = console.get(reverse("admin:orders_order_change", args=[order.pk])).content.decode()
    assert "This order is in the archive." in page
    assert order.client_order_id in page
    execution = archive.EXECUTION
    assert page.count("acknowledged") >= 1
    assert rows(execution) == 1
    for text in (str(order.pk), "mine-1", "V-77"):
        found = console.get(reverse("admin:orders_order_changelist"), {"q": text}).content.decode()
        assert "In the archive:" in found
        assert f"/{order.pk}/change/" in found
    nothing = console.get(reverse("admin:orders_order_changelist"), {"q": "other"}).content.decode()
    assert "In the archive:" not in nothing


def test_show_order_shows_an_archived_order(all_are_old: None) -> None:
    order = OrderFactory(status=Status.FILLED, client_order_id="mine-1", owner=UserFactory(username="alice"))
    ways = (["show_order", str(order.pk)], ["show_order", "mine-1", "--client", "alice"])
    before = [asked(*way) for way in ways]
    move_all()
    assert [asked(*way) for way in ways] == before
