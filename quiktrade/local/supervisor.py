"""Runs several programs, starts each again when it ends, and stops them in order."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from quiktrade.local.log_stream import LogStream
from quiktrade.processes import Child, KeptRunning, Lifeline

_LONGEST_PAUSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, and how it is stopped. `patience` and `deadline` are seconds since the stopping of all began.

    A program is asked to end when each program before it has ended or its `patience` is over. It is killed at its
    `deadline`.
    """

    name: str
    command: Sequence[str | Path]
    patience: float
    deadline: float
    environment: Mapping[str, str] = field(default_factory=dict)


class Supervisor:
    """Runs programs, which are given in the order in which they are stopped."""

    def __init__(self, programs: Sequence[Program], log: LogStream, directory: Path, inherited: Sequence[int]) -> None:
        """Run `programs` in `directory`. They inherit the descriptors `inherited`, and may pass them on."""
        self.log = log
        self._directory = directory
        self._inherited = inherited
        self._lifeline = Lifeline()
        self._running = [(program, self._kept(program)) for program in programs]
        self._stop_requests = 0

    def _kept(self, program: Program) -> KeptRunning:
        return KeptRunning(
            partial(self._spawn, program),
            longest_pause=_LONGEST_PAUSE_SECONDS,
            say=partial(self.log.line, program.name),
        )

    def _spawn(self, program: Program) -> Child:
        child = Child(
            program.command,
            self._lifeline.fileno(),
            program.environment,
            cwd=self._directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=self._inherited,
        )
        if child.output:
            self.log.relay(program.name, child.output)
        return child

    def run(self, tend_others: Callable[[], None]) -> None:
        """Run everything until SIGINT, SIGTERM or SIGHUP, or until the terminal is gone; then stop it.

        A second signal while it stops kills what is still there. `tend_others` is called ten times a second.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup SIGHUP is ignored, and this program continues without its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._request_stop)
        try:
            while not self._stop_requests and not self.log.closed:
                for _, running in self._running:
                    running.tend()
                tend_others()
                time.sleep(0.1)
            self.log.say("Stopping. Ctrl-C again does not wait for the parts to finish.")
        finally:
            self._stop()
            self._lifeline.close()

    def _request_stop(self, number: int, frame: object) -> None:
        self._stop_requests += 1

    def _stop(self) -> None:
        begun = time.monotonic()
        enough = self._stop_requests + 1
        asked: set[str] = set()
        killed: set[str] = set()
        while any(running.pid for _, running in self._running):
            elapsed = time.monotonic() - begun
            hurry = self._stop_requests >= enough
            for program, running in self._next_to_stop(elapsed):
                if program.name not in asked and not hurry:
                    asked.add(program.name)
                    running.ask_to_end()
                if (hurry or elapsed > program.deadline) and program.name not in killed:
                    killed.add(program.name)
                    self.log.line(program.name, "killed" if hurry else "did not end in time: killed")
                    running.kill()
            time.sleep(0.02)
        for _, running in self._running:
            running.kill()
        self.log.drain(0.5)

    def _next_to_stop(self, elapsed: float) -> Iterator[tuple[Program, KeptRunning]]:
        """The first program that still runs; the one after it, too, if the first's patience is over; and so on."""
        for program, running in self._running:
            if running.pid:
                yield program, running
                if elapsed < program.patience:
                    return
