"""The system under test: PostgreSQL, the API, the console, worker nodes, the exchange and the proxy in front of it.

It has its own directory, server and ports, so that several laboratories can run side by side.
"""

import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from django.core.management import call_command
from django.db import connections

from benchmarks.faults.proxy import FaultProxy
from benchmarks.stage.ports import free_ports
from benchmarks.stage.processes import Cluster, Part
from exchanges import demo
from exchanges.models import Venue
from quiktrade.asking import answer_of, ask
from quiktrade.local.postgres import lease
from quiktrade.local.venv import ROOT
from quiktrade.processes import Lifeline, wait_for

LEASE_SECONDS = 8.0
VENUE_TIMEOUT_SECONDS = 2.0
SETTLE_SECONDS = 2.0
STALE_SECONDS = 8
WORKERS = 4
NODES = 2
REFUSED_INSTRUMENT = "GB0002634946"
"""The exchange definitely refuses orders for it."""
START_SECONDS = 120.0
STOP_SECONDS = 14.0
_ADMIN_SECONDS = 10.0


class DidNotStart(Exception):
    """A part of the system did not start. The text says which one, and where its log is."""


@dataclass(frozen=True, slots=True)
class Ports:
    web: int
    console: int
    proxy: int
    exchange: int
    exchange_admin: int


class System:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = Ports(*free_ports(5))
        self.passwords: dict[str, str] = {}
        self.proxy = FaultProxy(self.ports.proxy, self.ports.exchange)
        self._database: lease.LocalDatabase | None = None
        self._lifeline = Lifeline()
        self._tending = threading.Event()
        self._tender = threading.Thread(target=self._tend, name="tender", daemon=True)
        self.web = self._part("api", *_gunicorn(self.ports.web), QUIKTRADE_SERVICE="api")
        self.console = self._part("console", *_gunicorn(self.ports.console), QUIKTRADE_SERVICE="console")
        self.exchange = self._part("exchange", *self._exchange_command())
        self.nodes = [
            self._part(f"worker-{number}", "manage.py", "run_worker", QUIKTRADE_NODE=f"laboratory-{number}")
            for number in range(1, NODES + 1)
        ]
        self.clusters = [Cluster(node, WORKERS) for node in self.nodes]

    @property
    def parts(self) -> list[Part]:
        """The parts, in the order in which they are stopped."""
        return [self.web, self.console, *self.nodes, self.exchange]

    @property
    def database(self) -> lease.LocalDatabase:
        assert self._database is not None, "start() comes first"
        return self._database

    def start(self) -> None:
        """Raises: DidNotStart, LocalDatabaseError."""
        self._database = lease.use()
        call_command("migrate", verbosity=0, interactive=False)
        self.passwords = demo.load(f"http://127.0.0.1:{self.ports.proxy}")
        venue = Venue.objects.get(code=demo.VENUE)
        venue.settings |= {"timeout_seconds": VENUE_TIMEOUT_SECONDS, "settle_seconds": SETTLE_SECONDS}
        venue.save(update_fields=["settings"])
        connections.close_all()
        self.proxy.start()
        for part in reversed(self.parts):
            part.start()
        deadline = time.monotonic() + START_SECONDS
        for part, ready in [
            (self.exchange, self.exchange_ready),
            (self.web, self.web_ready),
            (self.console, self.console_ready),
            *((node, self.workers_ready) for node in self.nodes),
        ]:
            seconds = deadline - time.monotonic()
            if not wait_for(ready, seconds, unless=lambda part=part: part.pid is None):  # type: ignore[misc]
                raise DidNotStart(f"{part.name} did not start; its log is {part.log}")
        self._tender.start()

    def stop(self) -> None:
        self._tending.set()
        if self._tender.ident is not None:
            self._tender.join()
        for part in self.parts:
            part.ask_to_end()
        deadline = time.monotonic() + STOP_SECONDS
        for part in self.parts:
            part.wait(max(0.1, deadline - time.monotonic()))
        self.proxy.stop()
        self._lifeline.close()
        connections.close_all()
        if self._database is not None:
            self._database.release()

    # ---- Asking it ----

    def connect(self) -> psycopg.Connection[Any]:
        """A new connection to the database, for the caller to close. Raises: psycopg.Error."""
        return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, connect_timeout=3)

    def admin(self, method: str, path: str, content: Any = None) -> Any:
        """Ask the exchange's admin port. Raises: OSError, HTTPException; ValueError for an answer other than 200."""
        return ask(self.ports.exchange_admin, path, method=method, content=content)

    def web_ready(self) -> bool:
        return answer_of(self.ports.web, "/readyz") is not None

    def console_ready(self) -> bool:
        return answer_of(self.ports.console, "/readyz") is not None

    def exchange_ready(self) -> bool:
        return answer_of(self.ports.exchange_admin, "/health") is not None

    def workers_ready(self) -> bool:
        """Whether every node had a heartbeat within the last few seconds."""
        try:
            with self.connect() as connection:
                found = connection.execute(
                    "SELECT count(*) FROM quiktrade_workernode WHERE heartbeat_at > now() - interval '5 seconds'"
                ).fetchone()
        except psycopg.Error:
            return False
        return found == (len(self.nodes),)

    def wait_until_whole(self, seconds: float) -> bool:
        """Wait until everything runs again. Returns whether it does."""
        checks = (self.exchange_ready, self.web_ready, self.console_ready, self.workers_ready)
        return wait_for(lambda: all(ready() for ready in checks), seconds, pause=0.2)

    # ---- Its parts ----

    def _tend(self) -> None:
        while not self._tending.wait(0.1):
            for part in self.parts:
                part.tend()
            if not self.database.kept:
                with contextlib.suppress(OSError):
                    self.database.start_keeper()

    def _part(self, name: str, *arguments: str, **environment: str) -> Part:
        settings = {
            "QUIKTRADE_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
            "QUIKTRADE_STALE_SECONDS": str(STALE_SECONDS),
            "QUIKTRADE_WORKERS": str(WORKERS),
            "QUIKTRADE_WEB_WORKERS": "2",
            "QUIKTRADE_ACCESS_TOKEN_MINUTES": "600",  # the clients get a token once
        }
        command = [sys.executable, *arguments]
        return Part(name, command, self.directory / f"{name}.log", self._lifeline, **settings, **environment)

    def _exchange_command(self) -> list[str]:
        return [
            *("manage.py", "run_exchange", "--port", str(self.ports.exchange)),
            *("--admin-port", str(self.ports.exchange_admin), "--reject-instrument", REFUSED_INSTRUMENT),
            *("--journal", str(self.directory / "journal.jsonl")),
        ]


def _gunicorn(port: int) -> tuple[str, ...]:
    config = str(ROOT / "quiktrade" / "web" / "gunicorn.py")
    return "-m", "gunicorn", "--config", config, "--bind", f"127.0.0.1:{port}"
