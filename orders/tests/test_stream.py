"""Clients that follow their orders on a stream, against a real gunicorn, read with a library that is not ours."""

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import connection
from httpx_sse import ServerSentEvent, connect_sse

from exchanges.venue import ReportKind
from orders import feed, lifecycle, streaming
from orders.api import feed as feed_views
from orders.lifecycle import Event, Step
from orders.models import OrderEvent
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory, report
from orders.tests.test_store_together import row
from quiktrade.auth import authentication
from quiktrade.auth.tokens import AccessToken
from quiktrade.tests.processes import Process, Processes, wait_until
from quiktrade.tests.test_overload import ONE

STREAM = "/api/v1/orders/stream"
TLS = ssl.create_default_context()
"""Nothing here uses it, but httpx would make one for every client, which takes long."""
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice() -> User:
    VenueFactory()
    user: User = UserFactory(username="alice")
    return user


@pytest.fixture
def web(processes: Processes) -> Process:
    return processes.web(**ONE)


def headers(user: User, *, seconds: float = 600) -> dict[str, str]:
    token = AccessToken.for_user(user)
    token.set_exp(lifetime=timedelta(seconds=seconds))
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def following(web: Process, user: User, last: str = "", **more: Any) -> Iterator[Iterator[ServerSentEvent]]:
    given = headers(user, **more) | ({"Last-Event-ID": last} if last else {})
    with (
        httpx.Client(base_url=web.url, timeout=30, verify=TLS) as client,
        connect_sse(client, "GET", STREAM, headers=given) as source,
    ):
        yield source.iter_sse()


class Follower:
    """Follows a client's orders in a thread, and connects again with the last id whenever the stream ends."""

    def __init__(self, web: Process, user: User) -> None:
        self._web, self._user = web, user
        self.seen: list[tuple[str, int]] = []
        self.connected = 0
        self._last = ""
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        wait_until(lambda: self.connected, self._web)
        return self

    def __exit__(self, *_: object) -> None:
        self._running = False  # the thread ends when the server does

    def _run(self) -> None:
        try:
            while self._running:
                try:
                    self._read()
                except httpx.HTTPError:
                    time.sleep(0.05)
        finally:
            connection.close()  # the key that signs the token is a row

    def _read(self) -> None:
        with following(self._web, self._user, self._last) as events:
            self.connected += 1
            for event in events:
                self._last = event.id
                if event.event == "order":
                    told = event.json()
                    self.seen.append((told["client_order_id"], told["sequence"]))
                if not self._running:
                    return


def stored(user: User) -> list[tuple[str, int]]:
    events = OrderEvent.objects.filter(owner=user).order_by("stamp", "id")
    return list(events.values_list("order__client_order_id", "sequence"))


@pytest.mark.exhaustive
def test_a_client_is_told_of_its_orders_and_of_no_others(web: Process, alice: User) -> None:
    with following(web, alice) as events:
        start = next(events)
        assert (start.event, start.retry) == ("start", 1000)
        OrderFactory(owner=UserFactory(), status="placed")
        order = OrderFactory(owner=alice, client_order_id="one", status="placed")
        report(order.id, order.venue_id, ReportKind.EXECUTED, quantity=100, price=Decimal("10.25"), execution_id="E1")
        told = [next(events) for _ in range(4)]
    assert [event.event for event in told] == ["order"] * 4
    assert [event.json()["status"] for event in told] == ["pending", "submitting", "placed", "filled"]
    last = told[-1].json()
    assert last["execution"] == {"execution_id": "E1", "quantity": 100, "price": "10.25", "refers_to": ""}
    assert told[-1].id == last["cursor"]


