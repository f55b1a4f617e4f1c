"""Work that arrives at the same time is done with one statement.

A statement of its own for every order costs PostgreSQL five times as much as a row of a larger statement, and each
has its own wait for the disk. So in each process one request at a time does such work, the leader, and those that
arrive meanwhile follow: the next leader does theirs together with its own. No leader waits for others to arrive; under
load they have.

A request is a thread or, in the process that serves the API, a greenlet. It gives its pooled connection back before
it follows a leader, and when it has led: the next leader needs one, and the others could hold all that there are.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError

from quiktrade.database.connection import is_gone
from quiktrade.database.pool import give_back

Item = TypeVar("Item")

MOST_WAITS = 2
"""If a lock made a group's statement fail, its items are done one by one, until this many have failed likewise."""

_HELD_UP = ("55P03", "40P01")  # lock_not_available, deadlock_detected


class Batcher(Generic[Item]):
    """Calls `work` with the items of one or more callers, one call at a time in this process.

    `work` does all of its items or raises, and stores results in the items. If the error is about an item (its values,
    or a lock that it waited for), `work` is called with each item alone: no item fails because of another. If the
    connection is lost, all waiting callers get the error at once instead of waiting for it in turn.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], None], *, most: int, size: Callable[[Item], int] = lambda item: 1
    ) -> None:
        """`most` bounds the sum of the sizes in one call; a single item may be larger."""
        self._work = work
        self._most = most
        self._size = size
        self._lock = threading.Lock()
        self._waiting: list[_Entry[Item]] = []
        self._led = False

    @property
    def idle(self) -> bool:
        return not self._led and not self._waiting

    @property
    def waiting(self) -> int:
        """How many callers wait for the next call."""
        return len(self._waiting)

    def do(self, item: Item) -> None:
        """Call `work` with this item, perhaps together with those of other callers. Raises what `work` raised."""
        entry = _Entry(item)
        with self._lock:
            self._waiting.append(entry)
            entry.leads, self._led = not self._led, True
            if not entry.leads:
                entry.fall_asleep()
        if not entry.leads:
            try:
                give_back()
                entry.wait()
            except BaseException:  # this request is ended by force
                self._leave(entry)
                raise
        if entry.leads:
            self._lead()
        if entry.error is not None:
            raise entry.error

    def _lead(self) -> None:
        """Do a group's work, the leader's own item first; then make the next waiting caller the leader."""
        group: list[_Entry[Item]] = []
        try:
            with self._lock:
                group += self._next_group()
            self._do(group)
        finally:  # whatever ended the leader, its followers are woken
            error = group[0].error if group else None
            with self._lock:
                if error is not None and not isinstance(error, _Ended) and is_gone(error):
                    for entry in self._waiting:
                        entry.error = error
                    group += self._waiting
                    self._waiting.clear()
                self._appoint()
            for entry in group[1:]:
                entry.wake()
            give_back()

    def _next_group(self) -> "list[_Entry[Item]]":
        count = total = 0
        while count < len(self._waiting):
            total += self._size(self._waiting[count].item)
            if count and total > self._most:
                break
            count += 1
        group = self._waiting[:count]
        del self._waiting[:count]
        return group

    def _appoint(self) -> None:
        """Make the first waiting caller the leader, if there is one."""
        self._led = bool(self._waiting)
        if self._led:
            self._waiting[0].leads = True
            self._waiting[0].wake()

    def _leave(self, entry: "_Entry[Item]") -> None:
        """Leave the waiting callers, and give up the lead. A call of `work` that has begun cannot be withdrawn."""
        with self._lock, suppress(ValueError):
            self._waiting.remove(entry)
            if entry.leads:
                self._appoint()

    def _do(self, group: "Sequence[_Entry[Item]]") -> None:
        try:
            self._work([entry.item for entry in group])
        except Exception as error:
            if len(group) > 1 and _is_of_one(error):  # the others must not suffer for it
                self._do_one_by_one(group)
            else:
                for entry in group:
                    entry.error = error
        else:
            for entry in group:
                entry.error = None

    def _do_one_by_one(self, group: "Sequence[_Entry[Item]]") -> None:
        waits = 0
        for entry in group:
            if waits < MOST_WAITS:
                self._do([entry])
                waits += isinstance(entry.error, OperationalError)
            else:
                entry.error = OperationalError("Other requests held it up.")


class _Ended(InterfaceError):
    """A follower does not know what became of its item; callers that wait for the next call are not affected."""


class _Entry(Generic[Item]):
    """The item of one caller, and what became of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.error: Exception | None = _Ended("The request that led this one was ended before its answer.")
        self.leads = False

    def fall_asleep(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wait(self) -> None:
        self._asleep.acquire()

    def wake(self) -> None:
        self._asleep.release()


def _is_of_one(error: Exception) -> bool:
    """Whether the error is about one of the items: its values, or a lock that it had to wait for."""
    if isinstance(error, OperationalError):
        return getattr(error.__cause__, "sqlstate", None) in _HELD_UP
    return isinstance(error, DatabaseError) and not isinstance(error, InterfaceError)
