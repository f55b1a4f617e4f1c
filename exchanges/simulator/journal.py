"""The simulated exchange's memory on disk, one JSON line for each thing that happened, appended, never rewritten.

The first line names the journal. Each further one is an order, a request to cancel or replace one, or something that
the market did by itself; it has all the reports that followed from it. So a line is there whole or not at all, and a
trade never has one side only. A journal of the time before there was a market has lines without reports.

Every line goes to the kernel in a write of its own before the order is answered for. That outlives the
process, however it dies. With `fsync` it outlives the machine: the reply then waits for the disk, one wait
for all orders that came meanwhile. It is off by default: what dies in tests is a process, not the machine.

A last line without its newline was never answered for, so it is cut off at the next start. Any other line
that cannot be read prevents the start: an exchange with holes in its memory would accept orders twice.
"""

import asyncio
import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from exchanges.simulator.ledger import WORKING, Ledger, VenueOrder, is_order
from exchanges.simulator.report_log import Place, Record

FORMAT = 1


class JournalError(Exception):
    """The journal cannot be used; the text says which file and why."""


class Journal:
    """Use `open_journal`. One process holds a journal at a time."""

    def __init__(self, descriptor: int, path: Path, prefix: str, size: int, *, fsync: bool) -> None:
        self.path = path
        self.prefix = prefix
        """The prefix of the venue order ids of this journal, so that a new journal never repeats an old id."""
        self._descriptor = descriptor
        self._size = size
        self._fsync = fsync
        self._torn = False
        self._appended = 0
        self._synced = 0
        self._sync_turn = asyncio.Lock()

    def append(self, record: dict[str, Any]) -> Place:
        """Write one record; returns where. Raises: JournalError, now and for ever after; the process must end."""
        if self._torn:
            raise JournalError(f"{self.path} ends in half a line")  # a further line would become part of it
        line = memoryview(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        place = Place(self._size, len(line))
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            self._torn = True
            raise JournalError(f"cannot write {self.path}: {error.strerror}") from error
        self._appended += 1
        self._size += place.size
        return place

    async def settle(self) -> None:
        """Return when everything appended so far is as safe as this journal makes it."""
        if not self._fsync:
            return
        appended = self._appended
        async with self._sync_turn:
            if self._synced >= appended:  # the one before us in the queue synced our line as well
                return
            appended = self._appended
            try:
                await asyncio.to_thread(os.fsync, self._descriptor)
            except OSError as error:
                raise JournalError(f"cannot sync {self.path}: {error.strerror}") from error
            self._synced = appended

    def close(self) -> None:
        os.close(self._descriptor)


Observe = Callable[[list[Record]], None]


def open_journal(path: Path, *, fsync: bool, observe: Observe | None = None) -> tuple[Journal, Ledger]:
    """Open or create the journal and read back what it remembers. `observe` is called with the reports of each line.

    Raises: JournalError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise JournalError(f"cannot open {path}: {error.strerror}") from error
    try:
        return _read_back(descriptor, path, fsync, observe or (lambda reports: None))
    except BaseException:
        os.close(descriptor)
        raise


def _read_back(descriptor: int, path: Path, fsync: bool, observe: Observe) -> tuple[Journal, Ledger]:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise JournalError(f"{path} is in use by another exchange") from error
    ledger = Ledger(lambda place: _read(descriptor, place))
    prefix = ""
    whole = 0
    with open(descriptor, "rb", closefd=False) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                os.ftruncate(descriptor, whole)
                break
            place, whole = Place(whole, len(line)), whole + len(line)
            try:
                record = orjson.loads(line)
                if number == 1:
                    prefix = _read_header(record)
                else:
                    _take(ledger, record, place, observe)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise JournalError(f"{path}: line {number} cannot be read; move the file away") from error
    journal = Journal(descriptor, path, prefix or secrets.token_hex(3), whole, fsync=fsync)
    if not prefix:
        journal.append({"journal": FORMAT, "prefix": journal.prefix})
    return journal, ledger


def _take(ledger: Ledger, record: Record, place: Place, observe: Observe) -> None:
    """Raises: KeyError, TypeError, ValueError or AttributeError for a line of another form."""
    reports = record.get("reports", [])
    if is_order(record):
        order = VenueOrder.from_json(record)
        ledger.add(order, place)
        if order.status == WORKING and not reports:
            ledger.unlisted.add(order.sequence)
    elif "request" in record:
        ledger.add_request(record["request"]["request_id"], place)
    elif not reports:
        raise ValueError("neither an order, nor a request, nor a report")
    if reports:
        ledger.add_reports(reports, place)
        observe(reports)


def _read(descriptor: int, place: Place) -> bytes:
    found = os.pread(descriptor, place.size, place.start)
    if len(found) < place.size:  # no other process may cut off what this one writes
        raise JournalError(f"the journal ends before byte {place.start + place.size}")
    return found


def _read_header(record: dict[str, Any]) -> str:
    if record["journal"] != FORMAT or type(record["prefix"]) is not str or not record["prefix"]:
        raise ValueError("another format")
    return str(record["prefix"])
