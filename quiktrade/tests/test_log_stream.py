"""The one stream that `up` writes: whole lines of several processes, each with the name of its process."""

import io
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from quiktrade.local.log_stream import LogStream, wants_colour
from quiktrade.tests.processes import wait_until

NAMES = ("api", "console", "worker")


def stream(*, colour: bool = False) -> tuple[LogStream, io.StringIO]:
    out = io.StringIO()
    return LogStream(out, NAMES, colour=colour), out


def test_each_line_has_its_process_before_it_and_all_line_up() -> None:
    log, out = stream()
    log.line("api", "Listening")
    log.line("console", "Listening, too\n")
    log.say("Stopping.")
    assert out.getvalue() == "api     | Listening\nconsole | Listening, too\nup      | Stopping.\n"


def test_a_block_is_written_as_it_is() -> None:
    log, out = stream()
    log.block("\nReady.\n  Console\n\n")
    assert out.getvalue() == "\nReady.\n  Console\n\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[2Jcleared", "\\x1b[2Jcleared"),
        ("one\rother", "one\\rother"),
        ("a\u2028b", "a\\u2028b"),
        ("column\tcolumn", "column\tcolumn"),
        ("M\u00fcnchen \u2713", "M\u00fcnchen \u2713"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(said: str, shown: str) -> None:
    log, out = stream()
    log.line("api", said)
    assert out.getvalue() == f"api     | {shown}\n"


def test_colours_are_for_the_names_alone() -> None:
    log, out = stream(colour=True)
    log.line("api", "plain")
    assert out.getvalue().startswith("\x1b[")
    assert out.getvalue().endswith("api     |\x1b[0m plain\n")


def test_the_lines_of_a_program_are_passed_on_to_its_last_one() -> None:
    log, out = stream()
    program = "print('first'); print('\\udcff'.encode('utf-8', 'surrogateescape')); print('last', end='')"
    source = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert source.stdout is not None
    log.relay("worker", source.stdout)
    source.wait()
    log.drain(30)
    lines = out.getvalue().splitlines()
    assert (lines[0], lines[-1]) == ("worker  | first", "worker  | last")
    assert len(lines) == 3


def test_bytes_that_are_no_text_are_shown_all_the_same() -> None:
    log, out = stream()
    log.relay("api", io.BytesIO(b"before \xff\xfe after\n"))
    log.drain(30)
    assert out.getvalue() == "api     | before \ufffd\ufffd after\n"


def test_lines_of_many_threads_are_never_torn() -> None:
    log, out = stream()

    def talk(name: str) -> None:
        for _ in range(200):
            log.line(name, name * 50)

    threads = [threading.Thread(target=talk, args=[name]) for name in NAMES for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = out.getvalue().splitlines()
    assert len(lines) == 1200
    assert set(lines) == {f"{name:7} | {name * 50}" for name in NAMES}


def test_when_nobody_reads_any_more_it_says_so_and_fails_nobody() -> None:
    reading, writing = os.pipe()
    with open(writing, "w") as out:
        log = LogStream(out, NAMES, colour=False)
        log.line("api", "heard")
        assert not log.closed
        os.close(reading)
        wait_until(lambda: log.closed)
        for _ in range(3):
            log.line("api", "not heard")
        assert log.closed


def test_a_program_whose_lines_nobody_reads_is_not_held_up() -> None:
    """A full pipe would stop the process."""
    reading, writing = os.pipe()
    with suppress(BrokenPipeError), open(writing, "w") as out:  # what was not written cannot be written at its end, too
        log = LogStream(out, NAMES, colour=False)
        os.close(reading)
        source = subprocess.Popen(
            [sys.executable, "-c", "for _ in range(20_000): print('x' * 100)"], stdout=subprocess.PIPE
        )
        assert source.stdout is not None
        log.relay("worker", source.stdout)
        assert source.wait(60) == 0
        log.drain(30)


@pytest.mark.parametrize(
    ("variables", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colour_is_for_a_terminal_whose_user_did_not_refuse_it(
    variables: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(Terminal()) is colour
    with open(tmp_path / "log", "w") as file:
        assert not wants_colour(file)
