"""`manage.py up` as a user has it: a copy of the checkout, a terminal's signals, curl, and kill -9."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.core.management import CommandError

from benchmarks.faults.traffic import log_in
from benchmarks.stage.ports import free_ports
from orders.tests.factories import console_group
from quiktrade.local.greeting import Addresses
from quiktrade.local.venv import ROOT
from quiktrade.management.commands.up import _claim_ports
from quiktrade.tests.places import open_place, processes_of
from quiktrade.tests.processes import database_url_of_tests, wait_until

pytestmark = pytest.mark.timeout(300)  # each of these starts everything, some more than once

STATE = {".venv", ".data", ".git", "staticfiles"}


class Up:
    """A running `manage.py up` of a checkout, with its output in a file."""

    def __init__(self, checkout: Path, *options: str, **environment: str) -> None:
        self.checkout = checkout
        self.port, self.console_port, self.exchange_port = free_ports(1)[0], free_ports(1)[0], free_ports(2)[0]
        ports = ["--port", str(self.port), "--console-port", str(self.console_port)]
        ports += ["--exchange-port", str(self.exchange_port)]
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("QUIKTRADE", "DATABASE"))
        }
        self._log = checkout.parent / f"up-{self.port}.log"
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up", *ports, *options],
                cwd=checkout,
                env={**inherited, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self._log.read_text()

    def says(self, text: str) -> None:
        """Wait until its output contains this."""
        wait_until(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output, self.output

    def part(self, sign: str) -> psutil.Process:
        """The process with this word on its command line, and none of its children."""
        found = [process for process in processes_of(self.checkout) if sign in process.info["cmdline"]]
        return next(process for process in found if process.info["ppid"] not in [other.pid for other in found])

    def shell(self, lines: str) -> str:
        assert shutil.which("curl"), "curl is not installed"
        done = subprocess.run(["sh", "-c", lines], capture_output=True, text=True, timeout=30, cwd=self.checkout)
        return done.stdout + done.stderr

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    """A copy of this checkout, in a path with spaces, without what was made in it."""
    with open_place() as place:
        checkout = place / "a copy of it"
        shutil.copytree(ROOT, checkout, ignore=lambda directory, names: STATE.intersection(names))
        yield checkout
        wait_until(lambda: not processes_of(checkout))


def pasted(output: str) -> str:
    """The lines for the shell in the output of `up`."""
    return "\n".join(line for line in output.splitlines() if line.startswith(("API=", "ANSWER=", "TOKEN=", "curl ")))


Start = Callable[..., Up]


@pytest.fixture
def start(checkout: Path) -> Iterator[Start]:
    """Starts `up` in the checkout, and makes sure that nothing of it is left after the test."""
    with ExitStack() as started:

        def start(*options: str, **environment: str) -> Up:
            up = Up(checkout, *options, **environment)
            started.callback(up.kill)
            return up

        yield start
    wait_until(lambda: not processes_of(checkout))


@contextmanager
def frozen(server: psutil.Process) -> Iterator[None]:
    """A PostgreSQL whose processes are all suspended. The kernel still accepts connections and bytes for it."""
    server.suspend()
    processes = [server, *server.children()]
    try:
        for process in processes[1:]:
            process.suspend()
        yield
    finally:
        for process in processes:
            process.resume()


@pytest.mark.exhaustive
def test_a_frozen_database_is_a_503_and_all_goes_on_when_it_is_back(start: Start, checkout: Path) -> None:
    data = checkout / "frozen"
    up = start(QUIKTRADE_DATA=str(data), QUIKTRADE_WEB_WORKERS="1", QUIKTRADE_WEB_THREADS="1")
    up.says("Ready.")
    password = re.search(r"^  alice +(\S+)$", up.output, re.MULTILINE)
    assert password
    (token,) = log_in(up.port, {"alice": password[1]}).values()
    server = psutil.Process(int((data / "pg" / "data" / "postmaster.pid").read_text().split()[0]))

    def submit(name: str) -> tuple[int, Any]:
        order = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1, "client_order_id": name}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        asked = http.client.HTTPConnection("127.0.0.1", up.port, timeout=60)
        asked.request("POST", "/api/v1/orders", json.dumps(order), headers)
        with contextlib.closing(asked), asked.getresponse() as answer:
            return answer.status, (answer.headers["Retry-After"], json.loads(answer.read()))

    assert submit("before")[0] == 201
    with frozen(server):
        # The open connection gives no answer, and the server gives none to a new one.
        for _ in range(2):
            began = time.monotonic()
            status, (retry_after, problem) = submit("meanwhile")
            assert (status, problem["type"]) == (503, "urn:quiktrade:problem:unavailable")
            assert int(retry_after) > 0
            assert time.monotonic() - began < 10
    # The server has since carried out what it received before its client gave up, if it received anything.
    assert submit("meanwhile")[0] in (200, 201)

    def all_are_filled() -> bool:
        return up.shell(f"curl -s {up.url}/api/v1/orders -H 'Authorization: Bearer {token}'").count('"filled"') == 2

    wait_until(all_are_filled)
    assert "Traceback" not in up.output
    assert up.stop() == 0


def test_the_first_run_takes_an_order_survives_kills_and_ends_without_a_trace(start: Start) -> None:
    up = start()
    up.says("Ready.")
    accounts = dict(re.findall(r"^  (operator|alice|bob) +(\S+)$", up.output, re.MULTILINE))
    assert len(set(accounts.values())) == 3
    paths = dict.fromkeys(("/api/v1/docs", "/api/v1/redoc", "/healthz", "/readyz"), up.port)
    for path, port in {**paths, "/admin/": up.console_port}.items():
        address = f"http://127.0.0.1:{port}{path}"
        assert address in up.output
        assert up.shell(f"curl -sL -o /dev/null -w '%{{http_code}}' {address}") == "200"
    commands = pasted(up.output)
    answer = up.shell(commands)
    assert "HTTP/1.1 201 Created" in answer
    location = re.search(r"^Location: (\S+)", answer, re.MULTILINE | re.IGNORECASE)
    assert location
    assert re.search(r'"client_order_id": ?"first-[0-9a-f]{6}"', answer)
    ask = f'{commands.rpartition("curl -i")[0]}\ncurl -s {location[1]} -H "Authorization: Bearer $TOKEN"'
    wait_until(lambda: json.loads(up.shell(ask))["status"] == "filled")
    wrong = up.shell(commands.replace(accounts["alice"], "wrong").rpartition("curl -i")[0])
    assert wrong.startswith("No token: {")
    assert "urn:quiktrade:problem:wrong-credentials" in wrong

    api, console = f"127.0.0.1:{up.port}", f"127.0.0.1:{up.console_port}"
    for name, sign in (
        ("api", api),
        ("console", console),
        ("worker", "run_worker"),
        ("exchange", "run_exchange"),
        ("session", "run_venue_session"),
    ):
        up.part(sign).kill()
        up.says(f"{name:8} | ended: SIGKILL; starting it again in 0.5 s")
    server = (up.checkout / ".data" / "pg" / "data" / "postmaster.pid").read_text().split()[0]
    os.kill(int(server), signal.SIGKILL)
    up.says("database | PostgreSQL ended: SIGKILL; starting it again")
    up.part("quiktrade.local.postgres.keeper").kill()
    up.says("database | its keeper was ended; starting another")
    wait_until(lambda: '"status": "ready"' in up.shell(f"curl -s http://127.0.0.1:{up.port}/readyz"))

    assert up.stop() == 0
    assert up.output.endswith("up       | Stopped.\n")
    wait_until(lambda: processes_of(up.checkout) == [], seconds=10.0)
    assert list((up.checkout / ".data" / "pg" / "run").iterdir()) == []


@pytest.mark.exhaustive
def test_a_killed_up_takes_everything_with_it_and_the_next_one_runs(start: Start) -> None:
    up = start()
    up.says("Ready.")
    second = start()
    assert second.process.wait(60) == 1
    assert f"`up` already runs here, as process {up.process.pid}" in second.output
    up.stop(signal.SIGKILL)
    # A part's line in Latin-1, which is no UTF-8, to an output that cannot show what stands for such a byte.
    third = start(QUIKTRADE_NODE="Ødegård", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    third.says("Ready.")
    assert "alice's password was shown when the account was made, and only then." in third.output
    assert "node=\\ufffddeg\\ufffdrd" in third.output
    assert third.stop(signal.SIGTERM) == 0
    wait_until(lambda: processes_of(up.checkout) == [], seconds=10.0)


def test_a_port_in_use_is_named_before_anything_starts(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = start("--port", str(port))
        assert up.process.wait(60) == 1
    assert up.output == f"CommandError: Port {port} is in use: set another --port, or stop that.\n"


def test_two_that_start_at_once_do_not_get_the_same_port() -> None:
    """Neither listens yet, so both find the port free: a lock decides."""
    addresses = Addresses(
        parts=["api", "exchange"],
        host="127.0.0.1",
        port=free_ports(1)[0],
        console_port=2,
        exchange_port=free_ports(2)[0],
    )
    other = Addresses(
        parts=["exchange"], host="127.0.0.1", port=1, console_port=2, exchange_port=addresses.exchange_port - 1
    )
    claims = _claim_ports(addresses)
    with pytest.raises(CommandError, match=f"Port {addresses.port} is in use: set another --port, or stop that."):
        _claim_ports(addresses)
    with pytest.raises(CommandError, match=f"Port {addresses.exchange_port} is in use: set another --exchange-port"):
        _claim_ports(other)
    for claim in claims:
        os.close(claim)


@pytest.mark.exhaustive
def test_the_database_that_is_configured_is_used_and_parts_can_be_left_out(
    checkout: Path, start: Start, transactional_db: None
) -> None:
    console_group("Operator")  # as the migrations leave it
    up = start(
        *("--without", "worker", "--without", "exchange"),
        DATABASE_URL=database_url_of_tests(),
        QUIKTRADE_DATA=str(checkout.parent / "other data"),
    )
    up.says("Ready, without worker and exchange.")
    assert "Without worker   orders are accepted, and wait as pending." in up.output
    assert f"Unless another one is at http://127.0.0.1:{up.exchange_port}, orders for it wait." in up.output
    assert "its faults" not in up.output
    assert not (checkout.parent / "other data" / "pg").exists()
    assert up.stop() == 0


def test_help_names_parts_and_ports(checkout: Path) -> None:
    done = subprocess.run([sys.executable, "manage.py", "up", "--help"], cwd=checkout, capture_output=True, text=True)
    for word in (
        "api",
        "console",
        "worker",
        "session",
        "exchange",
        "database",
        "8000",
        "8001",
        "8765",
        "--without",
        "QUIKTRADE_ALLOWED_HOSTS",
    ):
        assert word in done.stdout
