"""A new version is deployed under load: clients notice no more than a closed connection."""

import http.client
import json
import signal
import threading
import time
from itertools import count
from typing import Any

import psutil
import pytest

from exchanges.tests.running import call
from orders.models import Order
from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.auth.tokens import AccessToken
from quiktrade.tests.processes import Process, Processes, wait_until

CLIENTS = 4
PAUSE_SECONDS = 0.05
TRIES = 100


class Client(threading.Thread):
    """Submits one order after another over one connection, and again over another one while the first is cut."""

    def __init__(self, name: str, token: AccessToken, ports: list[int], enough: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.answers: set[int] = set()
        """The statuses of the answers; 0 for an order that was never answered."""
        self.accepted: list[str] = []
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._ports = ports
        self._enough = enough
        self._connection = self._connect()

    def run(self) -> None:
        for number in count():
            if self._enough.wait(PAUSE_SECONDS):
                break
            self._submit(f"{self.name}-{number}")
        self._connection.close()

    def _submit(self, client_order_id: str) -> None:
        order = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1}
        body = json.dumps({**order, "client_order_id": client_order_id})
        for _ in range(TRIES):
            try:
                self._connection.request("POST", "/api/v1/orders", body, self._headers)
                answer = self._connection.getresponse()
                content: dict[str, Any] = json.loads(answer.read())
            except (ConnectionError, http.client.HTTPException):
                self._connection.close()
                self._ports.append(self._ports.pop(0))
                self._connection = self._connect()
                time.sleep(0.02)
            else:
                self.answers.add(answer.status)
                if answer.status in (200, 201):
                    self.accepted.append(content["id"])
                return
        self.answers.add(0)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._ports[0], timeout=30)


def reload(web: Process) -> None:
    """Have gunicorn replace its workers."""
    before = psutil.Process(web.pid).children()
    web.kill(signal.SIGHUP)
    _, left = psutil.wait_procs(before, timeout=30)
    assert left == []
    web.wait_until_ready()


def restart(process: Process) -> None:
    assert process.stop() == 0
    process.start()
    process.wait_until_ready()


@pytest.mark.exhaustive
def test_a_rolling_restart_under_load_fails_no_request_and_places_each_order_once(processes: Processes) -> None:
    exchange = processes.exchange()
    VenueFactory(settings={"url": exchange.url})
    webs, worker = [processes.web(), processes.web()], processes.worker()
    enough = threading.Event()
    clients = []
    for number in range(CLIENTS):
        ports = [web.port for web in webs]
        token = AccessToken.for_user(UserFactory())
        clients.append(Client(f"client-{number}", token, ports[number % 2 :] + ports[: number % 2], enough))

    def accepted() -> int:
        return sum(len(client.accepted) for client in clients)

    for client in clients:
        client.start()
    try:
        wait_until(lambda: accepted() > 20, *webs)
        reload(webs[0])
        for process in (*webs, worker):
            restart(process)
        more = accepted() + 20
        wait_until(lambda: accepted() > more, *webs)
    finally:
        enough.set()
        for client in clients:
            client.join()

    assert {status for client in clients for status in client.answers} <= {200, 201}
    ids = sorted(order for client in clients for order in client.accepted)
    assert [str(pk) for pk in Order.objects.order_by("pk").values_list("pk", flat=True)] == ids
    wait_until(lambda: not Order.objects.exclude(status="placed").exists(), worker)
    ledger = call(f"http://127.0.0.1:{exchange.port + 1}", "GET", "/orders?limit=10000")[1]["orders"]
    assert sorted(entry["client_order_id"] for entry in ledger) == ids
