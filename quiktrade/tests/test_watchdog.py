"""The watchdog in a separate process, with a small program in place of the job cluster."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from quiktrade.local.venv import ROOT
from quiktrade.tests.places import processes_of
from quiktrade.tests.processes import wait_until

# Every run writes a line with its number; `how` says what it does then. It sends a heartbeat only if slow.
CLUSTER = """
import os, pathlib, signal, sys, time
place, how = pathlib.Path(__file__).parent, "{how}"
def end(*_):
    (place / "asked").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
if how == "parent" and os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(place / "started", "a") as started:
    started.write(str(os.getpid()) + "\\n")
if how == "failing":
    sys.exit(3)
if how == "slow":
    time.sleep(5)
    pathlib.Path(os.environ["QUIKTRADE_HEARTBEAT_FILE"]).touch()
    (place / "beating").touch()
time.sleep(60)
"""


class Running:
    def __init__(self, place: Path, how: str, stale_seconds: float) -> None:
        self._place = place
        manage = place / "manage.py"
        manage.write_text(CLUSTER.format(how=how))
        command = [sys.executable, "-m", "quiktrade.jobs.watchdog", "run_worker", str(manage), "node"]
        with open(place / "log", "wb") as log:
            self.process = subprocess.Popen([*command, str(stale_seconds), "INFO"], cwd=ROOT, stdout=log, stderr=log)

    @property
    def output(self) -> str:
        return (self._place / "log").read_text()

    @property
    def started(self) -> list[int]:
        file = self._place / "started"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


Run = Callable[[str, float], Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    yield lambda how, stale_seconds: Running(tmp_path, how, stale_seconds)
    for process in processes_of(tmp_path):
        process.kill()


def test_a_cluster_whose_heartbeat_stops_is_replaced(run: Run) -> None:
    watchdog = run("silent", 1.0)
    wait_until(lambda: len(watchdog.started) == 2)
    assert not psutil.pid_exists(watchdog.started[0])
    assert "Job cluster stopped working: replacing it" in watchdog.output
    assert watchdog.stop() == 0


@pytest.mark.exhaustive
def test_a_cluster_may_take_longer_to_start_than_between_two_heartbeats(run: Run, tmp_path: Path) -> None:
    watchdog = run("slow", 4.0)
    wait_until((tmp_path / "beating").exists)
    assert len(watchdog.started) == 1
    assert watchdog.stop() == 0


def test_a_cluster_that_keeps_ending_is_started_again_at_growing_intervals(run: Run) -> None:
    watchdog = run("failing", 60.0)
    wait_until(lambda: "in 2 s" in watchdog.output)
    pauses = re.findall(r"exit status 3; starting it again in (\S+) s", watchdog.output)
    assert pauses == ["0.5", "1", "2"]
    assert len(watchdog.started) >= 3
    assert watchdog.stop() == 0


def test_nothing_is_left_of_a_killed_cluster_when_the_next_one_starts(run: Run) -> None:
    watchdog = run("parent", 60.0)
    wait_until(lambda: len(watchdog.started) == 2)  # it and its child, which ignores the request to end
    left = [psutil.Process(number) for number in watchdog.started]
    parent = next(process for process in left if process.ppid() == watchdog.process.pid)
    os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: len(watchdog.started) == 4)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in left)
    watchdog.stop(signal.SIGINT)


def test_a_watchdog_that_is_asked_to_end_asks_the_cluster_and_starts_no_other(run: Run, tmp_path: Path) -> None:
    watchdog = run("silent", 60.0)
    wait_until(lambda: watchdog.started)
    assert watchdog.stop() == 0
    assert (tmp_path / "asked").exists()
    assert processes_of(tmp_path) == []
    assert "does not run" not in watchdog.output
    assert len(watchdog.started) == 1
