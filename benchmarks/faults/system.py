"""The system under test: PostgreSQL, the API, the console, worker nodes, sessions, and the exchange behind a proxy.

It has its own directory, server and ports, so that several laboratories can run side by side.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
STALE_SECONDS = 12
WORKERS = 4
NODES = 2
SESSIONS = 2
REFUSED_INSTRUMENT = "GB0002634946"
"""The exchange definitely refuses orders for it."""
LIQUIDITY = 0.7
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
    receivers: int
    """The first of as many as there are clients."""


class Database(Protocol):
    """The server of the database, as far as the system tends it."""

    @property
    def kept(self) -> bool: ...
    def start_keeper(self) -> None: ...
    def release(self) -> None: ...


class System:
    def __init__(self, directory: Path, start_database: Callable[[], Database | None] = lease.use) -> None:
        self.directory = directory
        self.journal = directory / "journal.jsonl"
        self.ports = Ports(*free_ports(5 + len(demo.CLIENTS))[:6])
        self.passwords: dict[str, str] = {}
        self.proxy = FaultProxy(self.ports.proxy, self.ports.exchange)
        self._start_database = start_database
        self._database: Database | None = None
        self._lifeline = Lifeline()
        self._held: set[Part] = set()
        self._tending = threading.Event()
        self._tender = threading.Thread(target=self._tend, name="tender", daemon=True)
        self.web = self._part("api", *_gunicorn(self.ports.web), QUIKTRADE_SERVICE="api")
        self.console = self._part("console", *_gunicorn(self.ports.console), QUIKTRADE_SERVICE="console")
        self.exchange = self._part("exchange", *self._exchange_command())
        self.nodes = [
            self._part(f"worker-{number}", "manage.py", "run_worker", QUIKTRADE_NODE=f"laboratory-{number}")
            for number in range(1, NODES + 1)
        ]
        self.sessions = [
            self._part(f"session-{number}", "manage.py", "run_venue_session", QUIKTRADE_NODE=f"session-{number}")
            for number in range(1, SESSIONS + 1)
        ]
        self.clusters = [Cluster(node, WORKERS) for node in self.nodes]

    @property
    def parts(self) -> list[Part]:
        """The parts, in the order in which they are stopped."""
        return [self.web, self.console, *self.nodes, *self.sessions, self.exchange]

    @property
    def database(self) -> lease.LocalDatabase:
        assert isinstance(self._database, lease.LocalDatabase), "start() comes first"
        return self._database

    def start(self) -> None:
        """Raises: DidNotStart, LocalDatabaseError."""
        self._database = self._start_database()
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
            *((session, self.stream_is_read) for session in self.sessions),
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

    def hold(self, *parts: Part) -> None:
        """End these parts, and do not start them again before `let_go`."""
        self._held.update(parts)
        for part in parts:
            part.ask_to_end()
        deadline = time.monotonic() + STOP_SECONDS
        for part in parts:
            part.wait(max(0.1, deadline - time.monotonic()))

    def let_go(self, *parts: Part) -> None:
        for part in parts:
            part.start()
        self._held.difference_update(parts)

    def command(self, *arguments: str) -> tuple[int, str, str]:
        """Run an operator's command on it: its exit status, and what it wrote to standard output and error."""
        command = [sys.executable, "manage.py", *arguments]
        environment = {**os.environ, **self._settings()}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

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

    def stream_is_read(self) -> bool:
        """Whether a session has the lease of the exchange's reports."""
        return self._lease_holder() is not None

    def reading_session(self) -> int | None:
        """The process of the session that reads the exchange's reports."""
        holder = self._lease_holder() or ""
        return next((part.pid for part in self.sessions if part.name in holder), None)

    def make_webhooks_due(self) -> None:
        """Have what failed twice sent now, and not in five minutes: no run waits for that."""
        with contextlib.suppress(psycopg.Error), self.connect() as connection:
            connection.execute("UPDATE orders_webhookendpoint SET paused_until = NULL WHERE paused_until IS NOT NULL")
            connection.execute(
                "UPDATE orders_webhookdelivery SET due_at = statement_timestamp()"
                " WHERE status = 'pending' AND due_at > statement_timestamp() + interval '10 seconds'"
            )

    def _lease_holder(self) -> str | None:
        try:
            with self.connect() as connection:
                found = connection.execute(
                    "SELECT holder FROM exchanges_reportsession WHERE lease_expires_at > now()"
                ).fetchone()
        except psycopg.Error:
            return None
        return None if found is None else str(found[0])

    def wait_until_whole(self, seconds: float) -> bool:
        """Wait until everything runs again. Returns whether it does."""
        checks = (self.exchange_ready, self.web_ready, self.console_ready, self.workers_ready, self.stream_is_read)
        return wait_for(lambda: all(ready() for ready in checks), seconds, pause=0.2)

    # ---- Its parts ----

    def _tend(self) -> None:
        while not self._tending.wait(0.1):
            for part in self.parts:
                if part not in self._held:
                    part.tend()
            if self._database is not None and not self._database.kept:
                with contextlib.suppress(OSError):
                    self._database.start_keeper()

    @staticmethod
    def _settings() -> dict[str, str]:
        return {
            "QUIKTRADE_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
            "QUIKTRADE_STALE_SECONDS": str(STALE_SECONDS),
            "QUIKTRADE_WORKERS": str(WORKERS),
            "QUIKTRADE_WEB_WORKERS": "2",
            "QUIKTRADE_WEBHOOK_ALLOW": "127.0.0.0/8",
            "QUIKTRADE_ACCESS_TOKEN_MINUTES": "600",  # the clients get a token once
        }

    def _part(self, name: str, *arguments: str, **environment: str) -> Part:
        command, settings = [sys.executable, *arguments], self._settings()
        return Part(name, command, self.directory / f"{name}.log", self._lifeline, **settings, **environment)

    def _exchange_command(self) -> list[str]:
        return [
            *("manage.py", "run_exchange", "--port", str(self.ports.exchange)),
            *("--admin-port", str(self.ports.exchange_admin), "--reject-instrument", REFUSED_INSTRUMENT),
            *("--journal", str(self.journal)),
            *("--liquidity", str(LIQUIDITY)),
        ]


def _gunicorn(port: int) -> tuple[str, ...]:
    config = str(ROOT / "quiktrade" / "web" / "gunicorn.py")
    return "-m", "gunicorn", "--config", config, "--bind", f"127.0.0.1:{port}"
