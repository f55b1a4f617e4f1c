"""The restore drill: the database is lost while orders come, and restored to a time before that.

The laboratory's system runs on one PostgreSQL server that archives its write-ahead log. While orders come, a base
backup is taken. Later the server is killed and its data removed. The backup is recovered from the archive up to the
point in time, some seconds before the loss, and the workers stay off until it is known what became of the orders:

    halt_venue, reconcile_restored, resume_venue, and then API, workers and sessions again

What clients were told after the point is lost, as everybody knows who restores to it, and the orders among it that the
exchange has must be listed as having no row. Nothing else may be lost or doubled. The exchange stands still around the
point, so that many of the orders that wait, or are in doubt, at the point are placed after it.
"""

import json
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.faults import evidence as evidence_of
from benchmarks.faults.after_placement import last_reports
from benchmarks.faults.failover import OPTIONS, PATIENCE_SECONDS, Pair
from benchmarks.faults.invariants import violations
from benchmarks.faults.listeners import Listeners
from benchmarks.faults.plan import Fault
from benchmarks.faults.records import WORKING, Evidence, Violation, violation
from benchmarks.faults.report import Report
from benchmarks.faults.run import Laboratory, Options
from benchmarks.faults.saboteur import Done
from benchmarks.faults.system import System
from benchmarks.faults.traffic import Traffic
from benchmarks.stage.processes import freeze
from exchanges import demo
from quiktrade.processes import wait_for

BACKUP_AT, POINT_AT, LOST_AT = 5.0, 25.0, 50.0
"""Seconds after the first order."""
STILL_SECONDS = 8.0
"""The exchange stands still for this long, the point in time in the middle: long enough that its circuit opens."""
ARCHIVE_SECONDS = 5
"""A segment of the log is archived this often, whether it is full or not. Where the point is later than the last one
that is archived, it cannot be restored to."""
RESTORE_SECONDS = 120.0
RECONCILE_SECONDS = 120
AFTERWARDS_SECONDS = 5.0
"""Orders are sent for this long to the restored system."""
STEPS = ("base backup", "loss", "restore", "reconciliation", "resumption")


