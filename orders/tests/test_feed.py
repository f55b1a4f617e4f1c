"""The feed of events: a reader that continues from its cursor misses nothing, reads nothing twice, and sees each
order's events in their sequence."""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from exchanges.models import ReportSession
from exchanges.venue import ExecutionReport, ReportKind
from orders import feed, lifecycle
from orders.lifecycle import Event, Step
from orders.models import Order, OrderEvent
from orders.reports import Checkpoint, ingest
from orders.tests.factories import LEASE_SECONDS, OrderFactory, UserFactory, VenueFactory, report
from orders.tests.test_store_together import row
from orders.tests.test_tail_orders import Slow
from orders.tests.threads import in_threads
from quiktrade.jobs import doorbell

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice() -> User:
    VenueFactory()
    user: User = UserFactory(username="alice")
    return user


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.end()


class Reader:
    """Follows the feed from where it is now."""

    def __init__(self, owner: User | None = None, limit: int = 100) -> None:
        self._owner_id = owner.pk if owner else None
        self._limit = limit
        self._after = feed.horizon().cursor

    def read(self) -> list[tuple[str, int]]:
        """The client's id of the order and the sequence of each new event."""
        new = []
        while True:
            upto = feed.horizon()
            events = feed.read(self._after, upto, owner_id=self._owner_id, limit=self._limit)
            new += [(event.client_order_id, event.sequence) for event in events]
            self._after = feed.next_cursor(events, upto, limit=self._limit)
            if len(events) < self._limit:
                return new


class ReaderById:
    """What the feed is not: it remembers the highest id that it saw."""

    def __init__(self) -> None:
        self._last = 0

    def read(self) -> list[tuple[str, int]]:
        events = list(OrderEvent.objects.filter(id__gt=self._last).order_by("id").select_related("order"))
        self._last = max((event.pk for event in events), default=self._last)
        return [(event.order.client_order_id, event.sequence) for event in events]


def test_what_a_slow_transaction_adds_is_read_after_it_ends(alice: User, slow: Slow) -> None:
    reader, by_id = Reader(), ReaderById()
    slow.store(alice, "slow").result()
    lifecycle.accept([row(alice.pk, "fast")])

    assert (reader.read(), by_id.read()) == ([], [("fast", 1)])
    slow.commit()
    assert sorted(reader.read()) == [("fast", 1), ("slow", 1)]
    assert by_id.read() == []  # lost: its id is below the one that was seen


def test_events_of_an_order_keep_their_sequence_though_an_older_transaction_writes_the_later_one(alice: User) -> None:
    order = OrderFactory(owner=alice, client_order_id="one", status="submitting")
    reader = Reader()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_begin).result()  # it has its number now, and moves the order only later
        lifecycle.advance([Step(order_id=order.id, event=Event.OUTCOME_UNKNOWN)], actor="system:test")
        late = Step(order_id=order.id, event=Event.NOT_FOUND)
        thread.submit(lambda: lifecycle.advance([late], actor="system:test")).result()
        assert reader.read() == []
        thread.submit(_commit).result()
    assert reader.read() == [("one", 3), ("one", 4)]


def _begin() -> None:
    connection.ensure_connection()
    connection.set_autocommit(False)
    _take_a_number()


def _take_a_number() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()")


def _commit() -> None:
    connection.commit()
    connection.close()


def test_events_of_one_batch_of_reports_are_in_the_venues_sequence(alice: User) -> None:
    orders = [OrderFactory(owner=alice, client_order_id=name, status="placed") for name in ("one", "two")]
    report(orders[0].id, "XSIM", ReportKind.EXECUTED, quantity=10, price=Decimal("10.25"))
    session = ReportSession.objects.get()
    reader, at = Reader(), Checkpoint("XSIM", session.stream, session.token, session.next_sequence)
    kind, price = ReportKind.EXECUTED, Decimal("10.25")
    batch = [
        ExecutionReport(
            sequence=at.next_sequence + n,
            kind=kind,
            client_order_id=str(orders[n % 2].id),
            venue_order_id=orders[n % 2].venue_order_id,
            execution_id=f"X{n}",
            quantity=10,
            price=price,
        )
        for n in range(4)
    ]
    ingest(batch, at, lease=LEASE_SECONDS)
    assert reader.read() == [("one", 5), ("two", 4), ("one", 6), ("two", 5)]


