"""One thread works on many requests by turns: while one of them waits, it goes on with the others.

Threads that take requests from each other pass Python's lock back and forth at every read, write and wait: half of the
processor time of a small request went into that. Here a request is a greenlet. The code that serves it is the plain
code that a thread would run; where it waits it says so (quiktrade/waiting.py), and that is done in another thread.
Whatever does not say so is waited for by all.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, cast

from greenlet import getcurrent, greenlet

from quiktrade import waiting


class _Pile:
    """What waits for one function."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.greenlets: list[greenlet] = []


class Turns:
    """A thread's. `elsewhere(f)` has another thread call f; `ring()` is called there, and is to lead to `resume()`."""

    def __init__(self, elsewhere: Callable[[Callable[[], None]], object], ring: Callable[[], None]) -> None:
        self._elsewhere = elsewhere
        self._ring = ring
        self._thread = getcurrent()
        self._piles: dict[Any, _Pile] = {}
        """By function, for each of which a call is under way or is to be: what waits for the next."""
        self._new: list[Any] = []
        self._ended: deque[tuple[Any, list[greenlet], BaseException | None]] = deque()
        waiting.by_turns(self)

    def start(self, task: Callable[[], None]) -> None:
        """Work on a task until it ends or waits for something. It must not raise."""
        greenlet(task).switch()

    def send_off(self) -> None:
        """Have done what those wait for who started since the last time: one call for many."""
        new, self._new = self._new, []
        for function in new:
            self._call(function)

    def resume(self) -> None:
        """Go on with those whose waiting is over."""
        while self._ended:
            function, greenlets, error = self._ended.popleft()
            behind = self._piles[function]
            if not behind.items:
                del self._piles[function]
            elif error is None:
                self._call(function)
            else:
                greenlets += self._piles.pop(function).greenlets
            for each in greenlets:
                each.switch(error)
        self.send_off()

    def gather(self, function: Callable[[list[Any]], None], item: Any) -> None:
        """See waiting.gather()."""
        current = getcurrent()
        if current is self._thread:  # no task
            function([item])
            return
        if function not in self._piles:
            self._piles[function] = _Pile()
            self._new.append(function)
        pile = self._piles[function]
        pile.items.append(item)
        pile.greenlets.append(current)
        error = cast(BaseException | None, self._thread.switch())
        if error is not None:
            raise error

    def _call(self, function: Callable[[list[Any]], None]) -> None:
        pile, self._piles[function] = self._piles[function], _Pile()

        def call() -> None:
            error = None
            try:
                function(pile.items)
            except BaseException as raised:
                error = raised
            self._ended.append((function, pile.greenlets, error))
            self._ring()

        self._elsewhere(call)
