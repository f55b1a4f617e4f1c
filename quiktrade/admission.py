"""How many requests a web process has in hand at a time.

Up to `most`, as a rule: of a burst some wait a little, and all are served; what is too much is refused. While much is
refused, a full house would only make everyone in it wait, and a few have to do: as many as keep the processor busy.
How many those are depends on how long each of them waits for the database, and is worked out from what was answered:
at so many a second, each taking so long when nothing is in its way, the product of the two is under way at any time
(Little's law).
"""

import math
import time
from collections.abc import Callable

FEW = 3
SLACK = 2.0
"""So many times as many as would be under way if none ever waited for another."""
ENOUGH_TO_BEGIN, ENOUGH_TO_GO_ON = 0.5, 1.0
"""Refused for each one taken on. A few get less done than many: with them, more are refused of the same load."""
PERIOD_SECONDS = 0.05
"""At least; longer where answers take longer: until every place has been used twice."""


class Admission:
    """Not thread-safe: its owner has a lock."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = self.room = most
        self.in_hand = 0
        self._shortest: float
        self._clock = clock
        self._last = clock()
        """When the last request came, taken or not."""
        self._start_period(self._last)

    def take(self, *, whatever: bool = False) -> bool:
        """Take on one request more, unless there is no room; `whatever` there is. Each one taken ends in `done()`."""
        now = self._clock()
        if now - self._last >= PERIOD_SECONDS:  # whatever there was, it is over
            self.room = self.most
            self._start_period(now)
        elif now - self._since >= PERIOD_SECONDS and self._done >= 2 * self.room:
            self._look_back(now)
        self._last = now
        if self.in_hand >= self.room and not whatever:
            self._refused += 1
            return False
        self.in_hand += 1
        self._taken += 1
        return True

    def done(self, seconds: float | None) -> None:
        """`seconds` is how long it took; None for one that says nothing about the others."""
        self.in_hand -= 1
        self._done += 1
        if seconds is not None:
            self._shortest = min(self._shortest, seconds)

    def _look_back(self, now: float) -> None:
        if self.room == self.most:
            if self._refused > ENOUGH_TO_BEGIN * self._taken:
                self.room = min(FEW, self.most)
        elif self._refused < ENOUGH_TO_GO_ON * self._taken:
            self.room = self.most
        elif self._shortest < math.inf:
            under_way = self._done / (now - self._since) * self._shortest
            self.room = min(self.most, max(FEW, math.ceil(SLACK * under_way)))
        self._start_period(now)

    def _start_period(self, now: float) -> None:
        self._since = now
        self._taken = self._refused = self._done = 0
        self._shortest = math.inf