def test_readers_beside_many_writers_miss_nothing_and_see_every_order_in_sequence(alice: User) -> None:
    """The writers take their numbers early and commit late, and their batches of orders overlap."""
    ids = [OrderFactory(owner=alice).pk for _ in range(30)]
    readers = [Reader(limit=7), Reader(alice, limit=50)]
    read: list[list[tuple[str, int]]] = [[] for _ in readers]
    running = threading.Event()
    running.set()

    def follow(number: int) -> None:
        while running.is_set():
            read[number] += readers[number].read()
        connection.close()

    def write(number: int) -> None:
        dice = random.Random(number)
        for turn in range(30):
            with transaction.atomic():
                if dice.random() < 0.3:
                    _take_a_number()
                    time.sleep(dice.random() * 0.005)
                event = Event.CLAIMED if turn % 2 else Event.NOT_SENT
                some = dice.sample(ids, 6)
                lifecycle.advance([Step(order_id=id_, event=event, delay=30.0) for id_ in some], actor="system:test")
                if dice.random() < 0.3:
                    time.sleep(dice.random() * 0.01)

    with ThreadPoolExecutor(len(readers)) as threads:
        following = [threads.submit(follow, number) for number in range(len(readers))]
        in_threads(6, write)
        running.clear()
        for future in following:
            future.result()
    written = set(OrderEvent.objects.filter(sequence__gt=1).values_list("order__client_order_id", "sequence"))
    assert len(written) > 100
    for number, reader in enumerate(readers):
        seen = read[number] + reader.read()
        assert (len(seen), set(seen)) == (len(written), written)
        of_each: dict[str, list[int]] = {}
        for name, sequence in seen:
            of_each.setdefault(name, []).append(sequence)
        assert all(sequences == sorted(sequences) for sequences in of_each.values())


def test_pages_of_any_size_hold_the_same_events(alice: User) -> None:
    readers = [Reader(alice, limit) for limit in (1, 2, 3, 100)]
    OrderFactory(owner=alice, client_order_id="one", status="placed")
    OrderFactory(owner=UserFactory(), status="placed")
    OrderFactory(owner=alice, client_order_id="two")
    assert [reader.read() for reader in readers] == [[("one", 1), ("one", 2), ("one", 3), ("two", 1)]] * 4


def test_whoever_only_reads_delays_nothing(alice: User) -> None:
    reader = Reader()
    with psycopg.connect(**doorbell.connection_parameters()) as other:
        other.execute("SELECT count(*) FROM orders_order")
        lifecycle.accept([row(alice.pk, "one")])
        assert reader.read() == [("one", 1)]


CLUSTER = "a1b2"


@pytest.mark.parametrize(
    "text",
    ["", "5", "a1b2.7", "a1b2.7.x", "A1B2.7.1", "a1b2.07.1", "a1b2.7.1 ", "a1b2.-7.1", "a1b2.7.1.1", "a1b2.٧.1",
     f"a1b2.{2**63}.1", f"a1b2.1.{2**63}", "a1b2.7.1\n"],
)  # fmt: skip
def test_a_cursor_is_read_strictly(text: str) -> None:
    with pytest.raises(ValueError, match="Not a cursor"):
        feed.Cursor.parse(text)


def test_a_cursor_is_read_as_it_was_written() -> None:
    cursor = feed.Cursor(CLUSTER, 7731, 52)
    assert str(cursor) == "a1b2.7731.52"
    assert feed.Cursor.parse("a1b2.7731.52") == cursor


def test_a_cursor_of_another_cluster_or_of_the_future_leads_nowhere() -> None:
    here = feed.horizon()
    lower = "0000" if here.cluster > "0000" else "----"
    for wrong in (
        feed.Cursor("zzzz", 1, 1),
        feed.Cursor(lower, 1, 1),
        here.cursor._replace(id=1),
        here.cursor._replace(stamp=here.stamp + 1),
    ):
        with pytest.raises(feed.Lost) as lost:
            feed.check(wrong, here)
        assert lost.value.horizon == here.cursor
    feed.check(here.cursor, here)


