"""Headers that a proxy sets are trusted if QUIKTRADE_BEHIND_PROXY says that there is one, and never otherwise."""

import http.client
import json
from typing import Any

import pytest

from quiktrade.tests.processes import Process, Processes

HTTPS = {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "on", "X-Forwarded-Protocol": "ssl"}
ELSEWHERE = {"X-Forwarded-Host": "elsewhere.example", "X-Forwarded-Port": "1", "SCRIPT_NAME": "/x"}


def ask(web: Process, method: str, path: str, headers: dict[str, str], body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=30)
    try:
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, path, content, {**headers, "Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def guess(web: Process, forwarded_for: str) -> int:
    wrong = {"username": "alice", "password": "wrong"}
    return ask(web, "POST", "/api/v1/auth/token", {"X-Forwarded-For": forwarded_for}, wrong)[0]


def test_without_a_proxy_none_is_believed_though_they_come_from_this_machine(processes: Processes) -> None:
    web = processes.web(QUIKTRADE_WEB_WORKERS="1", QUIKTRADE_TOKEN_RATE="1/day")

    for scheme in (HTTPS, {"X-Forwarded-Proto": "https"}, {"X-Forwarded-Ssl": "on"}):
        index = ask(web, "GET", "/api/v1", {**scheme, **ELSEWHERE})[1]
        assert index["docs"] == f"{web.url}/api/v1/docs"
    assert [guess(web, "192.0.2.1"), guess(web, "192.0.2.2")] == [401, 429]


@pytest.mark.exhaustive
def test_behind_a_proxy_its_own_word_is_believed_and_no_more(processes: Processes) -> None:
    web = processes.web(QUIKTRADE_WEB_WORKERS="1", QUIKTRADE_TOKEN_RATE="1/day", QUIKTRADE_BEHIND_PROXY="1")

    index = ask(web, "GET", "/api/v1", {"X-Forwarded-Proto": "https", **ELSEWHERE})[1]
    assert index["docs"] == f"https://127.0.0.1:{web.port}/api/v1/docs"
    assert (
        ask(web, "GET", "/api/v1", {"X-Forwarded-Proto": "http", "X-Forwarded-Ssl": "on"})[1]
        == (ask(web, "GET", "/api/v1", {})[1])
    )
    # The proxy adds the address that it saw at the end; what stands before it comes from the client.
    assert [guess(web, "192.0.2.1"), guess(web, "192.0.2.2")] == [401, 401]
    assert guess(web, "192.0.2.3, 192.0.2.1") == 429