class Archived(Pair):
    """A server whose log is archived, and the place where it is restored."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        place = self.primary.private.directory
        self.archive = place.with_name(f"{place.name}-archive")
        into = shlex.quote(str(self.archive))
        # A copy that is broken off must not be taken for the segment, nor may a segment be written over.
        copy = f"test ! -f {into}/%f && cp %p {into}/.%f && mv {into}/.%f {into}/%f"
        archiving = ("archive_mode=on", f"archive_command={copy}", f"archive_timeout={ARCHIVE_SECONDS}")
        self.primary.options = self.standby.options = (*OPTIONS, *archiving)

    def start(self) -> "Archived":
        self.primary.make()
        self.primary.private.make_private(self.archive)
        self.start_server(self.primary)
        return self

    def back_up(self) -> None:
        self.standby.back_up(self.primary)

    def lose(self) -> None:
        self.primary.send_to_all(signal.SIGKILL)
        self.primary.stop()
        shutil.rmtree(self.primary.private.data)

    def restore(self, point: datetime) -> None:
        """Recover the backup up to this time; the result can be written. Raises: RuntimeError."""
        self.primary, self.standby = self.standby, self.primary
        fetch = f"cp {shlex.quote(str(self.archive))}/%f %p"
        recovery = (f"restore_command={fetch}", f"recovery_target_time={point.isoformat(' ')}")
        self.primary.options = (*self.primary.options, *recovery, "recovery_target_action=promote")
        self.primary.become_restored()
        self.start_server(self.primary)
        if not wait_for(self._is_writable, RESTORE_SECONDS, pause=0.1):
            log = self.primary.private.server_log
            raise RuntimeError(f"The server was not restored within {RESTORE_SECONDS:.0f} s; its log is {log}")

    def _is_writable(self) -> bool:
        try:
            with self.primary.connect() as admin:
                return admin.execute("SELECT WHERE NOT pg_is_in_recovery()").rowcount == 1
        except psycopg.Error:
            return False


@dataclass(slots=True)
class Account:
    """What the drill has to tell."""

    point: datetime
    lost_at: float = 0.0
    open_at: float = 0.0
    """When the API took orders again."""
    stood: str = ""
    """The orders of the restored database by their status."""
    command: Mapping[str, Any] | None = None
    """What `reconcile_restored` found."""

    @property
    def orphans(self) -> set[str]:
        return {orphan["order_id"] for orphan in (self.command or {}).get("orphans", ())}


class RestoreDrill(Laboratory):
    """Raises also: RuntimeError, if a step could not be carried out."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._servers = Archived(options.directory)
        self._done: list[Done] = []

    def make_system(self) -> System:
        return System(self._options.directory, self._servers.start)

    def _trouble(self, system: System, tokens: dict[str, str]) -> Report:
        begun = time.monotonic()
        traffic = self._traffic(system, tokens, self._options.seed, LOST_AT)
        traffic.start()
        account = self._lose(system, traffic)
        self._bring_back(system, account)
        afterwards = self._traffic(system, tokens, self._options.seed + 1, AFTERWARDS_SECONDS)
        afterwards.start()
        self._wait(afterwards.started_at + AFTERWARDS_SECONDS)
        account.open_at = min((told.accepted_at for told in afterwards.told if told.accepted_at), default=0.0)
        nobody = Listeners(system, {}, self._options.seed)  # those who follow the feed must begin again
        quiet = self._wait_for_quiet(system, afterwards, nobody)
        self._progress.clear()
        found = evidence_of.gather(system, afterwards, nobody)
        found = replace(
            found,
            told=[*traffic.told, *found.told],
            foreign_reads=[*traffic.foreign_reads, *found.foreign_reads],
            asked=[*traffic.asked, *found.asked],
        )
        report = self.conclude(
            found,
            judged(found, account),
            self._done,
            system,
            seconds=time.monotonic() - begun,
            planned=len(STEPS),
            answers=traffic.answers + afterwards.answers,
            quiet=quiet,
        )
        _print(account, found, self._done, self.console)
        return report

    def _lose(self, system: System, traffic: Traffic) -> Account:
        begun = traffic.started_at
        self._wait(begun + BACKUP_AT)
        self._step("base backup", self._servers.back_up, "taken while orders came, and verified")
        self._wait(begun + POINT_AT - STILL_SECONDS / 2)
        if (exchange := system.exchange.pid) is None:
            raise RuntimeError("The exchange does not run.")
        freeze(exchange, STILL_SECONDS)
        self._wait(begun + POINT_AT)
        account = Account(point=datetime.now(UTC))
        self._wait(begun + LOST_AT)
        account.lost_at = time.time()
        traffic.stop()
        self._step("loss", self._servers.lose, "SIGKILL to the server, and its data removed")
        traffic.finish(0.0)
        return account

    def _bring_back(self, system: System, account: Account) -> None:
        off = (system.web, system.console, *system.nodes, *system.sessions)
        system.hold(*off)
        received = _received(system)
        self._step("restore", lambda: self._servers.restore(account.point), f"to {account.point:%H:%M:%S.%f} UTC")
        with system.connect() as connection:
            counts = connection.execute("SELECT status, count(*) FROM orders_order GROUP BY status ORDER BY status")
            account.stood = ", ".join(f"{count} {status}" for status, count in counts)
        reason = ("--reason", f"restored to {account.point:%H:%M:%S}")
        self._step("reconciliation", lambda: _reconcile(system, account, reason), "with the workers off")
        if sent := _received(system) - received:
            raise RuntimeError(f"The exchange received {sent} orders while the workers were off.")
        self._step("resumption", lambda: _resume(system, off, reason), "the venue, the workers, the sessions, the API")

    def _step(self, name: str, act: Callable[[], None], note: str) -> None:
        """Raises: RuntimeError, if it could not be carried out."""
        self._progress.show(f"{name}, {note}")
        began = time.time()
        try:
            act()
        except (OSError, ValueError, psycopg.Error) as error:
            raise RuntimeError(f"The {name} could not be carried out: {error}") from error
        self._done.append(Done(Fault(0.0, name, 0.0, 0.0), began, time.time(), note, hit=True))

    def _wait(self, until: float) -> None:
        while (left := until - time.time()) > 0:
            if self._interrupted:
                raise RuntimeError("It was interrupted: a drill that is broken off shows nothing.")
            self._progress.show(f"{len(self._done)} of {len(STEPS)} steps; orders come")
            time.sleep(min(left, 0.5))

    def _traffic(self, system: System, tokens: dict[str, str], seed: int, seconds: float) -> Traffic:
        options = self._options
        return Traffic(system.ports.web, tokens, seed=seed, rate=options.rate, seconds=seconds, clients=options.clients)


