"""Carries out a plan of faults, and records what it did and when."""

import contextlib
import http.client
import json
import os
import random
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.faults.plan import Fault
from benchmarks.faults.proxy import Harm
from benchmarks.faults.system import SETTLE_SECONDS, VENUE_TIMEOUT_SECONDS, System
from benchmarks.stage.processes import freeze, look

_REACH_SECONDS = 8.0
"""It tries for this long to carry a fault out: its target may be starting just now, after an earlier fault."""

_LOOK_SECONDS = 1.0
"""It checks at this interval which processes were replaced: two of one tree cannot be replaced within it."""

_WITHIN_SETTLE = (VENUE_TIMEOUT_SECONDS, VENUE_TIMEOUT_SECONDS + SETTLE_SECONDS - 0.5)
_PAST_SETTLE = (VENUE_TIMEOUT_SECONDS + SETTLE_SECONDS + 1.0, VENUE_TIMEOUT_SECONDS + SETTLE_SECONDS + 4.0)

LONGEST_HOLD_SECONDS = _PAST_SETTLE[1]

# fmt: off
VENUE_FAULTS: dict[str, tuple[str, Any]] = {
    "venue_latency":      ("latency",          {"seconds": [0.2, 1.5]}),
    "venue_5xx":          ("http_5xx",         {"status": 503, "probability": 0.7}),
    "venue_5xx_recorded": ("http_5xx",         {"status": 502, "recorded": True, "probability": 0.7}),
    "venue_drop":         ("accept_then_drop", {"probability": 0.7}),
    "venue_truncate":     ("truncate",         {"probability": 0.7}),
    "venue_rate_limit":   ("rate_limit",       {"retry_after": 0.5, "probability": 0.7}),
    "venue_refuse":       ("refuse",           True),
    "venue_hold":         ("hold",             {"seconds": list(_WITHIN_SETTLE), "probability": 0.5}),
    "venue_stall":        ("stall",            {"seconds": 10, "probability": 0.7}),
    "venue_reset":        ("reset",            {"probability": 0.7}),
    "venue_ignore_cancel": ("ignore_cancel",   {"probability": 0.7}),
    "venue_late_fill":    ("late_fill",        {"probability": 0.7, "seconds": [0, 2]}),
    "venue_bust":         ("bust",             {"probability": 0.3, "seconds": [0, 2]}),
    "venue_correction":   ("correction",       {"probability": 0.3, "seconds": [0, 2]}),
    "report_drop":        ("drop_reports",     {"probability": 0.3}),
    "report_repeat":      ("repeat_reports",   {"probability": 0.5}),
    "report_shuffle":     ("shuffle_reports",  True),
    "report_delay":       ("delay_reports",    {"seconds": [0.1, 1.0]}),
    "report_cut":         ("cut_stream",       {"probability": 0.2}),
    "report_silence":     ("silent_stream",    {"seconds": [4, 8]}),
}
HARMS: dict[str, Harm] = {
    "proxy_reset_before": Harm("reset_before", 0.7),
    "proxy_reset_after":  Harm("reset_after", 0.7),
    "proxy_stall":        Harm("stall", 0.7),
    "proxy_trickle":      Harm("trickle", 0.7),
    "proxy_drop_reply":   Harm("drop_reply", 0.7),
    "proxy_hold":         Harm("hold", 0.5, _WITHIN_SETTLE),
    "proxy_hold_long":    Harm("hold", 0.5, _PAST_SETTLE),
}
SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGTERM,
    "reload": signal.SIGHUP,
}
# fmt: on


_STEAL = """
UPDATE exchanges_reportsession SET token = gen_random_uuid(), holder = 'thief',
    lease_expires_at = statement_timestamp() + %s * interval '1 second'
WHERE lease_expires_at > statement_timestamp() RETURNING stream
"""


class NobodyToHit(Exception):
    """The process that the fault is meant for does not run at the moment."""


@dataclass(frozen=True, slots=True)
class Done:
    """A fault that was carried out, or could not be. Times are of time.time()."""

    fault: Fault
    began: float
    ended: float
    note: str
    hit: bool


