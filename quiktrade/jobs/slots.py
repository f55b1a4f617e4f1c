"""Allows one job of a kind at a time on one machine, by a file lock, which the kernel drops with its process."""

import fcntl
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from django.conf import settings
from django.db import connection

from quiktrade.private_folder import private_folder

LOOK_SECONDS = 0.005
"""Who waits for a slot to be free looks this often. One look takes some microseconds."""


class Slot:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def release(self) -> None:
        """Release the slot. Releasing it twice is harmless."""
        self._file.close()


@contextmanager
def take(job: str) -> Iterator[Slot | None]:
    """The slot of this job, held to the end of the block or its release; None if another process has it."""
    with open(_path(job), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield Slot(file)


def taken(job: str) -> bool:
    with take(job) as slot:
        return slot is None


def freed(job: str, *, within: float) -> bool:
    """Wait until no process has the slot of this job, for this many seconds at most. Returns whether none has it."""
    end = time.monotonic() + within
    while taken(job):
        if time.monotonic() >= end:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _path(job: str) -> Path:
    """The lock file. Its name depends on the checkout, the database and the node."""
    database = connection.settings_dict
    served = f"{settings.BASE_DIR} {database['HOST']} {database['PORT']} {database['NAME']} {settings.NODE_NAME}"
    return private_folder() / f"{hashlib.sha256(served.encode()).hexdigest()[:16]}.{job}.lock"
