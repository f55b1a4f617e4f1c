"""The parts as processes on the test database: what end-to-end tests start with."""

import socket
import urllib.request

import pytest

from quiktrade.tests.processes import Process, Processes


def ask(web: Process, path: str) -> int:
    with urllib.request.urlopen(f"{web.url}{path}", timeout=30) as answer:
        return int(answer.status)


@pytest.mark.exhaustive
def test_parts_start_on_the_test_database_and_end_when_asked(processes: Processes) -> None:
    exchange, worker, web = processes.exchange(), processes.worker(), processes.web()
    assert ask(web, "/readyz?strict") == 200
    assert [part.stop() for part in (web, worker, exchange)] == [0, 0, 0]


@pytest.mark.exhaustive
def test_a_part_that_was_killed_starts_again_at_the_same_address(processes: Processes) -> None:
    web = processes.web()
    web.kill()
    assert not web.alive
    web.start()
    web.wait_until_ready()
    assert ask(web, "/healthz") == 200


@pytest.mark.exhaustive
def test_clients_that_send_half_a_request_do_not_hold_the_api(processes: Processes) -> None:
    web = processes.web(QUIKTRADE_WEB_WORKERS="1", QUIKTRADE_WEB_CLIENT_SECONDS="2")
    halves = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(2)]
    for half in halves:
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: local")
    assert ask(web, "/healthz") == 200
    for half in halves:
        half.settimeout(60)
        with half, half.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 408 ")
    assert "Client too slow: connection closed" in web.output
    assert "Traceback" not in web.output
