"""Keeps the private database running while `up` runs, and passes on its keeper's messages."""

import time

from quiktrade.local.log_stream import LogStream
from quiktrade.local.postgres.lease import LocalDatabase
from quiktrade.local.postgres.server import START_MEGABYTES, LocalDatabaseError, refuse_full_disk

_PAUSE_SECONDS = 2.0


class DatabaseWatch:
    def __init__(self, database: LocalDatabase, log: LogStream) -> None:
        self._database = database
        self._log = log
        self._read = len(self._keeper_said())
        self._look_at = 0.0

    def tend(self) -> None:
        """Start a keeper if there is none, as the keeper does with the server.

        Raises: LocalDatabaseError, if the directory of the database is gone.
        """
        if time.monotonic() < self._look_at:
            return
        self._refuse_moved_directory()
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
                refuse_full_disk(self._database.server.directory, START_MEGABYTES)
                self._database.start_keeper()
            except LocalDatabaseError as error:
                self._log.line("database", str(error).partition("\n")[0])
            except OSError as error:
                self._log.line("database", f"the keeper did not start: {error.strerror}")
            self._look_at = time.monotonic() + _PAUSE_SECONDS

    def _refuse_moved_directory(self) -> None:
        directory = self._database.server.directory
        if not directory.is_dir():
            sentence = f"{directory} is gone: it was moved or removed while `up` ran, and the database with it."
            self._log.line("database", f"{sentence} Stopping.")
            raise LocalDatabaseError(f"{sentence}\nMove it back and start `up` again, or start with an empty one.")

    def _keeper_said(self) -> str:
        try:
            return self._database.server.keeper_log.read_text(errors="replace")
        except OSError:
            return ""
