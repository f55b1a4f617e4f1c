"""How many orders and reads a client may send in a second, over all processes together."""

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Max, Min
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from orders import selectors
from orders.models import Order
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from quiktrade import limits
from quiktrade.auth.tokens import AccessToken
from quiktrade.database.statements import fetch
from quiktrade.limits import Limit, RateLimited
from quiktrade.models import ClientLimits, TokenBucket
from quiktrade.tests.processes import Process, Processes, database_url_of_tests, wait_until
from quiktrade.tests.test_api_errors import bearing, check_problem

pytestmark = pytest.mark.django_db

ORDERS, BATCH = "/api/v1/orders", "/api/v1/orders/batch"


class Clock:
    """The clock of the database, which shows what it is set to, and the one that this process counts seconds with."""

    def __init__(self) -> None:
        self.now, self.here = float(int(time.time())), 1000.0
        self.set()

    def set(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET test.now = '{self.now}'")

    def monotonic(self) -> float:
        return self.here

    def advance(self, seconds: float, *, here: bool = True) -> None:
        self.now += seconds
        self.here += seconds if here else 0.0
        self.set()


@pytest.fixture
def clock(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """A function of the same name hides the database's own, as in orders/tests/test_clock_and_locks.py."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS still")
        cursor.execute(
            "CREATE OR REPLACE FUNCTION still.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS"
            " $$ SELECT to_timestamp(current_setting('test.now')::float8) $$"
        )
        cursor.execute("SET search_path = still, pg_catalog, public")
        clock = Clock()
        monkeypatch.setattr(limits, "time", clock)
        yield clock
        cursor.execute("RESET search_path; DROP SCHEMA still CASCADE")


@pytest.fixture
def alice() -> User:
    VenueFactory()
    user: User = UserFactory(username="alice")
    return user


@pytest.fixture
def client(alice: User) -> APIClient:
    return bearing(AccessToken.for_user(alice))


def order(name: str | None = None, **terms: Any) -> dict[str, Any]:
    market = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1, **terms}
    return market | ({"client_order_id": name} if name else {})


def batch(*names: str | None) -> dict[str, Any]:
    return {"orders": [order(name) for name in names]}


def limit(user: User, **values: int | None) -> None:
    ClientLimits.objects.update_or_create(user=user, defaults=values)


def spend(client: APIClient, count: int) -> list[int]:
    return [client.post(ORDERS, order()).status_code for _ in range(count)]


# ---- One process ----


def test_nothing_is_limited_by_default(client: APIClient) -> None:
    response = client.post(ORDERS, order("a"))
    assert response.status_code == 201
    assert "RateLimit" not in response
    assert client.get(ORDERS).status_code == 200
    assert not TokenBucket.objects.exists()


@pytest.mark.usefixtures("clock")
def test_more_than_the_limit_is_refused_and_the_answer_says_when_to_come_back(alice: User, client: APIClient) -> None:
    limit(alice, orders_per_second=3)
    passed = [client.post(ORDERS, order()) for _ in range(3)]
    assert [response.status_code for response in passed] == [201, 201, 201]
    assert [response["RateLimit"] for response in passed] == [f'"orders";r={left};t=1' for left in (2, 1, 0)]
    refused = client.post(ORDERS, order())
    problem = check_problem(refused, 429, "rate-limited")
    assert problem["detail"] == "You may send 3 orders in a second. Send the same request again in 1 s."
    assert (refused["Retry-After"], problem["retry_after"]) == ("1", 1)
    assert refused["RateLimit-Policy"] == passed[0]["RateLimit-Policy"] == '"orders";q=3;w=1'
    assert refused["RateLimit"] == '"orders";r=0;t=1'
    assert Order.objects.count() == 3


def test_who_was_idle_may_send_a_second_s_worth_at_once(alice: User, client: APIClient, clock: Clock) -> None:
    limit(alice, orders_per_second=4)
    for _ in range(2):
        assert spend(client, 5) == [201, 201, 201, 201, 429]
        clock.advance(3600)
    assert spend(client, 4) == [201] * 4
    clock.advance(0.5)
    assert spend(client, 3) == [201, 201, 429]


def test_the_repeat_of_a_stored_order_is_never_a_429(alice: User, client: APIClient, clock: Clock) -> None:
    limit(alice, orders_per_second=1)
    first = client.post(ORDERS, order("a"))
    again = client.post(ORDERS, order("a"))
    assert (first.status_code, again.status_code, again["Idempotency-Replayed"]) == (201, 200, "true")
    assert again.json() == first.json()
    assert again["RateLimit"] == '"orders";r=0;t=1'
    check_problem(client.post(ORDERS, order("a", quantity=2)), 409, "client-order-id-taken")
    check_problem(client.post(ORDERS, order("b")), 429, "rate-limited")
    clock.advance(1)
    assert client.post(ORDERS, order("b")).status_code == 201


@pytest.mark.usefixtures("clock")
def test_a_refused_order_costs_one_look_up(alice: User, client: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(alice, orders_per_second=1)
    assert spend(client, 1) == [201]
    asked: list[str] = []

    def note(statement: str, parameters: Any) -> Any:
        asked.append(statement)
        return fetch(statement, parameters)

    monkeypatch.setattr("orders.selectors.fetch", note)
    with CaptureQueriesContext(connection) as queries:
        check_problem(client.post(ORDERS, order("a")), 429, "rate-limited")
    assert asked == [selectors._SUBMITTED]
    assert not [query for query in queries if 'FROM "orders_' in query["sql"]]


@pytest.mark.usefixtures("clock")
def test_a_batch_costs_as_many_as_its_orders_and_its_repeat_is_answered(alice: User, client: APIClient) -> None:
    limit(alice, orders_per_second=4)
    first = client.post(BATCH, batch("a", "b", "c"))
    assert [result["status"] for result in first.json()["results"]] == [201] * 3
    assert first["RateLimit"] == '"orders";r=1;t=1'
    check_problem(client.post(BATCH, batch("d", "e")), 429, "rate-limited")

    again = client.post(BATCH, batch("a", "d", "b", "c", None))
    assert again.status_code == 200
    results = again.json()["results"]
    assert [result["status"] for result in results] == [200, 429, 200, 200, 429]
    assert results[1]["problem"]["type"] == "urn:quiktrade:problem:rate-limited"
    assert results[1]["problem"]["retry_after"] == 1
    assert client.post(ORDERS, order("d")).status_code == 201  # nothing was spent on what was refused
    assert Order.objects.count() == 4


def test_a_batch_larger_than_the_limit_passes_after_a_pause_and_later_orders_pay_for_it(
    alice: User, client: APIClient, clock: Clock
) -> None:
    limit(alice, orders_per_second=2)
    assert spend(client, 1) == [201]
    check_problem(client.post(BATCH, batch(*"abcdefg")), 429, "rate-limited")
    clock.advance(0.5)
    passed = client.post(BATCH, batch(*"abcdefg"))  # 2 of 7 were there
    assert {result["status"] for result in passed.json()["results"]} == {201}
    assert passed["RateLimit"] == '"orders";r=0;t=4'
    assert client.post(ORDERS, order())["Retry-After"] == "3"  # 5 that are owed and 1, at 2 in a second
    clock.advance(2.9)
    assert spend(client, 1) == [429]
    clock.advance(0.1)
    assert spend(client, 1) == [201]


@pytest.mark.usefixtures("clock")
def test_orders_that_are_refused_for_what_they_are_cost_nothing(alice: User, client: APIClient) -> None:
    limit(alice, orders_per_second=1)
    for wrong in (order("a", quantity=0), order("a", venue="XXXX")):
        assert client.post(ORDERS, wrong).status_code == 400
    assert client.post(BATCH, {"orders": [order("a", venue="XXXX"), order("b")]}).status_code == 200
    assert spend(client, 1) == [429]


@pytest.mark.usefixtures("clock")
def test_cancels_are_not_limited_and_a_replace_is_an_order(alice: User, client: APIClient) -> None:
    limit(alice, orders_per_second=1)
    first, second = (OrderFactory(owner=alice, status="placed") for _ in range(2))
    assert client.post(f"{ORDERS}/{first.pk}/replace", {"quantity": 80, "client_order_id": "r"}).status_code == 202
    again = client.post(f"{ORDERS}/{first.pk}/replace", {"quantity": 80, "client_order_id": "r"})
    assert (again.status_code, again["Idempotency-Replayed"]) == (200, "true")
    for more in ({}, {"client_order_id": "r2"}):
        check_problem(client.post(f"{ORDERS}/{second.pk}/replace", {"quantity": 80, **more}), 429, "rate-limited")
    for _ in range(3):
        assert client.post(f"{ORDERS}/{second.pk}/cancel", {}).status_code == 202
        assert client.post(f"{ORDERS}/cancel", {"all": True}).status_code == 202


@pytest.mark.usefixtures("clock")
def test_reads_have_a_limit_of_their_own(alice: User, client: APIClient) -> None:
    limit(alice, reads_per_second=2)
    stored = client.post(ORDERS, order()).json()["id"]
    assert [client.get(path).status_code for path in (ORDERS, f"{ORDERS}/{stored}")] == [200, 200]
    for path in (ORDERS, f"{ORDERS}/{stored}", f"{ORDERS}/stream", "/api/v1/positions", "/api/v1/venues"):
        refused = client.get(path)
        check_problem(refused, 429, "rate-limited")
        assert refused["RateLimit-Policy"] == '"reads";q=2;w=1'
    assert spend(client, 5) == [201] * 5
    assert APIClient().get("/api/v1/schema").status_code == 200


@pytest.mark.usefixtures("clock")
def test_a_client_follows_the_default_until_it_has_a_limit_of_its_own(
    alice: User, client: APIClient, settings: Any
) -> None:
    settings.ORDER_RATE = 1
    assert spend(client, 2) == [201, 429]
    limit(alice, orders_per_second=0)
    assert spend(client, 3) == [201] * 3
    bob = bearing(AccessToken.for_user(UserFactory(username="bob")))
    assert spend(bob, 2) == [201, 429]  # others are not affected


# ---- Leases ----


def process(user: User, per_second: int) -> limits.Allowance:
    """What one more process knows of the client."""
    allowance = Limit("orders", "ORDER_RATE").of(user)
    assert allowance is not None
    assert allowance.per_second == per_second
    return allowance


def passes(allowance: limits.Allowance, count: int = 1) -> bool:
    try:
        allowance.spend(count)
    except RateLimited:
        return False
    return True


@pytest.mark.parametrize(("per_second", "processes"), [(1, 3), (7, 4), (50, 6), (1000, 5)])
def test_several_processes_together_let_through_what_the_rate_allows(
    alice: User, clock: Clock, settings: Any, per_second: int, processes: int
) -> None:
    settings.ORDER_RATE = per_second
    several = [process(alice, per_second) for _ in range(processes)]
    chance = random.Random(per_second)
    held = processes * max(1, per_second // 10)
    passed: list[int] = []
    for _ in range(200):  # steps of a twentieth of a second, with twice what is allowed
        tries = max(1, per_second // 10)
        passed.append(sum(passes(chance.choice(several)) for _ in range(tries)))
        clock.advance(0.05)
    for seconds in (1, 3, 10):
        steps = 20 * seconds
        for begin in range(0, 200 - steps + 1, 20):
            total = sum(passed[begin : begin + steps])
            assert total <= per_second * (seconds + 1) + held  # a second's worth was there
            assert total >= per_second * seconds - held


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those of the limits."""
    sent: list[str] = []

    def note(statement: str, parameters: Any) -> Any:
        sent.append(statement)
        return fetch(statement, parameters)

    monkeypatch.setattr("quiktrade.limits.fetch", note)
    return sent


@pytest.mark.usefixtures("clock")
def test_most_orders_cost_no_statement(alice: User, settings: Any, statements: list[str]) -> None:
    settings.ORDER_RATE = 100
    allowance = process(alice, 100)
    assert passes(allowance)
    assert statements == [limits._TAKE, limits._MAKE, limits._TAKE]  # it had no bucket
    statements.clear()
    assert all(passes(allowance) for _ in range(99))
    assert statements == [limits._TAKE] * 9
    assert not passes(allowance)  # nothing is left, and that is known
    assert len(statements) == 9


def drained(*several: limits.Allowance) -> None:
    for allowance in several:
        while passes(allowance):
            pass


def test_a_client_that_stays_beyond_its_limit_costs_few_statements(
    alice: User, clock: Clock, settings: Any, statements: list[str]
) -> None:
    settings.ORDER_RATE = 200
    several = [process(alice, 200) for _ in range(2)]
    drained(*several)
    statements.clear()
    passed = 0
    for number in range(800):  # two seconds, at twice the rate
        clock.advance(1 / 400)
        passed += passes(several[number % 2])
    assert 360 <= passed <= 400
    assert len(statements) <= 2 * 2 * 2 * limits.LEASES_PER_SECOND


def test_a_client_that_is_below_its_limit_again_is_refused_next_to_nothing(
    alice: User, clock: Clock, settings: Any
) -> None:
    settings.ORDER_RATE = 200
    allowance = process(alice, 200)
    drained(allowance)
    passed = 0
    for _ in range(160):  # a second, at four fifths of the rate
        clock.advance(1 / 160)
        passed += passes(allowance)
    assert passed >= 156


def test_an_order_passes_if_the_answer_before_it_said_that_some_are_left(
    alice: User, clock: Clock, settings: Any
) -> None:
    settings.ORDER_RATE = 100
    allowance = process(alice, 100)
    drained(allowance)
    passed, left = [], []
    for _ in range(40):
        clock.advance(0.01)
        left.append("r=0" not in allowance.headers()["RateLimit"])
        passed.append(passes(allowance))
    assert passed == left
    assert set(passed) == {True, False}


@pytest.mark.usefixtures("clock")
def test_what_comes_at_the_same_time_is_leased_together_and_paid_in_its_order(
    alice: User, settings: Any, statements: list[str]
) -> None:
    settings.ORDER_RATE = 20
    first, second = process(alice, 20), process(UserFactory(), 20)
    assert passes(first)
    assert passes(second)
    statements.clear()
    counts = [(first, 1), (first, 1), (first, 9), (second, 2), (first, 30), (first, 1), (second, 17), (first, 8)]
    wanted = [limits.Wanted(allowance, count) for allowance, count in counts]
    limits._take(wanted)
    # Of the first, 19 are there: 1, 1, 9 and 1 leave 7 to spend. Its 30 would need all 20. Of the second it is all 19.
    assert [each.paid for each in wanted] == [True, True, True, True, False, True, True, False]
    assert len(statements) == 2


def test_what_a_process_has_not_spent_within_a_second_goes_back(
    alice: User, clock: Clock, settings: Any, statements: list[str]
) -> None:
    settings.ORDER_RATE = 20
    first, second = process(alice, 20), process(alice, 20)
    assert passes(first)
    assert first.leased == 1
    clock.advance(1)
    assert passes(second, 20)
    assert not passes(process(alice, 20))
    statements.clear()
    assert [passes(first), passes(first)] == [True, False]
    assert statements == [limits._TAKE]


def test_a_statement_that_waited_for_another_one_brings_nothing_twice(alice: User, clock: Clock, settings: Any) -> None:
    settings.ORDER_RATE = 2
    assert passes(process(alice, 2), 2)
    clock.advance(-0.5)  # it began before the other one
    assert not passes(process(alice, 2))
    clock.advance(0.5)
    assert not passes(process(alice, 2))
    clock.advance(0.5)
    assert passes(process(alice, 2))


@pytest.mark.parametrize("seconds", [-3600.0, -30.0, 3600.0])
def test_a_clock_of_the_database_that_was_wrong_limits_nobody_for_longer_than_a_second(
    alice: User, clock: Clock, settings: Any, seconds: float
) -> None:
    settings.ORDER_RATE = 2
    allowance = process(alice, 2)
    assert [passes(allowance) for _ in range(3)] == [True, True, False]
    clock.advance(seconds, here=False)
    clock.advance(1)
    assert passes(process(alice, 2)) is (seconds > 0)
    clock.advance(1)
    assert [passes(allowance) for _ in range(3)] == [True, True, False]


def test_it_is_the_clock_of_the_database_that_refills(alice: User, clock: Clock, settings: Any) -> None:
    settings.ORDER_RATE = 2
    assert passes(process(alice, 2), 2)
    clock.here += 3600
    assert not passes(process(alice, 2))
    clock.advance(1, here=False)
    assert passes(process(alice, 2))


# ---- Trouble ----


@pytest.mark.django_db(transaction=True)
def test_a_bucket_that_somebody_has_locked_keeps_no_order_waiting(
    alice: User, client: APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    limit(alice, orders_per_second=1)
    assert spend(client, 2)[0] == 201
    with psycopg.connect(database_url_of_tests()) as other:
        other.execute("SELECT FROM quiktrade_tokenbucket FOR UPDATE")
        limits.ORDERS.forget()
        assert spend(client, 5) == [201] * 5
    assert [record.event for record in caplog.records if record.name == "quiktrade.limits"] == ["limits.off"]  # type: ignore[attr-defined]


@pytest.mark.django_db(transaction=True)
def test_orders_pass_without_the_table_of_the_limits(alice: User, client: APIClient) -> None:
    limit(alice, orders_per_second=1)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE quiktrade_tokenbucket RENAME TO elsewhere")
        try:
            assert spend(client, 3) == [201] * 3
        finally:
            cursor.execute("ALTER TABLE elsewhere RENAME TO quiktrade_tokenbucket")


@pytest.mark.django_db(transaction=True)
def test_while_the_database_is_away_the_answer_is_as_without_a_limit(
    alice: User, client: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(alice, orders_per_second=1)

    def lose_the_connection(statement: str, parameters: Any) -> Any:
        connection.connection.pgconn.finish()
        return fetch(statement, parameters)

    monkeypatch.setattr("quiktrade.limits.fetch", lose_the_connection)
    unavailable = client.post(ORDERS, order())
    connection.close()
    check_problem(unavailable, 503, "unavailable")
    assert unavailable["Retry-After"] == "2"


def test_a_lease_waits_for_no_disk() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relpersistence FROM pg_class WHERE relname = 'quiktrade_tokenbucket'")
        assert cursor.fetchone() == ("u",)


# ---- Real processes ----


class Caller:
    """A client that sends orders, each under an id of its own, over one connection."""

    def __init__(self, web: Process, token: str) -> None:
        self.port = web.port
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def send(self, name: str) -> tuple[int, dict[str, Any], Any]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as channel:
            channel.request("POST", ORDERS, json.dumps(order(name)).encode(), self.headers)
            answer = channel.getresponse()
            return answer.status, json.loads(answer.read()), answer.headers


RATE, PROCESSES = 20, 4


@pytest.mark.exhaustive
def test_processes_together_keep_a_limit_and_learn_of_a_new_one(processes: Processes) -> None:
    alice = UserFactory(username="alice")
    VenueFactory()
    limit(alice, orders_per_second=RATE)
    token = str(AccessToken.for_user(alice))
    callers = [Caller(processes.web(QUIKTRADE_WEB_WORKERS="2"), token) for _ in range(PROCESSES // 2)]
    stored: list[str] = []
    repeated: list[int] = []

    def send(number: int) -> int:
        """Send orders for as long as it takes to have some refused, and repeat each one that was stored elsewhere."""
        chance, refused = random.Random(number), 0
        while len(stored) < 5 * RATE:
            name = f"{number}-{chance.random()}"
            status, problem, headers = chance.choice(callers).send(name)
            if status == 201:
                stored.append(name)
                repeated.append(chance.choice(callers).send(name)[0])
            else:
                assert (status, problem["type"]) == (429, "urn:quiktrade:problem:rate-limited")
                assert headers["RateLimit-Policy"] == f'"orders";q={RATE};w=1'
                refused += 1
        return refused

    with ThreadPoolExecutor(4) as crowd:
        refused = sum(crowd.map(send, range(4)))
    assert refused > 0
    assert set(repeated) == {200}
    times = Order.objects.aggregate(first=Min("created_at"), last=Max("created_at"))
    seconds = (times["last"] - times["first"]).total_seconds()
    assert Order.objects.count() <= RATE * (seconds + 1) + PROCESSES * RATE // 10

    limit(alice, orders_per_second=0)
    wait_until(lambda: "RateLimit" not in callers[0].send(f"x{random.random()}")[2], *processes)
    wait_until(lambda: "RateLimit" not in callers[1].send(f"x{random.random()}")[2], *processes)
