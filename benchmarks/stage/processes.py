"""The parts of a system under test, and the roles of the processes that they start.

It needs Linux, because it reads /proc.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quiktrade.local.venv import ROOT
from quiktrade.processes import Child, KeptRunning, Lifeline


class Part(KeptRunning):
    """A program of the system under test. Its output goes to a log."""

    def __init__(self, name: str, command: Sequence[str], log: Path, lifeline: Lifeline, **environment: str) -> None:
        super().__init__(self._spawn)
        self.name = name
        self.log = log
        self._command = command
        self._lifeline = lifeline
        self._environment = environment

    def _spawn(self) -> Child:
        with open(self.log, "ab") as log:
            lifeline = self._lifeline.fileno()
            return Child(self._command, lifeline, self._environment, cwd=ROOT, stdout=log, stderr=log)


def freeze(pid: int, seconds: float) -> None:
    """Suspend a process, and have it continue after this many seconds even if this process is gone by then."""
    os.kill(pid, signal.SIGSTOP)
    subprocess.Popen(["/bin/sh", "-c", f"sleep {seconds:.3f}; kill -CONT {pid}"], start_new_session=True)


@dataclass(frozen=True, slots=True)
class Seen:
    pid: int
    parent: int
    started: int
    state: str


def look() -> dict[int, list[Seen]]:
    """All living processes by their parent, the oldest first."""
    children: dict[int, list[Seen]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        seen = Seen(int(entry), int(fields[1]), int(fields[19]), fields[0])
        if seen.state not in "ZX":
            children.setdefault(seen.parent, []).append(seen)
    for siblings in children.values():
        siblings.sort(key=lambda seen: (seen.started, seen.pid))
    return children


class Cluster:
    """The roles in one node's process tree: watchdog, sentinel, and the sentinel's children."""

    def __init__(self, watchdog: Part, workers: int) -> None:
        self._watchdog = watchdog
        self._workers = workers
        self._sentinel: int | None = None
        self._roles: dict[int, str] = {}
        """The roles of the sentinel's children by pid. The sentinel starts the workers first, then the monitor, then
        the pusher, and later replaces each that dies."""

    def refresh(self, children: Mapping[int, Sequence[Seen]]) -> None:
        """Find out the roles. Call this often enough to see which process replaced which."""
        self._sentinel = self._single(children, self._watchdog.pid)
        present = [seen.pid for seen in children.get(self._sentinel or -1, ())]
        names = [*["worker"] * self._workers, "monitor", "pusher"]
        if not set(present) & self._roles.keys():
            self._roles = dict(zip(present, names, strict=True)) if len(present) == len(names) else {}
            return
        self._roles = {pid: role for pid, role in self._roles.items() if pid in present}
        for role in self._roles.values():
            names.remove(role)
        for pid, role in zip((pid for pid in present if pid not in self._roles), names, strict=False):
            self._roles[pid] = role

    def pids(self, role: str, children: Mapping[int, Sequence[Seen]]) -> list[int]:
        """The processes in a role now: watchdog, sentinel, worker, monitor or pusher."""
        self.refresh(children)
        single = {"watchdog": self._watchdog.pid, "sentinel": self._sentinel}
        if role in single:
            pid = single[role]
            return [pid] if pid is not None else []
        return [pid for pid, its_role in self._roles.items() if its_role == role]

    @staticmethod
    def _single(children: Mapping[int, Sequence[Seen]], parent: int | None) -> int | None:
        found = children.get(parent, ()) if parent is not None else ()
        return found[-1].pid if found else None
