"""A run from its beginning to its verdict."""

import json
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TextIO

from rich.console import Console

from benchmarks.faults import evidence as evidence_of
from benchmarks.faults.invariants import violations
from benchmarks.faults.listeners import Listeners
from benchmarks.faults.plan import KINDS, QUICK, make_plan
from benchmarks.faults.records import Evidence, Violation
from benchmarks.faults.report import Report, make_report, print_report
from benchmarks.faults.saboteur import LONGEST_HOLD_SECONDS, Done, Saboteur
from benchmarks.faults.system import LEASE_SECONDS, SETTLE_SECONDS, System
from benchmarks.faults.traffic import Traffic, log_in
from exchanges import demo

SWEEP_SECONDS = 1.0
"""The job clusters ask at least this often what the order rows need."""

RECOVERY_LIMIT_SECONDS = LEASE_SECONDS + SWEEP_SECONDS + 5
QUIET_SECONDS = 2 * (LEASE_SECONDS + SWEEP_SECONDS + SETTLE_SECONDS) + 100
"""A request without an answer is looked up at least once a minute, and a webhook that nobody answers for is sent again
after a minute."""
BACKLOG_SECONDS = 300.0
"""For so much longer a run waits for events that are still being told."""
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


class Breaking(Protocol):
    """Who breaks the system."""

    done: list[Done]
    planned: int

    @property
    def running(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Laboratory:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._progress = Progress(sys.stdout)
        self._interrupted = False
        self.console = Console() if sys.stdout.isatty() else Console(width=140)

    def run(self) -> Report:
        """Returns the figures. Raises: DidNotStart, LocalDatabaseError, RuntimeError, psycopg.Error, OSError."""
        options = self._options
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)
        system = self.make_system()
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

    def make_system(self) -> System:
        return System(self._options.directory)

    def make_saboteur(self, system: System) -> Breaking:
        options = self._options
        kinds = QUICK if options.quick else tuple(KINDS)
        plan = make_plan(options.seed, seconds=options.seconds, per_minute=options.faults_per_minute, kinds=kinds)
        return Saboteur(system, plan)

    def tell_more(self, done: Sequence[Done], found: Evidence, console: Console) -> None:
        """Print what only this laboratory has to say."""

    def _interrupt(self, number: int, frame: object) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _trouble(self, system: System, tokens: dict[str, str]) -> Report:
        options = self._options
        traffic = Traffic(
            system.ports.web,
            tokens,
            seed=options.seed,
            rate=options.rate,
            seconds=options.seconds,
            clients=options.clients,
        )
        saboteur = self.make_saboteur(system)
        listeners = Listeners(system, tokens, options.seed)
        listeners.start()
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
                f"{len(saboteur.done)} of {saboteur.planned} faults"
            )
            time.sleep(0.5)
        if self._interrupted:
            self._progress.say("Interrupted: ending the run here, and judging what there is.")
        saboteur.stop()
        traffic.stop()
        seconds = time.monotonic() - begun
        quiet = self._wait_for_quiet(system, traffic, listeners)
        self._progress.clear()
        found = evidence_of.gather(system, traffic, listeners)
        listeners.stop()
        report = self.conclude(
            found,
            violations(found),
            saboteur.done,
            system,
            seconds=seconds,
            planned=saboteur.planned,
            answers=traffic.answers + listeners.answers,
            quiet=quiet,
        )
        self.tell_more(saboteur.done, found, self.console)
        return report

    def conclude(
        self,
        found: Evidence,
        wrong: list[Violation],
        done: Sequence[Done],
        system: System,
        *,
        seconds: float,
        planned: int,
        answers: Counter[str],
        quiet: bool,
    ) -> Report:
        """Print the figures, and write them where they are wanted."""
        options = self._options
        report = make_report(
            found,
            wrong,
            done,
            seed=options.seed,
            seconds=seconds,
            planned=planned,
            answers=answers,
            openings=evidence_of.circuit_openings(system),
            recovery_limit=RECOVERY_LIMIT_SECONDS,
            quiet=quiet,
        )
        print_report(report, found, self.console)
        (options.directory / "faults.txt").write_text("".join(map(_line, done)))
        if options.json is not None:
            options.json.write_text(json.dumps(report.as_json(), indent=1))
        return report

    def _wait_for_quiet(self, system: System, traffic: Traffic, listeners: Listeners) -> bool:
        """Wait until everything runs, every client is answered and told, and nothing is on its way."""
        trouble_ended = time.monotonic()
        whole = system.wait_until_whole(WHOLE_SECONDS)
        traffic.finish(CLIENTS_FINISH_SECONDS)
        system.make_webhooks_due()
        deadline = time.monotonic() + QUIET_SECONDS
        left: evidence_of.UnderWay | None = None
        latest, untold = deadline + BACKLOG_SECONDS, sys.maxsize
        while time.monotonic() < min(deadline, latest):
            left = evidence_of.under_way(system, listeners)
            if left is not None and 0 < left.events < untold:  # it goes on, at the rate that the machine can do
                untold, deadline = left.events, time.monotonic() + QUIET_SECONDS
            if left == evidence_of.CALM and time.monotonic() - trouble_ended > LONGEST_HOLD_SECONDS + 1:
                return whole
            self._progress.show(f"Waiting for quiet: {left or 'something does not answer'}")
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
