"""One part of the system under test, and who is who among the processes that it started.

Linux only: it reads /proc.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quiktrade import processes
from quiktrade.local.venv import ROOT

_PAUSE_SECONDS = 0.5
"""What an ended part left behind may take so long to finish; then it is killed, and the part started again."""


class Part:
    """A program that is started again whenever it ends. Its output goes to a log."""

    def __init__(self, name: str, command: Sequence[str], log: Path, lifeline: int, **environment: str) -> None:
        self.name = name
        self.log = log
        self.starts = 0
        self._command = command
        self._lifeline = lifeline
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at: float | None = None

    @property
    def pid(self) -> int | None:
        """Its process while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        self.starts += 1
        with open(self.log, "ab") as log:
            self._process = processes.start(
                self._command, self._lifeline, self._environment, cwd=ROOT, stdout=log, stderr=log
            )

    def tend(self) -> None:
        """Start it again if it ended, after a pause for what it left behind."""
        if self.pid is not None:
            return
        now = time.monotonic()
        if self._start_at is None:
            self._start_at = now + _PAUSE_SECONDS
            self._signal_group(signal.SIGTERM)
        elif now >= self._start_at:
            self._signal_group(signal.SIGKILL)
            self._start_at = None
            self.start()

    def ask_to_end(self) -> None:
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        """For its end; then whatever is left of it is killed."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            self._signal_group(signal.SIGKILL)
            self._process.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def freeze(pid: int, seconds: float) -> None:
    """Stop a process, and have it go on after so many seconds even if this one is gone by then."""
    os.kill(pid, signal.SIGSTOP)
    subprocess.Popen(["/bin/sh", "-c", f"sleep {seconds:.3f}; kill -CONT {pid}"], start_new_session=True)


@dataclass(frozen=True, slots=True)
class Seen:
    pid: int
    parent: int
    started: int
    state: str


def look() -> dict[int, list[Seen]]:
    """Every process that lives, by its parent, the oldest first."""
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
        """Of the sentinel's children, by pid. It starts the workers first, then the monitor, then the pusher, and
        later puts a new one in the place of one that died."""

    def refresh(self, children: Mapping[int, Sequence[Seen]]) -> None:
        """Look who is who; often enough to see who took whose place."""
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
        """Those in a role now: watchdog, sentinel, worker, monitor or pusher."""
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
