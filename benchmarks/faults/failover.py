"""The failover drill: the primary and its synchronous standby are lost in every way, while orders come.

The laboratory's system runs on two PostgreSQL servers of its own. Every process has the addresses of both, and takes
the one that can be written (`target_session_attrs=read-write`): after a promotion no process must be told of it.

The conductor does what a cluster manager does, Patroni for example: it finds out that a server is gone, makes sure that
it stays gone, promotes the other one, and makes the lost one a standby again. While there is no standby, commits wait
for none; that is Patroni's `synchronous_mode` without `synchronous_mode_strict`.
"""

import signal
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.faults.plan import Fault
from benchmarks.faults.records import Evidence
from benchmarks.faults.report import Report
from benchmarks.faults.run import Laboratory, Options
from benchmarks.faults.saboteur import Done
from benchmarks.faults.system import System
from benchmarks.stage.servers import Server
from quiktrade.local.postgres.server import NAME, PORT
from quiktrade.processes import wait_for

DETECT_SECONDS = 2.0
"""A manager needs this long to find out that a server is gone. Patroni's default is up to 30 s, its `ttl`."""
FIRST_SECONDS, STEP_SECONDS = 10.0, 40.0
"""When the first step begins after the first order, and the time from one to the next."""
PATIENCE_SECONDS = 60.0

OPTIONS = ("fsync=on", "max_connections=200", "shared_buffers=128MB", "wal_keep_size=256MB")


class Pair:
    """A primary and its synchronous standby."""

    kept = True

    def __init__(self, directory: Path) -> None:
        self.primary = Server(directory / "a", *OPTIONS)
        self.standby = Server(directory / "b", *OPTIONS)
        # The kernel interrupts a server when the thread that started it ends.
        self._starter = ThreadPoolExecutor(1, "servers")

    def url(self) -> str:
        """The addresses of both, in an order that does not change."""
        servers = sorted((self.primary, self.standby), key=lambda server: server.host)
        hosts = ",".join(urllib.parse.quote(server.host, safe="") for server in servers)
        ports = ",".join(str(PORT) for _ in servers)
        return f"postgresql://{NAME}@/{NAME}?host={hosts}&port={ports}&target_session_attrs=read-write"

    def start(self) -> "Pair":
        self.primary.make()
        self.start_server(self.primary)
        self.add_standby()
        return self

    def start_keeper(self) -> None:
        """The conductor is the keeper."""

    def release(self) -> None:
        for server in (self.standby, self.primary):
            server.stop()
        self._starter.shutdown()

    def start_server(self, server: Server) -> None:
        self._starter.submit(server.start).result()

    def add_standby(self) -> None:
        """Make the other server a standby of the primary, and have commits wait for it."""
        self.standby.stop()
        self.standby.copy_of(self.primary)
        self.start_server(self.standby)
        self.make_synchronous()

    def make_synchronous(self) -> None:
        _set(self.primary, "standby")
        if not wait_for(self._is_synchronous, PATIENCE_SECONDS, pause=0.1):
            raise RuntimeError("The standby does not follow the primary.")

    def make_alone(self) -> None:
        """Have commits wait for no standby, because there is none."""
        _set(self.primary, "")

    def promote(self) -> None:
        _set(self.standby, "")
        with self.standby.connect() as admin:
            admin.execute("SELECT pg_promote()")
        self.primary, self.standby = self.standby, self.primary

    def _is_synchronous(self) -> bool:
        try:
            with self.primary.connect() as admin:
                return admin.execute("SELECT FROM pg_stat_replication WHERE sync_state = 'sync'").rowcount == 1
        except psycopg.Error:
            return False


def _set(server: Server, standbys: str) -> None:
    with server.connect() as admin:
        admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standbys}'")
        admin.execute("SELECT pg_reload_conf()")


# ---- What happens, and what is done about it ----


def primary_killed(pair: Pair) -> str:
    pair.primary.send_to_all(signal.SIGKILL)
    time.sleep(DETECT_SECONDS)
    pair.promote()
    return "SIGKILL to the primary: the standby is promoted"


def primary_frozen(pair: Pair) -> str:
    """It must not come back: it would take the orders of clients that connect to it, and never confirm one."""
    pair.primary.send_to_all(signal.SIGSTOP)
    time.sleep(DETECT_SECONDS)
    pair.primary.send_to_all(signal.SIGKILL)
    pair.promote()
    return "SIGSTOP to the primary: it is killed, and the standby promoted"


def standby_lost(pair: Pair) -> str:
    pair.standby.send_to_all(signal.SIGKILL)
    time.sleep(DETECT_SECONDS)
    pair.make_alone()
    return "SIGKILL to the standby: commits wait for it, until they need not"


def switched_over(pair: Pair) -> str:
    pair.primary.stop(signal.SIGINT)
    pair.promote()
    return "the primary is stopped in order, and the standby promoted"


STEPS: tuple[Callable[[Pair], str], ...] = (primary_killed, primary_frozen, standby_lost, switched_over)
SECONDS = FIRST_SECONDS + STEP_SECONDS * len(STEPS)


class Conductor:
    def __init__(self, pair: Pair) -> None:
        self.done: list[Done] = []
        self.planned = len(STEPS)
        self._pair = pair
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="conductor", daemon=True)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin no more steps."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.time()
        for number, step in enumerate(STEPS):
            at = FIRST_SECONDS + number * STEP_SECONDS
            if self._stopping.wait(max(0.0, started + at - time.time())):
                return
            began = time.time()
            try:
                note, hit = step(self._pair), True
                self._pair.add_standby()
            except (OSError, RuntimeError, psycopg.Error) as error:
                note, hit = f"the drill failed: {error}", False
            self.done.append(Done(Fault(at, step.__name__, 0.0, 0.0), began, time.time(), note, hit))
            if not hit:
                return


class Drill(Laboratory):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._pair = Pair(options.directory)

    def run(self) -> Report:
        """Raises also: RuntimeError, if a step could not be carried out: then it is not known how that would end."""
        report = super().run()
        if sum(report.faults.values()) < report.planned:
            raise RuntimeError("A step of the drill could not be carried out: see above.")
        return report

    def make_system(self) -> System:
        return System(self._options.directory, self._pair.start)

    def make_saboteur(self, system: System) -> Conductor:
        return Conductor(self._pair)

    def tell_more(self, done: Sequence[Done], found: Evidence, console: Console) -> None:
        accepted = sorted(told.accepted_at for told in found.told if told.accepted_at is not None)
        table = Table("Step", "What happened", "Longest time without a 201", title="Failover")
        for one in done:
            table.add_row(one.fault.kind, one.note, f"{outage(accepted, one.began, one.ended):.1f} s")
        console.print(table)


def outage(accepted: Sequence[float], began: float, ended: float) -> float:
    """The longest time between two orders that were accepted one after the other, of which this was a part."""
    return max((b - a for a, b in pairwise(accepted) if b > began and a <= ended), default=0.0)
