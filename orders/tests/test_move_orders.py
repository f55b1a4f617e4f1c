"""An order is placed once in effect and stored once, at every interleaving of the mover with whoever repeats the order,
and wherever the mover is killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from exchanges.models import ReportSession
from exchanges.venue import ExecutionReport, ReportKind
from orders import archive, lifecycle, retention, selectors
from orders.archive_models import ClientKey
from orders.models import Execution, Order, OrderEvent, Position, Status
from orders.reports import Checkpoint, ingest
from orders.tests.archiving import IN_USE, emptied_archive, move_all, rows, sides, soon
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from orders.tests.test_store_together import row
from orders.webhook_models import WebhookDelivery, WebhookEndpoint
from orders.webhooks import rows as webhooks
from orders.webhooks import services
from orders.webhooks.delivery import _claim_with_bodies
from quiktrade.local.venv import ROOT
from quiktrade.tests.processes import database_url_of_tests, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def archived_of_a_test(transactional_db: None) -> Iterator[None]:
    with emptied_archive():
        yield


@pytest.fixture
def alice(transactional_db: None) -> User:
    VenueFactory()
    user: User = UserFactory(username="alice")
    return user


@contextmanager
def another_connection() -> Iterator[psycopg.Connection[Any]]:
    parameters = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    with psycopg.connect(**{name: parameters[name] for name in names if parameters.get(name)}, autocommit=True) as line:
        yield line


def _somebody_waits() -> bool:
    """Whether a statement of this database waits for a transaction to end.

    It is asked outside a transaction: in one, PostgreSQL shows the same activity again.
    """
    query = """SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.datname = current_database())"""
    with connection.cursor() as cursor:
        cursor.execute(query)
        (found,) = cursor.fetchone()
    return bool(found)


class StoppedRepeat:
    """A statement that stores two orders. It is stopped at the first one, whose id another transaction has just taken;
    its snapshot is taken by then. The second one repeats an order that is stored."""

    FIRST, SECOND = "a-first", "mine"

    def __init__(self, owner_id: int, pool: ThreadPoolExecutor, blocker: psycopg.Connection[Any]) -> None:
        self._blocker = blocker
        blocker.execute("BEGIN")
        blocker.execute(lifecycle._ACCEPT_ONE, lifecycle._as_given(row(owner_id, self.FIRST)))
        self._rows = [row(owner_id, self.FIRST), row(owner_id, self.SECOND)]
        self._stored: Future[Any] = pool.submit(self._accept)
        wait_until(lambda: _somebody_waits() or self._stored.done())
        assert not self._stored.done()

    def _accept(self) -> Any:
        try:
            return lifecycle.accept(self._rows)
        finally:
            connection.close()

    def finish(self) -> list[bool]:
        """Let it continue. Returns whether each of the two was stored."""
        self._blocker.execute("ROLLBACK")
        stored = self._stored.result(timeout=30)
        return [each.id in stored for each in self._rows]


def stored_as(owner: User, client_order_id: str) -> int:
    """How many orders have this id, in use or archived."""
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT id FROM {table} WHERE owner_id = %(owner)s AND client_order_id = %(id)s"
                for table in ("orders_order", archive.ORDER)
            ),
            {"owner": owner.pk, "id": client_order_id},
        )
        return len(cursor.fetchall())


POINTS = ("before", "keys written", "keys committed", "rows moved", "moved and committed")


class Mover:
    """The mover's steps, one at a time, on a connection of its own."""

    def __init__(self, line: psycopg.Connection[Any], order: Order) -> None:
        self._line = line
        self._ids = [order.pk]
        self._number = ""
        archive.make_partitions({archive.month_of(order.pk)})

    def may_move(self) -> bool:
        return archive.older_snapshots(self._number) == 0

    def go_to(self, point: str) -> None:
        match point:
            case "keys written":
                self._line.execute("BEGIN")
                (self._number,) = self._line.execute(archive._KEEP_KEYS, {"ids": self._ids}).fetchone() or ("",)
            case "keys committed" | "moved and committed":
                self._line.execute("COMMIT")
            case "rows moved":
                self._line.execute("BEGIN")
                self._line.execute("SET LOCAL quiktrade.mover = 'on'")
                moved = self._line.execute(archive._MOVE, {"ids": self._ids, "ended_before": soon()}).fetchone()
                assert moved is not None
                assert moved[0] == 1