def _reconcile(system: System, account: Account, reason: Sequence[str]) -> None:
    _command(system, "halt_venue", demo.VENUE, *reason)
    seconds = ("--seconds", str(RECONCILE_SECONDS))
    status, output, error = system.command("reconcile_restored", *reason, *seconds, "--json")
    if status not in (0, 1) or not output:
        raise ValueError(f"reconcile_restored ended with {status}: {error.strip()}")
    account.command = json.loads(output)


def _resume(system: System, off: Sequence[Any], reason: Sequence[str]) -> None:
    _command(system, "resume_venue", demo.VENUE, *reason)
    system.let_go(*reversed(off))
    if not system.wait_until_whole(PATIENCE_SECONDS):
        raise ValueError("not everything runs again")


def _command(system: System, *arguments: str) -> None:
    status, _, error = system.command(*arguments)
    if status:
        raise ValueError(f"{arguments[0]} ended with {status}: {error.strip()}")


def _received(system: System) -> int:
    """Orders that the exchange has received, whatever it did with them."""
    stats = system.admin("GET", "/stats")
    return int(stats["orders"]) + int(stats["duplicates_refused"])


# ---- The judgement ----

UNKNOWN = "live without a row"


def judged(found: Evidence, account: Account) -> list[Violation]:
    """What is wrong, besides the loss of what happened after the point, which is why one restores to a late one."""
    wrong = [one for one in violations(found) if not _had_to_be_lost(one, found, account)]
    wrong += _not_listed(found, account)
    known = {row.id for row in found.rows}
    for order_id in account.orphans & known:
        wrong.append(violation(UNKNOWN, order_id, "listed, and it has a row"))
    return wrong


def _had_to_be_lost(one: Violation, found: Evidence, account: Account) -> bool:
    point = account.point.timestamp()
    if one.what == "lost":
        told = next(told for told in found.told if one.order_id in told.order_ids)
        return told.accepted_at is not None and told.accepted_at > point
    rows = {row.id for row in found.rows}
    if one.what in (UNKNOWN, "execution lost"):
        return one.order_id not in rows  # whether such an order is listed is judged by itself
    if one.what in ("request lost", "cancel believed otherwise", "replace believed otherwise"):
        return one.order_id not in rows or any(
            asked.order_id == one.order_id and asked.at > point for asked in found.asked
        )
    return False


def _not_listed(found: Evidence, account: Account) -> Iterable[Violation]:
    """Orders that stand at the exchange, or were executed there, of which nobody would hear."""
    known, last = {row.id for row in found.rows}, last_reports(found.reports)
    for entry in found.ledger:
        if entry.status != WORKING or entry.client_order_id in known | account.orphans:
            continue
        report = last.get(entry.venue_order_id)
        if report is None or report.leaves or report.filled:
            yield violation(UNKNOWN, entry.client_order_id, f"{entry.venue_order_id} was not listed")


def _print(account: Account, found: Evidence, done: Sequence[Done], console: Console) -> None:
    point, rows = account.point.timestamp(), {row.id for row in found.rows}
    gone = [told.accepted_at for told in found.told if told.accepted_at is not None and not told.order_ids & rows]
    before = sum(at <= point for at in gone)
    command = account.command or {}
    table = Table("What", "Figure", title=f"Restored to {account.point:%Y-%m-%d %H:%M:%S.%f} UTC")
    for one in done:
        table.add_row(f"{one.fault.kind}, {one.note}", f"{one.ended - one.began:.1f} s")
    table.add_row(
        "from the loss to the first order that was accepted again", f"{account.open_at - account.lost_at:.1f} s"
    )
    table.add_row("the restored database has", account.stood)
    table.add_row("orders accepted before the point, and lost", str(before))
    seconds = account.lost_at - point
    table.add_row(f"orders accepted after the point, and lost with its {seconds:.1f} s", str(len(gone) - before))
    table.add_row("orders that may have been sent since", str(command.get("doubted")))
    for name in ("undecided", "parked"):
        table.add_row(f"  {name}", str(len(command.get(name, ()))))
    table.add_row("received by the exchange while the workers were off", "0")
    table.add_row("orders without a row, listed", str(len(account.orphans)))
    console.print(table)
