"""Child processes, with real ones: how they are started, watched, started again and ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from quiktrade.processes import Child, KeptRunning, Lifeline, how_it_ended, wait_for
from quiktrade.tests.processes import wait_until

SLEEPS = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
WITH_A_CHILD = """
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(60)
"""


@pytest.fixture
def lifeline() -> Iterator[int]:
    """Nobody writes to it; it ends with the test."""
    reading, held = os.pipe()
    yield reading
    os.close(reading)
    os.close(held)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    """The children that the test starts; all of them are killed after it."""
    started: list[Child] = []
    yield started
    for child in started:
        child.end_group()


def python(program: str, lifeline: int, *arguments: str, **popen: Any) -> Child:
    return Child([sys.executable, "-c", program, *arguments], lifeline, {}, **popen)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# ---- One child ----


def test_a_child_has_a_session_of_its_own_so_that_ctrl_c_is_its_parents_alone(lifeline: int, children: Any) -> None:
    child = python(SLEEPS, lifeline)
    children.append(child)
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    assert child.alive
    assert child.status is None


def test_a_child_that_is_asked_to_end_ends_by_that_signal(lifeline: int, children: Any) -> None:
    child = python(SLEEPS, lifeline)
    children.append(child)
    child.ask_to_end()
    assert child.wait(30)
    assert (child.status, child.alive) == (-signal.SIGTERM, False)


def test_a_frozen_child_hears_that_it_must_end(lifeline: int, children: Any) -> None:
    child = python(SLEEPS, lifeline)
    children.append(child)
    child.send(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
    child.ask_to_end()
    assert child.wait(30)


def test_waiting_says_whether_the_end_came_in_time(lifeline: int, children: Any) -> None:
    child = python(STUBBORN, lifeline, stdout=subprocess.PIPE)
    children.append(child)
    assert child.output is not None
    with child.output:
        assert child.output.readline() == b"up\n"
    child.ask_to_end()
    assert not child.wait(0.1)
    assert child.alive


def test_ending_the_group_leaves_nothing_of_what_the_child_has_started(
    lifeline: int, children: Any, tmp_path: Path
) -> None:
    file = tmp_path / "grandchild"
    child = python(WITH_A_CHILD, lifeline, str(file))
    children.append(child)
    wait_until(lambda: file.exists() and file.read_text())
    child.end_group()
    assert child.status == -signal.SIGKILL
    wait_until(lambda: is_gone(int(file.read_text())))


def test_ending_a_child_asks_in_one_way_after_the_other_and_kills_it_at_last(lifeline: int, children: Any) -> None:
    willing, stubborn = (python(STUBBORN, lifeline, stdout=subprocess.PIPE) for _ in range(2))
    for child in (willing, stubborn):
        children.append(child)
        assert child.output is not None
        with child.output:
            assert child.output.readline() == b"up\n"
    assert willing.end((signal.SIGTERM, 0.1), (signal.SIGQUIT, 30.0))
    assert willing.status == -signal.SIGQUIT
    assert not stubborn.end((signal.SIGTERM, 0.1))
    assert stubborn.status == -signal.SIGKILL


def test_a_program_without_a_lifeline_sees_the_environment_that_it_is_given_and_no_more(children: Any) -> None:
    program = "import os, sys; print(sorted(set(os.environ) - {'LC_CTYPE'}), repr(sys.stdin.read()))"
    child = Child([sys.executable, "-c", program], None, {"GIVEN": "1"}, stdout=subprocess.PIPE)
    children.append(child)
    assert child.output is not None
    with child.output:
        assert child.output.read() == b"['GIVEN'] ''\n"


def test_a_lifeline_ends_when_it_is_closed(children: Any) -> None:
    lifeline = Lifeline()
    child = python(f"from quiktrade import processes; processes.end_with_parent(); {SLEEPS}", lifeline.fileno())
    children.append(child)
    lifeline.close()
    assert child.wait(30)


def test_waiting_ends_when_what_is_waited_for_cannot_come_any_more() -> None:
    answers = iter([False, False, True])
    assert wait_for(lambda: next(answers), 30.0)
    answers = iter([False, True])
    assert not wait_for(lambda: next(answers), 30.0, unless=lambda: True)
    assert not wait_for(lambda: False, 0.0)


def test_signaling_a_group_says_whether_anybody_was_there(lifeline: int, children: Any) -> None:
    child = python(SLEEPS, lifeline)
    children.append(child)
    assert child.signal_group(signal.SIGKILL)
    child.wait()
    assert not child.signal_group(signal.SIGTERM)


def test_a_child_gets_the_environment_of_its_parent_and_what_is_added(
    lifeline: int, children: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_PARENT", "1")
    program = "import os; print(os.environ['OF_THE_PARENT'], os.environ['ADDED'], os.environ['QUIKTRADE_LIFELINE'])"
    child = Child([sys.executable, "-c", program], lifeline, {"ADDED": "2"}, stdout=subprocess.PIPE)
    children.append(child)
    assert child.output is not None
    with child.output:
        assert child.output.read() == b"1 2 1\n"


def test_a_child_ends_when_its_parent_was_killed(tmp_path: Path) -> None:
    file = tmp_path / "child"
    of_the_child = f"from quiktrade import processes; processes.end_with_parent(); {SLEEPS}"
    of_the_parent = (
        "import os, pathlib, sys, time\n"
        "from quiktrade.processes import Child\n"
        "reading, held = os.pipe()\n"
        f"child = Child([sys.executable, '-c', {of_the_child!r}], reading, {{}})\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", of_the_parent, str(file)])
    wait_until(lambda: file.exists() and file.read_text())
    parent.kill()
    parent.wait()
    wait_until(lambda: is_gone(int(file.read_text())))


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "SIGKILL"), (-15, "SIGTERM"), (-99, "signal 99")],
)
def test_how_a_process_ended_is_said_in_words(status: int, text: str) -> None:
    assert how_it_ended(status) == text


# ---- One that is started again ----


def tend_until(running: KeptRunning, condition: Callable[[], bool]) -> None:
    def met() -> bool:
        running.tend()
        return condition()

    wait_until(met)


class Kept:
    """A program that is started again, and the messages about it."""

    def __init__(self, lifeline: int, program: str, *arguments: str, longest_pause: float = 0.5) -> None:
        self.said: list[str] = []
        self.pids: list[int] = []
        self._lifeline, self._program, self._arguments = lifeline, program, arguments
        self.running = KeptRunning(self._start, longest_pause=longest_pause, say=self.said.append)

    def _start(self) -> Child:
        child = python(self._program, self._lifeline, *self._arguments)
        self.pids.append(child.pid)
        return child

    def tend_until_started(self, times: int) -> None:
        tend_until(self.running, lambda: len(self.pids) >= times)


@pytest.fixture
def kept(lifeline: int) -> Iterator[Kept]:
    kept = Kept(lifeline, SLEEPS)
    yield kept
    kept.running.kill()


def test_a_program_that_was_killed_is_started_again(kept: Kept) -> None:
    kept.tend_until_started(1)
    first = kept.running.pid
    assert first == kept.pids[0]
    os.kill(kept.pids[0], signal.SIGKILL)
    kept.tend_until_started(2)
    assert kept.running.pid == kept.pids[1] != first
    assert kept.running.starts == 2
    assert kept.said == ["ended: SIGKILL; starting it again in 0.5 s"]


def test_between_its_end_and_its_next_start_there_is_no_process(kept: Kept) -> None:
    kept.tend_until_started(1)
    os.kill(kept.pids[0], signal.SIGKILL)
    wait_until(lambda: kept.running.pid is None)
    kept.running.tend()
    kept.running.ask_to_end()  # nobody to ask
    assert kept.running.pid is None
    assert len(kept.pids) == 1


def test_one_that_ends_soon_each_time_waits_twice_as_long_up_to_a_bound(lifeline: int) -> None:
    kept = Kept(lifeline, "raise SystemExit(3)", longest_pause=1.0)
    kept.tend_until_started(3)
    tend_until(kept.running, lambda: len(kept.said) == 3)
    assert kept.said == [
        "ended: exit status 3; starting it again in 0.5 s",
        "ended: exit status 3; starting it again in 1 s",
        "ended: exit status 3; starting it again in 1 s",
    ]
    kept.running.kill()


def test_after_a_long_life_the_pauses_are_short_again(lifeline: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(lifeline, "raise SystemExit(0)", longest_pause=60.0)
    kept.tend_until_started(2)
    monkeypatch.setattr(KeptRunning, "LIVED_SECONDS", 0.0)  # whatever comes now has lived long
    tend_until(kept.running, lambda: len(kept.said) == 2)
    assert kept.said[1].endswith("in 0.5 s")
    kept.running.kill()


def test_a_program_that_cannot_be_started_is_tried_again() -> None:
    said: list[str] = []

    def start() -> Child:
        raise FileNotFoundError(2, "No such file or directory", "nowhere")

    running = KeptRunning(start, say=said.append)
    tend_until(running, lambda: running.starts == 2)
    assert said[0] == "did not start: No such file or directory; starting it again in 0.5 s"
    running.kill()  # nothing is there
    assert running.pid is None


def test_what_an_ended_program_left_behind_is_gone_before_the_next_one_starts(lifeline: int, tmp_path: Path) -> None:
    file = tmp_path / "grandchild"
    kept = Kept(lifeline, WITH_A_CHILD, str(file))
    kept.tend_until_started(1)
    wait_until(lambda: file.exists() and file.read_text())
    left_behind = int(file.read_text())
    os.kill(kept.pids[0], signal.SIGKILL)
    kept.tend_until_started(2)
    wait_until(lambda: is_gone(left_behind))  # it ignores SIGTERM
    kept.running.kill()


def test_waiting_for_one_that_does_not_end_kills_it(lifeline: int) -> None:
    kept = Kept(lifeline, STUBBORN)
    kept.tend_until_started(1)
    time.sleep(0.2)  # it may not ignore the signal yet; if the signal ends it, that is fine, too
    kept.running.ask_to_end()
    kept.running.wait(0.1)
    assert is_gone(kept.pids[0])
    assert kept.running.pid is None
