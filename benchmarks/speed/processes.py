"""Processor time and memory of a process and all its descendants, from /proc. It needs Linux."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def family(root: int) -> list[int]:
    """The process and its descendants that live now; none if it has ended."""
    children: dict[int, list[int]] = {}
    living = set()
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (fields := _stat(int(entry))):
            living.add(int(entry))
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [root] if root in living else []
    for pid in found:  # the list grows during the loop
        found += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """Processor time of the family since it began. A child that has ended counts with the parent that waited."""
    ticks = 0
    for pid in family(root):
        if fields := _stat(pid):
            ticks += sum(map(int, fields[11:15]))  # user and system time, own and of children waited for
    return ticks / _TICKS


def memory_bytes(root: int) -> list[int]:
    """The memory that each process of the family takes, the largest first.

    It is PSS, which divides shared pages among the processes that share them, so the sum is what all of them take.
    """
    each = []
    for pid in family(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has just ended
        each.append(sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")))
    return sorted(each, reverse=True)


class CpuMeter:
    """Counts the processor time of named families from its creation on."""

    def __init__(self, roots: dict[str, int]) -> None:
        self._roots = roots
        self._before = {name: cpu_seconds(root) for name, root in roots.items()}

    def read(self) -> dict[str, float]:
        return {name: max(0.0, cpu_seconds(root) - self._before[name]) for name, root in self._roots.items()}


def milliseconds_each(seconds: dict[str, float], count: int) -> dict[str, float]:
    """Processor time by family, divided by what was done in it."""
    return {name: round(1000 * value / max(1, count), 4) for name, value in seconds.items()}


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the third on: the second, the name, may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
