"""What a parent process and its children owe each other.

A child of `manage.py up` must end when `up` is gone, however it went; a signal cannot promise that, for
nobody sends one after kill -9. So the child's standard input is a pipe that nobody writes to and whose other
end only `up` holds: it reads as finished at the moment when `up` no longer exists, on Linux and macOS alike.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LIFELINE = "QUIKTRADE_LIFELINE"
"""In the environment of a child of `up`: its standard input is such a pipe."""

_kept: dict[str, str] = {}

_SECONDS_TO_END = 15.0
"""A worker may take 12 to finish what it has in flight."""


def forget_inherited_signals() -> None:
    """Have signals do what they usually do, whatever the one who started this program has blocked or ignored.

    Only the hang-up stays ignored: that is what nohup is for. So does Ctrl-C: a shell has its background jobs
    ignore it.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGCHLD):  # without the latter, no child's exit status is known
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def end_with_parent() -> None:
    """In a child of `up`, watch for the end of `up` and end then; elsewhere do nothing."""
    if value := os.environ.pop(LIFELINE, None):  # popped: for this process, not for the programs that it starts
        _kept[LIFELINE] = value
        threading.Thread(target=_watch, name="lifeline", daemon=True).start()


def start(
    command: Sequence[str | Path], lifeline: int, environment: Mapping[str, str], **popen: Any
) -> subprocess.Popen[bytes]:
    """Start a program, in a session of its own, that ends when nobody holds the other end of the lifeline any more."""
    added = {**environment, LIFELINE: "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdin=lifeline, env={**os.environ, **added}, start_new_session=True, **popen)


def lifeline_kept() -> dict[str, str]:
    """For the environment of a program that this process becomes: it has the same parent."""
    return _kept


def _watch() -> None:
    while os.read(0, 1):
        pass
    # Nobody reads our output any more; an error in writing it must not get in the way of an orderly end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_END)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def how_it_ended(returncode: int) -> str:
    """`exit status 3`, or `SIGKILL` for a process that a signal ended (subprocess's negative number)."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
