"""The simulated exchange as a real process, for tests."""

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from quiktrade.local.venv import ROOT
from quiktrade.processes import Child, Lifeline

START_SECONDS = 30
STOP_SECONDS = 10

READY = re.compile(r"Simulated exchange ready: orders (\S+), admin (\S+), journal (.+) \((\d+) orders\)")

ORDER: dict[str, Any] = {
    "client_order_id": "0192f0c1-7a2b-7c3d-8e4f-5a6b7c8d9e0f",
    "instrument": "US0378331005",
    "side": "buy",
    "type": "limit",
    "quantity": 100,
    "limit_price": "187.25",
    "stop_price": None,
    "time_in_force": "day",
    "expires_at": None,
    "valid_until": None,
}


_lifeline = Lifeline()


class RunningExchange:
    """One exchange, in `directory`; started again, it has the same ports and the same journal."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.journal = directory / "journal.jsonl"
        self._arguments = arguments
        self._ports = ("0", "0")
        self.url = ""
        self.admin_url = ""
        self.remembered = 0

    def start(self) -> None:
        port, admin_port = self._ports
        command = [sys.executable, "-m", "exchanges.simulator", "--port", port, "--admin-port", admin_port]
        command += ["--journal", str(self.journal), *self._arguments]
        self._child = Child(command, _lifeline.fileno(), {}, cwd=ROOT, stdout=subprocess.PIPE)
        self.process = self._child.process
        assert self._child.output is not None
        too_late = threading.Timer(START_SECONDS, self.process.kill)
        too_late.start()
        first_line = self._child.output.readline().decode()
        too_late.cancel()
        ready = READY.match(first_line)
        assert ready, f"the exchange said {first_line!r}"
        self.url, self.admin_url = ready[1], ready[2]
        self.remembered = int(ready[4])
        self._ports = (str(urlsplit(self.url).port), str(urlsplit(self.admin_url).port))

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        try:
            assert self._child.end((number, STOP_SECONDS)), "the exchange did not end"
            return self.process.returncode
        finally:
            self.clean_up()

    def clean_up(self) -> None:
        """Leave nothing of the process, in whatever state it is."""
        self._child.end_group()
        assert self._child.output is not None
        self._child.output.close()

    def set_faults(self, **faults: Any) -> None:
        """Set exactly these faults, such as `latency={"seconds": 0.5}, refuse=True`, or none."""
        status, content = self.admin("PUT", "/admin/faults", faults)
        assert status == 200, content

    def orders(self) -> list[dict[str, Any]]:
        """The ledger: every order recorded, refused and double ones too, oldest first."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            _, page = self.admin("GET", f"/orders?limit=10000&after={after}")
            found += page["orders"]
            after = page["next"]
        return found

    def stats(self) -> dict[str, Any]:
        content: dict[str, Any] = self.admin("GET", "/stats")[1]
        return content

    def place(self, **changes: Any) -> tuple[int, Any]:
        return call(self.url, "POST", "/orders", ORDER | changes)

    def find(self, client_order_id: str = ORDER["client_order_id"]) -> tuple[int, Any]:
        return call(self.url, "GET", f"/orders/{client_order_id}")

    def admin(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        return call(self.admin_url, method, path, content)


def call(url: str, method: str, path: str, content: Any = None, *, raw: bytes | None = None) -> tuple[int, Any]:
    """One request on a separate connection; returns the status and the JSON."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    try:
        body = json.dumps(content).encode() if content is not None else raw
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@contextmanager
def running_exchange(directory: Path, *arguments: str) -> Iterator[RunningExchange]:
    """Run an exchange with its journal in `directory`; what is left of it at the end is killed."""
    exchange = RunningExchange(directory, *arguments)
    exchange.start()
    try:
        yield exchange
    finally:
        exchange.clean_up()
