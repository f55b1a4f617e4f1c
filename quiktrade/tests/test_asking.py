"""How parts are asked whether they answer: servers on real sockets answer in every way."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from benchmarks.stage.ports import HIGHEST, LOWEST, free_ports
from quiktrade.asking import answer_of, ask, listens


class Answering(BaseHTTPRequestHandler):
    """Answers with the request; at some paths it answers something else."""

    def do_GET(self) -> None:
        status, text = {
            "/broken": (200, "not JSON"),
            "/unavailable": (503, json.dumps({"status": "unavailable"})),
            "/empty": (200, ""),
        }.get(self.path, (200, json.dumps({"method": self.command, "path": self.path, "sent": self._sent()})))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    do_PUT = do_POST = do_DELETE = do_GET

    def _sent(self) -> Any:
        length = int(self.headers.get("Content-Length", 0))
        return json.loads(self.rfile.read(length)) if length else None

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_answer_is_its_json(port: int) -> None:
    assert ask(port, "/readyz?strict") == {"method": "GET", "path": "/readyz?strict", "sent": None}
    assert answer_of(port, "/readyz") == {"method": "GET", "path": "/readyz", "sent": None}


@pytest.mark.parametrize("content", [{"refuse": True}, [1, 2], 0, ""])
def test_what_is_sent_is_sent_as_json(port: int, content: Any) -> None:
    assert ask(port, "/admin/faults", method="PUT", content=content)["sent"] == content


def test_another_answer_than_200_is_an_error_that_quotes_it(port: int) -> None:
    with pytest.raises(ValueError, match=r"GET /unavailable: 503 .*unavailable"):
        ask(port, "/unavailable")
    assert answer_of(port, "/unavailable") is None


@pytest.mark.parametrize("path", ["/broken", "/empty"])
def test_an_answer_that_is_no_json_is_no_answer(port: int, path: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        ask(port, path)
    assert answer_of(port, path) is None


def test_where_nobody_listens_there_is_no_answer() -> None:
    (port,) = free_ports(1)
    with pytest.raises(OSError, match="refused"):
        ask(port, "/readyz")
    assert answer_of(port, "/readyz") is None
    assert not listens(port)


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}"])
def test_one_that_hangs_up_or_talks_nonsense_does_not_answer(said: bytes) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]

        def serve_twice() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(said)

        thread = threading.Thread(target=serve_twice)
        thread.start()
        with pytest.raises((OSError, HTTPException)):
            ask(port, "/readyz")
        assert answer_of(port, "/readyz") is None
        thread.join()


def test_one_that_says_nothing_for_too_long_does_not_answer() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert listens(port)
        with pytest.raises(TimeoutError):
            ask(port, "/readyz", seconds=0.2)


def test_free_ports_are_in_a_row_and_can_be_listened_on() -> None:
    ports = free_ports(4)
    assert ports == list(range(ports[0], ports[0] + 4))
    assert ports[0] >= LOWEST
    assert ports[-1] < HIGHEST
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(closing(socket.create_server(("127.0.0.1", port))))
            assert listens(port)


def test_a_port_that_is_in_use_is_not_among_them() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        assert server.getsockname()[1] not in {port for _ in range(50) for port in free_ports(3)}
