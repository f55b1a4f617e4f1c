"""django-q2's process tree, made to fail as a whole.

The stock sentinel replaces any process that dies. But a worker killed while it waits for a task, or the
monitor killed while it waits for a result, dies holding the lock of a queue they share: everything looks
alive, and nothing moves (django-q2 issues 23 and 339, version 1.11.1). Here such a death ends the tree, after
the busy workers have finished what they have in flight; the watchdog starts a new one. No process outlives
its parent.
"""

import contextlib
import ctypes
import logging
import multiprocessing.util
import os
import resource
import signal
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue
from typing import Any

import django_q.cluster
import django_q.conf
from django.conf import settings
from django.db import DatabaseError, connection
from django.utils.module_loading import import_string
from django_q.signals import post_execute_in_worker, post_spawn

from quiktrade import memory
from quiktrade.database.connection import WORKER, bound_waits
from quiktrade.jobs import work
from quiktrade.metrics import listener
from quiktrade.metrics.names import CLUSTER_STARTS, JOB_SECONDS
from quiktrade.tracing import spans

logger = logging.getLogger(__name__)

FINISH_SECONDS = 10.0
"""This is longer than a venue's deadline and the writing of its outcomes."""

_BUSY = 0.0  # a worker's timer counts down from its time-out while it runs a job, and is negative otherwise
_RECYCLED = -2

# Shared with every child by fork. Without a lock: a process killed inside an Event's lock would hold it for ever.
_stop = RawValue(c_bool, False)


class _Stop:
    """A flag with the interface that django-q2's guard uses. A signal handler sets it, and must hold no lock."""

    @staticmethod
    def is_set() -> bool:
        return bool(_stop.value)

    @staticmethod
    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        return bool(_stop.value)


class SafeSentinel(django_q.cluster.Sentinel):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(_Stop, threading.Event(), uuid.uuid4(), start=False)

    def reincarnate(self, process: Any) -> None:
        """Replace a process that ended; end the whole tree if its death may have left a queue locked."""
        is_worker = process not in (self.monitor, self.pusher)
        timer = process.timer.value if is_worker else 0.0
        if process is self.pusher or (is_worker and (timer >= _BUSY or int(timer) == _RECYCLED)):
            super().reincarnate(process)
            return
        what = "worker" if is_worker else "monitor"
        logger.critical(
            "A process died at its queue: ending this cluster",
            extra={"event": "cluster.process_died", "role": what, "pid": process.pid},
        )
        _stop.value = True
        end = time.monotonic() + FINISH_SECONDS
        while time.monotonic() < end and any(p.is_alive() and p.timer.value > _BUSY for p in self.pool):
            time.sleep(0.05)
        for child in [*self.pool, self.pusher, self.monitor]:
            child.kill()
        os._exit(1)


def run() -> int:
    """Run a cluster until SIGTERM or SIGINT, or until it breaks. Returns an exit status.

    This process is its guard. django-q2 would make another for that, to wait for it here.
    """
    work.stop_requested = lambda: bool(_stop.value)
    post_spawn.connect(_warm_up, dispatch_uid="quiktrade.jobs.cluster")
    post_execute_in_worker.connect(_measure, dispatch_uid="quiktrade.jobs.cluster")
    CLUSTER_STARTS().inc()
    os.register_at_fork(after_in_child=_child)
    _die_with_parent()
    _open_files_enough()
    bound_waits(WORKER)
    with contextlib.suppress(DatabaseError):  # the database is away: that only costs memory
        import_string(settings.JOBS_PRELOAD)()
    spans.preload()
    connection.close()
    sentinel = SafeSentinel()
    # A sentinel installs its own signal handlers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _request_stop)
    memory.settle()
    # This process has imported everything. A job process that uses more memory is replaced after its job: Python does
    # not return the memory that a thousand requests in flight once used (20 to 35 MB).
    django_q.conf.Conf.MAX_RSS = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        sentinel.start()
    except Exception:
        logger.critical("The guard failed: ending this cluster", exc_info=True, extra={"event": "cluster.guard_failed"})
        os._exit(1)  # without a guard it would continue half broken
    return 0


def _request_stop(number: int, frame: object) -> None:
    _stop.value = True


def _child() -> None:
    _die_with_parent()
    # Only the main process reacts: a SIGTERM to the whole group must not cut requests to a venue off.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _die_with_parent() -> None:
    """Have this process end with its parent. On Linux the kernel does it; elsewhere the watchdog ends the group."""
    if sys.platform == "linux":
        parent_death_signal = 1
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


def _open_files_enough() -> None:
    """Raise the soft limit on open files: the usual 1,024 leaves no room for a venue's 1,024 connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65_536, most) if most > 0 else 65_536, most))


def _warm_up(**kwargs: Any) -> None:
    listener.serve()
    spans.start("worker")
    multiprocessing.util.Finalize(None, spans.end, exitpriority=1)  # such a process runs no functions of atexit
    try:
        import_string(settings.JOBS_WARM_UP)()
    except Exception as error:  # the database is away: the first job will connect
        logger.warning("Worker not warmed up", extra={"event": "cluster.not_warmed_up", "error": str(error).strip()})


def _measure(task: Mapping[str, Any], **kwargs: Any) -> None:
    job = task["func"] if isinstance(task["func"], str) else "other"
    seconds = (task["stopped"] - task["started"]).total_seconds() if "stopped" in task else 0.0
    JOB_SECONDS(job, "yes" if task.get("success") else "no").observe(max(0.0, seconds))