@pytest.mark.parametrize(
    ("begins", "ends"), [(begins, ends) for begins in range(5) for ends in range(begins, 5)], ids=str
)
def test_a_repeat_is_stored_at_no_point_of_the_move(alice: User, begins: int, ends: int) -> None:
    order = OrderFactory(owner=alice, client_order_id="mine", status=Status.CANCELED)
    repeat: StoppedRepeat | None = None
    stored: list[bool] = []
    with ThreadPoolExecutor(1) as pool, another_connection() as line, another_connection() as blocker:
        mover = Mover(line, order)
        for point, name in enumerate(POINTS):
            if name == "rows moved" and not mover.may_move():
                assert begins < POINTS.index("keys committed"), "it has seen the keys"
                assert repeat is not None
                stored, repeat = repeat.finish(), None
                assert mover.may_move()
            mover.go_to(name)
            if point == begins:
                repeat = StoppedRepeat(alice.pk, pool, blocker)
            if point == ends and repeat is not None:
                if name == "rows moved":  # a repeat that finds the row waits until the move is committed
                    mover.go_to("moved and committed")
                stored, repeat = repeat.finish(), None
                if name == "rows moved":
                    break
    assert stored == [True, False]
    assert stored_as(alice, "mine") == 1
    assert selectors.submitted(alice.pk, ["mine"])["mine"].order.id == order.pk
    assert sides(order)[0] == 0


