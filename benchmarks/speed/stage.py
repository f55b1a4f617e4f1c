"""Runs what is measured: its own PostgreSQL and, on demand, the processes of the product and of the references.

All references use the product's server, each with its own database, so that none has another disk or other settings.
"""

import os
import re
import shutil
import signal
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.db import connections

from benchmarks.stage.ports import free_ports
from benchmarks.stage.processes import Part
from exchanges import demo
from exchanges.models import Venue, VenueHealth
from quiktrade.asking import answer_of, ask
from quiktrade.local.postgres import lease
from quiktrade.local.postgres.server import NAME, PORT
from quiktrade.local.venv import ROOT
from quiktrade.processes import Lifeline, wait_for

CLIENT = demo.CLIENTS[0]
DATABASES = ("inline", "naive", "pgbench")
START_SECONDS = 60.0
STOP_SECONDS = 14.0
_ASK_SECONDS = 10.0
_OWN_STATEMENTS = ("ALTER SYSTEM SET log_statement", "SELECT pg_reload_conf()")
_STATEMENT = re.compile(r"LOG:  (?:statement|execute [^:]*): *(.*)")


class DidNotStart(Exception):
    """A process did not start. The text says which one, and how its log ends."""


@dataclass(frozen=True, slots=True)
class Server:
    """A process that answers HTTP."""

    part: Part
    port: int
    admin_port: int = 0

    @property
    def pid(self) -> int:
        assert self.part.pid is not None, f"{self.part.name} has ended; its log is {self.part.log}"
        return self.part.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Stage:
    def __init__(self, directory: Path, references: Path, environment: Mapping[str, str]) -> None:
        """`references` is the Python that has the references' packages; `environment` is for the product."""
        self.directory = directory
        self.references = references
        self._environment = environment
        self._passwords: dict[str, str] = {}
        self._database: lease.LocalDatabase | None = None
        self._lifeline = Lifeline()

    # ---- PostgreSQL ----

    @property
    def database(self) -> lease.LocalDatabase:
        assert self._database is not None, "start() comes first"
        return self._database

    @property
    def postgres_pid(self) -> int:
        return int((self.database.server.data / "postmaster.pid").read_text().split("\n")[0])

    def start(self) -> None:
        """Raises: LocalDatabaseError."""
        self._database = lease.use()
        call_command("migrate", verbosity=0, interactive=False)
        self._passwords = demo.load("http://127.0.0.1:1")
        connections.close_all()
        with self.connect(user="postgres", database="postgres") as connection:
            for name in DATABASES:
                connection.execute(f"CREATE DATABASE {name} OWNER {NAME}")

    def stop(self) -> None:
        connections.close_all()
        self._lifeline.close()
        if self._database is None:
            return
        server = self._database.server
        self._database.release()
        if self.directory not in server.directory.parents:  # root's server may be elsewhere
            shutil.rmtree(server.directory, ignore_errors=True)

    def connect(self, *, user: str = NAME, database: str = NAME) -> psycopg.Connection[Any]:
        host = str(self.database.server.socket_directory)
        return psycopg.connect(host=host, port=PORT, user=user, dbname=database, autocommit=True)

    def url(self, database: str) -> str:
        return re.sub(r"/[^/?]*\?", f"/{database}?", self.database.server.url)

    def ask(self, statement: str, parameters: Any = None, *, database: str = NAME) -> Any:
        """The first row of the answer."""
        with self.connect(database=database) as connection:
            return connection.execute(statement, parameters).fetchone()

    def settle(self) -> None:
        """Have the checkpoint now that could otherwise happen during a measurement."""
        with self.connect(user="postgres", database="postgres") as connection:
            connection.execute("CHECKPOINT")
        time.sleep(0.3)

    def forget_orders(self) -> None:
        """Empty the product's tables of orders, and have its venue count as healthy."""
        with self.connect() as connection:
            connection.execute("TRUNCATE orders_order CASCADE")
        VenueHealth.objects.all().delete()
        connections.close_all()

    @contextmanager
    def commit_times(self) -> Iterator[None]:
        """Have the server note when each transaction was committed. It is started again for that."""
        self._start_again("ALTER SYSTEM SET track_commit_timestamp = on")
        try:
            yield
        finally:
            self._start_again("ALTER SYSTEM RESET track_commit_timestamp")

    def _start_again(self, change: str) -> None:
        connections.close_all()
        with self.connect(user="postgres", database="postgres") as connection:
            connection.execute(change)
        before = self.postgres_pid
        os.kill(before, signal.SIGINT)  # a fast shutdown, after which the server's keeper starts it again

        def is_new() -> bool:
            with suppress(psycopg.OperationalError, OSError, ValueError):
                return self.ask("SELECT 1") is not None and self.postgres_pid != before
            return False

        if not wait_for(is_new, START_SECONDS):
            raise DidNotStart(f"PostgreSQL did not start again; its log is {self.database.server.server_log}")

    @contextmanager
    def statements(self, found: Counter[str]) -> Iterator[None]:
        """Count the statements that are sent to the server meanwhile, by their beginnings, from its log.

        PostgreSQL's extension for that, pg_stat_statements, does not come with the private server.
        """
        log = self.database.server.server_log
        self._log_statements("'all'")
        begun = log.stat().st_size
        try:
            yield
        finally:
            self._log_statements("DEFAULT")
        with open(log, errors="replace") as lines:
            lines.seek(begun)
            for line in lines:
                if (match := _STATEMENT.search(line)) and not match[1].startswith(_OWN_STATEMENTS):
                    found[match[1].strip()[:60] or "WITH"] += 1  # the text of the product's own begins on the next line

    def _log_statements(self, value: str) -> None:
        with self.connect(user="postgres", database="postgres") as connection:
            connection.execute(f"ALTER SYSTEM SET log_statement = {value}")
            connection.execute("SELECT pg_reload_conf()")
        time.sleep(0.5)  # until every backend has read it

    # ---- The product ----

    @contextmanager
    def web(self, **environment: str) -> Iterator[Server]:
        (port,) = free_ports(1)
        config = str(ROOT / "quiktrade" / "web" / "gunicorn.py")
        command = [sys.executable, "-m", "gunicorn", "--config", config, "--bind", f"127.0.0.1:{port}"]
        # The clients get a token once.
        settings = {"QUIKTRADE_WEB_WORKERS": "2", "QUIKTRADE_ACCESS_TOKEN_MINUTES": "600", **environment}
        with self._running("web", command, lambda: answer_of(port, "/readyz") is not None, settings) as part:
            yield Server(part, port)

    @contextmanager
    def console(self) -> Iterator[Server]:
        (port,) = free_ports(1)
        config = str(ROOT / "quiktrade" / "web" / "gunicorn.py")
        command = [sys.executable, "-m", "gunicorn", "--config", config, "--bind", f"127.0.0.1:{port}"]
        service = {"QUIKTRADE_SERVICE": "console"}
        with self._running("console", command, lambda: answer_of(port, "/readyz") is not None, service) as part:
            yield Server(part, port)

    @contextmanager
    def granian(self) -> Iterator[Server]:
        """The API as it is, under another server: granian, with two processes of 16 threads."""
        (port,) = free_ports(1)
        command = [
            *(self.references, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "2", "--blocking-threads", "16", "--log-level", "warning", "quiktrade.wsgi:application"),
        ]
        service = {
            "PYTHONPATH": sysconfig.get_path("purelib"),
            "QUIKTRADE_SERVICE": "api",
            "QUIKTRADE_ACCESS_TOKEN_MINUTES": "600",
        }
        with self._running("granian", command, lambda: answer_of(port, "/readyz") is not None, service) as part:
            yield Server(part, port)

    @contextmanager
    def worker(self, node: str = "a", **environment: str) -> Iterator[Part]:
        settings = {"QUIKTRADE_NODE": node, **environment}
        begun = self.ask("SELECT clock_timestamp()")

        def beats() -> bool:
            beat = "SELECT 1 FROM quiktrade_workernode WHERE name = %s AND heartbeat_at > %s"
            return self.ask(beat, [node, *begun]) is not None

        with self._running(f"worker-{node}", [sys.executable, "manage.py", "run_worker"], beats, settings) as part:
            yield part

    @contextmanager
    def exchange(self, latency: float | None = None) -> Iterator[Server]:
        """The simulated exchange, with its own journal."""
        port, admin_port = free_ports(2)
        command = [sys.executable, "manage.py", "run_exchange", "--port", str(port), "--admin-port", str(admin_port)]
        command += ["--journal", str(self.directory / f"journal-{port}.jsonl")]
        command += ["--latency", f"{latency:g}"] if latency else []
        with self._running("exchange", command, lambda: answer_of(admin_port, "/health") is not None, {}) as part:
            yield Server(part, port, admin_port)

    @contextmanager
    def venue_session(self) -> Iterator[Part]:
        """The session with the venue, from when it reads the venue's reports."""
        reads = "SELECT 1 FROM exchanges_reportsession WHERE venue_id = %s AND lease_expires_at > clock_timestamp()"
        command = [sys.executable, "manage.py", "run_venue_session", demo.VENUE]
        with self._running("session", command, lambda: self.ask(reads, [demo.VENUE]) is not None, {}) as part:
            yield part

    def point_venue_at(self, server: Server, *, max_in_flight: int = 1024, **settings: Any) -> None:
        Venue.objects.filter(code=demo.VENUE).update(
            settings={"url": server.url, **settings}, max_in_flight=max_in_flight, halted_at=None, halted_by="",
            halt_reason="",
        )  # fmt: skip
        connections.close_all()

    def headers(self, web: Server) -> dict[str, str]:
        """The headers of a client that has logged in."""
        body = {"username": CLIENT, "password": self._passwords[CLIENT]}
        token = ask(web.port, "/api/v1/auth/token", method="POST", content=body)["access"]
        return {"Authorization": f"Bearer {token}"}

    def session_cookie(self) -> dict[str, str]:
        """The cookie of an operator who has logged in to the console."""
        operator = get_user_model().objects.get(username=demo.OPERATOR)
        session = SessionStore()
        session.update(
            {
                SESSION_KEY: str(operator.pk),
                BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
                HASH_SESSION_KEY: operator.get_session_auth_hash(),
            }
        )
        session.save()
        connections.close_all()
        return {"Cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}"}

    @property
    def client_id(self) -> int:
        pk: int = get_user_model().objects.get(username=CLIENT).pk
        connections.close_all()
        return pk

    # ---- The references ----

    @contextmanager
    def inline(self, mode: str, workers: int = 2) -> Iterator[Server]:
        """The inline stack: `mode` is what its `place_order` does."""
        (port,) = free_ports(1)
        settings = {
            "INLINE_HOST": str(self.database.server.socket_directory),
            "INLINE_DATABASE": "inline",
            "INLINE_USER": NAME,
            "INLINE_PLACES": mode,
        }
        command = [
            self.references,
            "-m",
            "benchmarks.speed.inline_stack",
            "--port",
            str(port),
            "--workers",
            str(workers),
        ]
        name = f"inline-{mode}-{workers}"
        with self._running(name, command, lambda: answer_of(port, "/health") is not None, settings) as part:
            yield Server(part, port)

    @contextmanager
    def venue(self, latency: float) -> Iterator[Server]:
        """The lean venue (see venue.py)."""
        (port,) = free_ports(1)
        command = [self.references, "-m", "benchmarks.speed.venue", "--port", str(port), "--latency", f"{latency:g}"]
        with self._running("venue", command, lambda: answer_of(port, "/health") is not None, {}) as part:
            yield Server(part, port)

    @contextmanager
    def receiver(self) -> Iterator[Server]:
        """A receiver of webhooks (see receiver.py)."""
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "benchmarks.speed.receiver", "--port", str(port)]
        with self._running("receiver", command, lambda: answer_of(port, "/") is not None, {}) as part:
            yield Server(part, port)

    @contextmanager
    def naive_cluster(self, venue: Server, workers: int) -> Iterator[Part]:
        with self._running("naive", self.naive("qcluster"), lambda: True, self.naive_settings(venue, workers)) as part:
            yield part

    def naive(self, *arguments: str) -> list[str | Path]:
        return [sys.executable, "-m", "benchmarks.speed.naive", *arguments]

    def naive_settings(self, venue: Server, workers: int) -> dict[str, str]:
        return {
            "NAIVE_HOST": str(self.database.server.socket_directory),
            "NAIVE_USER": NAME,
            "NAIVE_VENUE_PORT": str(venue.port),
            "NAIVE_WORKERS": str(workers),
        }

    # ---- Starting and stopping ----

    @contextmanager
    def _running(
        self, name: str, command: list[Any], ready: Callable[[], bool], environment: Mapping[str, str]
    ) -> Iterator[Part]:
        log = self.directory / f"{name}.log"
        part = Part(name, list(map(str, command)), log, self._lifeline, **{**self._environment, **environment})
        part.start()
        try:
            if not wait_for(ready, START_SECONDS, unless=lambda: part.pid is None):
                end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise DidNotStart(f"{name} did not start. {log} ends with:\n{end}")
            yield part
        finally:
            part.end((signal.SIGTERM, STOP_SECONDS))


def interrupt_as_keyboard() -> None:
    """SIGTERM ends a run the way Ctrl-C does: through every `finally`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