@pytest.mark.exhaustive
def test_what_a_client_missed_is_told_when_it_comes_back(web: Process, alice: User) -> None:
    with following(web, alice) as events:
        start = next(events)
    OrderFactory(owner=alice, client_order_id="one", status="placed")
    OrderFactory(owner=UserFactory())
    with following(web, alice, start.id) as events:
        resume = next(events)
        assert (resume.event, resume.id) == ("resume", start.id)
        missed = [next(events).json() for _ in range(3)]
        OrderFactory(owner=alice, client_order_id="two")
        live = next(events).json()
    told = [(event["client_order_id"], event["sequence"]) for event in (*missed, live)]
    assert told == [("one", 1), ("one", 2), ("one", 3), ("two", 1)]


@pytest.mark.exhaustive
def test_nothing_is_missed_or_doubled_when_the_process_is_killed_and_clients_come_back(
    web: Process, alice: User
) -> None:
    running = threading.Event()
    running.set()

    def write() -> None:
        try:
            while running.is_set():
                ids = lifecycle.accept([row(alice.pk) for _ in range(3)])
                steps = [Step(order_id=id_, event=Event.CLAIMED, delay=30.0) for id_ in ids]
                lifecycle.advance(steps, actor="system:test")
                time.sleep(0.01)
        finally:
            connection.close()

    writer = threading.Thread(target=write)
    with Follower(web, alice) as first, Follower(web, alice) as second:
        writer.start()
        for _ in range(3):
            before, seen = first.connected + second.connected, len(first.seen)
            wait_until(lambda: len(first.seen) > seen + 60, web)  # noqa: B023  it is called at once
            web.kill()
            web.start()
            web.wait_until_ready()
            wait_until(lambda: first.connected + second.connected >= before + 2, web)  # noqa: B023
        running.clear()
        writer.join()
        written = stored(alice)
        wait_until(lambda: len(first.seen) == len(second.seen) == len(written), web)
    assert first.seen == second.seen == written


def test_a_cursor_of_another_database_begins_again(web: Process, alice: User) -> None:
    with following(web, alice, "0000.1.1") as events:
        reset = next(events)
        assert reset.event == "reset"
        assert "List your orders" in reset.json()["detail"]
        OrderFactory(owner=alice, client_order_id="one")
        assert next(events).json()["client_order_id"] == "one"
    with following(web, alice, reset.id) as events:
        assert next(events).event == "resume"
        assert next(events).json()["client_order_id"] == "one"


@pytest.mark.exhaustive
def test_a_stream_ends_when_its_token_runs_out(web: Process, alice: User) -> None:
    with following(web, alice, seconds=2) as events:
        assert [event.event for event in events] == ["start"]
    with following(web, alice) as events:  # a later token goes on
        assert next(events).event == "start"


@pytest.mark.exhaustive
def test_streams_end_at_once_when_the_server_is_stopped(web: Process, alice: User) -> None:
    with following(web, alice) as events:
        next(events)
        stopping = threading.Thread(target=web.stop)
        stopping.start()
        assert list(events) == []
        stopping.join()
    assert "graceful timeout" not in web.output


@pytest.mark.exhaustive
def test_a_stream_on_which_nothing_happens_shows_that_it_lives(web: Process, alice: User) -> None:
    with (
        httpx.Client(base_url=web.url, timeout=30, verify=TLS) as client,
        client.stream("GET", STREAM, headers=headers(alice)) as answer,
    ):
        lines = (line for line in answer.iter_lines() if line.startswith(":"))
        assert [next(lines) for _ in range(2)] == [":"] * 2


@pytest.mark.exhaustive
def test_who_does_not_read_is_cut_off_and_resumes(web: Process, alice: User) -> None:
    with closing(socket.socket()) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(30)
        slow.connect(("127.0.0.1", web.port))
        (token,) = headers(alice).values()
        slow.sendall(f"GET {STREAM} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {token}\r\n\r\n".encode())
        begun = slow.recv(4096)
        while b"event: start" not in begun:
            begun += slow.recv(4096)
        cursor = begun.partition(b"id: ")[2].partition(b"\n")[0].decode()
        while "Client too slow" not in web.output:
            lifecycle.accept([row(alice.pk) for _ in range(500)])
        rest = b"".join(iter(lambda: slow.recv(65_536), b""))
    written = stored(alice)
    assert rest.count(b"event: order") < len(written)
    with following(web, alice, cursor) as events:
        next(events)
        told = [next(events).json() for _ in written]
    assert [(event["client_order_id"], event["sequence"]) for event in told] == written


