"""Where the code that serves a request waits, for the database as a rule, and may be one of many in its thread.

It says so by these two functions. A thread that works by turns (quiktrade/turns.py) has the waiting done elsewhere, and
goes on with other requests meanwhile; in any other thread they just call.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")


class ByTurns(Protocol):
    def gather(self, function: Callable[[list[Any]], None], item: Any) -> None: ...


_of_thread = threading.local()


def by_turns(turns: ByTurns) -> None:
    """Say how this thread waits."""
    _of_thread.turns = turns


def aside(function: Callable[[], T]) -> T:
    """Call a function that waits."""
    results: list[T] = []
    gather(lambda _: results.append(function()), None)
    return results[0]


def gather(function: Callable[[list[Item]], None], item: Item) -> None:
    """Have a function called that waits, with this item and those that others bring meanwhile; return after that.

    One such call is under way at a time. If it raises, it does for all whose items it has, and for those who wait
    for the next.
    """
    turns: ByTurns | None = getattr(_of_thread, "turns", None)
    if turns is None:
        function([item])
    else:
        turns.gather(function, item)
