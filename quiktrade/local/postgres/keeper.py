"""The keeper of a private PostgreSQL server (see `lease.py`): a process that outlives any command.

    users.lock    every user of the server holds it shared; when the keeper gets it exclusively, no user is left
    keeper.lock   the keeper holds it, so that there is only one

Whatever is killed, no process stays behind: without users the keeper stops the server; without its keeper the
server is interrupted by the kernel (Linux) or stopped by the next keeper (elsewhere).
"""

import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

from quiktrade import file_lock
from quiktrade.local.postgres.lease import KEEPER_GAVE_UP
from quiktrade.local.postgres.server import PrivateServer
from quiktrade.processes import Child, KeptRunning, wait_for

_OPTIONS = (
    "max_connections=200",  # for web processes of a dozen threads, job clusters, consoles, and tests beside them
    "shared_buffers=128MB",
    "max_wal_size=512MB",
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_checkpoints=off",
    "log_destination=stderr",
    "logging_collector=off",
)
_LARGEST_LOG = 5_000_000
_STARTS_IN_VAIN = 5


class _Postmaster(KeptRunning):
    LIVED_SECONDS = 2.0
    PAUSE_SECONDS = 0.2
    """Processes of a killed server may hold its shared memory for a moment more."""


class Keeper:
    """Runs one server. Its own messages go to keeper.log, and PostgreSQL's to server.log."""

    def __init__(self, server: PrivateServer, binaries: Path) -> None:
        self._server = server
        self._binaries = binaries

    def keep(self, users: int) -> None:
        """Keep the server running until nobody uses it any more. Returns when it has stopped."""
        self._stop_predecessor()
        postmaster = _Postmaster(self._start, longest_pause=1.6, say=lambda text: _say(f"PostgreSQL {text}"))
        try:
            while not file_lock.try_lock(users):
                if not self._server.data.is_dir():
                    _say(f"{self._server.data} is gone: stopping PostgreSQL")
                    return
                postmaster.tend()
                if postmaster.quick_ends > _STARTS_IN_VAIN:
                    _say(f"PostgreSQL ended {postmaster.quick_ends} times in a row: {KEEPER_GAVE_UP}")
                    return
                self._bound_log()
                time.sleep(0.1)
        finally:
            # The first signal means a fast shutdown: sessions end, and what they committed stays. The second means an
            # immediate one.
            postmaster.end((signal.SIGINT, 6.0), (signal.SIGQUIT, 2.0))
            if self._server.directory not in self._server.socket_directory.parents:
                with contextlib.suppress(OSError):
                    self._server.socket_directory.rmdir()

    def _start(self) -> Child:
        self._forget_recycled_number()
        return self._server.start(self._binaries, *_OPTIONS)

    def _stop_predecessor(self) -> None:
        """Stop a server whose keeper was killed. If that fails, PostgreSQL's own interlock prevents a second server."""
        if self._listens() and (number := self._recorded_number()):
            for order in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                if _ended(number, order, seconds=8):
                    break

    def _listens(self) -> bool:
        """Whether a server listens at the socket, so that the process number in postmaster.pid is a server's."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            try:
                probe.connect(str(self._server.socket))
            except OSError:
                return False
        return True

    def _recorded_number(self) -> int | None:
        try:
            return int((self._server.data / "postmaster.pid").read_text().split("\n")[0])
        except (OSError, ValueError):
            return None

    def _forget_recycled_number(self) -> None:
        """Remove a postmaster.pid whose process number now belongs to another program, after a reboot for example.

        PostgreSQL would take that program for a running server, and never start.
        """
        number = self._recorded_number()
        if number and not self._listens() and not _ended(number, 0, seconds=2):
            _say(f"postmaster.pid names process {number}, which is no server; removing the file")
            (self._server.data / "postmaster.pid").unlink(missing_ok=True)

    def _bound_log(self) -> None:
        log = self._server.server_log
        if log.exists() and log.stat().st_size > _LARGEST_LOG:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)  # PostgreSQL appends to it, so it continues at the new end


def _ended(number: int, order: int, *, seconds: float) -> bool:
    """Send a process a signal, and return whether it is gone within this time."""
    return not _sent(number, order) or wait_for(lambda: not _sent(number, 0), seconds)


def _sent(number: int, order: int) -> bool:
    """Send a process a signal. Returns whether there is such a process of ours.

    Another user's process does not count: PostgreSQL does not take it for a running server.
    """
    try:
        os.kill(number, order)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    server, binaries = PrivateServer(Path(sys.argv[1])), Path(sys.argv[2])
    keeper_lock = file_lock.open_lock(server.keeper_lock)
    for _ in range(10):  # another process may hold the lock for a moment, to see whether it is held
        if file_lock.try_lock(keeper_lock):
            break
        time.sleep(0.01)
    else:
        return
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    os.truncate(server.keeper_log, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    users = file_lock.open_lock(server.users_lock)
    try:
        Keeper(server, binaries).keep(users)
    finally:
        # The order matters: a process that gets users.lock looks for a keeper next.
        os.close(keeper_lock)
        os.close(users)


if __name__ == "__main__":
    main()
