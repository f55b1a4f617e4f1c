"""What the log says of requests, and what it must not: any client can send one."""

import logging
import socket

import pytest

from quiktrade.logs import FieldFormatter
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
}
ANSWERED = {
    "path": b"GET /" + SECRET + b"%1b[2J HTTP/1.1\r\n" + HOST + b"\r\n",
    "no JSON": b"POST /api/v1/orders HTTP/1.1\r\n" + HOST + JSON + body(SECRET),
    "query": b"GET /api/v1/orders?" + SECRET + b"=1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "token": b"GET /api/v1/orders HTTP/1.1\r\n" + HOST + b"Authorization: Bearer " + SECRET + b"\r\n\r\n",
    "cookie": b"GET /admin/ HTTP/1.1\r\n" + HOST + b"Cookie: sessionid=" + SECRET + b"\r\n\r\n",
    "password": b"POST /api/v1/auth/token HTTP/1.1\r\n"
    + HOST
    + JSON
    + body(b'{"username": "alice", "password": "' + SECRET + b'"}'),
}


def answer_to(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65_536), b""))


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
