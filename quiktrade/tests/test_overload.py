"""More requests than can be answered in good time, against a real gunicorn."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPResponse

import psutil
import pytest
from django.db import connection

from orders.models import Order
from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.auth.tokens import AccessToken
from quiktrade.tests.processes import Process, Processes, wait_until

ONE = {"QUIKTRADE_WEB_WORKERS": "1"}


def order(name: str) -> bytes:
    body = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1, "client_order_id": name}
    return json.dumps(body).encode()


@pytest.fixture
def slow_orders(processes: Processes) -> Iterator[None]:
    """Orders whose id begins with "slow" take the database two seconds."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION sleep_a_while() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(2); RETURN NEW; END $$;"
            "CREATE TRIGGER slow BEFORE INSERT ON orders_order FOR EACH ROW"
            " WHEN (NEW.client_order_id LIKE 'slow%') EXECUTE FUNCTION sleep_a_while()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER slow ON orders_order; DROP FUNCTION sleep_a_while()")


def asleep() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        return int(cursor.fetchone()[0])


class Client:
    def __init__(self, web: Process) -> None:
        VenueFactory()
        self.port = web.port
        self.headers = {
            "Authorization": f"Bearer {AccessToken.for_user(UserFactory())}",
            "Content-Type": "application/json",
        }

    def channel(self) -> closing[HTTPConnection]:
        return closing(HTTPConnection("127.0.0.1", self.port, timeout=30))

    def post(self, name: str) -> int:
        with self.channel() as channel:
            return self.post_on(channel, name).status

    def send_on(self, channel: HTTPConnection, name: str) -> None:
        channel.request("POST", "/api/v1/orders", order(name), self.headers)

    def post_on(self, channel: HTTPConnection, name: str) -> HTTPResponse:
        self.send_on(channel, name)
        return channel.getresponse()

    def get(self, path: str) -> int:
        with self.channel() as channel:
            channel.request("GET", path, headers=self.headers)
            return channel.getresponse().status


@pytest.mark.usefixtures("slow_orders")
def test_what_is_too_much_is_refused_at_once_and_taken_when_sent_again(processes: Processes) -> None:
    web = processes.web(QUIKTRADE_WEB_THREADS="2", QUIKTRADE_WEB_IN_HAND="2", **ONE)
    client = Client(web)
    with ThreadPoolExecutor(1) as crowd, client.channel() as second, client.channel() as channel:
        slow = crowd.submit(client.post, "slow")
        wait_until(lambda: asleep() == 1, web)
        client.send_on(second, "waits-for-it")
        refused = client.post_on(channel, "one-too-many")
        problem = json.loads(refused.read())
        assert client.get("/healthz") == 200
        assert talk(web, b"HEAD /api/v1/orders HTTP/1.1\r\n" + HEAD + LAST).startswith(b"HTTP/1.1 503 ")
        assert statuses(talk(web, *one_of_each_kind())) == [b"503"] * 4 + [b"100", b"503", b"200"]
        assert not slow.done()
        assert slow.result() == 201
        assert second.getresponse().status == 201

        assert (refused.status, problem["type"]) == (503, "urn:quiktrade:problem:overloaded")
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert client.post_on(channel, "one-too-many").status == 201  # on the same connection
    assert Order.objects.count() == 3


@pytest.mark.usefixtures("slow_orders")
def test_one_client_has_only_so_many_requests_in_hand_and_others_and_cancels_go_on(processes: Processes) -> None:
    web = processes.web(QUIKTRADE_WEB_IN_HAND_OF_CLIENT="1", **ONE)
    client, other = Client(web), Client(web)
    with ThreadPoolExecutor(1) as crowd, client.channel() as channel:
        slow = crowd.submit(client.post, "slow")
        wait_until(lambda: asleep() == 1, web)
        refused = client.post_on(channel, "one-too-many")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert json.loads(refused.read())["type"] == "urn:quiktrade:problem:overloaded"
        token = client.headers["Authorization"].split()[-1]
        for spelling in (f"bEARER {token}", f"Bearer   {token}", f"Bearer\t{token} "):
            client.headers["Authorization"] = spelling
            refused = client.post_on(channel, "one-too-many")
            assert (spelling, refused.status, len(refused.read()) > 0) == (spelling, 503, True)
        channel.request("POST", "/api/v1/orders/cancel", b'{"all": true}', client.headers)
        assert channel.getresponse().status == 202
        assert other.get("/api/v1/venues") == 200
        assert slow.result() == 201
    assert client.post("one-too-many") == 201
    assert Order.objects.count() == 2


@pytest.mark.exhaustive
def test_connections_that_say_nothing_hold_no_thread(processes: Processes) -> None:
    web = processes.web(QUIKTRADE_WEB_THREADS="1", **ONE)
    with ExitStack() as stack:
        for _ in range(100):  # each would hold the one thread for 5 s
            stack.enter_context(socket.create_connection(("127.0.0.1", web.port)))
        assert Client(web).post("a") == 201


@pytest.mark.exhaustive
@pytest.mark.usefixtures("slow_orders")
def test_while_orders_wait_for_the_database_everything_else_is_served(processes: Processes) -> None:
    web = processes.web(QUIKTRADE_WEB_THREADS="1", **ONE)
    client = Client(web)
    with ThreadPoolExecutor(1) as crowd:
        slow = crowd.submit(client.post, "slow")
        wait_until(lambda: asleep() == 1, web)
        assert client.get("/api/v1/orders?limit=1") == 200
        assert client.get("/healthz") == 200
        assert asleep() == 1
        assert slow.result() == 201


