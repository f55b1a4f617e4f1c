"""Child processes: started, watched, started again and ended in this one place.

A child of `manage.py up` must end when `up` is gone, however it went; a signal cannot promise that, for
nobody sends one after kill -9. So the child's standard input is a pipe that nobody writes to and whose other
end only `up` holds, its lifeline: it reads as finished at the moment when `up` no longer exists, on Linux and macOS.
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


def wait_for(
    condition: Callable[[], object],
    seconds: float,
    *,
    unless: Callable[[], object] = lambda: False,
    pause: float = 0.02,
) -> bool:
    """Wait until something is so. False if it is not in time, or if `unless` is so before it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if unless() or time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


class Lifeline:
    """The pipe by which the children of this process see that it is gone. Its descriptor is their standard input.

    Nobody writes to it. Its other end is held here alone, so it ends when this process does, or closes it.
    """

    def __init__(self) -> None:
        self._reading, self._held = os.pipe()

    def fileno(self) -> int:
        return self._reading

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._held)


class Child:
    """A program in a session of its own, which ends when nobody holds the other end of its lifeline any more.

    Ctrl-C in a terminal does not reach it: its parent stops it. The programs that it starts itself are in its process
    group, and end with it at the latest when `end_group` is called.
    """

    def __init__(
        self, command: Sequence[str | Path], lifeline: int | None, environment: Mapping[str, str], **popen: Any
    ) -> None:
        """Start it with `environment` added to that of this process.

        A program that is not ours has no use for a lifeline: without one, `environment` is all that it gets to see.

        Raises: OSError, where the program cannot be started.
        """
        if lifeline is None:
            lifeline = subprocess.DEVNULL
        else:
            environment = {**os.environ, **environment, LIFELINE: "1", "PYTHONUNBUFFERED": "1"}
        # For who asks what subprocess knows beyond this.
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
        self.send(signal.SIGCONT)  # one that was stopped would not hear the next one
        self.send(number)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end. Says whether it came in time."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return not self.alive

    def signal_group(self, number: signal.Signals) -> bool:
        """Send a signal to it and to what it has started, even after its own end. Says whether anybody was there."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            return False
        return True

    def end_group(self) -> None:
        """Kill what is left of it and of what it has started."""
        self.signal_group(signal.SIGKILL)
        self.process.wait()

    def end(self, *ways: tuple[signal.Signals, float]) -> bool:
        """Ask it to end with one signal after the other, each with the seconds it has; then kill what is left.

        Says whether asking was enough.
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

    Between its end and its next start is a pause in which what it has left behind may finish: half a second, or longer
    each time that it ends soon after its start, up to `longest_pause`.
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
        """`say` is told how the program ended, or why it did not start, and when it is started again."""
        self.starts = 0
        self.quick_ends = 0
        """How often in a row it has ended soon after its start, counting from the last end that was not so soon."""
        self._start_child = start
        self._longest_pause = longest_pause
        self._say = say
        self._child: Child | None = None
        self._started_at = 0.0
        self._start_at: float | None = None

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
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
        """Ask the program to end in these ways, then kill it, as `Child.end` does. Says whether asking was enough."""
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
