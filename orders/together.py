"""Orders that arrive at the same time are stored together.

A statement of its own for every order costs PostgreSQL five times as much as a row of a larger statement, and each
has its own wait for the disk. So in each process one request at a time stores orders, and whoever comes meanwhile is
taken along by the next: nobody waits for company, and under load there is company.

What is promised does not change: every caller returns when its own orders are committed.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from threading import Lock
from uuid import UUID

from django.db import DatabaseError, InterfaceError, OperationalError, connection

from orders import lifecycle
from orders.lifecycle import NewRow
from quiktrade import waiting
from quiktrade.database.connection import is_gone
from quiktrade.database.durability import durable

MOST_ROWS = 500
MOST_WAITS = 2
"""Of a group that was held up, so many are waited for again, one by one."""

_HELD_UP = ("55P03", "40P01")  # lock_not_available, deadlock_detected

Stored = Mapping[UUID, datetime]


class _Request:
    """Rows that are stored or not together, and what became of them."""

    def __init__(self, rows: Sequence[NewRow]) -> None:
        self.rows = rows
        self.stored: Stored = {}  # perhaps with those of others
        self.error: Exception | None = InterfaceError("The database was gone before it was its turn.")


class _Caller:
    """A thread, with the requests that it answers."""

    def __init__(self, requests: Sequence[_Request]) -> None:
        self.requests = requests
        self.rows = sum(len(request.rows) for request in requests)
        self.leads = False
        self.database_gone = False
        self._called = Lock()
        self._called.acquire()

    def wait(self) -> None:
        self._called.acquire()

    def call(self) -> None:
        self._called.release()


class _DatabaseGone(Exception):
    """Whoever waits for the next statement need not: nothing of theirs was sent."""


_lock = Lock()
_waiting: list[_Caller] = []
_led = False


def accept(rows: Sequence[NewRow]) -> Stored:
    """Store orders durably, as `lifecycle.accept()` does, perhaps with those of others. Raises: NotDurable."""
    if connection.in_atomic_block:  # its end is the caller's to decide: nobody else's orders may hang on it
        return _store(rows)
    request = _Request(rows)
    with suppress(_DatabaseGone):  # what that means for these, `error` says
        waiting.gather(_submit, request)
    if request.error is not None:
        raise request.error
    return {row.id: request.stored[row.id] for row in rows if row.id in request.stored}


def _submit(requests: Sequence[_Request]) -> None:
    """Store for these, perhaps with those of other threads. Raises: _DatabaseGone."""
    global _led
    mine = _Caller(requests)
    with _lock:
        _waiting.append(mine)
        mine.leads, _led = not _led, True
    if not mine.leads:
        mine.wait()
    if mine.leads:
        _lead()
    if mine.database_gone:
        raise _DatabaseGone


def _lead() -> None:
    """Store for a group of callers, the leading one the first of them; then have the next one lead, if there is one."""
    global _led
    with _lock:
        size = rows = 0
        while size < len(_waiting) and (not size or rows + _waiting[size].rows <= MOST_ROWS):
            rows += _waiting[size].rows
            size += 1
        group = _waiting[:size]
        del _waiting[:size]
    requests = [request for caller in group for request in caller.requests]
    try:
        _store_group(requests)
    finally:
        error = requests[0].error
        gone = error is not None and is_gone(error)
        with _lock:
            if error and gone:
                # They would wait as long again for the same answer; nothing of theirs was sent.
                _fail([request for caller in _waiting for request in caller.requests], error)
                group += _waiting
                _waiting.clear()
                for caller in group:
                    caller.database_gone = True
            _led = bool(_waiting)
            if _led:
                _waiting[0].leads = True
                _waiting[0].call()
        for caller in group[1:]:
            caller.call()


def _store_group(group: Sequence[_Request]) -> None:
    try:
        stored = _store([row for request in group for row in request.rows])
    except Exception as error:
        if len(group) > 1 and _is_of_one(error):  # the others are not to suffer for it
            _store_one_by_one(group)
        else:
            _fail(group, error)
    else:
        for request in group:
            request.stored, request.error = stored, None


def _store_one_by_one(group: Sequence[_Request]) -> None:
    waits = 0
    for request in group:
        if waits < MOST_WAITS:
            _store_group([request])
            waits += isinstance(request.error, OperationalError)
        else:
            request.error = OperationalError("Other orders held it up.")


def _is_of_one(error: Exception) -> bool:
    """Whether it was about one of the rows: its values, or a lock that it had to wait for."""
    if isinstance(error, OperationalError):
        return getattr(error.__cause__, "sqlstate", None) in _HELD_UP
    return isinstance(error, DatabaseError) and not isinstance(error, InterfaceError)


def _fail(group: Sequence[_Request], error: Exception) -> None:
    for request in group:
        request.error = error


def _store(rows: Sequence[NewRow]) -> Stored:
    with durable():
        return lifecycle.accept(rows)
