"""The supervisor in a separate process, with small programs in place of the real ones."""

import io
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from quiktrade import file_lock
from quiktrade.local.log_stream import LogStream
from quiktrade.local.venv import ROOT
from quiktrade.tests.places import processes_of
from quiktrade.tests.processes import wait_until

# Each program writes a file when it starts, and its name when it is asked to end; `how` says what else it does.
PROGRAM = """
import os, pathlib, signal, sys, time
from quiktrade import processes
name, how, place = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
def end(*_):
    with open(place / "asked", "a") as asked:
        asked.write(name + " ")
    if how != "stubborn":
        sys.exit(0)
signal.signal(signal.SIGTERM, end)
processes.end_with_parent()
if how == "parent" and os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (place / "grandchild").write_text(str(os.getpid()))
    time.sleep(60)
(place / name).write_text(str(os.getpid()))
if how == "failing":
    sys.exit(3)
if how == "frozen":
    os.kill(os.getpid(), signal.SIGSTOP)
    while True:  # the other thread may get the signal that comes next, and would not wake this one
        time.sleep(0.1)
time.sleep(60)
"""
SUPERVISOR = """
import pathlib, sys
from quiktrade import file_lock, processes
processes.forget_inherited_signals()
from quiktrade.local.log_stream import LogStream
from quiktrade.local.supervisor import Program, Supervisor
place, wanted = pathlib.Path(sys.argv[1]), [item.split(":") for item in sys.argv[2:]]
program = (place / "program.py").read_text()
programs = [
    Program(
        name=name,
        command=[sys.executable if how != "missing" else place / "missing", "-c", program, name, how, str(place)],
        patience=float(patience),
        deadline=float(deadline),
    )
    for name, how, patience, deadline in wanted
]
lock = file_lock.open_lock(place / "lock")
file_lock.wait_for_lock(lock)
log = LogStream(sys.stdout, [program.name for program in programs], colour=False)
Supervisor(programs, log, pathlib.Path.cwd(), [lock]).run(lambda: None)
print("the end", flush=True)
"""


# Becomes the program given, as a script or a service might: with signals ignored and blocked.
WITH_SIGNALS_OFF = """
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def number_in(file: Path) -> int:
    return int(file.read_text() or 0) if file.exists() else 0


class Running:
    """A supervisor with programs given as `name:how:patience:deadline`."""

    def __init__(self, place: Path, *programs: str, signals_off: bool = False) -> None:
        self.place = place
        self.programs = [program.split(":")[0] for program in programs if ":missing:" not in program]
        (place / "program.py").write_text(textwrap.dedent(PROGRAM))
        self._log = open(place / "log", "w+b")  # noqa: SIM115
        before = ["-c", WITH_SIGNALS_OFF] if signals_off else []
        command = [sys.executable, *before, "-c", SUPERVISOR, str(place), *programs]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=self._log, stderr=self._log)
        wait_until(lambda: all(self.number(name) for name in self.programs))

    @property
    def output(self) -> str:
        return (self.place / "log").read_text()

    @property
    def asked(self) -> list[str]:
        file = self.place / "asked"
        return file.read_text().split() if file.exists() else []

    def number(self, name: str) -> int:
        """The process id of the program's latest run."""
        return number_in(self.place / name)

    def kill(self, name: str) -> None:
        number = self.number(name)
        os.kill(number, signal.SIGKILL)
        wait_until(lambda: self.number(name) not in (0, number))

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)
        self.process.wait(20)
        self._log.close()


