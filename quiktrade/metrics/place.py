"""The folder in which the processes of one machine keep what they count, and each process's slot in it.

prometheus_client keeps the numbers of a process in files that are mapped into its memory, and adds the files of all
processes up when it is asked. It names files by process ids as a rule. Then each process that ever ran leaves files
behind, and reading them takes longer and longer. Here files are named by slots. A process holds the lowest free slot
by a lock on a file, which the kernel drops with the process, however it ends. The next holder goes on with the numbers
that it finds: nothing is lost with a process that was killed, and there are as many files as slots.

The folder is emptied by the first process that comes to it while no other is there. A parent that outlives the
processes that count, as gunicorn's own does, therefore calls `enter`, too. Uses only the standard library.
"""

import hashlib
import itertools
import os
from contextlib import suppress
from pathlib import Path

from quiktrade.file_lock import open_lock, try_lock, wait_for_lock
from quiktrade.private_folder import private_folder

PORT = "QUIKTRADE_METRICS_PORT"
_CHECKOUT = Path(__file__).resolve().parents[2]


class Place:
    """The folder of the processes that share a port: those of one machine or container, and of one checkout."""

    def __init__(self, port: int) -> None:
        shared_by = hashlib.sha256(f"{_CHECKOUT} {port}".encode()).hexdigest()[:16]
        self.folder = private_folder() / f"metrics-{shared_by}"
        self._slot = ""
        self._slot_lock: int | None = None

    def enter(self) -> None:
        """Have the folder, empty unless another process uses it, for as long as this process lives.

        Raises: OSError.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        in_use = self.lock("in-use")
        if try_lock(in_use):
            for numbers in self.folder.glob("*.db"):
                numbers.unlink()
        wait_for_lock(in_use, shared=True)

    def lock(self, name: str) -> int:
        return open_lock(self.folder / f"{name}.lock")

    def slot(self) -> str:
        """The name of this process's slot. prometheus_client asks for it with every number that it writes."""
        if not self._slot:
            try:
                self._take_slot()
            except OSError:  # then its files cannot be made either, which `room` tells of
                self._slot = f"none{os.getpid()}"
        return self._slot

    def _take_slot(self) -> None:
        for number in itertools.count():
            lock = self.lock(f"slot-{number}")
            if try_lock(lock):
                break
            os.close(lock)
        # A gauge says how its process stands, and the process that held this slot before is gone.
        for gauges in self.folder.glob(f"gauge_*_{number}.db"):
            gauges.unlink()
        self._slot, self._slot_lock = str(number), lock

    def forget_the_dead(self) -> None:
        """Remove what processes said of how they stand whose slots nobody has taken over. What they counted stays."""
        for gauges in self.folder.glob("gauge_*.db"):
            lock = self.lock(f"slot-{gauges.stem.rpartition('_')[2]}")
            if try_lock(lock):
                gauges.unlink(missing_ok=True)
            os.close(lock)

    def forget_slot(self) -> None:
        """In a child after a fork: the slot is its parent's. Its own is taken with the first number that it writes."""
        if self._slot_lock is not None:
            os.close(self._slot_lock)
        self._slot, self._slot_lock = "", None


_held: list[Place] = []


def hold() -> None:
    """Keep the numbers while the processes that count are replaced. For their parent, which counts nothing itself.

    An address or a folder that cannot be used is for those who count to tell.
    """
    port = os.environ.get(PORT, "").strip()
    if port.isdecimal() and int(port):
        place = Place(int(port))
        with suppress(OSError):
            place.enter()
            _held.append(place)
