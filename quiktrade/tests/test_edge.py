"""What a client may do to the API's server, over real sockets, and what the other clients see of it: nothing."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from http.client import HTTPConnection

import pytest

from orders.models import Order
from quiktrade.tests.parameters import mostly_exhaustive
from quiktrade.tests.processes import Process, Processes, wait_until
from quiktrade.tests.test_overload import HEAD, LAST, ONE, Client, order, talk
from quiktrade.tests.test_slow_clients import GET_STATIC, connect

MANY = 200
SLOW = {
    "an idle connection": b"",
    "half a head": b"GET /healthz HTTP/1.1\r\nHos",
    "half a body": b"POST /api/v1/orders HTTP/1.1\r\nContent-Length: 200\r\n" + HEAD + b"\r\n{",
    "half a chunked body": b"POST /api/v1/auth/token HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n5\r\n{",
    "an expected body": b"POST /api/v1/auth/token HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n"
    + HEAD
    + b"\r\n",
    "a large body": b"POST /api/v1/orders/batch HTTP/1.1\r\nContent-Length: 1000000\r\n" + HEAD + b"\r\n" + b" " * 9000,
    "an answer that is not read": (GET_STATIC + b"\r\n") * 3,
}


@pytest.fixture
def crowd() -> Iterator[Callable[[Process, int, bytes], list[socket.socket]]]:
    """Connects many clients that send the same and nothing more."""
    with ExitStack() as stack:

        def come(web: Process, count: int, sent: bytes) -> list[socket.socket]:
            clients = [stack.enter_context(closing(connect(web, buffer=4096))) for _ in range(count)]
            for client in clients:
                client.sendall(sent)
            return clients

        yield come


def still_open(clients: list[socket.socket]) -> int:
    """How many the server has not hung up on."""
    for client in clients:
        client.setblocking(False)
    closed = 0
    for client in clients:
        try:
            closed += client.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            pass
        except ConnectionError:
            closed += 1
    return len(clients) - closed


@pytest.mark.parametrize(
    "sent", mostly_exhaustive(SLOW.values(), SLOW["half a body"], SLOW["an answer that is not read"]), ids=SLOW
)
def test_many_slow_clients_keep_nobody_waiting(
    sent: bytes, processes: Processes, crowd: Callable[[Process, int, bytes], list[socket.socket]]
) -> None:
    web = processes.web(QUIKTRADE_WEB_CONNECTIONS="2", **ONE)
    client = Client(web)
    slow = crowd(web, MANY, sent)
    assert client.post("beside-them") == 201
    for path in ("/readyz", "/healthz", "/api/v1/orders", f"/api/v1/orders/{Order.objects.get().pk}"):
        assert client.get(path) == 200
    assert still_open(slow) == MANY  # it was none of their time that was up


@pytest.mark.exhaustive
def test_2500_idle_connections_keep_nobody_waiting(
    processes: Processes, crowd: Callable[[Process, int, bytes], list[socket.socket]]
) -> None:
    web = processes.web(**ONE)
    client = Client(web)
    idle = crowd(web, 2500, b"")
    assert client.post("beside-them") == 201
    assert client.get("/readyz") == 200
    assert still_open(idle) == 2500
    idle[0].setblocking(True)
    idle[0].sendall(b"GET /healthz HTTP/1.1\r\n" + HEAD + LAST)
    assert idle[0].recv(65_536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.exhaustive
def test_who_is_too_slow_is_told_so_and_closed_and_a_line_of_1_mbit_is_not(processes: Processes) -> None:
    """Half a minute for a request. A batch as large as one may be takes 9 s on such a line."""
    web = processes.web(**ONE)
    client = Client(web)
    orders = json.dumps({"orders": [json.loads(order(f"line-{n}")) for n in range(500)]}).encode().ljust(1024 * 1024)
    headers = "".join(f"{name}: {value}\r\n" for name, value in client.headers.items()).encode()
    with closing(connect(web)) as head, closing(connect(web)) as body, closing(connect(web)) as line:
        head.sendall(SLOW["half a head"])
        body.sendall(SLOW["half a body"])
        line.sendall(b"POST /api/v1/orders/batch HTTP/1.1\r\n%bContent-Length: %d\r\n" % (headers, len(orders)) + HEAD)
        line.sendall(b"\r\n")
        for second in range(9):
            line.sendall(orders[second * 125_000 : (second + 1) * 125_000])
            time.sleep(1)
        assert line.recv(65_536).startswith(b"HTTP/1.1 200 ")
        head.settimeout(60)
        body.settimeout(60)
        for slow in (head, body):
            answer = slow.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"urn:quiktrade:problem:request-timeout" in answer
            assert slow.recv(1) == b""
    assert Order.objects.count() == 500
    assert web.output.count("Client too slow: connection closed") == 2


@pytest.mark.exhaustive
@pytest.mark.parametrize("expects", [b"", b"Expect: 100-continue\r\n"])
def test_a_body_that_is_too_long_is_refused_from_the_head(processes: Processes, expects: bytes) -> None:
    web = processes.web(**ONE)
    with closing(connect(web)) as client:
        client.sendall(b"POST /api/v1/orders/batch HTTP/1.1\r\nContent-Length: 1048577\r\n" + expects + HEAD + b"\r\n")
        answer = client.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"urn:quiktrade:problem:payload-too-large" in answer
        assert client.recv(1) == b""


def test_a_chunked_body_that_is_too_long_is_refused_and_not_kept(processes: Processes) -> None:
    web = processes.web(**ONE)
    chunk = b"%x\r\n%b\r\n" % (100_000, b" " * 100_000)
    head = b"POST /api/v1/orders/batch HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n"
    answer = talk(web, head, chunk * 12)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_every_place_is_given_back(processes: Processes) -> None:
    """Whatever the answer: with two places, a third request would be refused for ever."""
    web = processes.web(QUIKTRADE_WEB_IN_HAND="2", **ONE)
    client = Client(web)
    for number in range(4):
        assert client.post(f"a{number}") == 201
        assert client.get("/api/v1/orders") == 200
        assert client.get("/nowhere") == 404
        assert client.get("/api/v1/orders?limit=0") == 400
        with closing(connect(web)) as gone:  # its answer finds nobody
            gone.sendall(b"GET /api/v1/docs HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert client.post("at-last") == 201


SMUGGLED = b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\n"
POST = b"POST /api/v1/auth/token HTTP/1.1\r\n" + HEAD
LENGTH = b"Content-Length: %d\r\n" % len(SMUGGLED)
AMBIGUOUS = {
    "two lengths": POST + LENGTH + b"Content-Length: 0\r\n\r\n" + SMUGGLED,
    "the same length twice": POST + LENGTH * 2 + b"\r\n" + SMUGGLED,
    "a list of lengths": POST + b"Content-Length: 0, %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "a signed length": POST + b"Content-Length: +0\r\n\r\n" + SMUGGLED,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    "a length in hexadecimal": POST + b"Content-Length: 0x0\r\n\r\n" + SMUGGLED,
    "an empty length": POST + b"Content-Length:\r\n\r\n" + SMUGGLED,
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked within": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n" + LENGTH + b"\r\n" + SMUGGLED,
    "a name with a blank": POST + b"Content-Length : 0\r\n\r\n" + SMUGGLED,
    "bare line feeds": POST.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n" + SMUGGLED,
    "a bare line feed within": POST + b"X: a\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "a bare carriage return": POST + b"X: a\rContent-Length: 0\r\n\r\n" + SMUGGLED,
    "an obsolete fold": POST + b"X: a\r\n Content-Length: 0\r\n\r\n" + SMUGGLED,
    "a folded length": POST + b"Content-Length:\r\n 0\r\n\r\n" + SMUGGLED,
    "NUL": POST + b"X: \0\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "a chunk's size with a sign": POST + b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + SMUGGLED,
    "a chunk that is longer than it says": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk's line that ends in a line feed": POST + b"Transfer-Encoding: chunked\r\n\r\n0\n\r\n" + SMUGGLED,
    "two hosts": POST + HEAD + b"Content-Length: 0\r\n\r\n" + SMUGGLED,
    "no request": b"nonsense\r\n\r\n" + SMUGGLED,
}


def _has_said_more(web: Process, before: str) -> bool:
    return web.output != before


def test_what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_answered(processes: Processes) -> None:
    """Each of them gets one answer, a problem document, one line in the log, and the end of its connection."""
    web = processes.web(**ONE)
    for name, sent in AMBIGUOUS.items():
        before = web.output
        answer = talk(web, sent)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), (name, answer)
        assert answer.count(b"HTTP/1.1 ") == 1, (name, answer)
        assert b"application/problem+json" in head, (name, answer)
        assert json.loads(body)["type"].startswith("urn:quiktrade:problem:"), (name, answer)
        wait_until(partial(_has_said_more, web, before))
        assert web.output.removeprefix(before).count("\n") == 1, (name, web.output.removeprefix(before))


@pytest.mark.exhaustive
def test_the_server_s_own_limits_are_told_in_problem_documents(processes: Processes) -> None:
    web = processes.web(**ONE)
    asked = {
        414: b"GET /" + b"x" * 5_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
        431: b"GET / HTTP/1.1\r\n" + HEAD + b"X: y\r\n" * 200 + b"\r\n",
        417: POST + b"Expect: something\r\n\r\n",
    }
    for status, sent in asked.items():
        answer = talk(web, sent)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == status


@pytest.mark.exhaustive
def test_the_api_has_no_console_and_the_console_no_api(processes: Processes) -> None:
    web, console = processes.web(**ONE), processes.console()
    asked = {(web, "/admin/login/"): 404, (web, "/api/v1/docs"): 200, (console, "/api/v1"): 404}
    asked |= {(console, "/admin/login/"): 200, (console, "/healthz"): 200, (console, "/readyz"): 200}
    for (process, path), status in asked.items():
        with closing(HTTPConnection("127.0.0.1", process.port, timeout=30)) as channel:
            channel.request("GET", path)
            answer = channel.getresponse()
            assert (answer.status, path) == (status, path)


@pytest.mark.exhaustive
def test_a_process_that_stops_closes_idle_connections_and_answers_the_others(processes: Processes) -> None:
    web = processes.web(**ONE)
    client = Client(web)
    with closing(connect(web)) as idle, client.channel() as channel:
        assert client.post_on(channel, "before").read()
        body = order("while-it-stops")
        headers = "".join(f"{name}: {value}\r\n" for name, value in client.headers.items()).encode()
        sock = channel.sock
        sock.sendall(
            b"POST /api/v1/orders HTTP/1.1\r\n%bContent-Length: %d\r\n" % (headers, len(body)) + HEAD + b"\r\n"
        )
        web.kill(signal.SIGTERM)
        wait_until(lambda: "Handling signal: term" in web.output)
        assert idle.recv(1) == b""
        sock.sendall(body)
        answer = sock.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 201 ")
        assert b"Connection: close" in answer
    wait_until(lambda: not web.alive)
