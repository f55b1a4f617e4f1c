"""The interface between the job cluster and the application's jobs. Settings name the application's functions."""

from collections.abc import Callable
from typing import NamedTuple

stop_requested: Callable[[], bool] = bool  # never
"""Set by the job cluster: true once it must end, so that a placement job finishes what it has in flight."""


class Demand(NamedTuple):
    jobs: list[str]
    """Dotted names of the jobs to start now."""
    wait: float
    """Seconds until it is worth asking again."""
    listen: bool
    """Whether the doorbell should cut that wait short."""
