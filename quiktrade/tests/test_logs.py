"""What the log says of requests, and what it must not: any client can send one."""

import json
import logging
import re
import socket
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import resolve
from rest_framework.test import APIClient

from quiktrade.api.context import OfRequest, known
from quiktrade.logs import FieldFormatter, JsonFormatter
from quiktrade.tests.processes import Processes

SECRET = b"zzSECRETzz"
HOST = b"Host: localhost\r\nConnection: close\r\n"
JSON = b"Content-Type: application/json\r\n"


def body(content: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(content), content)


CHUNKED = b"POST /api/v1/orders HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = {
    "no request line": SECRET + b"\r\n\r\n",
    "method": b"zz{SECRET} /" + SECRET + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "version": b"GET / HTTP/" + SECRET + b"\r\n" + HOST + b"\r\n",
    "header without a colon": b"GET / HTTP/1.1\r\n" + HOST + SECRET + b"\r\n\r\n",
    "header's name": b"GET / HTTP/1.1\r\n" + HOST + SECRET + b"(: 1\r\n\r\n",
    "header's value": b"GET / HTTP/1.1\r\n" + HOST + b"Authorization: " + SECRET + b"\0\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\n" + HOST + b"Authorization: Bearer\r\n " + SECRET + b"\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\n" + HOST + b"Cookie: " + SECRET * 5_000 + b"\r\n\r\n",
    "length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: " + SECRET + b"\r\n\r\n",
    "transfer coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: " + SECRET + b"\r\n\r\n",
    "expectation": b"POST / HTTP/1.1\r\n" + HOST + b"Expect: " + SECRET + b"\r\n\r\n",
    "chunk's size": CHUNKED + SECRET + b"\r\n",
    "chunk's end": CHUNKED + b"2\r\n{}" + SECRET + b"\r\n",
    "host": b"GET /" + SECRET + b" HTTP/1.1\r\nConnection: close\r\nHost: " + SECRET + b"\r\n\r\n",
    "host of the console": b"GET /admin/login/ HTTP/1.1\r\nConnection: close\r\nHost: a" + SECRET + b"\r\n\r\n",
    "form without its token": b"POST /admin/login/?" + SECRET + b" HTTP/1.1\r\n" + HOST + body(SECRET),
    "too many fields": b"POST /admin/login/ HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/x-www-form-urlencoded\r\n"
    + body(SECRET + b"=1&" * 2_000),
    "password": b"POST /api/v1/auth/token HTTP/1.1\r\n"
    + HOST
    + JSON
    + body(b'{"username": "alice", "password": "' + SECRET + b'"}'),
}
ANSWERED = {
    "path": b"GET /" + SECRET + b"%1b[2J HTTP/1.1\r\n" + HOST + b"\r\n",
    "no JSON": b"POST /api/v1/orders HTTP/1.1\r\n" + HOST + JSON + body(SECRET),
    "query": b"GET /api/v1/orders?" + SECRET + b"=1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "token": b"GET /api/v1/orders HTTP/1.1\r\n" + HOST + b"Authorization: Bearer " + SECRET + b"\r\n\r\n",
    "cookie": b"GET /admin/ HTTP/1.1\r\n" + HOST + b"Cookie: sessionid=" + SECRET + b"\r\n\r\n",
}


def answer_to(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65_536), b""))


@pytest.mark.exhaustive
def test_a_refused_request_is_one_line_at_most_and_nothing_of_a_request_is_quoted(processes: Processes) -> None:
    api = processes.web(QUIKTRADE_WEB_WORKERS="1", QUIKTRADE_LOG_LEVEL="DEBUG")
    console = processes.console(QUIKTRADE_LOG_LEVEL="DEBUG")
    for name, request in {**REFUSED, **ANSWERED}.items():
        web = console if b" /admin/" in request else api
        before = len(web.output)
        status = answer_to(web.port, request).partition(b" ")[2][:1]
        said = [line for line in web.output[before:].splitlines() if " DEBUG " not in line]
        assert status in (b"2", b"3", b"4", b"5"), name
        assert len(said) <= (1 if name in REFUSED else 0), (name, said)
        assert "SECRET" not in web.output[before:], name
    for web in (api, console):
        assert "Request refused: its Host is not in QUIKTRADE_ALLOWED_HOSTS event=web.refused why=D" in web.output
    assert " WARNING gunicorn.error Request refused event=web.refused why=InvalidChunkSize" in api.output


@pytest.mark.parametrize(
    ("sentence", "field", "line"),
    [
        ("Said", "\x1b[2J", "Said text=\\x1b[2J"),
        ("Said\x9b1m\nERROR forged", "a b", 'Said\\x9b1m\\nERROR forged text="a b"'),
        ("Said", "f\udcfcr", "Said text=f\\udcfcr"),
    ],
)
def test_no_text_makes_a_line_of_its_own_or_commands_a_terminal(sentence: str, field: str, line: str) -> None:
    record = logging.makeLogRecord({"name": "test", "levelname": "ERROR", "msg": sentence, "text": field})
    assert FieldFormatter().format(record).partition(" ERROR test ")[2] == line


