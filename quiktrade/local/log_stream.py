"""Merges the log lines of several processes into one stream, each line after the name of its process."""

import os
import select
import threading
import time
from collections.abc import Iterable
from typing import IO, TextIO

from quiktrade.texts import shown

_COLOURS = ("36", "35", "33", "32", "34")
OWN_NAME = "up"
TAB = "\t"


class LogStream:
    """Writes whole lines of the named processes and of this one. Any thread may call it."""

    def __init__(self, out: TextIO, names: Iterable[str], *, colour: bool) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._prefix = {}
        names = [OWN_NAME, *names]
        width = max(map(len, names))
        for number, name in enumerate(names):
            label = f"{name:{width}} |"
            self._prefix[name] = f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{label}\x1b[0m" if colour else label
        self._failed = False
        self._relays: list[threading.Thread] = []

    @property
    def closed(self) -> bool:
        """Whether nobody can read it any more, because the terminal or the program at the pipe's other end is gone."""
        if not self._failed:
            try:
                descriptor = self._out.fileno()
            except (OSError, ValueError):
                return False
            watched = select.poll()
            watched.register(descriptor, 0)
            self._failed = any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))
        return self._failed

    def line(self, name: str, text: str) -> None:
        self._write(f"{self._prefix[name]} {shown(text.rstrip(), but=TAB)}\n")

    def say(self, text: str) -> None:
        self.line(OWN_NAME, text)

    def block(self, text: str) -> None:
        """Write text as it is, to be read and copied as a whole."""
        self._write(text)

    def relay(self, name: str, source: IO[bytes]) -> None:
        """Pass lines on until the source ends, in a separate thread."""
        relay = threading.Thread(target=self._relay, args=(name, source), name=f"log of {name}", daemon=True)
        relay.start()
        self._relays = [*(thread for thread in self._relays if thread.is_alive()), relay]

    def drain(self, seconds: float) -> None:
        """Wait for the sources to end, so that their last lines are not lost, but at most this long."""
        deadline = time.monotonic() + seconds
        for relay in self._relays:
            relay.join(max(0.0, deadline - time.monotonic()))

    def _relay(self, name: str, source: IO[bytes]) -> None:
        with source:
            for line in source:  # even if nothing can be written: a full pipe would stop the process
                self.line(name, line.decode(errors="replace"))

    def _write(self, text: str) -> None:
        if self._failed:
            return
        try:
            with self._lock:
                self._out.write(text)
                self._out.flush()
        except (OSError, ValueError):
            self._failed = True


def wants_colour(out: TextIO) -> bool:
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
