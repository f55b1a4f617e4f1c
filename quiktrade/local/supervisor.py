"""Runs programs side by side: starts each again when it ends, and stops them in order."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quiktrade import processes
from quiktrade.local.log_stream import LogStream
from quiktrade.processes import how_it_ended

_LONGEST_PAUSE_SECONDS = 10.0
_LIVED_SECONDS = 30.0
"""For a program that ran so long before it ended, the pauses begin anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, and how it is stopped; the seconds count from when the stopping of all began.

    It is asked to end when the programs before it have ended, or have had their `patience`; it is killed at
    its `deadline`.
    """

    name: str
    command: Sequence[str | Path]
    patience: float
    deadline: float
    environment: Mapping[str, str] = field(default_factory=dict)


class Child:
    """One program's process, or the pause until its next one."""

    def __init__(self, program: Program, supervisor: "Supervisor") -> None:
        self.program = program
        self._supervisor = supervisor
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at = 0.0
        self._quick_ends = 0
        self._left_behind: int | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def tend(self) -> None:
        """Start the process if it is time; notice if it has ended."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._start_at:
                self._start(now)
        elif self._process.poll() is not None:
            how = how_it_ended(self._process.returncode)
            # Its own children: a moment to finish, until the next start.
            group = self._process.pid
            self._left_behind = group if _signal_group(group, signal.SIGTERM) else None
            self._process = None
            self._pause(now, f"ended: {how}")

    def ask_to_end(self) -> None:
        """The process only: it knows how to stop its own children."""
        if self._process:
            self._process.terminate()

    def kill(self) -> None:
        """Everything that is left of it."""
        for group in (self._left_behind, self._process.pid if self._process else None):
            if group is not None:
                _signal_group(group, signal.SIGKILL)
        self._left_behind = None

    def _start(self, now: float) -> None:
        self.kill()
        try:
            self._process = self._supervisor.spawn(self.program)
        except OSError as error:
            self._pause(now, f"did not start: {error.strerror}")
        self._started_at = now

    def _pause(self, now: float, what: str) -> None:
        self._quick_ends = 1 if now - self._started_at > _LIVED_SECONDS else self._quick_ends + 1
        seconds = min(_LONGEST_PAUSE_SECONDS, 0.5 * 2 ** min(self._quick_ends - 1, 10))
        self._supervisor.log.line(self.program.name, f"{what}; starting it again in {seconds:g} s")
        self._start_at = now + seconds


def _signal_group(group: int, number: signal.Signals) -> bool:
    """Says whether there was anybody in it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        return False
    return True


class Supervisor:
    """Children in the order in which they are to be stopped."""

    def __init__(self, programs: Sequence[Program], log: LogStream, directory: Path, inherited: Sequence[int]) -> None:
        """Run `programs` in `directory`. They inherit the descriptors `inherited`, and may pass them on."""
        self.log = log
        self._directory = directory
        self._inherited = inherited
        # Nobody writes to it. Its other end is held here alone, so it ends when this process does.
        self._lifeline, self._held = os.pipe()
        self._children = [Child(program, self) for program in programs]
        self._stop_requests = 0

    def spawn(self, program: Program) -> subprocess.Popen[bytes]:
        # In sessions of their own: Ctrl-C in the terminal is for this process, which stops the others in order.
        process = processes.start(
            program.command,
            self._lifeline,
            program.environment,
            cwd=self._directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=self._inherited,
        )
        if process.stdout:
            self.log.relay(program.name, process.stdout)
        return process

    def run(self, tend_others: Callable[[], None]) -> None:
        """Run everything until SIGINT, SIGTERM or SIGHUP, or until the terminal is gone; then stop it.

        A second signal while it stops kills what is still there. `tend_others` is called ten times a second.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Started by nohup, it has SIGHUP ignored, and is to go on without its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._request_stop)
        try:
            while not self._stop_requests and not self.log.closed:
                for child in self._children:
                    child.tend()
                tend_others()
                time.sleep(0.1)
            self.log.say("Stopping. Ctrl-C again does not wait for the parts to finish.")
        finally:
            self._stop()
            os.close(self._lifeline)
            os.close(self._held)

    def _request_stop(self, number: int, frame: object) -> None:
        self._stop_requests += 1

    def _stop(self) -> None:
        begun = time.monotonic()
        enough = self._stop_requests + 1
        asked: set[Child] = set()
        killed: set[Child] = set()
        while any(child.running for child in self._children):
            elapsed = time.monotonic() - begun
            hurry = self._stop_requests >= enough
            for child in self._next_to_stop(elapsed):
                if child not in asked and not hurry:
                    asked.add(child)
                    child.ask_to_end()
                if (hurry or elapsed > child.program.deadline) and child not in killed:
                    killed.add(child)
                    self.log.line(child.program.name, "killed" if hurry else "did not end in time: killed")
                    child.kill()
            time.sleep(0.02)
        for child in self._children:
            child.kill()
        self.log.drain(0.5)

    def _next_to_stop(self, elapsed: float) -> Iterator[Child]:
        """The first that still runs; and the one after it, when the first has had its patience; and so on."""
        for child in self._children:
            if child.running:
                yield child
                if elapsed < child.program.patience:
                    return
