"""One thread that works on many tasks by turns, with the threads that wait for it."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.db import DataError, OperationalError, connection
from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken

from orders import selectors
from orders.models import Order, new_order_id
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from quiktrade.database import statements as hot
from quiktrade.turns import Turns
from quiktrade.waiting import aside, gather


class Hub:
    """This thread, working by turns; others call what it waits for."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(2)
        self.bell = threading.Semaphore(0)
        self.turns = Turns(lambda call: self.pool.submit(self.call, call), self.bell.release)

    def call(self, call: Callable[[], None]) -> None:
        call()
        connection.close()

    def run(self, *tasks: Callable[[], None]) -> None:
        for task in tasks:
            self.turns.start(task)
        self.turns.send_off()

    def resume(self) -> None:
        """Wait for what is under way, and go on."""
        assert self.bell.acquire(timeout=10)
        self.turns.resume()


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.pool.shutdown()


def test_while_one_task_waits_the_others_go_on(hub: Hub) -> None:
    log: list[object] = []
    go = threading.Event()

    def waiting() -> None:
        log.append("begins")
        log.append(aside(lambda: go.wait(10) and threading.get_ident()))

    hub.run(waiting, lambda: log.append("other"))
    assert log == ["begins", "other"]
    go.set()
    hub.resume()
    assert log[:2] == ["begins", "other"]
    assert log[2] not in (None, threading.get_ident())  # another thread waited


def test_what_many_wait_for_is_one_call_and_what_comes_meanwhile_is_the_next(hub: Hub) -> None:
    calls: list[list[int]] = []
    done: list[int] = []
    go = threading.Event()

    def store(items: list[int]) -> None:
        go.wait(10)
        calls.append(items)

    def task(number: int) -> Callable[[], None]:
        def run() -> None:
            gather(store, number)
            done.append(number)

        return run

    hub.run(task(1), task(2))
    hub.run(task(3))
    hub.run(task(4))
    go.set()
    hub.resume()
    assert done == [1, 2]
    hub.resume()
    assert (calls, done) == ([[1, 2], [3, 4]], [1, 2, 3, 4])
    hub.run(task(5))
    hub.resume()
    assert calls[2:] == [[5]]


def test_a_call_that_raises_does_so_for_those_behind_it_and_not_for_later_ones(hub: Hub) -> None:
    answers: list[object] = []
    fails = True
    go = threading.Event()

    def store(items: list[int]) -> None:
        go.wait(10)
        if fails:
            raise OSError(str(items))

    def task() -> None:
        try:
            gather(store, 1)
            answers.append("stored")
        except OSError as error:
            answers.append(str(error))

    hub.run(task, task)
    hub.run(task)
    go.set()
    hub.resume()
    assert answers == ["[1, 1]"] * 3
    fails = False
    hub.run(task)
    hub.resume()
    assert answers[3:] == ["stored"]


def test_a_task_may_wait_again_and_again(hub: Hub) -> None:
    found: list[int] = []
    hub.run(lambda: found.extend(aside(lambda n=n: n * n) for n in range(4)))  # type: ignore[misc]
    for _ in range(4):
        hub.resume()
    assert found == [0, 1, 4, 9]


def test_what_is_raised_aside_is_raised_to_who_waits_for_it(hub: Hub) -> None:
    raised: list[str] = []

    def task() -> None:
        try:
            aside(lambda: int("nonsense"))
        except ValueError as error:
            raised.append(str(error))

    hub.run(task)
    hub.resume()
    assert "nonsense" in raised[0]


def test_when_the_database_is_gone_nobody_waits_for_it_after_another(hub: Hub) -> None:
    asked: list[int] = []
    answers: list[str] = []

    def ask() -> None:
        asked.append(1)
        raise OperationalError("gone")  # the thread that asks has no connection

    def task() -> None:
        try:
            aside(ask)
        except OperationalError as error:
            answers.append(str(error))

    hub.run(task, task, task)
    hub.run(task)
    hub.resume()
    assert (asked, answers) == ([1], ["gone"] * 4)


def test_elsewhere_both_simply_call(hub: Hub) -> None:
    calls: list[object] = []
    gather(calls.append, "here")  # in this thread, but of no task
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: aside(threading.get_ident)).result() not in (None, threading.get_ident())
    assert calls == [["here"]]


ORDERS = "/api/v1/orders"
ORDER = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1}


