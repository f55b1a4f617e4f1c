"""Keeps the private database going while `up` runs, and passes on what its keeper says."""

import time

from quiktrade.local_database import LocalDatabase
from quiktrade.log_stream import LogStream

_PAUSE_SECONDS = 2.0


class DatabaseWatch:
    def __init__(self, database: LocalDatabase, log: LogStream) -> None:
        self._database = database
        self._log = log
        self._read = len(self._keeper_said())
        self._look_at = 0.0

    def tend(self) -> None:
        """The keeper sees to the server; this sees to the keeper."""
        if time.monotonic() < self._look_at:
            return
        said = self._keeper_said()
        if len(said) < self._read:  # a new keeper begins a new log
            self._read = 0
        for line in said[self._read :].splitlines():
            self._log.line("database", line)
        self._read = len(said)
        self._look_at = time.monotonic() + 0.2
        if not self._database.kept:
            self._log.line("database", "its keeper was ended; starting another")
            try:
                self._database.start_keeper()
            except OSError as error:
                self._log.line("database", f"the keeper did not start: {error.strerror}")
            self._look_at = time.monotonic() + _PAUSE_SECONDS

    def _keeper_said(self) -> str:
        try:
            return self._database.server.keeper_log.read_text(errors="replace")
        except OSError:
            return ""
