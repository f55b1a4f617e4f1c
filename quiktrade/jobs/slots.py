"""Allows one job of a kind at a time on one machine, by a file lock, which the kernel drops with its process."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from django.conf import settings
from django.db import connection


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


def _path(job: str) -> Path:
    """The lock file, in a folder of this user alone. Its name depends on the checkout, the database and the node."""
    folder = Path(tempfile.gettempdir()) / f"quiktrade-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user; remove it or set TMPDIR")
    database = connection.settings_dict
    served = f"{settings.BASE_DIR} {database['HOST']} {database['PORT']} {database['NAME']} {settings.NODE_NAME}"
    return folder / f"{hashlib.sha256(served.encode()).hexdigest()[:16]}.{job}.lock"
