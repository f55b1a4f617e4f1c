"""Provides a private PostgreSQL server for this checkout, if `DATABASE_URL` is not set.

A small separate process, the keeper (`keeper.py`), starts the server, starts it again when it dies, and stops it when
no process uses it any more. A process that uses it holds `users.lock` shared. The kernel releases the lock of a
process that was killed, so the keeper notices the end of the last user, however it ended. A child that inherits the
open file is a user, too.
"""

import atexit
import os
import subprocess
import sys
import time

from quiktrade import file_lock
from quiktrade.local.postgres.server import (
    START_MEGABYTES,
    LocalDatabaseError,
    PrivateServer,
    data_directory,
    refuse_another_users,
    refuse_full_disk,
)
from quiktrade.local.venv import ROOT
from quiktrade.processes import wait_for

__all__ = ["LocalDatabase", "LocalDatabaseError", "configure", "is_private", "url", "use"]

KEEPER_GAVE_UP = "giving up"
_START_SECONDS = 60.0
_WITHOUT_DATABASE = frozenset(
    (
        *("check", "collectstatic", "compilemessages", "diffsettings", "findstatic", "help", "makemessages"),
        *("run_exchange", "spectacular", "startapp", "startproject", "version"),
        *("chaos", "drill", "test", "up"),  # these start it themselves
    )
)


class LocalDatabase:
    """The private server. It runs at least until this object is released."""

    def __init__(self) -> None:
        self.server = PrivateServer()
        self.binaries = self.server.set_up()
        self._process = os.getpid()
        self.descriptor = file_lock.open_lock(self.server.users_lock)
        file_lock.wait_for_lock(self.descriptor, shared=True)  # the keeper holds it while it stops the server
        try:
            self._start()
        except BaseException:
            os.close(self.descriptor)
            raise

    @property
    def kept(self) -> bool:
        """Whether there is a keeper. It may be busy starting the server again."""
        try:
            return file_lock.is_locked(self.server.keeper_lock)
        except FileNotFoundError:  # the directory is gone
            return False

    def start_keeper(self) -> None:
        """Start a keeper; it has `keeper.lock` when this returns. It ends at once if there is another one."""
        with open(self.server.keeper_log, "ab") as log:
            subprocess.run(
                [sys.executable, "-m", "quiktrade.local.postgres.keeper", self.server.base, self.binaries.directory],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )

    def release(self) -> None:
        """Stop using the server; if nobody else does, wait until it has stopped."""
        if self._process != os.getpid():
            return  # a fork of the process that took the lock, or released already
        self._process = 0
        atexit.unregister(self.release)
        os.close(self.descriptor)
        wait_for(lambda: not self.kept or file_lock.is_shared(self.server.users_lock), 20.0)

    def _start(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        tries = 0
        log = self.server.server_log
        logged = log.stat().st_size if log.exists() else 0
        while not (self.kept and self.server.answers(self.binaries)):
            if not self.kept:
                refuse_full_disk(self.server.directory, START_MEGABYTES)
                if tries == 2 or (tries and KEEPER_GAVE_UP in self.server.keeper_log.read_text()):
                    raise self._does_not_start("PostgreSQL does not start", logged)
                self.start_keeper()
                tries += 1
            if time.monotonic() > deadline:
                raise self._does_not_start(f"PostgreSQL has not answered for {_START_SECONDS:.0f} s", logged)
            time.sleep(0.02)

    def _does_not_start(self, what: str, logged: int) -> LocalDatabaseError:
        """`logged` is how long the log was before this start: the messages of an earlier run explain nothing."""
        log = self.server.server_log
        said = log.read_bytes()[logged:] if log.exists() else b""
        lines = said.decode(errors="replace").splitlines()[-12:]
        end = "ends with:" if lines else "has nothing new."
        return LocalDatabaseError("\n".join([f"{what}. The log, {log}, {end}", *lines]))


_in_use: LocalDatabase | None = None


def url() -> str:
    """The URL of the private server. This starts nothing and makes no file."""
    return PrivateServer().url


def is_private() -> bool:
    """Whether the database is this checkout's own server, because no other one is set."""
    if os.environ.get("QUIKTRADE_ENV", "").strip() == "production":
        return False
    return os.environ.get("DATABASE_URL", "").strip() in ("", url())


def use() -> LocalDatabase | None:
    """Have the private server run until this process ends. If another database is set, do nothing and return None.

    Raises: LocalDatabaseError.
    """
    global _in_use
    if not is_private():
        return None
    if _in_use is None:
        _in_use = LocalDatabase()
        atexit.register(_in_use.release)
        # `manage.py dbshell` finds psql there if the machine has none.
        os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{_in_use.binaries.directory}"
    return _in_use


def configure(arguments: list[str]) -> None:
    """Set `DATABASE_URL` to the private server, and start the server if this command line needs a database.

    Raises: LocalDatabaseError.
    """
    if not is_private():
        return
    refuse_another_users(data_directory())
    os.environ["DATABASE_URL"] = url()
    command = arguments[1] if len(arguments) > 1 else "help"
    helps = {"-h", "--help", "--version"}.intersection(arguments)
    if not helps and (command not in _WITHOUT_DATABASE or "--database" in arguments):
        use()
