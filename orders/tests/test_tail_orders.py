"""A client that reads its orders oldest first, and continues from the last one, misses none that arrive meanwhile."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from rest_framework.test import APIClient

from orders import lifecycle, submission
from orders.models import Order
from orders.tests.factories import UserFactory, VenueFactory
from orders.tests.test_store_together import row
from orders.tests.threads import in_threads
from quiktrade.auth.tokens import AccessToken
from quiktrade.jobs import doorbell
from quiktrade.tests.processes import wait_until

FORWARDS = "/api/v1/orders?ordering=created_at&limit="


@pytest.fixture
def alice(transactional_db: None) -> User:
    VenueFactory()
    user: User = UserFactory(username="alice")
    return user


class Tail:
    """A client that remembers the last order it saw, and asks for nothing twice but that one's moment."""

    def __init__(self, user: User) -> None:
        self._client = APIClient(HTTP_AUTHORIZATION=f"Bearer {AccessToken.for_user(user)}")
        self._last = "2026-01-01T00:00:00Z"
        self.seen: dict[str, str] = {}

    def read(self, limit: int = 100) -> list[str]:
        """The `client_order_id`s that are new, in the order in which they were read."""
        new: list[str] = []
        url = f"{FORWARDS}{limit}&created_from={quote(self._last)}"
        while url:
            page = self._client.get(url).json()
            for order in page["results"]:
                if order["id"] not in self.seen:
                    new.append(order["client_order_id"])
                self.seen[order["id"]] = self._last = order["created_at"]
            url = page["next"]
        return new


class Slow:
    """Stores orders in a transaction that lasts until `commit()`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)

    def store(self, owner: User, *client_order_ids: str) -> Future[None]:
        return self._thread.submit(self._store, [row(owner.pk, id_) for id_ in client_order_ids])

    def commit(self) -> None:
        self._thread.submit(self._commit).result()

    @staticmethod
    def _store(rows: Sequence[lifecycle.NewRow]) -> None:
        connection.ensure_connection()
        connection.set_autocommit(False)
        lifecycle.accept(rows)

    @staticmethod
    def _commit() -> None:
        connection.commit()
        connection.close()

    def end(self) -> None:
        self._thread.submit(lambda: connection.close()).result()
        self._thread.shutdown()


@pytest.fixture
def slow(transactional_db: None) -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.end()


def test_a_page_ends_before_what_a_running_transaction_may_still_add(alice: User, slow: Slow) -> None:
    tail = Tail(alice)
    lifecycle.accept([row(alice.pk, "first")])
    slow.store(alice, "slow", "slow too").result()
    lifecycle.accept([row(alice.pk, "fast")])

    assert tail.read() == ["first"]
    slow.commit()
    assert sorted(tail.read()) == ["fast", "slow", "slow too"]


def test_pages_that_follow_one_another_do_too(alice: User, slow: Slow) -> None:
    client = APIClient(HTTP_AUTHORIZATION=f"Bearer {AccessToken.for_user(alice)}")
    for number in range(3):
        lifecycle.accept([row(alice.pk, str(number))])
    first = client.get(f"{FORWARDS}2").json()
    slow.store(alice, "slow").result()
    lifecycle.accept([row(alice.pk, "fast")])

    assert [order["client_order_id"] for order in client.get(first["next"]).json()["results"]] == ["2"]
    slow.commit()
    rest = client.get(first["next"]).json()
    assert [order["client_order_id"] for order in rest["results"]] == ["2", "slow"]
    assert [order["client_order_id"] for order in client.get(rest["next"]).json()["results"]] == ["fast"]


def test_an_order_whose_statement_came_earlier_but_wrote_later_comes_after(
    alice: User, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has written, nothing says that it is there: a page need not end before it."""
    tail, accept_one = Tail(alice), lifecycle._ACCEPT_ONE
    with psycopg.connect(**doorbell.connection_parameters()) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(1)")
        held_up = accept_one.replace("(SELECT ", "(SELECT pg_advisory_xact_lock(1)::text AS waits, ", 1)
        monkeypatch.setattr(lifecycle, "_ACCEPT_ONE", held_up)
        waiting = slow.store(alice, "early")
        wait_until(lambda: _somebody_waits(holder))
        monkeypatch.setattr(lifecycle, "_ACCEPT_ONE", accept_one)
        lifecycle.accept([row(alice.pk, "meanwhile")])
        assert tail.read() == ["meanwhile"]
    waiting.result()
    slow.commit()
    assert tail.read() == ["early"]


def _somebody_waits(holder: psycopg.Connection[Any]) -> bool:
    return bool(holder.execute("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchall())


def test_newest_first_an_order_is_there_at_once(alice: User, slow: Slow) -> None:
    client = APIClient(HTTP_AUTHORIZATION=f"Bearer {AccessToken.for_user(alice)}")
    slow.store(alice, "slow").result()
    lifecycle.accept([row(alice.pk, "fast")])
    (order,) = client.get("/api/v1/orders").json()["results"]
    assert order["client_order_id"] == "fast"


def test_who_only_reads_holds_no_page_up(alice: User) -> None:
    with psycopg.connect(**doorbell.connection_parameters()) as reader:
        reader.execute("SELECT count(*) FROM orders_order")
        lifecycle.accept([row(alice.pk, "one")])
        assert Tail(alice).read() == ["one"]


def test_all_times_of_a_new_order_are_one_and_are_what_its_client_was_told(alice: User) -> None:
    request = submission.NewOrderRequest("US0378331005", "buy", "market", 1)
    told = submission.submit_order(request, owner_id=alice.pk, actor="client:alice").order
    stored = Order.objects.get()
    times = {stored.created_at, stored.updated_at, stored.next_attempt_at, stored.events.get().at}
    assert times == {told.created_at} == {told.updated_at}


def test_a_tail_misses_none_of_many_writers(alice: User) -> None:
    tail = Tail(alice)
    running = threading.Event()
    running.set()

    def follow() -> None:
        while running.is_set():
            tail.read(limit=37)
        connection.close()

    def write(number: int) -> None:
        for turn in range(12):
            with transaction.atomic():
                lifecycle.accept([row(alice.pk) for _ in range(60 if (number + turn) % 4 == 0 else 1)])
                time.sleep(0.03 * ((number + turn) % 3))  # while it is not yet to be seen

    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(follow)
        in_threads(6, write)
        running.clear()
        reading.result()
    tail.read()
    assert tail.seen.keys() == {str(pk) for pk in Order.objects.values_list("pk", flat=True)}
