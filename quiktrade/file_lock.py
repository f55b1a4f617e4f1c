"""Advisory locks on files. The kernel drops the lock of a process that was killed: nothing goes stale.

A lock belongs to the open file, not to the process: a child that inherits the descriptor holds it too, and it
is free when the last copy is closed. So no code here unlocks what may have been inherited; it closes it.
"""

import fcntl
import os
from pathlib import Path


def open_lock(path: Path) -> int:
    """Open a lock file, made if absent. Returns a descriptor that is not passed on to other programs."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock, or change how it is held, without waiting. Returns whether that succeeded."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(descriptor: int, *, shared: bool = False) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock exclusively at this moment."""
    descriptor = open_lock(path)
    try:
        return not try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def is_shared(path: Path) -> bool:
    """Whether some process holds the lock shared at this moment."""
    descriptor = open_lock(path)
    try:
        return not try_lock(descriptor) and try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)