Run = Callable[..., Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs programs under a supervisor, and makes sure that nothing of them is left after the test."""
    yield lambda *programs, **options: Running(tmp_path, *programs, **options)
    for process in processes_of(tmp_path):
        process.kill()


def test_a_program_that_is_killed_is_started_again_with_a_word_about_why(run: Run) -> None:
    running = run("one:plain:5:5")
    running.kill("one")
    running.stop()
    assert "one | ended: SIGKILL; starting it again in 0.5 s" in running.output


def test_a_program_that_keeps_failing_is_started_again_at_growing_intervals(run: Run) -> None:
    running = run("one:failing:5:5")
    wait_until(lambda: "in 2 s" in running.output)
    running.stop()
    intervals = [line for line in running.output.splitlines() if "starting it again" in line]
    assert [line.split(" in ")[1] for line in intervals] == ["0.5 s", "1 s", "2 s"]
    assert all("exit status 3" in line for line in intervals)


def test_what_a_killed_program_left_behind_is_gone_before_it_is_started_again(run: Run) -> None:
    running = run("one:parent:5:5")
    wait_until(lambda: running.number("grandchild"))
    left_behind = psutil.Process(running.number("grandchild"))
    running.kill("one")
    assert not left_behind.is_running() or left_behind.status() == psutil.STATUS_ZOMBIE
    running.stop()


def test_a_program_that_cannot_be_started_is_tried_again_while_the_others_run(run: Run) -> None:
    running = run("one:missing:5:5", "two:plain:5:5")
    wait_until(lambda: "in 1 s" in running.output)
    assert "one | did not start: No such file or directory; starting it again in 0.5 s" in running.output
    running.stop()
    assert running.asked == ["two"]
    assert running.output.endswith("the end\n")


def test_a_frozen_program_is_stopped_like_any_other(run: Run) -> None:
    running = run("one:frozen:60:60", "two:plain:60:60")
    program = psutil.Process(running.number("one"))
    wait_until(lambda: program.status() == psutil.STATUS_STOPPED)
    running.stop()
    assert running.asked == ["one", "two"]


def test_what_the_supervisor_passes_on_is_held_until_its_last_program_has_ended(run: Run, tmp_path: Path) -> None:
    running = run("one:stubborn:60:60")
    running.stop(signal.SIGKILL)
    wait_until(lambda: running.asked)  # and it goes on
    assert file_lock.is_locked(tmp_path / "lock")
    os.kill(running.number("one"), signal.SIGKILL)
    wait_until(lambda: not file_lock.is_locked(tmp_path / "lock"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_programs_are_stopped_one_after_the_other(run: Run, number: signal.Signals) -> None:
    running = run("one:plain:5:5", "two:plain:5:5", "three:plain:5:5")
    running.stop(number)
    assert running.asked == ["one", "two", "three"]
    assert running.output.endswith("the end\n")
    assert running.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_started_by_nohup_it_outlives_its_terminal_and_ends_when_asked(run: Run, number: signal.Signals) -> None:
    running = run("one:failing:5:5", "two:plain:5:5", signals_off=True)
    running.process.send_signal(signal.SIGHUP)
    running.kill("two")
    assert "one | ended: exit status 3" in running.output  # which is not known where SIGCHLD is ignored
    running.stop(number)
    # "one" fails and is started again, so at this moment it may be there to be asked, or not.
    assert [name for name in running.asked if name != "one"] == ["two"]
    assert running.output.endswith("the end\n")


def test_the_next_program_is_stopped_when_patience_with_the_one_before_it_ends(run: Run) -> None:
    running = run("one:stubborn:0.2:1", "two:plain:5:5")
    running.stop()
    assert running.asked == ["one", "two"]
    assert "one | did not end in time: killed" in running.output


def test_a_second_signal_does_not_wait_for_a_program_to_end(run: Run) -> None:
    running = run("one:stubborn:60:60", "two:plain:60:60")
    running.process.send_signal(signal.SIGINT)
    wait_until(lambda: running.asked)
    running.stop()
    assert running.asked == ["one"]
    assert "one | killed" in running.output
    assert "two | killed" in running.output


def test_programs_end_with_a_supervisor_that_is_killed(run: Run) -> None:
    running = run("one:plain:5:5", "two:plain:5:5")
    programs = [psutil.Process(running.number(name)) for name in ("one", "two")]
    running.stop(signal.SIGKILL)
    _, alive = psutil.wait_procs(programs, timeout=10)
    assert alive == []


def test_everything_is_stopped_when_nobody_reads_the_log_any_more(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path), "one:plain:5:5"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        wait_until(lambda: number_in(tmp_path / "one"))
        program = psutil.Process(number_in(tmp_path / "one"))
        process.stdout.close()
        process.wait(20)
    assert not program.is_running()


def test_log_lines_are_aligned_and_cannot_command_the_terminal() -> None:
    out = io.StringIO()
    log = LogStream(out, ["web", "worker"], colour=False)
    log.line("web", "an order\n")
    log.line("worker", "\x1b[2Jgone\ttab\x9b")
    assert out.getvalue() == "web    | an order\nworker | \\x1b[2Jgone\ttab\\x9b\n"


def test_names_are_coloured_where_colour_is_wanted() -> None:
    out = io.StringIO()
    LogStream(out, ["web"], colour=True).line("web", "text")
    assert out.getvalue() == "\x1b[35mweb |\x1b[0m text\n"


def test_a_log_that_cannot_be_written_is_closed() -> None:
    out = io.StringIO()
    log = LogStream(out, ["web"], colour=False)
    out.close()
    log.line("web", "text")
    assert log.closed