def test_a_client_comes_back_within_seven_days_of_what_it_missed(alice: User) -> None:
    before = feed.horizon().cursor
    OrderFactory(owner=alice)
    upto = feed.horizon()
    for late, missed in ((timedelta(days=6, hours=23), True), (timedelta(days=7, hours=1), False)):
        now = upto._replace(at=timezone.now() + late)
        if missed:
            assert len(feed.resume(before, now, owner_id=alice.pk, limit=10)) == 1
        else:
            with pytest.raises(feed.Lost, match="7 days"):
                feed.resume(before, now, owner_id=alice.pk, limit=10)


def test_a_client_that_missed_nothing_comes_back_however_late(alice: User) -> None:
    before = feed.horizon().cursor
    OrderFactory(owner=UserFactory())
    much_later = feed.horizon()._replace(at=timezone.now() + timedelta(days=700))
    assert feed.resume(before, much_later, owner_id=alice.pk, limit=10) == []


def told(order: Order) -> list[dict[str, Any]]:
    upto = feed.horizon()
    events = feed.read(feed.Cursor(upto.cluster, 0, 0), upto, owner_id=order.owner_id, limit=100)
    return [feed.for_client(event, upto.cluster) for event in events]


def test_a_client_is_told_what_happened_and_no_more(alice: User) -> None:
    order = OrderFactory(owner=alice, client_order_id="one", status="placed", quantity=100)
    report(order.id, order.venue_id, ReportKind.EXECUTED, quantity=40, price=Decimal("10.25"), execution_id="E9")
    *_, last = told(order)
    event = OrderEvent.objects.get(order=order, sequence=4)
    assert last == {
        "cursor": f"{feed.horizon().cluster}.{event.stamp}.{event.pk}",
        "order_id": order.id,
        "client_order_id": "one",
        "sequence": 4,
        "event": "executed",
        "status": "partially_filled",
        "filled_quantity": 40,
        "leaves_quantity": 60,
        "execution": {"execution_id": "E9", "quantity": 40, "price": "10.25", "refers_to": ""},
        "by": "venue",
        "reason": "The venue executed some or all of it.",
        "at": event.at,
    }


def test_quantities_are_those_of_the_event_and_not_of_today(alice: User) -> None:
    order = OrderFactory(owner=alice, status="placed", quantity=100)
    report(order.id, order.venue_id, ReportKind.RESTATED, quantity=80)
    report(order.id, order.venue_id, ReportKind.EXECUTED, quantity=30, price=Decimal("10.25"))
    cancel = Step(order_id=order.id, event=Event.CANCEL_ASKED, request_id=order.id)
    lifecycle.advance([cancel], actor="client:alice")
    report(order.id, order.venue_id, ReportKind.CANCELED)
    figures = [(event["event"], event["filled_quantity"], event["leaves_quantity"]) for event in told(order)]
    assert figures == [
        ("accepted", 0, 100),
        ("claimed", 0, 100),
        ("acknowledged", 0, 100),
        ("restated", 0, 80),
        ("executed", 30, 50),
        ("cancel_asked", 30, 50),
        ("canceled_at_venue", 30, 0),
    ]


def test_of_an_order_that_ended_here_nothing_is_left(alice: User) -> None:
    order = OrderFactory(owner=alice, status="canceled", quantity=100)
    assert [(event["status"], event["leaves_quantity"]) for event in told(order)] == [("pending", 100), ("canceled", 0)]


def test_a_client_sees_no_names_of_operators(alice: User) -> None:
    order = OrderFactory(owner=alice, status="failed")
    lifecycle.advance([Step(order_id=order.id, event=Event.REQUEUED, reason="Ask Bob")], actor="operator:carol")
    last = told(order)[-1]
    assert (last["by"], last["reason"]) == ("operator", "An operator has it tried again.")
    assert "carol" not in str(last)
    assert "Bob" not in str(last)


def test_events_from_before_the_feed_are_not_in_it(alice: User) -> None:
    order = OrderFactory(owner=alice)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orders_orderevent (order_id, sequence, event, from_status, to_status, attempt, actor, reason,"
            " detail) VALUES (%s, 2, 'claimed', 'pending', 'submitting', 1, 'system:old', '', '{}')",
            [order.id],
        )
    upto = feed.horizon()
    assert len(feed.read(feed.Cursor(upto.cluster, 0, 0), upto, limit=100)) == 1
    assert len(told(order)) == 1
