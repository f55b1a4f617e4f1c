"""The scenarios by name, in the order in which they are measured."""

from collections.abc import Callable

from benchmarks.speed.scenarios import accept, batch, big, mixed, nodes, overload, placement, reads, trickle, trouble
from benchmarks.speed.session import Session

SCENARIOS: dict[str, Callable[[Session], None]] = {
    "accept": accept.measure,
    "batch": batch.measure,
    "placement": placement.measure,
    "trickle": trickle.measure,
    "trouble": trouble.measure,
    "reads": reads.measure,
    "mixed": mixed.measure,
    "nodes": nodes.measure,
    "overload": overload.measure,
    "big": big.measure,
}
LONG = frozenset({"big"})
"""These are left out unless they are asked for: they take minutes, and gigabytes of disk."""
SLOW_TO_START = LONG | {"trouble", "nodes"}
"""These are left out of a quick run: most of their time is the starting and stopping of workers."""