# ---- HTTP, where the worker looks at it before gunicorn's parser does ----

HEAD = b"Host: localhost\r\n"
LAST = b"Connection: close\r\n\r\n"


def talk(web: Process, *parts: bytes, pause: float = 0.0) -> bytes:
    """All that is answered to these bytes until the server hangs up."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=30) as sock:
        for part in parts:
            sock.sendall(part)
            time.sleep(pause)
        answer = b""
        while data := sock.recv(65536):
            answer += data
        return answer


def statuses(answers: bytes) -> list[bytes]:
    return [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]]


def one_of_each_kind() -> list[bytes]:
    """Requests in pieces, for one connection: where one ends is to be known although none is served but the last."""
    post, get = b"POST /api/v1/orders HTTP/1.1\r\n" + HEAD, b"GET %b HTTP/1.1\r\n" + HEAD
    body = b"GET / HTTP/1.1\r\n\r\n"
    length = b"Content-Length: %d\r\n" % len(body)
    return [
        post + length + b"\r\n" + body + get % b"/api/v1/orders" + b"\r\n" + post + length + b"\r\n" + body[:5],
        body[5:] + post + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + body[:3],
        body[3:5] + b"\r\n0\r\n\r\n" + post + length + b"Expect: 100-continue\r\n\r\n",
        body + get % b"/healthz" + LAST,
    ]


@pytest.mark.exhaustive
def test_requests_are_understood_however_they_are_cut(processes: Processes) -> None:
    web = processes.web(QUIKTRADE_WEB_THREADS="2", **ONE)
    body = b'{"username": "nobody", "password": "x"}'
    post = b"POST /api/v1/auth/token HTTP/1.1\r\nContent-Type: application/json\r\n" + HEAD
    length = b"Content-Length: %d\r\n" % len(body)

    whole = post + length + LAST + body
    assert talk(web, *(whole[n : n + 1] for n in range(len(whole)))).startswith(b"HTTP/1.1 401 ")
    chunked = post + b"Transfer-Encoding: chunked\r\n" + LAST + b"%x\r\n%b\r\n" % (len(body), body)
    assert talk(web, chunked, b"0\r\n\r\n", pause=0.1).startswith(b"HTTP/1.1 401 ")
    expecting = post + length + b"Expect: 100-continue\r\n" + LAST
    assert talk(web, expecting, body, pause=0.1).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 ")
    large = 3 * 1024 * 1024
    too_large = post + b"Content-Length: %d\r\n" % large + LAST
    assert talk(web, too_large, b" " * large).startswith(b"HTTP/1.1 413 ")


@pytest.mark.exhaustive
def test_requests_sent_ahead_are_answered_in_their_order(processes: Processes) -> None:
    web = processes.web(QUIKTRADE_WEB_THREADS="4", **ONE)
    get = b"GET %b HTTP/1.1\r\n" + HEAD
    answer = talk(web, get % b"/healthz" + b"\r\n" + get % b"/nowhere" + b"\r\n" + get % b"/healthz" + LAST)
    assert statuses(answer) == [b"200", b"404", b"200"]


@pytest.mark.exhaustive
def test_a_client_that_sends_very_much_ahead_is_answered_and_keeps_nobody_waiting(processes: Processes) -> None:
    web = processes.web(**ONE)
    client = Client(web)
    refused = b"POST /api/v1/orders HTTP/1.1\r\nContent-Length: 0\r\n" + HEAD
    with ThreadPoolExecutor(1) as crowd:
        flood = crowd.submit(talk, web, (refused + b"\r\n") * 2000 + refused + LAST)
        assert client.post("beside-it") == 201
        answered = statuses(flood.result())
    assert len(answered) == 2001
    assert set(answered) <= {b"401", b"503"}


@pytest.mark.exhaustive
def test_what_is_no_request_is_refused_and_the_connection_closed(processes: Processes) -> None:
    web = processes.web(QUIKTRADE_WEB_THREADS="1", **ONE)
    two_lengths = b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n" + HEAD + b"\r\nab"
    both = b"GET / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n0\r\n\r\n"
    long_length = b"GET / HTTP/1.1\r\nContent-Length: 0000000000018\r\n" + HEAD + b"\r\nGET /healthz HTTP/1.1\r\n\r\n"
    assert b"HTTP/1.1 200" not in talk(web, long_length)  # what is within a body is no request
    for wrong in (b"nonsense\r\n\r\n", two_lengths, both, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n"):
        assert talk(web, wrong).startswith(b"HTTP/1.1 4"), wrong
    assert talk(web, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 ")
    assert "Traceback" not in web.output


@pytest.mark.exhaustive
def test_connections_are_shared_out_among_the_processes(processes: Processes) -> None:
    web = processes.web(QUIKTRADE_WEB_WORKERS="2")
    # Both take some, sooner or later: they have started.
    wait_until(lambda: all(connections_of_workers(web, 10)) and len(connections_of_workers(web, 10)) == 2, web)
    # On a busy machine one of them may not run for a while, and the other takes what comes then.
    wait_until(lambda: min(connections_of_workers(web, 40)) >= 8, web)


def connections_of_workers(web: Process, count: int) -> list[int]:
    """How many of so many new connections each of the processes takes."""

    def taken() -> list[int]:
        workers = psutil.Process(web.pid).children()
        return [sum(each.status == "ESTABLISHED" for each in worker.net_connections("tcp")) for worker in workers]

    wait_until(lambda: sum(taken()) == 0, web)
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(("127.0.0.1", web.port)))
        wait_until(lambda: sum(taken()) == count, web)
        return taken()
