"""The one place that starts, watches, restarts and ends child processes.

A child of `manage.py up` must end when `up` is gone, however `up` ended. A signal cannot promise that, because
nobody sends one after kill -9. So the child's standard input is a pipe, its lifeline: nobody writes to it, and only
`up` holds its other end, so the child reads its end as soon as `up` no longer exists, on Linux and macOS.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

LIFELINE = "QUIKTRADE_LIFELINE"
"""This environment variable tells a child of `up` that its standard input is such a pipe."""

_kept: dict[str, str] = {}

_SECONDS_TO_END = 15.0
"""A worker may take 12 s to finish what it has in flight."""


def forget_inherited_signals() -> None:
    """Unblock all signals, and no longer ignore SIGTERM and SIGCHLD, whatever this program's parent has set.

    SIGHUP stays ignored, because nohup has it ignored on purpose. So does SIGINT, because a shell has its background
    jobs ignore Ctrl-C.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGCHLD):  # while SIGCHLD is ignored, no child's exit status is known
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def end_with_parent() -> None:
    """In a child of `up`, watch for the end of `up` and end then; elsewhere do nothing."""
    if value := os.environ.pop(LIFELINE, None):  # removed: it is not for the programs that this process starts
        _kept[LIFELINE] = value
        threading.Thread(target=_watch, name="lifeline", daemon=True).start()


def lifeline_kept() -> dict[str, str]:
    """The variables to give to a program that replaces this process (exec), because its parent is the same."""
    return _kept


def _watch() -> None:
    while os.read(0, 1):
        pass
    # Nobody reads our output any more, and an error in writing it must not prevent an orderly end.
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


def wait_for(
    condition: Callable[[], object],
    seconds: float,
    *,
    unless: Callable[[], object] = lambda: False,
    pause: float = 0.02,
) -> bool:
    """Wait until `condition` is true. Returns False if it is not in time, or if `unless` is true before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if unless() or time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


class Lifeline:
    """The pipe by which the children of this process see that it is gone. Its descriptor is their standard input.

    Nobody writes to it. Only this process holds its other end, so it ends when this process ends or closes it.
    """

    def __init__(self) -> None:
        self._reading, self._held = os.pipe()

    def fileno(self) -> int:
        return self._reading

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._held)


class Child:
    """A program in its own session, which ends when nobody holds the other end of its lifeline any more.

    Ctrl-C in a terminal does not reach it: its parent stops it. The programs that it starts itself are in its process
    group, and end at the latest when `end_group` is called.
    """

    def __init__(
        self, command: Sequence[str | Path], lifeline: int | None, environment: Mapping[str, str], **popen: Any
    ) -> None:
        """Start the program with `environment` added to that of this process.

        A program that is not ours cannot use a lifeline. Without one, `environment` is all that the program sees.

        Raises: OSError, if the program cannot be started.
        """
        if lifeline is None:
            lifeline = subprocess.DEVNULL
        else:
            environment = {**os.environ, **environment, LIFELINE: "1", "PYTHONUNBUFFERED": "1"}
        # For callers that need more of subprocess than this class offers.
        self.process = subprocess.Popen(command, stdin=lifeline, env=environment, start_new_session=True, **popen)
        self.pid = self.process.pid
        self.output = self.process.stdout

    @property
    def status(self) -> int | None:
        """Its exit status, or the negative number of the signal that ended it; None while it runs."""
        return self.process.poll()

    @property
    def alive(self) -> bool:
        return self.status is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program alone. It knows how to stop its own children."""
        self.process.send_signal(number)

    def ask_to_end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.send(signal.SIGCONT)  # a process that is suspended would not handle the next signal
        self.send(number)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end. Returns whether it ended in time."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return not self.alive

    def signal_group(self, number: signal.Signals) -> bool:
        """Send a signal to it and to what it has started, even after its own end. Returns whether any was left."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS raises the latter for a group of zombies
            return False
        return True

    def end_group(self) -> None:
        """Kill the program and what it has started, as far as they still run."""
        self.signal_group(signal.SIGKILL)
        self.process.wait()

    def end(self, *ways: tuple[signal.Signals, float]) -> bool:
        """Ask it to end by one signal after the other, each with the seconds to wait; then kill what is left.

        Returns whether asking was enough.
        """
        for number, seconds in ways:
            self.ask_to_end(number)
            if self.wait(seconds):
                break
        in_time = not self.alive
        self.end_group()
        return in_time


class KeptRunning:
    """A program that is started again whenever it ends.

    Between its end and its next start there is a pause, in which the processes that it left behind can finish: half a
    second, or longer each time that it ends soon after its start, up to `longest_pause`.
    """

    LIVED_SECONDS = 30.0
    """A program that ran this long before it ended did not end soon after its start."""
    PAUSE_SECONDS = 0.5

    def __init__(
        self,
        start: Callable[[], Child],
        *,
        longest_pause: float = PAUSE_SECONDS,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`say` is called with how the program ended, or why it did not start, and when it is started again."""
        self.starts = 0
        self.quick_ends = 0
        """How many times it has ended since the last end that did not come soon after a start, that one included."""
        self._start_child = start
        self._longest_pause = longest_pause
        self._say = say
        self._child: Child | None = None
        self._started_at = 0.0
        self._start_at: float | None = None

    @property
    def pid(self) -> int | None:
        """The id of its process while it runs, otherwise None."""
        return self._child.pid if self._child is not None and self._child.alive else None

    def start(self) -> None:
        if self._child is not None:
            self._child.end_group()
        self.starts += 1
        self._started_at, self._start_at = time.monotonic(), None
        try:
            self._child = self._start_child()
        except OSError as error:
            self._child = None
            self._pause(f"did not start: {error.strerror}")

    def tend(self) -> None:
        """Start the program if it is time; notice if it has ended."""
        if self._start_at is not None:
            if time.monotonic() >= self._start_at:
                self.start()
        elif self._child is None:
            self.start()
        elif self._child.status is not None:
            self._child.signal_group(signal.SIGTERM)
            self._pause(f"ended: {how_it_ended(self._child.status)}")

    def ask_to_end(self) -> None:
        if self._child is not None and self._child.alive:
            self._child.ask_to_end()

    def wait(self, seconds: float) -> None:
        """Wait for its end; then kill whatever is left of it."""
        if self._child is not None:
            self._child.wait(seconds)
            self._child.end_group()

    def end(self, *ways: tuple[signal.Signals, float]) -> bool:
        """Ask the program to end in these ways, then kill it, like `Child.end`. Returns whether asking was enough."""
        return self._child is None or self._child.end(*ways)

    def kill(self) -> None:
        if self._child is not None:
            self._child.end_group()

    def _pause(self, what: str) -> None:
        now = time.monotonic()
        self.quick_ends = 1 if now - self._started_at > self.LIVED_SECONDS else self.quick_ends + 1
        seconds = min(self._longest_pause, self.PAUSE_SECONDS * 2 ** min(self.quick_ends - 1, 10))
        self._say(f"{what}; starting it again in {seconds:g} s")
        self._start_at = now + seconds
