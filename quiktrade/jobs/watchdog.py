"""Keeps a working job cluster: starts one, and replaces it when it ends or when its heartbeat stops."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from django.conf import settings

from quiktrade import children
from quiktrade.jobs import heartbeat

logger = logging.getLogger(__name__)

STOP_SECONDS = 12.0
"""For a cluster that was asked to end: its FINISH_SECONDS and a little. `up` waits 15 s."""
LONGEST_PAUSE_SECONDS = 10.0


class Watchdog:
    def __init__(self) -> None:
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
        cluster = subprocess.Popen(
            [sys.executable, sys.argv[0], "qcluster"],
            stdin=self._lifeline,
            start_new_session=True,
            env={**os.environ, heartbeat.FILE_VARIABLE: str(file), children.LIFELINE: "1"},
        )
        logger.info("Job cluster started", extra={"pid": cluster.pid, "node": settings.NODE_NAME})
        beat, heard_at = 0, time.monotonic()
        try:
            while cluster.poll() is None and not self._stopping:
                if (latest := file.stat().st_mtime_ns) != beat:
                    beat, heard_at = latest, time.monotonic()
                silent = time.monotonic() - heard_at
                if silent > settings.JOBS_STALE_SECONDS:
                    logger.critical("Job cluster stopped working: replacing it", extra={"silent": round(silent)})
                    return
                time.sleep(0.25)
            if self._stopping:
                cluster.terminate()
                cluster.wait(STOP_SECONDS)
            else:
                logger.critical("Job cluster ended: starting another", extra={"status": cluster.returncode})
        except subprocess.TimeoutExpired:
            logger.error("Job cluster did not end in time: killed", extra={"seconds": STOP_SECONDS})
        finally:
            _kill_group(cluster)


def _kill_group(cluster: subprocess.Popen[bytes]) -> None:
    """End what is left of the cluster, its children included, even after its own end."""
    try:
        os.killpg(cluster.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    cluster.wait()
