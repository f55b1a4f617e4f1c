"""Keeps a process alive that has no room on the disk for what it counts.

prometheus_client maps files of which the file system has not allocated the blocks yet. The first write to a page that
gets none raises SIGBUS, which ends the process. Here the blocks are allocated before they are mapped, and where there
are none, the number is not kept: nobody is refused an order because there is no room for a count.
"""

import logging
import os
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import _INITIAL_MMAP_SIZE, MmapedDict

logger = logging.getLogger(__name__)

_told: set[str] = set()


def use() -> None:
    """Have prometheus_client keep numbers this way. Called before the first metric is made."""
    values.MmapedDict = _open  # type: ignore[assignment, attr-defined]


class _Nowhere:
    """Takes what there is no room for."""

    def read_value(self, key: str) -> tuple[float, float]:
        return 0.0, 0.0

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """The number is lost."""

    def close(self) -> None:
        """There is nothing to close."""


class _Numbers(MmapedDict):
    """Numbers in a file whose blocks are there. Raises: OSError, from making it, where they are not."""

    def __init__(self, filename: str) -> None:
        with open(filename, "ab") as file:
            _allocate(file.fileno(), max(_INITIAL_MMAP_SIZE, file.tell()))
        super().__init__(filename)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        if self._used + len(key.encode()) + 32 > self._capacity:
            _allocate(self._f.fileno(), 2 * self._capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def read_value(self, key: str) -> Any:
        try:
            return super().read_value(key)  # type: ignore[no-untyped-call]
        except OSError as error:
            _tell(self._fname, error)
            return 0.0, 0.0

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        try:
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        except OSError as error:
            _tell(self._fname, error)


def _open(filename: str, read_mode: bool = False) -> _Numbers | _Nowhere:
    try:
        return _Numbers(filename)
    except OSError as error:
        _tell(filename, error)
        return _Nowhere()


def _allocate(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):  # macOS has none
        os.posix_fallocate(file, 0, size)


def _tell(filename: str, error: OSError) -> None:
    if filename not in _told:
        _told.add(filename)
        fields = {"event": "metrics.no_room", "file": os.path.basename(filename), "error": str(error)}
        logger.error("What this process counts is not kept", extra=fields)
