"""Clients that read slowly, say nothing for long, or hang up early, against a real gunicorn."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest
from django.contrib.staticfiles import finders

from orders.models import Order
from quiktrade.tests.processes import Process, Processes, wait_until
from quiktrade.tests.test_overload import HEAD, LAST, ONE, Client, order

STATIC = "drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"
GET_STATIC = f"GET /static/{STATIC} HTTP/1.1\r\n".encode() + HEAD


def connect(web: Process, *, buffer: int | None = None) -> socket.socket:
    """`buffer` is how much the kernel keeps for a client that does not read."""
    sock = socket.socket()
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", web.port))
    return sock


@pytest.fixture
def readers_that_do_not_read(processes: Processes) -> Iterator[tuple[Process, list[socket.socket]]]:
    """80 of them, each with two answers on the way: more than the kernel keeps for one."""
    web = processes.web("--worker-connections", "100", QUIKTRADE_WEB_CLIENT_SECONDS="10", **ONE)
    with ExitStack() as stack:
        readers = [stack.enter_context(closing(connect(web, buffer=4096))) for _ in range(80)]
        for reader in readers:  # one after the other: many at once are refused, and then read to the end
            reader.sendall(GET_STATIC + b"\r\n" + GET_STATIC + LAST)
            assert reader.recv(12) == b"HTTP/1.1 200"
        yield web, readers


@pytest.mark.exhaustive
def test_who_does_not_read_an_answer_keeps_no_order_out(
    readers_that_do_not_read: tuple[Process, list[socket.socket]],
) -> None:
    web, _ = readers_that_do_not_read
    client = Client(web)
    with client.channel() as channel:
        statuses = [(answer := client.post_on(channel, f"a{n}"), answer.read())[0].status for n in range(40)]
    assert statuses == [201] * 40
    wait_until(lambda: "Client too slow: connection closed" in web.output, web)


@pytest.mark.exhaustive
def test_long_answers_arrive_in_full_and_in_order_however_slowly_they_are_read(processes: Processes) -> None:
    web = processes.web(**ONE)
    path = finders.find(STATIC)
    assert path
    with open(path, "rb") as file:
        content = file.read()
    with closing(connect(web, buffer=4096)) as reader:
        reader.sendall((GET_STATIC + b"\r\n") * 3 + b"GET /healthz HTTP/1.1\r\n" + HEAD + LAST)
        time.sleep(1)
        answer = b"".join(iter(lambda: reader.recv(65_536), b""))
    for _ in range(3):
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert rest[: len(content)] == content
        answer = rest[len(content) :]
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_orders_sent_ahead_of_a_half_close_are_all_answered(processes: Processes) -> None:
    web = processes.web(**ONE)
    client = Client(web)
    head = "".join(f"{name}: {value}\r\n" for name, value in client.headers.items()).encode() + HEAD
    posts = b""
    for number in range(20):
        body = order(f"ahead-{number}")
        posts += b"POST /api/v1/orders HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
    with closing(connect(web)) as sock:
        sock.sendall(posts)
        sock.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: sock.recv(65_536), b""))
    assert answer.count(b"HTTP/1.1 201 ") == 20 == Order.objects.count()


@pytest.mark.exhaustive
def test_half_of_a_request_before_a_half_close_stores_nothing(processes: Processes) -> None:
    web = processes.web(**ONE)
    client = Client(web)
    head = "".join(f"{name}: {value}\r\n" for name, value in client.headers.items()).encode() + HEAD
    body = order("half")
    with closing(connect(web)) as sock:
        sock.sendall(b"POST /api/v1/orders HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (head, len(body)) + body[:-9])
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(65_536) == b""
    assert not Order.objects.exists()


@pytest.mark.exhaustive
def test_an_idle_connection_is_kept_longer_than_clients_keep_theirs(processes: Processes) -> None:
    web = processes.web(**ONE)
    with closing(HTTPConnection("127.0.0.1", web.port, timeout=30)) as channel:
        for pause in (0.0, 6.0):
            time.sleep(pause)
            channel.request("GET", "/healthz")
            answer = channel.getresponse()
            assert (answer.status, len(answer.read()) > 0) == (200, True)


@pytest.mark.exhaustive
def test_idle_connections_make_room_for_those_that_have_something_to_say(processes: Processes) -> None:
    web = processes.web("--worker-connections", "20", **ONE)
    client = Client(web)
    with ExitStack() as stack, client.channel() as kept:
        assert client.post_on(kept, "first").read()
        idle = [stack.enter_context(closing(connect(web))) for _ in range(60)]
        assert client.post("second") == 201
        idle[-1].sendall(b"GET /healthz HTTP/1.1\r\n" + HEAD + LAST)
        assert idle[-1].recv(65_536).startswith(b"HTTP/1.1 200 ")
        assert idle[0].recv(1) == b""  # the one that had been idle longest


@pytest.mark.exhaustive
def test_an_encoded_address_is_what_it_stands_for_and_no_look_up_of_an_order(processes: Processes) -> None:
    web = processes.web(**ONE)
    client = Client(web)
    assert client.post("a") == 201
    path = f"/api/v1/orders/{Order.objects.get().pk}"
    with client.channel() as channel:
        contents = []
        for each in (f"{path}/events", f"{path}%2Fevents"):
            channel.request("GET", each, headers=client.headers)
            contents.append(channel.getresponse().read())
    assert contents[0] == contents[1]