def test_the_mover_waits_for_a_statement_that_cannot_see_the_keys(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, answers = archive.older_snapshots, list[int]()

    def noted(number: str) -> int:
        answers.append(ask(number))
        return answers[-1]

    monkeypatch.setattr(archive, "older_snapshots", noted)
    order = OrderFactory(owner=alice, client_order_id="mine", status=Status.CANCELED)
    with ThreadPoolExecutor(2) as pool, another_connection() as blocker:
        repeat = StoppedRepeat(alice.pk, pool, blocker)
        moving = pool.submit(_move)
        wait_until(lambda: len(answers) > 2 or moving.done())
        assert ClientKey.objects.filter(order_id=order.pk).exists()
        assert min(answers) > 0
        assert sides(order)[1] == 0
        assert repeat.finish() == [True, False]
        assert moving.result(timeout=30).moved.orders == 1
    assert stored_as(alice, "mine") == 1


def test_without_that_wait_the_order_would_be_stored_again(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "older_snapshots", lambda number: 0)
    OrderFactory(owner=alice, client_order_id="mine", status=Status.CANCELED)
    with ThreadPoolExecutor(1) as pool, another_connection() as blocker:
        repeat = StoppedRepeat(alice.pk, pool, blocker)
        assert move_all().orders == 1
        assert repeat.finish() == [True, True]
    assert stored_as(alice, "mine") == 2


def test_a_report_that_waits_while_its_order_moves_is_applied(alice: User) -> None:
    order = OrderFactory(owner=alice, status=Status.FILLED)
    execution = Execution.objects.get(order=order)
    at = ReportSession.objects.get()
    bust = ExecutionReport(
        sequence=at.next_sequence, kind=ReportKind.BUSTED, client_order_id=str(order.pk),
        venue_order_id=order.venue_order_id, execution_id="bust", refers_to=execution.execution_id,
    )  # fmt: skip

    def report() -> None:
        try:
            ingest([bust], Checkpoint("XSIM", at.stream, at.token, at.next_sequence), lease=30.0)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, another_connection() as line:
        mover = Mover(line, order)
        for point in POINTS[1:4]:
            mover.go_to(point)
        reported = pool.submit(report)
        wait_until(lambda: _somebody_waits() or reported.done())
        assert not reported.done()
        mover.go_to("moved and committed")
        reported.result(timeout=30)
    now = Order.objects.get(pk=order.pk)
    assert (now.status, now.filled_quantity) == (Status.PLACED, 0)
    assert Position.objects.get().bought_quantity == 0
    assert sides(order) == (1 + 5 + 2, 0)


# ---- Webhooks ----


def endpoint_of(owner: User) -> WebhookEndpoint:
    """One that was told of everything."""
    return WebhookEndpoint.objects.create(
        owner=owner, url="https://example.com/", secret="x", cursor_stamp=2**62, cursor_id=0
    )


def replay(endpoint: WebhookEndpoint) -> int:
    try:
        now = timezone.now()
        made = services.replay(endpoint, from_=now - timedelta(days=1), to=now + timedelta(days=1))
        return made.deliveries
    finally:
        if threading.current_thread() is not threading.main_thread():
            connection.close()


def test_a_replay_makes_no_delivery_of_an_order_that_moves(alice: User) -> None:
    endpoint = endpoint_of(alice)
    order = OrderFactory(owner=alice, status=Status.CANCELED)
    with ThreadPoolExecutor(1) as pool, another_connection() as line:
        mover = Mover(line, order)
        for point in POINTS[1:4]:
            mover.go_to(point)
        replayed = pool.submit(replay, endpoint)
        wait_until(lambda: _somebody_waits() or replayed.done())
        mover.go_to("moved and committed")
        assert replayed.result(timeout=30) == 0
    assert not endpoint.deliveries.exists()


def test_an_order_whose_events_are_being_replayed_stays(alice: User) -> None:
    endpoint = endpoint_of(alice)
    order = OrderFactory(owner=alice, status=Status.CANCELED)
    now, day = timezone.now(), timedelta(days=1)
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        webhooks.replay(endpoint.pk, alice.pk, [], now - day, now + day, limit=10)
        assert pool.submit(_move).result(timeout=30).moved.orders == 0
    assert sides(order)[1] == 0


def test_a_replay_says_that_events_of_its_time_may_be_archived(alice: User) -> None:
    start = timezone.now()
    endpoint, other = endpoint_of(alice), endpoint_of(UserFactory())
    order = OrderFactory(owner=alice, status=Status.CANCELED)
    assert move_all().orders == 1
    to = timezone.now() + timedelta(hours=1)
    assert services.replay(endpoint, from_=start, to=to) == (0, None, True)
    assert services.replay(other, from_=start, to=to) == (0, None, False)  # nothing of this client is archived
    assert services.replay(endpoint, from_=timezone.now(), to=to).archived  # nothing says how old the newest is
    OrderFactory(owner=other.owner)  # this does
    later = OrderEvent.objects.latest("pk").at
    assert services.replay(endpoint, from_=order.created_at, to=to).archived
    assert services.replay(endpoint, from_=later + timedelta(microseconds=1), to=to) == (0, None, False)


def test_a_delivery_whose_event_is_archived_holds_up_no_other(alice: User, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = endpoint_of(alice)
    order = OrderFactory(owner=alice, status=Status.CANCELED)
    events = list(order.events.values_list("pk", flat=True))
    assert move_all().orders == 1
    for event_id in events:
        WebhookDelivery.objects.create(endpoint=endpoint, event_id=event_id)
    other = OrderFactory(status=Status.PLACED)
    count = replay(endpoint_of(other.owner))
    due = _claim_with_bodies(places=64, troubled=16)
    assert {delivery.event_id for delivery, _, _ in due} == set(other.events.values_list("pk", flat=True))
    assert WebhookDelivery.objects.count() == len(due) == count
    assert "webhook.events_archived" in {record.__dict__.get("event") for record in caplog.records}


def _move() -> retention.Run:
    try:
        return retention.move_orders(soon(), seconds=30.0)
    finally:
        connection.close()


def test_the_mover_gives_up_when_its_time_is_over_and_continues_later(
    alice: User, caplog: pytest.LogCaptureFixture
) -> None:
    order = OrderFactory(owner=alice, status=Status.CANCELED)
    with another_connection() as line:
        line.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        line.execute("SELECT count(*) FROM orders_order")
        run = retention.move_orders(soon(), seconds=0.2)
        assert (run.moved.orders, run.waiting) == (0, True)
        assert "archive.waits" in {record.__dict__.get("event") for record in caplog.records}
    assert sides(order)[1] == 0
    assert move_all().orders == 1


def test_two_movers_move_each_order_once(alice: User) -> None:
    orders = [OrderFactory(owner=alice, status=Status.CANCELED) for _ in range(30)]
    start = threading.Barrier(2)

    def move() -> int:
        start.wait()
        return _move().moved.orders

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(retention, "BATCH", 4)
        counts = [moving.result(timeout=60) for moving in [pool.submit(move), pool.submit(move)]]
    left = move_all().orders  # what one of them had locked when the other came by
    assert sum(counts) + left == len(orders)
    assert (rows("orders_order"), rows(archive.ORDER)) == (0, 30)


# ---- Killed ----

_KILLED = """
import os, signal, sys
import django
django.setup()
from datetime import timedelta
from django.utils import timezone
from orders import archive, retention
retention.BATCH, archive.LEAST_AGE = 3, timedelta(minutes=-2)
left = int(sys.argv[1])
def last():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
fetch = archive.fetch
def counted(statement, parameters):
    last()
    found = fetch(statement, parameters)
    last()
    return found
archive.fetch = counted
make = archive.make_partitions
def made(months):
    last()
    make(months)
    last()
archive.make_partitions = made
retention.move_orders(timezone.now() + timedelta(minutes=1), seconds=60.0)
"""


def killed_after(steps: int) -> int:
    """Run the mover in a process that kills itself at this step. Returns the exit status."""
    environment = {
        **os.environ,
        "DATABASE_URL": database_url_of_tests(),
        "DJANGO_SETTINGS_MODULE": "quiktrade.settings",
    }
    command = [sys.executable, "-c", _KILLED, str(steps)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=60).returncode


def counts() -> list[tuple[int, int]]:
    """Rows in use and in the archive, of each kind."""
    return [(rows(table), rows(archived)) for archived, table in IN_USE.items()]


def in_both() -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM orders_order JOIN {archive.ORDER} a USING (id)")
        (count,) = cursor.fetchone()
    return int(count)


@pytest.mark.parametrize(
    "steps",
    # A batch has 14 steps: before and after each statement, the last of which are followed by the commit.
    [
        *(pytest.param(steps, marks=pytest.mark.exhaustive) for steps in range(16) if steps not in (3, 9, 11)),
        3,
        9,
        11,
    ],
)
def test_nothing_is_lost_or_doubled_wherever_the_mover_is_killed(alice: User, steps: int) -> None:
    for _ in range(4):
        OrderFactory(owner=alice, status=Status.FILLED)
    whole = [sum(pair) for pair in counts()]
    assert killed_after(steps) == -signal.SIGKILL
    connection.close()
    assert ([sum(pair) for pair in counts()], in_both()) == (whole, 0)
    assert killed_after(1_000) == 0
    assert (counts(), in_both()) == ([(0, count) for count in whole], 0)


def test_nothing_young_is_moved(monkeypatch: pytest.MonkeyPatch, alice: User) -> None:
    order = OrderFactory(owner=alice, status=Status.FILLED)
    monkeypatch.setattr(archive, "LEAST_AGE", timedelta(days=7))
    with pytest.raises(ValueError, match="more than 7 days ago"):
        retention.move_orders(timezone.now() - timedelta(days=6, hours=23), seconds=1.0)
    monkeypatch.setattr(archive, "LEAST_AGE", timedelta(minutes=-2))
    before = timezone.now()
    Order.objects.filter(pk=order.pk).update(
        created_at=before - timedelta(days=9), updated_at=before - timedelta(days=9)
    )
    archive.make_partitions({archive.month_of(order.pk)})
    archive.keep_keys([order.pk])
    assert archive.move([order.pk], ended_before=before - timedelta(days=8)).orders == 0  # executed just now
    assert archive.move([order.pk], ended_before=soon()).orders == 1


def test_the_age_of_an_order_is_that_of_its_last_news(settings: Any, alice: User) -> None:
    settings.KEEP_DAYS = 30
    before = retention.ended_before()
    assert before is not None
    assert timedelta(days=29, hours=23) < timezone.now() - before < timedelta(days=30, hours=1)
    settings.KEEP_DAYS = 0
    assert retention.ended_before() is None