def test_a_traceback_keeps_its_lines_and_cannot_command_a_terminal() -> None:
    try:
        raise ValueError("\x1b[2J")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "Failed", "exc_info": (ValueError, error, error.__traceback__)})
    lines = FieldFormatter().format(record).splitlines()
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: \\x1b[2J"


def json_line(**record: object) -> dict[str, object]:
    line = JsonFormatter().format(logging.makeLogRecord(record))
    assert line.isascii()
    assert "\n" not in line
    return json.loads(line)  # type: ignore[no-any-return]


def test_a_line_of_json_has_the_sentence_and_the_fields() -> None:
    made = {"name": "orders", "levelname": "ERROR", "msg": "Order %s", "args": ("moved",), "event": "order.x"}
    line = json_line(**made, created=1769851800.5, msecs=500.0, order_id=UUID(int=1), attempt=2)
    assert line == {
        "time": "2026-01-31T09:30:00.500Z",
        "level": "ERROR",
        "logger": "orders",
        "message": "Order moved",
        "event": "order.x",
        "order_id": "00000000-0000-0000-0000-000000000001",
        "attempt": 2,
    }


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nERROR forged", "\x9b1m", "f\udcfcr", '"}'])
def test_no_text_makes_a_line_of_json_of_its_own_or_commands_a_terminal(text: str) -> None:
    assert json_line(msg="Said", text=text)["text"] == text


def test_a_traceback_is_a_field_of_the_line_of_json() -> None:
    try:
        raise ValueError("\x1b[2J")
    except ValueError as error:
        line = json_line(msg="Failed", exc_info=(ValueError, error, error.__traceback__))
    assert str(line["traceback"]).splitlines()[-1] == "ValueError: \x1b[2J"


TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("given", "kept"),
    [("order-7_a.b:c", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("a\x1b", False), ("", False)],
)
def test_an_answer_has_the_id_of_its_request(given: str, kept: bool) -> None:
    client = APIClient()
    answer = client.get("/api/v1/orders", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) is kept
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", answer.headers["X-Request-ID"])


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "status"), [("/api/v1/orders", 401), ("/no/such/address", 404)])
def test_a_problem_names_the_id_of_its_request(path: str, status: int) -> None:
    answer = APIClient().get(path, headers={"X-Request-ID": "order-7"})
    assert (answer.status_code, answer.json()["request_id"]) == (status, "order-7")
    other = APIClient().get(path)
    assert other.json()["request_id"] == other.headers["X-Request-ID"] != "order-7"


def record_while(request: HttpRequest, **fields: object) -> logging.LogRecord:
    """A line that is logged while the request is served."""
    record = logging.makeLogRecord({"msg": "Said", **fields})

    def serve(request: HttpRequest) -> HttpResponse:
        OfRequest().filter(record)
        return HttpResponse()

    known(serve)(request)
    return record


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f"00-{TRACE}-b7ad6b7169203331-01-more", None),
        (f"ff-{TRACE}-b7ad6b7169203331-01", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", None),
        ("zzSECRETzz", None),
    ],
)
def test_a_line_has_the_trace_that_the_request_names_properly(header: str, trace: str | None) -> None:
    record = record_while(RequestFactory().get("/", headers={"traceparent": header, "X-Request-ID": "mine"}))
    assert vars(record).get("trace_id") == trace
    assert vars(record)["request_id"] == "mine"


def test_a_line_has_the_client_and_the_order_of_its_request() -> None:
    request = RequestFactory().get("/")
    request.user = User(username="alice")
    request.resolver_match = resolve("/api/v1/orders/019a0000-0000-7000-8000-000000000001")
    record = record_while(request)
    assert (vars(record)["client"], vars(record)["order_id"]) == ("alice", "019a0000-0000-7000-8000-000000000001")


def test_what_else_an_address_names_is_not_logged() -> None:
    request = RequestFactory().get("/")
    request.resolver_match = resolve("/api/v1/orders/zzSECRETzz")
    assert not {"client", "order_id"} & vars(record_while(request)).keys()


def test_a_line_that_names_its_order_keeps_it() -> None:
    request = RequestFactory().get("/")
    request.resolver_match = resolve("/api/v1/orders/019a0000-0000-7000-8000-000000000001")
    record = record_while(request, order_id="its own")
    assert vars(record)["order_id"] == "its own"


def test_a_line_outside_of_a_request_has_no_ids() -> None:
    record = logging.makeLogRecord({"msg": "Said"})
    OfRequest().filter(record)
    assert not {"request_id", "trace_id", "client", "order_id"} & vars(record).keys()