class Saboteur:
    def __init__(self, system: System, plan: Sequence[Fault]) -> None:
        self.done: list[Done] = []
        self.planned = len(plan)
        self._system = system
        self._plan = plan
        self._lasting: list[tuple[float, Fault, float, str, Callable[[], None]]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="saboteur", daemon=True)
        self._started_at = 0.0

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._started_at = time.time()
        self._thread.start()

    def stop(self) -> None:
        """Begin no more faults, and end those that last. Frozen processes soon continue by themselves."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        left = list(self._plan)
        looked = 0.0
        while not self._stopping.is_set() and (left or self._lasting):
            now = time.time() - self._started_at
            for fault in [fault for fault in left if fault.at <= now]:
                if self._begin(fault, last_try=now - fault.at > _REACH_SECONDS):
                    left.remove(fault)
            self._end([one for one in self._lasting if one[0] <= time.time()])
            if time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                children = look()
                for cluster in self._system.clusters:
                    cluster.refresh(children)
            self._stopping.wait(0.05)
        self._end(list(self._lasting))

    def _begin(self, fault: Fault, *, last_try: bool) -> bool:
        """Returns whether the fault is finished."""
        began = time.time()
        try:
            note, end = self._inflict(fault)
        except (NobodyToHit, OSError, ValueError, http.client.HTTPException, psycopg.Error) as error:
            if last_try:
                self.done.append(Done(fault, began, began, f"{type(error).__name__}: {error}".strip(), hit=False))
            return last_try
        if end is None:
            self.done.append(Done(fault, began, began + fault.seconds, note, hit=True))
        else:
            self._lasting.append((began + fault.seconds, fault, began, note, end))
        return True

    def _end(self, lasting: list[tuple[float, Fault, float, str, Callable[[], None]]]) -> None:
        for one in lasting:
            _, fault, began, note, end = one
            deadline = time.monotonic() + 15
            while True:
                try:
                    end()
                    break
                except (OSError, ValueError, http.client.HTTPException):  # the exchange is down, and its fault with it
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.1)
            self._lasting.remove(one)
            self.done.append(Done(fault, began, time.time(), note, hit=True))

    def _inflict(self, fault: Fault) -> tuple[str, Callable[[], None] | None]:
        """Returns what was hit, and how to end it if it does not end by itself."""
        system, kind = self._system, fault.kind
        if kind in VENUE_FAULTS:
            name, setting = VENUE_FAULTS[kind]
            system.admin("PUT", f"/admin/faults/{name}", setting)
            return name, lambda: system.admin("DELETE", f"/admin/faults/{name}")
        if kind == "proxy_refuse":
            system.proxy.refuse(True)
            return "", lambda: system.proxy.refuse(False)
        if kind in HARMS:
            system.proxy.set(kind, HARMS[kind])
            return "", lambda: system.proxy.set(kind, None)
        if kind == "lease_theft":
            return self._steal_lease(fault), None
        if kind.startswith(("backend_", "postgres_")):
            return self._hit_database(fault), None
        if kind == "exchange_rename":
            rename_stream(system.journal)
            kind = "exchange_kill"
        role, _, action = kind.rpartition("_")
        found = self._candidates(role, fault.choice)
        if not found:
            raise NobodyToHit(role)
        pid = found[int(fault.choice * 1_000) % len(found)]
        if action == "freeze":
            freeze(pid, fault.seconds)
        else:
            os.kill(pid, SIGNALS[action])
        return f"{role} {pid}", None

    def _candidates(self, role: str, choice: float) -> list[int]:
        children = look()
        web, exchange = self._system.web.pid, self._system.exchange.pid
        if role == "web_master":
            return [web] if web else []
        if role == "web_worker":
            return [seen.pid for seen in children.get(web or -1, ())]
        if role == "exchange":
            return [exchange] if exchange else []
        if role == "session":
            pids = [part.pid for part in self._system.sessions if part.pid is not None]
            return [pid for pid in pids if pid == self._system.reading_session()] or pids
        nodes = self._system.clusters
        first = int(choice * len(nodes))
        found = nodes[first].pids(role, children) or nodes[first - 1].pids(role, children)
        if role == "worker":
            busy = _lock_holders()
            return [pid for pid in found if pid in busy] or found
        return found

    def _steal_lease(self, fault: Fault) -> str:
        """Let nobody whom the sessions know hold the lease for so many seconds."""
        with self._system.connect() as connection:
            stolen = connection.execute(_STEAL, [fault.seconds]).fetchall()
        if not stolen:
            raise NobodyToHit("lease")
        return f"lease of {stolen[0][0]}"

    def _hit_database(self, fault: Fault) -> str:
        kind = fault.kind
        postmaster = _postmaster(self._system.database.server.data)
        if kind == "postgres_restart":
            os.kill(postmaster, signal.SIGQUIT)
        elif kind == "postgres_kill":
            os.kill(postmaster, signal.SIGKILL)
        elif kind == "postgres_freeze":
            for pid in [*(seen.pid for seen in look().get(postmaster, ())), postmaster]:
                with contextlib.suppress(ProcessLookupError):
                    freeze(pid, fault.seconds)
        else:
            with self._system.connect() as connection:
                others = connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() ORDER BY pid"
                ).fetchall()
                dice = random.Random(fault.choice)  # noqa: S311
                pids = [pid for (pid,) in dice.sample(others, min(len(others), 3))]
                if not pids:
                    raise NobodyToHit("no connection")
                if kind == "backend_terminate":
                    connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [pids])
                    return f"backends {pids}"
            os.kill(pids[0], signal.SIGKILL)
            return f"backend {pids[0]}"
        return f"postmaster {postmaster}"


def rename_stream(journal: Path) -> None:
    """Give the journal another name, of the same length. The exchange reads it when it starts. Raises: OSError."""
    with open(journal, "r+b") as lines:
        header = lines.readline()
        old = json.loads(header)["prefix"]
        new = secrets.token_hex(len(old))[: len(old)]
        lines.seek(0)
        lines.write(header.replace(f'"{old}"'.encode(), f'"{new}"'.encode()))


def _postmaster(data: Path) -> int:
    """Raises: NobodyToHit, while the server starts."""
    try:
        number = int((data / "postmaster.pid").read_text().split("\n")[0])
        if "postgres" in Path(f"/proc/{number}/comm").read_text():
            return number
    except (OSError, ValueError):
        pass
    raise NobodyToHit("postmaster")


def _lock_holders() -> set[int]:
    """Processes that hold a file lock. Among the workers these are the ones that run a job."""
    lines = Path("/proc/locks").read_text().splitlines()
    return {int(fields[4]) for fields in (line.split() for line in lines) if fields[1] == "FLOCK"}


def windows(done: Sequence[Done]) -> Iterator[tuple[float, float]]:
    """The intervals in which something was wrong, from the fault to its end."""
    for one in done:
        if one.hit:
            yield one.began, one.ended
