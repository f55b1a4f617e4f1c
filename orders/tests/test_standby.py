"""An order is not called stored before the standby has it: a real primary, and a real synchronous standby."""

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.api import health
from quiktrade.auth.tokens import AccessToken
from quiktrade.database.connection import Connection
from quiktrade.tests.processes import Process, Processes, wait_until
from quiktrade.tests.servers import Server, used_by_this_process

ORDER = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1, "client_order_id": "a"}


@pytest.fixture
def pair(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Server]]:
    with tempfile.TemporaryDirectory(prefix="quiktrade-") as folder:
        Path(folder).chmod(0o711)
        primary, standby = Server(Path(folder) / "a"), Server(Path(folder) / "b")
        primary.make()
        primary.start()
        try:
            standby.copy_of(primary)
            standby.start()
            with used_by_this_process(primary):
                # How long an answer may take; a commit that waits for the standby would take for ever.
                monkeypatch.setattr(Connection, "answer_seconds", 2.0)
                VenueFactory()
                with primary.connect() as admin:
                    admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
                    admin.execute("SELECT pg_reload_conf()")
                    wait_until(lambda: _synchronous(primary))
                yield primary, standby
        finally:
            standby.stop()
            primary.stop()


def _synchronous(primary: Server) -> bool:
    with primary.connect() as admin:
        return admin.execute("SELECT FROM pg_stat_replication WHERE sync_state = 'sync'").rowcount == 1


@pytest.mark.exhaustive
def test_a_repeat_is_a_200_only_when_the_standby_has_the_order(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    token = AccessToken.for_user(UserFactory())
    assert _post(token).status_code == 201

    standby.stop()
    order = ORDER | {"client_order_id": "b"}
    with ThreadPoolExecutor(1) as client, primary.connect() as admin:
        first = client.submit(_post, token, order)
        wait_until(lambda: admin.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'").rowcount)
        admin.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        assert first.result().status_code == 503
        assert admin.execute("SELECT FROM orders_order WHERE client_order_id = 'b'").rowcount == 1
    assert _post(token, order).status_code == 503

    standby.start()
    wait_until(lambda: _synchronous(primary))
    assert _post(token, order).status_code == 200
    with standby.connect() as reader:
        wait_until(lambda: reader.execute("SELECT FROM orders_order WHERE client_order_id = 'b'").rowcount == 1)


@pytest.mark.exhaustive
def test_a_pooled_connection_whose_wait_was_cut_short_stores_again_when_the_standby_is_back(
    pair: tuple[Server, Server], processes: Processes
) -> None:
    primary, standby = pair
    web = processes.web(QUIKTRADE_WEB_WORKERS="1", QUIKTRADE_WEB_CONNECTIONS="2")
    token = AccessToken.for_user(UserFactory())
    assert _post_to(web, token, "before") == 201

    standby.stop()
    with ThreadPoolExecutor(1) as client, primary.connect() as admin:
        cut = client.submit(_post_to, web, token, "cut")
        wait_until(lambda: admin.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'").rowcount)
        admin.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        assert cut.result() == 503

    standby.start()
    wait_until(lambda: _synchronous(primary))
    assert [_post_to(web, token, f"after-{n}") for n in range(4)] == [201] * 4


@pytest.mark.exhaustive
def test_a_process_that_is_led_to_a_standby_says_so_and_stores_again_once_it_is_the_primary(
    pair: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REMEMBER_SECONDS", 0.0)
    monkeypatch.setattr(health, "_latest", None)
    primary, standby = pair
    token = str(AccessToken.for_user(UserFactory()))  # signed now: the first token makes the key
    with primary.connect() as admin, standby.connect() as reader:
        [(written,)] = admin.execute("SELECT pg_current_wal_lsn()").fetchall()
        wait_until(lambda: reader.execute("SELECT WHERE pg_last_wal_replay_lsn() >= %s", [written]).rowcount)
    lead_to(standby)
    response = _post(token)
    assert (response.status_code, response["Retry-After"]) == (503, "2")
    assert _readiness() == (503, {"ok": False, "detail": "This is a standby."})

    lead_to(primary)
    assert _readiness() == (200, {"ok": True})
    assert _post(token).status_code == 201


@pytest.mark.exhaustive
def test_readiness_fails_while_no_commit_gets_to_the_standby_and_leaves_none_waiting(
    pair: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REMEMBER_SECONDS", 0.0)
    monkeypatch.setattr(health, "WRITE_SECONDS", 0.3)
    monkeypatch.setattr(health, "_latest", None)
    primary, standby = pair
    assert _readiness() == (200, {"ok": True})

    standby.stop()
    assert _readiness()[0] == 503
    with primary.connect() as admin:
        assert admin.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'").rowcount == 0


def lead_to(server: Server) -> None:
    """As a host name does when it is resolved again."""
    connection.settings_dict["HOST"] = server.host
    connection.close()


def _readiness() -> tuple[int, Any]:
    response = APIClient().get("/readyz")
    return response.status_code, response.json()["checks"]["database"]


def _post_to(web: Process, token: AccessToken, client_order_id: str) -> int:
    asked = HTTPConnection("127.0.0.1", web.port, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        asked.request("POST", "/api/v1/orders", json.dumps(ORDER | {"client_order_id": client_order_id}), headers)
        return asked.getresponse().status
    finally:
        asked.close()


def _post(token: AccessToken | str, order: dict[str, Any] = ORDER) -> Any:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    try:
        return client.post("/api/v1/orders", order)
    finally:
        connection.close()
