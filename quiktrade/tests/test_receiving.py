"""What a request must be to get a place, and what becomes of the place: the wrapper around the application."""

import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from quiktrade.processes import wait_for
from quiktrade.web import receiving
from quiktrade.web.admission import Admitting
from quiktrade.web.receiving import SMALL_BODY, NotReceived, receive
from quiktrade.web.refusals import REFUSALS, closing

MOST_BODY = 1024 * 1024
Start = Callable[..., Any]


class FileWrapper:
    """Stands for gunicorn's, by which a static file is answered."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)


class Answer:
    """What an application returns: its parts, and whether the server has closed it."""

    def __init__(self, *parts: bytes, error: Exception | None = None) -> None:
        self.parts = parts
        self.error = error
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.parts
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed = True


def environ(path: str = "/api/v1/orders", *, method: str = "POST", body: bytes = b"", **more: Any) -> dict[str, Any]:
    made = {"PATH_INFO": path, "REQUEST_METHOD": method, "wsgi.input": io.BytesIO(body)}
    return made | {"wsgi.file_wrapper": FileWrapper, "CONTENT_LENGTH": str(len(body))} | more


class Server:
    """Asks the wrapped application as gunicorn does."""

    def __init__(self, application: Any, *, most: int = 1) -> None:
        self.wrapped = Admitting(application, most, MOST_BODY)
        self.status = ""
        self.headers: dict[str, str] = {}

    def ask(self, *arguments: Any, **more: Any) -> bytes:
        return b"".join(self.wrapped(environ(*arguments, **more), self._start))

    def _start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status, self.headers = status, dict(headers)


def saying(answer: Any) -> Any:
    def application(environ: dict[str, Any], start_response: Start) -> Any:
        start_response("200 OK", [])
        return answer

    return application


def nested(server: Callable[[], Server], **inner: Any) -> tuple[Any, list[bytes]]:
    """An application that asks its own server again while it serves: its own place is taken."""
    told: list[bytes] = []

    def application(environ: dict[str, Any], start_response: Start) -> Answer:
        if not told and "inner" not in environ:
            told.append(server().ask(**{"inner": True, **inner}))
        start_response("200 OK", [])
        return Answer(b"served")

    return application, told


# ---- A place ----


def test_what_finds_no_place_is_refused_and_told_when_to_come_again() -> None:
    application, told = nested(lambda: server)
    server = Server(application)
    assert server.ask() == b"served"
    assert json.loads(told[0])["type"] == "urn:quiktrade:problem:overloaded"

    refused = Server(application, most=1)
    refused.wrapped._admission.in_hand = 1
    refused.ask()
    assert (refused.status, refused.headers["Retry-After"]) == ("503 Service Unavailable", "1")
    assert refused.headers["Content-Type"] == "application/problem+json"


def test_a_refused_head_request_has_the_headers_and_no_body() -> None:
    application, told = nested(lambda: server, method="HEAD")
    server = Server(application)
    server.ask()
    assert told == [b""]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_answered_although_every_place_is_taken(path: str) -> None:
    application, told = nested(lambda: server, path=path)
    server = Server(application)
    server.ask()
    assert told == [b"served"]


def test_slow_reads_keep_no_order_out() -> None:
    """Of four places three are for reads; the last one is for an order."""
    go_on = threading.Event()

    def application(environ: dict[str, Any], start_response: Start) -> Any:
        start_response("200 OK", [])
        if environ["REQUEST_METHOD"] == "GET":
            assert go_on.wait(10)
        return Answer(b"served")

    server = Server(application, most=4)
    with ThreadPoolExecutor(3) as readers:
        reads = [readers.submit(server.ask, method="GET") for _ in range(3)]
        assert wait_for(lambda: server.wrapped._admission.in_hand == 3, 10)
        assert json.loads(server.ask(method="GET"))["type"] == "urn:quiktrade:problem:overloaded"
        assert server.ask() == b"served"
        go_on.set()
        assert [read.result() for read in reads] == [b"served"] * 3


def test_a_place_is_free_again_when_the_answer_is_there_although_nobody_has_read_it() -> None:
    answer = Answer(b"a", b"b")
    server = Server(saying(answer))
    unread = server.wrapped(environ(), lambda *_: None)
    assert server.wrapped._admission.in_hand == 0
    assert answer.closed
    assert list(unread) == [b"a", b"b"]


def test_a_place_is_free_again_when_the_application_fails() -> None:
    def fails(environ: dict[str, Any], start_response: Start) -> Any:
        raise RuntimeError("boom")

    for application in (fails, saying(Answer(b"half", error=RuntimeError("boom")))):
        server = Server(application)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="boom"):
                server.ask()
        assert server.wrapped._admission.in_hand == 0


def test_an_answer_that_fails_half_way_is_closed() -> None:
    answer = Answer(b"half", error=RuntimeError("boom"))
    with pytest.raises(RuntimeError):
        Server(saying(answer)).ask()
    assert answer.closed


def test_a_static_file_is_left_to_the_server_to_send() -> None:
    file = FileWrapper([b"file"])
    assert Server(saying(file)).wrapped(environ("/static/x.js", method="GET"), lambda *_: None) is file


def test_a_request_that_is_half_sent_takes_no_place() -> None:
    class Waiting(io.BytesIO):
        """While its body arrives, another request is served."""

        def read(self, size: int | None = -1) -> bytes:
            said.append(server.ask())
            return super().read(size)

    said: list[bytes] = []
    server = Server(saying(Answer(b"served")))
    slow = {"wsgi.input": Waiting(b"{}"), "CONTENT_LENGTH": "2"}
    assert server.ask(**slow) == b"served"
    assert said == [b"served"]


# ---- A body ----


def received(body: bytes, *, most: int = MOST_BODY, **more: Any) -> bytes:
    given = environ(body=body, **more)
    receive(given, most)
    assert given["CONTENT_LENGTH"] == str(len(given["wsgi.input"].getvalue()))
    return bytes(given["wsgi.input"].read())


@pytest.mark.parametrize("size", [0, 1, SMALL_BODY - 1, SMALL_BODY, SMALL_BODY + 1, MOST_BODY])
def test_a_body_is_received_whole(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    assert received(body[:size]) == body[:size]


@pytest.mark.parametrize("size", [0, 1, SMALL_BODY, SMALL_BODY + 1, MOST_BODY])
def test_a_chunked_body_is_given_a_length(size: int) -> None:
    body = b"x" * size
    assert received(body, CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked") == body


def test_a_request_without_a_body_is_left_as_it_is() -> None:
    given = environ(method="GET", CONTENT_LENGTH="")
    stream = given["wsgi.input"]
    receive(given, MOST_BODY)
    assert given["wsgi.input"] is stream


@pytest.mark.parametrize("declared", [5, SMALL_BODY + 5])
def test_a_body_that_ends_too_soon_is_no_request(declared: int) -> None:
    with pytest.raises(ConnectionResetError):
        received(b"{}", CONTENT_LENGTH=str(declared))


def test_a_chunked_body_that_grows_too_long_is_refused_before_its_end() -> None:
    endless = io.BytesIO(b"x" * 10 * SMALL_BODY)
    given = environ(CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked") | {"wsgi.input": endless}
    with pytest.raises(NotReceived) as refused:
        receive(given, 3 * SMALL_BODY)
    assert (refused.value.status, refused.value.why) == (413, "TooLarge")
    assert endless.tell() < 10 * SMALL_BODY


def test_all_bodies_together_have_a_bound_and_its_account_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MOST_RECEIVED", 2 * SMALL_BODY)
    with pytest.raises(NotReceived) as refused:
        received(b"x" * 5 * SMALL_BODY)
    assert (refused.value.status, refused.value.why) == (503, "Overloaded")
    assert receiving._received == 0
    assert received(b"x" * 3 * SMALL_BODY) == b"x" * 3 * SMALL_BODY
    assert receiving._received == 0


def test_an_ordinary_order_is_never_refused_for_the_bodies_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MOST_RECEIVED", 0)
    assert received(b"x" * (SMALL_BODY - 1)) == b"x" * (SMALL_BODY - 1)


# ---- What is said instead of an answer ----


@pytest.mark.parametrize("status", sorted(REFUSALS))
def test_every_refusal_is_a_problem_document_of_its_status(status: int) -> None:
    refusal = REFUSALS[status]
    headers, problem = dict(refusal.headers), json.loads(refusal.body)
    assert refusal.status.startswith(f"{status} ")
    assert problem["status"] == status
    assert problem["type"].startswith("urn:quiktrade:problem:")
    assert problem["detail"].endswith(".")
    assert headers["Content-Length"] == str(len(refusal.body))
    assert ("Retry-After" in headers) == (status == 503)


def test_a_refusal_that_ends_the_connection_says_so() -> None:
    head, _, body = closing(413).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 Request Entity Too Large\r\n")
    assert head.endswith(b"\r\nConnection: close")
    assert json.loads(body)["type"] == "urn:quiktrade:problem:payload-too-large"


def test_what_there_are_no_words_for_is_a_bad_request() -> None:
    assert closing(418) == closing(400)
