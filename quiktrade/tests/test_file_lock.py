"""Locks on files, between real processes: a lock is free when its last holder is gone, however it ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quiktrade import file_lock
from quiktrade.tests.processes import wait_until

HOLDS = """
import sys, pathlib
from quiktrade import file_lock
descriptor = file_lock.open_lock(pathlib.Path(sys.argv[1]))
file_lock.wait_for_lock(descriptor, shared=sys.argv[2] == "shared")
print("held", flush=True)
sys.stdin.read()
"""


class Holder:
    """A process that has a lock until it is told to end, or killed."""

    def __init__(self, path: Path, how: str) -> None:
        command = [sys.executable, "-c", HOLDS, str(path), how]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def wait(self) -> "Holder":
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"held\n"
        return self

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.lock"


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    descriptor = file_lock.open_lock(path)
    yield descriptor
    os.close(descriptor)


def test_a_lock_file_is_made_where_there_is_none_and_kept_where_there_is(path: Path) -> None:
    path.write_text("the number of a process")
    os.close(file_lock.open_lock(path))
    assert path.read_text() == "the number of a process"


def test_only_one_process_has_a_lock_whole(path: Path, descriptor: int) -> None:
    holder = Holder(path, "whole").wait()
    assert not file_lock.try_lock(descriptor)
    assert not file_lock.try_lock(descriptor, shared=True)
    assert (file_lock.is_locked(path), file_lock.is_shared(path)) == (True, False)
    holder.end()
    assert file_lock.try_lock(descriptor)


def test_many_processes_share_a_lock_and_none_has_it_whole_meanwhile(path: Path, descriptor: int) -> None:
    first, second = Holder(path, "shared").wait(), Holder(path, "shared").wait()
    assert file_lock.try_lock(descriptor, shared=True)
    assert (file_lock.is_locked(path), file_lock.is_shared(path)) == (False, True)
    first.end()
    assert not file_lock.try_lock(descriptor)
    second.end()
    assert file_lock.try_lock(descriptor)
    assert file_lock.is_locked(path)


def test_whoever_waits_has_the_lock_when_its_holder_is_killed(path: Path) -> None:
    first = Holder(path, "whole").wait()
    second = Holder(path, "whole")
    assert second.process.poll() is None
    first.end()
    second.wait().end()
    assert not file_lock.is_locked(path)


def test_a_lock_is_held_as_long_as_a_child_that_inherited_it_lives(path: Path) -> None:
    descriptor = file_lock.open_lock(path)
    assert file_lock.try_lock(descriptor)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor])
    os.close(descriptor)
    assert file_lock.is_locked(path)
    child.communicate(b"\n")
    wait_until(lambda: not file_lock.is_locked(path))


def test_a_program_does_not_inherit_a_lock_that_it_is_not_given(path: Path) -> None:
    descriptor = file_lock.open_lock(path)
    assert file_lock.try_lock(descriptor)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    os.close(descriptor)
    wait_until(lambda: not file_lock.is_locked(path))
    assert child.poll() is None
    child.communicate(b"\n")


def test_asking_leaves_a_lock_as_it_was(path: Path, descriptor: int) -> None:
    for _ in range(2):
        assert not file_lock.is_locked(path)
        assert not file_lock.is_shared(path)
    assert file_lock.try_lock(descriptor)
    for _ in range(2):
        assert file_lock.is_locked(path)
    assert file_lock.try_lock(descriptor, shared=True)  # held otherwise from now on
    assert file_lock.is_shared(path)
