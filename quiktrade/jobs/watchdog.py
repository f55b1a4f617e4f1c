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
from quiktrade.logs import formatter
from quiktrade.metrics import place

logger = logging.getLogger("quiktrade.jobs.watchdog")

HEARTBEAT_FILE = "QUIKTRADE_HEARTBEAT_FILE"
"""The environment variable with the file that the cluster touches at every heartbeat. It is not a row, because an
outage of the database is no reason to restart."""

STOP_SECONDS = 12.0
"""How long a cluster that was asked to end may take: a little more than its FINISH_SECONDS. `up` waits 15 s."""
LONGEST_PAUSE_SECONDS = 10.0


def become(*, node: str, stale_seconds: float, log_level: str) -> NoReturn:
    """Replace this process by a watchdog."""
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = ["run_worker", sys.argv[0], node, str(stale_seconds), log_level]
    places = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **processes.lifeline_kept(), "PYTHONPATH": os.pathsep.join(places)}
    os.execve(sys.executable, [sys.executable, "-m", __name__, *arguments], environment)  # noqa: S606  this program


class _Cluster(processes.KeptRunning):
    LIVED_SECONDS = 5.0  # a cluster that was replaced has lived as long as a heartbeat may be late


class Watchdog:
    def __init__(self, manage: str, node: str, stale_seconds: float) -> None:
        self._manage = manage
        self._node = node
        self._stale_seconds = stale_seconds
        self._stopping = False
        self._lifeline = processes.Lifeline()
        self._file = Path()
        self._beat = 0
        self._heard_at = 0.0

    def run(self) -> None:
        """Keep a cluster running until SIGTERM or SIGINT, then let it finish what it has in flight."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        cluster = _Cluster(self._start, longest_pause=LONGEST_PAUSE_SECONDS, say=self._say_ended)
        with tempfile.TemporaryDirectory(prefix="quiktrade-") as folder:
            self._file = Path(folder) / "heartbeat"
            try:
                while not self._stopping:
                    cluster.tend()
                    if cluster.pid and (silent := self._silent_seconds()) > self._stale_seconds:
                        logger.critical(
                            "Job cluster stopped working: replacing it",
                            extra={"event": "cluster.silent", "silent": round(silent)},
                        )
                        cluster.kill()
                    time.sleep(0.25)
                if not cluster.end((signal.SIGTERM, STOP_SECONDS)):
                    logger.error(
                        "Job cluster did not end in time: killed",
                        extra={"event": "cluster.killed", "seconds": STOP_SECONDS},
                    )
            finally:
                cluster.kill()

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _start(self) -> processes.Child:
        self._file.touch()
        self._beat = self._file.stat().st_mtime_ns
        # Starting takes a while besides: on a busy machine it would be killed before its first heartbeat, for ever.
        self._heard_at = time.monotonic() + self._stale_seconds
        command = [sys.executable, self._manage, "qcluster"]
        cluster = processes.Child(command, self._lifeline.fileno(), {HEARTBEAT_FILE: str(self._file)})
        logger.info("Job cluster started", extra={"event": "cluster.started", "pid": cluster.pid, "node": self._node})
        return cluster

    @staticmethod
    def _say_ended(how: str) -> None:
        logger.critical("Job cluster does not run", extra={"event": "cluster.ended", "cause": how})

    def _silent_seconds(self) -> float:
        """The seconds since its last heartbeat, below 0 while it starts, by the monotonic clock: a file's time can be
        set."""
        if (latest := self._file.stat().st_mtime_ns) != self._beat:
            self._beat, self._heard_at = latest, time.monotonic()
        return time.monotonic() - self._heard_at


def _main(manage: str, node: str, stale_seconds: str, log_level: str) -> None:
    processes.end_with_parent()
    place.hold()
    handler = logging.StreamHandler()
    handler.setFormatter(formatter())
    logging.basicConfig(level=log_level, handlers=[handler])
    Watchdog(manage, node, float(stale_seconds)).run()


if __name__ == "__main__":
    _main(*sys.argv[2:])