@pytest.mark.exhaustive
def test_who_reads_late_gets_every_event_whole(web: Process, alice: User) -> None:
    """What the kernel does not keep waits in the process: parts of events are sent later, and nothing between them."""
    with closing(socket.socket()) as late:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        late.settimeout(30)
        late.connect(("127.0.0.1", web.port))
        (token,) = headers(alice).values()
        late.sendall(f"GET {STREAM} HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: {token}\r\n\r\n".encode())
        answer = late.recv(4096)
        for turn in range(400):
            lifecycle.accept([row(alice.pk) for _ in range(20)])
            if turn % 4 == 0:
                answer += late.recv(30_000)
        written = stored(alice)
        while answer.count(b"event: order\n") < len(written) or not answer.endswith(b"\n"):
            answer += late.recv(65_536)
    data = [line.removeprefix(b"data: ") for line in answer.split(b"\n") if line.startswith(b"data: ")]
    told = [json.loads(each) for each in data[1:]]
    assert [(event["client_order_id"], event["sequence"]) for event in told] == written


def test_a_client_has_twenty_streams_and_those_it_left_do_not_count(web: Process, alice: User) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(following(web, alice)) for _ in range(20)]
        for events in streams:
            next(events)
        refused = httpx.get(f"{web.url}{STREAM}", headers=headers(alice), verify=TLS)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert refused.json()["type"] == "urn:quiktrade:problem:too-many-streams"
        with following(web, UserFactory()) as others:
            next(others)
    with following(web, alice) as events:
        assert next(events).event == "start"


def test_a_process_serves_only_so_many_streams(processes: Processes, alice: User) -> None:
    web = processes.web(QUIKTRADE_WEB_STREAMS="2", **ONE)
    with ExitStack() as stack:
        streams = [stack.enter_context(following(web, user)) for user in (alice, UserFactory())]
        for events in streams:
            next(events)
        refused = httpx.get(f"{web.url}{STREAM}", headers=headers(UserFactory()), verify=TLS)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:quiktrade:problem:no-stream")


@pytest.mark.exhaustive
def test_streams_hold_no_place_and_no_connection_that_a_request_needs(processes: Processes, alice: User) -> None:
    web = processes.web(QUIKTRADE_WEB_IN_HAND="1", QUIKTRADE_WEB_CONNECTIONS="2", **ONE)
    body = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1}
    with ExitStack() as stack:
        streams = [stack.enter_context(following(web, alice)) for _ in range(10)]
        for events in streams:
            next(events)
        for _ in range(3):
            assert (
                httpx.post(f"{web.url}/api/v1/orders", json=body, headers=headers(alice), verify=TLS).status_code == 201
            )
        assert [next(events).json()["event"] for events in streams] == ["accepted"] * 10


def test_with_every_heartbeat_it_is_seen_whether_the_account_may_still_use_the_api(alice: User) -> None:
    token = AccessToken.for_user(alice)
    assert feed_views._may_go_on(token, "127.0.0.1")
    User.objects.filter(pk=alice.pk).update(is_active=False)
    authentication.forget()
    assert not feed_views._may_go_on(token, "127.0.0.1")


@pytest.mark.exhaustive
def test_streams_live_on_without_the_database(web: Process, alice: User) -> None:
    with following(web, alice) as events:
        next(events)
        with connection.cursor() as cursor:  # the tail's connection is ended
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND datname = current_database()"
            )
        OrderFactory(owner=alice, client_order_id="one")
        assert next(events).json()["client_order_id"] == "one"
    assert "Feed not read" in web.output


