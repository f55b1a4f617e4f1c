"""A run from its beginning to its verdict."""

import json
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from rich.console import Console

from benchmarks.faults import evidence as evidence_of
from benchmarks.faults.invariants import violations
from benchmarks.faults.plan import KINDS, QUICK, make_plan
from benchmarks.faults.report import Report, make_report, print_report
from benchmarks.faults.saboteur import LONGEST_HOLD_SECONDS, Done, Saboteur
from benchmarks.faults.system import LEASE_SECONDS, SETTLE_SECONDS, System
from benchmarks.faults.traffic import Traffic, log_in
from exchanges import demo

SWEEP_SECONDS = 1.0
"""The job clusters ask at least this often what the order rows need."""

RECOVERY_LIMIT_SECONDS = LEASE_SECONDS + SWEEP_SECONDS + 5
QUIET_SECONDS = 2 * (LEASE_SECONDS + SWEEP_SECONDS + SETTLE_SECONDS) + 60
WHOLE_SECONDS = 90.0
CLIENTS_FINISH_SECONDS = 60.0
_PLAIN_LINE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    seed: int
    seconds: float
    rate: float
    clients: int
    faults_per_minute: float
    quick: bool
    directory: Path
    json: Path | None
    keep: bool


class Progress:
    """One status line on a terminal; elsewhere a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tty = stream.isatty()
        self._width = 0
        self._line_at = 0.0

    def say(self, text: str) -> None:
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def show(self, text: str) -> None:
        if self._tty:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        elif time.monotonic() - self._line_at >= _PLAIN_LINE_SECONDS:
            self._line_at = time.monotonic()
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


class Laboratory:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._progress = Progress(sys.stdout)
        self._interrupted = False

    def run(self) -> Report:
        """Returns the figures. Raises: DidNotStart, LocalDatabaseError, RuntimeError, psycopg.Error, OSError."""
        options = self._options
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)
        system = System(options.directory)
        try:
            begun = time.monotonic()
            system.start()
            clients = {name: system.passwords[name] for name in demo.CLIENTS}
            tokens = log_in(system.ports.web, clients)
            self._progress.say(f"The system is up after {time.monotonic() - begun:.0f} s, in {options.directory}")
            return self._trouble(system, tokens)
        finally:
            self._progress.clear()
            system.stop()

    def _interrupt(self, number: int, frame: object) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _trouble(self, system: System, tokens: dict[str, str]) -> Report:
        options = self._options
        plan = make_plan(
            options.seed,
            seconds=options.seconds,
            per_minute=options.faults_per_minute,
            kinds=QUICK if options.quick else tuple(KINDS),
        )
        traffic = Traffic(
            system.ports.web,
            tokens,
            seed=options.seed,
            rate=options.rate,
            seconds=options.seconds,
            clients=options.clients,
        )
        saboteur = Saboteur(system, plan)
        traffic.start()
        saboteur.start()
        begun = time.monotonic()
        while (saboteur.running or traffic.running) and not self._interrupted:
            elapsed = time.monotonic() - begun
            if elapsed > options.seconds:
                traffic.stop()
            if elapsed > options.seconds + CLIENTS_FINISH_SECONDS:
                break
            self._progress.show(
                f"{elapsed:5.0f} of {options.seconds:.0f} s  {traffic.sent} orders sent, {traffic.accepted} accepted  "
                f"{len(saboteur.done)} of {len(plan)} faults"
            )
            time.sleep(0.5)
        if self._interrupted:
            self._progress.say("Interrupted: ending the run here, and judging what there is.")
        saboteur.stop()
        traffic.stop()
        seconds = time.monotonic() - begun
        quiet = self._wait_for_quiet(system, traffic)
        self._progress.clear()
        found = evidence_of.gather(system, traffic)
        report = make_report(
            found,
            violations(found),
            saboteur.done,
            seed=options.seed,
            seconds=seconds,
            planned=len(plan),
            answers=traffic.answers,
            openings=evidence_of.circuit_openings(system),
            recovery_limit=RECOVERY_LIMIT_SECONDS,
            quiet=quiet,
        )
        console = Console() if sys.stdout.isatty() else Console(width=140)
        print_report(report, found, console)
        (options.directory / "faults.txt").write_text("".join(map(_line, saboteur.done)))
        if options.json is not None:
            options.json.write_text(json.dumps(report.as_json(), indent=1))
        return report

    def _wait_for_quiet(self, system: System, traffic: Traffic) -> bool:
        """Wait until everything runs, every client is answered, every order is finished, and nothing is on its way."""
        trouble_ended = time.monotonic()
        whole = system.wait_until_whole(WHOLE_SECONDS)
        traffic.finish(CLIENTS_FINISH_SECONDS)
        deadline = time.monotonic() + QUIET_SECONDS
        left: int | None = None
        while time.monotonic() < deadline:
            left = evidence_of.under_way(system)
            if left == 0 and time.monotonic() - trouble_ended > LONGEST_HOLD_SECONDS + 1:
                return whole
            self._progress.show(f"Waiting for quiet: {'?' if left is None else left} orders under way")
            time.sleep(0.3)
        # What is not finished yet is reported by its ids.
        return whole and left is not None


def _line(done: Done) -> str:
    began, ended = (datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3] for at in (done.began, done.ended))
    outcome = "" if done.hit else "not carried out: "
    return f"{began} to {ended}  {done.fault.kind}  {outcome}{done.note}\n"


def tidy_up(options: Options, report: Report | None) -> bool:
    """Remove the run's directory, unless it must be kept or is needed to find out what went wrong. Returns whether it
    is kept."""
    if options.keep or report is None or not report.passed:
        return True
    shutil.rmtree(options.directory, ignore_errors=True)
    return False
