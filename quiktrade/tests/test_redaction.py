"""No part writes a secret, whatever is sent to it and whatever breaks, at the most talkative level."""

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db import connection

from orders.models import Order
from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.tests.processes import Process, Processes, wait_until

PASSWORD, NEW_PASSWORD, WRONG_PASSWORD = "zz-first-S3CRET", "zz-second-S3CRET", "zz-wrong-S3CRET"
DATABASE_PASSWORD = "zz-database-S3CRET"
DEBUG = {"QUIKTRADE_LOG_LEVEL": "DEBUG", "PGPASSWORD": DATABASE_PASSWORD, "QUIKTRADE_WEBHOOK_ALLOW": "127.0.0.0/8"}
ORDER = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1}
Json = dict[str, Any]


def call(port: int, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Json]:
    channel = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        content = json.dumps(body) if body is not None else None
        channel.request(method, path, content, {"Content-Type": "application/json", **headers})
        answer = channel.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else {}
    finally:
        channel.close()


def send(port: int, request: str) -> None:
    """Send bytes as they are, and read what comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(request.encode())
        while client.recv(65_536):
            pass


def misplaced(secret: str) -> Iterator[str]:
    """Requests that have a secret where it does not belong, or belongs but is broken."""
    host = "Host: localhost\r\nConnection: close\r\n"
    body = json.dumps({"username": secret, "password": secret, "refresh": secret, "type": secret, secret: secret})
    typed = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    for path in (
        "/api/v1/auth/token",
        "/api/v1/auth/token/refresh",
        "/api/v1/orders",
        "/api/v1/webhooks",
        "/admin/login/",
    ):
        for method in ("POST", "DELETE", secret[:8]):
            yield f"{method} {path} HTTP/1.1\r\n{host}{typed}"
    cut = body[:-1]
    begun = f"Content-Type: application/json\r\nContent-Length: {len(cut)}\r\n\r\n{cut}"
    yield f"POST /api/v1/auth/token HTTP/1.1\r\n{host}{begun}"
    yield f"GET /{secret} HTTP/1.1\r\n{host}\r\n"
    yield f"GET /api/v1/orders/{secret} HTTP/1.1\r\n{host}\r\n"
    yield f"GET /api/v1/orders?access_token={secret}&{secret}=1 HTTP/1.1\r\n{host}\r\n"
    yield f"GET /admin/login/?next=/{secret} HTTP/1.1\r\n{host}\r\n"
    yield f"GET /api/v1/orders HTTP/1.1\r\n{host}Authorization: Bearer {secret} {secret}\r\n\r\n"
    yield f"GET /api/v1/orders HTTP/1.1\r\n{host}Authorization: Bearer {secret}x\r\n\r\n"
    yield f"GET /api/v1/orders HTTP/1.1\r\n{host}Authorization: Basic {secret}\r\n\r\n"
    yield f"GET /api/v1/orders HTTP/1.1\r\n{host}Authorization: {secret}\0\r\n\r\n"
    yield f"GET /admin/ HTTP/1.1\r\n{host}Cookie: sessionid={secret}; csrftoken={secret}\r\n\r\n"
    yield f"GET /readyz HTTP/1.1\r\nHost: {secret}\r\nConnection: close\r\n\r\n"
    yield f"GET /api/v1/orders HTTP/1.1\r\nHost: {secret}\r\nConnection: close\r\n\r\n"
    yield f"GET / HTTP/1.1\r\n{host}traceparent: {secret}\r\n{secret}: 1\r\n\r\n"
    yield f"POST /api/v1/orders HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{secret}\r\n"
    yield f"{secret}\r\n\r\n"


def use(api: Process) -> list[str]:
    """Use everything that takes or gives a secret. Returns the secrets."""
    auth = "/api/v1/auth"
    status, pair = call(api.port, "POST", f"{auth}/token", {"username": "alice", "password": PASSWORD})
    assert status == 200
    assert call(api.port, "POST", f"{auth}/token", {"username": "alice", "password": WRONG_PASSWORD})[0] == 401
    bearer = {"Authorization": f"Bearer {pair['access']}"}
    assert call(api.port, "POST", "/api/v1/orders", ORDER, **bearer)[0] == 201
    status, hook = call(
        api.port, "POST", "/api/v1/webhooks", {"url": "https://127.0.0.1:9/?key=zz-url-S3CRET"}, **bearer
    )
    assert status == 201
    status, second = call(api.port, "POST", f"{auth}/token/refresh", {"refresh": pair["refresh"]})
    assert status == 200
    status, third = call(api.port, "POST", f"{auth}/token/refresh", {"refresh": second["refresh"]})
    assert status == 200
    change = {"old_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert call(api.port, "POST", f"{auth}/password", change, **bearer)[0] == 204
    assert call(api.port, "POST", f"{auth}/token/refresh", {"refresh": pair["refresh"]})[0] == 401
    return [pair["access"], *(each["refresh"] for each in (pair, second, third)), hook["secret"]]


@pytest.mark.exhaustive
@pytest.mark.timeout(240)
def test_no_secret_is_in_the_output_of_any_part(processes: Processes) -> None:
    account = UserFactory(username="alice")
    account.password = PBKDF2PasswordHasher().encode(PASSWORD, "salt")  # as the API checks it
    account.save()
    exchange = processes.exchange()
    VenueFactory(settings={"url": exchange.url})
    api = processes.web(QUIKTRADE_WEB_WORKERS="1", QUIKTRADE_LOG_FORMAT="json", QUIKTRADE_TOKEN_RATE="1000/s", **DEBUG)
    console = processes.console(**DEBUG)
    worker = processes.worker(QUIKTRADE_LOG_FORMAT="json", **DEBUG)
    session = processes.session(**DEBUG)
    secrets = [*use(api), PASSWORD, NEW_PASSWORD, WRONG_PASSWORD, DATABASE_PASSWORD, settings.SECRET_KEY]
    token, *_, webhook = secrets[:5]
    for secret in (token, webhook, PASSWORD):
        for request in misplaced(secret):
            send((console if " /admin" in request else api).port, request)
    wait_until(lambda: Order.objects.exclude(venue_order_id="").exists(), worker)
    with connection.cursor() as cursor:  # all parts meet a database that is away
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )
    wait_until(lambda: "database" in worker.output.lower() or "queue" in worker.output.lower(), worker)
    wait_until(lambda: call(api.port, "GET", "/readyz?strict")[0] == 200, api, worker, session)

    for part in processes:
        assert part.output, part.name
        for secret in [*secrets, "S3CRET"]:
            assert secret not in part.output, (part.name, secret[:12])
