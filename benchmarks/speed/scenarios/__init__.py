"""The scenarios by name, in the order in which they are measured."""

from collections.abc import Callable

from benchmarks.speed.scenarios import (
    accept,
    batch,
    big,
    book,
    cancels,
    lag,
    mixed,
    moving,
    nodes,
    overload,
    placement,
    reads,
    reports,
    resume,
    streams,
    trickle,
    trouble,
    webhooks,
)
from benchmarks.speed.session import Session

SCENARIOS: dict[str, Callable[[Session], None]] = {
    "accept": accept.measure,
    "batch": batch.measure,
    "placement": placement.measure,
    "trickle": trickle.measure,
    "cancels": cancels.measure,
    "trouble": trouble.measure,
    "reads": reads.measure,
    "mixed": mixed.measure,
    "streams": streams.measure,
    "webhooks": webhooks.measure,
    "resume": resume.measure,
    "nodes": nodes.measure,
    "overload": overload.measure,
    "book": book.measure,
    "reports": reports.measure,
    "lag": lag.measure,
    "moving": moving.measure,
    "big": big.measure,
}
LONG = frozenset({"big"})
"""These are left out unless they are asked for: they take minutes, and gigabytes of disk."""
SLOW_TO_START = LONG | {"trouble", "nodes", "moving"}
"""These are left out of a quick run: most of their time is the starting and stopping of workers, or the filling of a
table."""
