"""Keeps a working job cluster: starts one, and replaces it when it ends or when its heartbeat stops.

It is a separate program without Django: it must survive when nothing else does, and shares no memory with the cluster
that it starts (measured: 12 MB instead of 67).
"""

import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from quiktrade import processes
from quiktrade.logs import FieldFormatter

logger = logging.getLogger("quiktrade.jobs.watchdog")

HEARTBEAT_FILE = "QUIKTRADE_HEARTBEAT_FILE"
"""The environment variable with the file that the cluster touches at every heartbeat. It is not a row, because an
outage of the database is no reason to restart."""

STOP_SECONDS = 12.0
"""For a cluster that was asked to end: its FINISH_SECONDS and a little. `up` waits 15 s."""
LONGEST_PAUSE_SECONDS = 10.0


def become(*, node: str, stale_seconds: float, log_level: str) -> NoReturn:
    """Replace this process by a watchdog."""
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = ["run_worker", sys.argv[0], node, str(stale_seconds), log_level]
    places = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **processes.lifeline_kept(), "PYTHONPATH": os.pathsep.join(places)}
    os.execve(sys.executable, [sys.executable, "-m", __name__, *arguments], environment)  # noqa: S606  this program


class Watchdog:
    def __init__(self, manage: str, node: str, stale_seconds: float) -> None:
        self._manage = manage
        self._node = node
        self._stale_seconds = stale_seconds
        self._stopping = False
        self._lifeline, self._held = os.pipe()  # ends when this process does, however early in the cluster's life

    def run(self) -> None:
        """Keep a cluster running until SIGTERM or SIGINT, then let it finish what it has in flight."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        pause = 0.0
        with tempfile.TemporaryDirectory(prefix="quiktrade-") as folder:
            while not self._stopping:
                started = time.monotonic()
                self._run_cluster(Path(folder) / "heartbeat")
                lived = time.monotonic() - started
                pause = 0.0 if lived > 5 else min(LONGEST_PAUSE_SECONDS, max(0.5, pause * 2))
                end = time.monotonic() + pause
                while not self._stopping and time.monotonic() < end:
                    time.sleep(0.1)

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _run_cluster(self, file: Path) -> None:
        file.touch()  # it counts from its start
        cluster = processes.Child(
            [sys.executable, self._manage, "qcluster"], self._lifeline, {HEARTBEAT_FILE: str(file)}
        )
        logger.info("Job cluster started", extra={"pid": cluster.pid, "node": self._node})
        beat, heard_at = 0, time.monotonic()
        try:
            while cluster.alive and not self._stopping:
                if (latest := file.stat().st_mtime_ns) != beat:
                    beat, heard_at = latest, time.monotonic()
                silent = time.monotonic() - heard_at
                if silent > self._stale_seconds:
                    logger.critical("Job cluster stopped working: replacing it", extra={"silent": round(silent)})
                    return
                time.sleep(0.25)
            if not self._stopping:
                logger.critical("Job cluster ended: starting another", extra={"status": cluster.status})
                return
            cluster.ask_to_end()
            if not cluster.wait(STOP_SECONDS):
                logger.error("Job cluster did not end in time: killed", extra={"seconds": STOP_SECONDS})
        finally:
            cluster.end_group()


def _main(manage: str, node: str, stale_seconds: str, log_level: str) -> None:
    processes.end_with_parent()
    handler = logging.StreamHandler()
    handler.setFormatter(FieldFormatter())
    logging.basicConfig(level=log_level, handlers=[handler])
    Watchdog(manage, node, float(stale_seconds)).run()


if __name__ == "__main__":
    _main(*sys.argv[2:])
