"""Orders that arrive at the same time are stored together, and each caller gets its own answer."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, OperationalError, connection, transaction

from orders import lifecycle, together
from orders.lifecycle import NewRow
from orders.models import Order, OrderEvent, new_order_id
from orders.tests.factories import UserFactory, VenueFactory
from orders.tests.threads import in_threads
from quiktrade.jobs import doorbell
from quiktrade.tests.processes import wait_until

Accept = Callable[[Sequence[NewRow]], Any]


@pytest.fixture
def alice(transactional_db: None) -> User:
    VenueFactory()
    user: User = UserFactory(username="alice")
    return user


def row(owner_id: int, client_order_id: str = "") -> NewRow:
    id_ = new_order_id()
    return NewRow(
        actor=f"client:{owner_id}",
        id=id_,
        owner_id=owner_id,
        client_order_id=client_order_id or str(id_),
        venue_id="XSIM",
        instrument="US0378331005",
        side="buy",
        type="market",
        quantity=1,
        limit_price=None,
        stop_price=None,
        time_in_force="day",
        expires_at=None,
        place_by=None,
    )


@contextmanager
def first_one_waits_for(others: int, accept: Accept = lifecycle.accept) -> Iterator[list[int]]:
    """The first to store waits until this many others have come. Yields the numbers of rows stored at once."""
    sizes: list[int] = []

    def stored(rows: Sequence[NewRow]) -> Any:
        sizes.append(len(rows))
        if len(sizes) == 1:
            wait_until(lambda: together.batch.waiting == others)
        return accept(rows)

    with patch.object(lifecycle, "accept", stored):
        yield sizes


def submit_all(rows: Sequence[NewRow]) -> list[Future[together.Stored]]:
    """The first row, and when it is being stored all others, each from a thread of its own."""

    def submit(one: NewRow) -> together.Stored:
        try:
            return together.accept([one])
        finally:
            connection.close()

    with ThreadPoolExecutor(len(rows)) as pool:
        first = pool.submit(submit, rows[0])
        wait_until(lambda: not together.batch.idle)
        return [first, *(pool.submit(submit, one) for one in rows[1:])]


def test_whoever_comes_while_one_is_stored_is_taken_along_by_the_next(alice: User) -> None:
    rows = [row(alice.pk) for _ in range(9)]
    with first_one_waits_for(8) as sizes:
        calls = submit_all(rows)
    assert sizes == [1, 8]
    for one, call in zip(rows, calls, strict=True):
        assert one.id in call.result()
    assert Order.objects.count() == OrderEvent.objects.count() == 9
    assert together.batch.idle


def test_each_history_names_its_own_client(alice: User) -> None:
    rows = [row(alice.pk), row(alice.pk), row(UserFactory(username="bob").pk)]
    with first_one_waits_for(2):
        submit_all(rows)
    assert {(str(event.order_id), event.actor) for event in OrderEvent.objects.all()} == {
        (str(one.id), one.actor) for one in rows
    }


def test_a_row_that_cannot_be_stored_harms_no_other(alice: User) -> None:
    nobody = 10**9
    rows = [row(alice.pk), row(alice.pk), row(nobody), row(alice.pk)]
    with first_one_waits_for(3):
        calls = submit_all(rows)
    assert isinstance(calls[2].exception(), IntegrityError)
    for index in (0, 1, 3):
        assert rows[index].id in calls[index].result()
    assert Order.objects.count() == 3


def test_when_the_database_goes_all_of_them_are_told_and_the_next_ones_are_stored(alice: User) -> None:
    def fails_once(rows: Sequence[NewRow]) -> Any:
        if len(rows) > 1:
            raise OperationalError("gone")
        return lifecycle_accept(rows)

    lifecycle_accept = lifecycle.accept
    with first_one_waits_for(3, fails_once):
        calls = submit_all([row(alice.pk) for _ in range(4)])
        assert [type(call.exception()) for call in calls[1:]] == [OperationalError] * 3
        assert together.accept([row(alice.pk)])
    assert Order.objects.count() == 2


def test_one_that_waits_for_a_lock_in_vain_keeps_no_other_from_being_stored(alice: User) -> None:
    blocked = UserFactory(username="bob").pk
    rows = [row(alice.pk), row(alice.pk), row(blocked), row(alice.pk)]

    def accept(given: Sequence[NewRow]) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '200ms'")
        return real(given)

    real, holder = lifecycle.accept, psycopg.connect(**doorbell.connection_parameters())
    holder.execute("SELECT FROM auth_user WHERE id = %s FOR UPDATE", [blocked])
    with first_one_waits_for(3, accept):
        calls = submit_all(rows)
    holder.close()
    assert isinstance(calls[2].exception(), OperationalError)
    for index in (0, 1, 3):
        assert rows[index].id in calls[index].result()


def test_when_the_connection_is_lost_those_behind_are_not_kept_waiting_for_the_same(alice: User) -> None:
    def accept(given: Sequence[NewRow]) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with first_one_waits_for(3, accept) as sizes:
        calls = submit_all([row(alice.pk) for _ in range(4)])
        assert sizes == [1]
        assert [type(call.exception()) for call in calls] == [OperationalError] * 4
    connection.close()
    assert together.accept([row(alice.pk)])


def test_an_id_that_two_submit_at_once_is_stored_once(alice: User) -> None:
    rows = [row(alice.pk, "first"), *(row(alice.pk, "same") for _ in range(4))]
    with first_one_waits_for(4):
        calls = submit_all(rows)
    stored = [one for one, call in zip(rows, calls, strict=True) if one.id in call.result()]
    assert [one.client_order_id for one in stored] == ["first", "same"]
    assert sorted(len(call.result()) for call in calls) == [0, 0, 0, 1, 1]  # nobody is told of anybody else's


def test_large_batches_are_not_made_larger(alice: User) -> None:
    def submit(one: Sequence[NewRow]) -> None:
        together.accept(one)
        connection.close()

    batches = [[row(alice.pk) for _ in range(300)] for _ in range(3)]
    with first_one_waits_for(2) as sizes:
        threads = [threading.Thread(target=submit, args=[batch]) for batch in batches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sizes == [300, 300, 300]


def test_within_a_transaction_nobody_elses_orders_are_stored(alice: User) -> None:
    with transaction.atomic():
        assert together.accept([row(alice.pk)])
        assert together.batch.idle
        transaction.set_rollback(True)
    assert not Order.objects.exists()


def test_many_threads_store_everything_and_leave_nobody_waiting(alice: User) -> None:
    def submit(number: int) -> int:
        return sum(len(together.accept([row(alice.pk)])) > 0 for _ in range(25))

    assert in_threads(16, submit) == [25] * 16
    assert Order.objects.count() == 400
    assert together.batch.idle