def test_curl_shows_a_stream_as_the_readme_says(web: Process, alice: User) -> None:
    (token,) = headers(alice).values()
    command = ["curl", "-sN", f"{web.url}{STREAM}", "-H", f"Authorization: {token}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout
        first = [curl.stdout.readline() for _ in range(5)]
        OrderFactory(owner=alice, client_order_id="one")
        id_, event, data = (curl.stdout.readline() for _ in range(3))
        curl.terminate()
    assert (first[0], first[2], first[4]) == ("retry: 1000\n", "event: start\n", "\n")
    assert event == "event: order\n"
    assert json.loads(data.removeprefix("data: "))["client_order_id"] == "one"
    assert id_.startswith("id: ")


@pytest.mark.parametrize(
    ("query", "header", "status", "where"),
    [
        ("?after=5", "", 400, {"parameter": "after"}),
        ("?after=a1b2.1.99999999999999999999", "", 400, {"parameter": "after"}),
        ("", "x" * 5000, 400, {"header": "Last-Event-ID"}),
        ("?limit=5", "", 400, {"parameter": "limit"}),
    ],
)
def test_what_is_no_cursor_is_refused(
    client: Any, alice: User, query: str, header: str, status: int, where: dict[str, str]
) -> None:
    given = {**headers(alice)} | ({"Last-Event-ID": header} if header else {})
    answer = client.get(f"{STREAM}{query}", headers=given)
    assert answer.status_code == status
    (error,) = answer.json()["errors"]
    assert error.items() >= where.items()


def test_a_head_request_opens_no_stream(client: Any, alice: User) -> None:
    answer = client.head(STREAM, headers=headers(alice))
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/event-stream")


def test_the_tail_begins_where_what_was_missed_ends(alice: User) -> None:
    """Events that come between the registration and the reading of what was missed are told once, by the tail."""
    hub, after = streaming.Hub(2), feed.horizon().cursor
    OrderFactory(owner=alice, client_order_id="missed")
    wait_until(lambda: feed.read(after, feed.horizon().cursor, owner_id=alice.pk, limit=1))
    stream = hub.open(alice.pk, after)
    try:
        OrderFactory(owner=alice, client_order_id="live")
        missed = [event.client_order_id for page in streaming.missed(stream, after) for event in page]
        assert (missed, b'"live"' in stream.take(10.0)) == (["missed"], True)
    finally:
        hub.close(stream)
    wait_until(lambda: hub._tail is None)


class HungUp:
    """The line of a client that has closed its end."""

    def go_live(self) -> None: ...

    def push(self, part: bytes) -> int | None: ...

    def cut(self) -> None: ...

    def hung_up(self) -> bool:
        return True


def test_a_stream_whose_client_has_hung_up_ends_though_nothing_happens(alice: User) -> None:
    hub = streaming.Hub(2)
    gone, here = hub.open(alice.pk, line=HungUp()), hub.open(alice.pk)
    wait_until(lambda: gone.over)
    assert (gone.over, here.over) == ("the client is gone", "")
    hub.close(here)
    wait_until(lambda: hub._tail is None)


def test_what_a_client_leaves_unread_is_bounded(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MOST_UNSENT", 1_000)
    hub = streaming.Hub(1)
    stream = hub.open(alice.pk)
    try:
        lifecycle.accept([row(alice.pk) for _ in range(50)])
        wait_until(lambda: stream.over)
    finally:
        hub.close(stream)
    wait_until(lambda: hub._tail is None)


def test_what_another_process_has_told_is_not_told_again(alice: User) -> None:
    hub = streaming.Hub(2)
    here = feed.horizon()
    ahead = here.cursor._replace(stamp=here.stamp + 1_000_000)
    try:
        behind, there = hub.open(alice.pk), hub.open(alice.pk, ahead)
        OrderFactory(owner=alice, client_order_id="one")
        assert b'"one"' in behind.take(10.0)
        assert there.take(0.0) == b""
    finally:
        hub.close(behind)
        hub.close(there)
    wait_until(lambda: hub._tail is None)