@pytest.mark.django_db(transaction=True)
def test_a_thread_that_works_by_turns_waits_for_no_database() -> None:
    """Whatever the answer. What it found in the database it would have waited for, and everyone else with it."""
    VenueFactory()
    alice, nobody = UserFactory(), UserFactory()
    tokens = [f"Bearer {AccessToken.for_user(user)}" for user in (alice, nobody)]
    nobody.delete()
    stored, foreign = OrderFactory(owner=alice), OrderFactory()
    requests = [
        (tokens[0], ORDER | {"client_order_id": "a"}, 201),
        (tokens[0], ORDER | {"client_order_id": "b"}, 201),
        (tokens[0], ORDER, 201),
        (tokens[0], ORDER | {"client_order_id": "a"}, 200),
        (tokens[0], ORDER | {"client_order_id": "a", "quantity": 2}, 409),
        (tokens[0], ORDER | {"venue": "XNON"}, 400),
        (tokens[0], ORDER | {"client_order_id": "a", "venue": "XNON"}, 409),
        (tokens[0], {"type": "market"}, 400),
        (tokens[1], ORDER, 401),
        ("Bearer nonsense", ORDER, 401),
        (tokens[0], stored.pk, 200),
        (tokens[0], foreign.pk, 404),
        (tokens[0], "nonsense", 404),
    ]
    statuses: dict[int, int] = {}

    def task(number: int) -> Callable[[], None]:
        def run() -> None:
            token, asked, _ = requests[number]
            client = APIClient(HTTP_AUTHORIZATION=token)
            submits = isinstance(asked, dict)
            answer = client.post(ORDERS, asked) if submits else client.get(f"{ORDERS}/{asked}")
            statuses[number] = answer.status_code

        return run

    def work() -> bool:
        hub = Hub()
        for number in range(len(requests)):
            hub.run(task(number))
            while number not in statuses:
                hub.resume()
        connected = connection.connection is not None
        connection.close()
        hub.pool.shutdown()
        return connected

    with ThreadPoolExecutor(1) as thread:
        assert not thread.submit(work).result()
    assert list(statuses.values()) == [status for _, _, status in requests]
    assert Order.objects.count() == 5


@pytest.mark.django_db(transaction=True)
def test_orders_that_clients_read_at_the_same_time_are_found_with_one_statement_each_client_its_own(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, other = OrderFactory(), OrderFactory()
    wanted = [
        (order.owner_id, order.pk),
        (other.owner_id, order.pk),
        (other.owner_id, other.pk),
        (order.owner_id, new_order_id()),
        (order.owner_id, order.pk),
    ]
    statements: list[str] = []
    fetch = hot.fetch

    def counted(statement: str, parameters: Mapping[str, object]) -> list[tuple[object, ...]]:
        statements.append(statement)
        return fetch(statement, parameters)

    monkeypatch.setattr(selectors, "fetch", counted)
    found: dict[int, object] = {}

    def task(number: int) -> None:
        order = selectors.order_of(*wanted[number])
        found[number] = order and (order.owner_id, order.id)

    hub.run(*(partial(task, number) for number in range(len(wanted))))
    hub.resume()
    assert found == {0: wanted[0], 1: None, 2: wanted[2], 3: None, 4: wanted[4]}
    assert len(statements) == 1


@pytest.mark.django_db(transaction=True)
def test_an_order_that_cannot_be_read_spoils_no_other_clients_look_up(hub: Hub) -> None:
    """Orders are kept readable by a constraint; what cannot be read comes in some other way, next time."""
    spoilt, good = OrderFactory(), OrderFactory()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE orders_order DROP CONSTRAINT order_times_readable")
        cursor.execute("UPDATE orders_order SET next_attempt_at = '20000-01-01Z' WHERE id = %s", [spoilt.pk])
    found: dict[int, object] = {}

    def task(number: int, order: Order) -> None:
        try:
            found[number] = selectors.order_of(order.owner_id, order.pk)
        except Exception as error:
            found[number] = error

    try:
        hub.run(*(partial(task, number, order) for number, order in enumerate([good, spoilt, good])))
        hub.resume()
        hub.run(partial(task, 3, spoilt))  # all by itself, and these wait for what comes after it
        hub.run(partial(task, 4, good), partial(task, 5, good))
        hub.resume()
        hub.resume()
        assert [isinstance(found[n], DataError) for n in (1, 3)] == [True, True]
        assert [getattr(found[n], "id", None) for n in (0, 2, 4, 5)] == [good.pk] * 4
    finally:
        (constraint,) = [c for c in Order._meta.constraints if c.name == "order_times_readable"]
        Order.objects.update(next_attempt_at=timezone.now())
        with connection.schema_editor() as editor:
            editor.add_constraint(Order, constraint)
