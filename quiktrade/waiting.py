"""Where the code that serves a request waits, for the database as a rule, and may be one of many in its thread.

It says so by these two functions. A thread that works by turns (quiktrade/turns.py) has the waiting done elsewhere, and
goes on with other requests meanwhile; in any other thread they just call.
"""

import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast

from quiktrade.database.connection import is_gone

T = TypeVar("T")
Item = TypeVar("Item")


class ByTurns(Protocol):
    def gather(self, function: Callable[[list[Any]], None], item: Any) -> None: ...


_of_thread = threading.local()


def by_turns(turns: ByTurns) -> None:
    """Say how this thread waits."""
    _of_thread.turns = turns


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


def aside(function: Callable[[], T]) -> T:
    """Call a function that waits. Raises what it raises."""
    call: _Call[T] = _Call(function)
    gather(_one_by_one, call)
    if call.error is not None:
        raise call.error
    return cast(T, call.result)


class _Call(Generic[T]):
    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.result: T | None = None
        self.error: Exception | None = None


def _one_by_one(calls: list[_Call[Any]]) -> None:
    for call in calls:
        try:
            call.result = call.function()
        except Exception as error:
            if is_gone(error):
                raise  # the others would wait as long again for the same answer
            call.error = error
