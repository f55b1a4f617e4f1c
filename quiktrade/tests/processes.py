"""Real processes for tests: what `manage.py up` runs, on the test database."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from django.conf import settings
from django.db import connection
from psycopg.conninfo import make_conninfo

from benchmarks.stage.ports import free_ports
from quiktrade.asking import answer_of, listens
from quiktrade.local.venv import ROOT
from quiktrade.models import WorkerNode
from quiktrade.processes import Child, Lifeline, wait_for

PATIENCE_SECONDS = 60.0


class Process:
    """One program. `port` is where it listens, 0 for a worker; `start()` does not change it."""

    def __init__(
        self, name: str, command: Sequence[str], port: int, is_ready: Callable[[], bool], log: Path, lifeline: Lifeline
    ) -> None:
        self.name = name
        self.port = port
        self._is_ready = is_ready
        self._log = log
        self._command = command
        self._lifeline = lifeline
        self._environment: dict[str, str] = {}
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def node(self) -> str:
        """The name of the node that it is, if it has one of its own."""
        return self._environment.get("QUIKTRADE_NODE", "")

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.alive

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self, **environment: str) -> None:
        """Start it, or start it again, on the same port. `environment` is for this start and later ones."""
        self._environment |= environment
        if self._child is not None:
            self._child.end_group()
        with open(self._log, "ab") as log:
            lifeline = self._lifeline.fileno()
            self._child = Child(self._command, lifeline, self._environment, cwd=ROOT, stdout=log, stderr=log)

    def wait_until_ready(self) -> None:
        wait_until(self._is_ready, self)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to this process alone; wait for its end if the signal is SIGKILL."""
        self._running.send(number)
        if number == signal.SIGKILL:
            self._running.wait()

    def stop(self) -> int:
        """End the whole program as `up` would, by force if necessary. Returns its exit status."""
        child = self._running
        child.end((signal.SIGTERM, 15))
        assert child.status is not None
        return child.status

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child


class Processes:
    """Starts programs, waits until they are ready, and ends them, the last one first."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._started: list[Process] = []
        self._lifeline = Lifeline()

    def __iter__(self) -> Iterator[Process]:
        return iter(self._started)

    def web(self, *arguments: str, **environment: str) -> Process:
        """The API. Further arguments are gunicorn's."""
        return self._gunicorn("api", *arguments, **environment)

    def console(self, *arguments: str, **environment: str) -> Process:
        """The operators' console."""
        return self._gunicorn("console", *arguments, **environment)

    def _gunicorn(self, service: str, *arguments: str, **environment: str) -> Process:
        port = free_ports(1)[0]
        config = str(ROOT / "quiktrade" / "web" / "gunicorn.py")
        command = ["-m", "gunicorn", "--config", config, "--bind", f"127.0.0.1:{port}", *arguments]
        environment = {"QUIKTRADE_SERVICE": service, **environment}
        name = "web" if service == "api" else service
        return self._start(name, command, port, lambda: answer_of(port, "/healthz") is not None, environment)

    def worker(self, **environment: str) -> Process:
        """A worker node. Each gets its own name, because the name of a machine is that of one node."""
        node = f"node-{len(self._started)}"
        command = ["manage.py", "run_worker"]
        reported = WorkerNode.objects.filter(name=node)
        return self._start("worker", command, 0, reported.exists, {"QUIKTRADE_NODE": node, **environment})

    def session(self, *codes: str, **environment: str) -> Process:
        """A session of the venues, or of these, on a node of its own unless `QUIKTRADE_NODE` says on which."""
        node = f"node-{len(self._started)}"
        command = ["manage.py", "run_venue_session", *codes]
        place = self._directory / f"session-{len(self._started)}" / "output.log"

        def has_begun() -> bool:
            said = place.read_text(errors="replace") if place.exists() else ""
            return "event=session.began" in said or "event=session.waits" in said

        return self._start("session", command, 0, has_begun, {"QUIKTRADE_NODE": node, **environment})

    def exchange(self, *arguments: str, **environment: str) -> Process:
        """A simulated exchange; its admin port is the one after `port`. Further arguments are run_exchange's."""
        port = free_ports(2)[0]
        command = ["manage.py", "run_exchange", "--port", str(port), *arguments]
        return self._start("exchange", command, port, lambda: listens(port), environment)

    def stop(self) -> None:
        for process in reversed(self._started):
            process.stop()
        self._lifeline.close()

    def _start(
        self, name: str, command: list[str], port: int, is_ready: Callable[[], bool], environment: dict[str, str]
    ) -> Process:
        place = self._directory / f"{name}-{len(self._started)}"
        place.mkdir()
        command = [sys.executable, *command]
        process = Process(name, command, port, is_ready, place / "output.log", self._lifeline)
        self._started.append(process)
        process.start(
            DATABASE_URL=database_url_of_tests(),
            QUIKTRADE_DATA=str(place),
            QUIKTRADE_SECRET_KEY=settings.SECRET_KEY,
            **environment,
        )
        process.wait_until_ready()
        return process


def wait_until(condition: Callable[[], object], *needed: Process, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a condition is true. Fails if that takes too long, or if a process that it needs has ended."""

    def ended() -> list[str]:
        return [process.name for process in needed if not process.alive]

    if not wait_for(condition, seconds, unless=ended):
        names = ended()
        raise AssertionError(f"{', '.join(names)} ended" if names else f"not so after {seconds:g} s")


def nothing_is_written() -> bool:
    """Whether no other session has a transaction open on the test database that has written something."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
        )
        return not cursor.rowcount


def database_url_of_tests() -> str:
    """Where other processes find the test database, while a test uses it."""
    given = connection.settings_dict
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    return make_conninfo(**{option: given[name] for name, option in names.items() if given[name]})
