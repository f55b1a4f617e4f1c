"""Directories for tests that the server's account can reach: it cannot enter pytest's own if root runs the tests."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def open_place() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="quiktrade-test-")).resolve()
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def processes_of(place: Path) -> list[psutil.Process]:
    """Every process that names the place on its command line or in its environment, or works in it.

    Their `info` has what was true a moment ago: `cmdline` and `ppid`.
    """
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "environ", "ppid"]):
        environment = process.info["environ"] or {}
        signs = [*(process.info["cmdline"] or ()), process.info["cwd"] or "", environment.get("QUIKTRADE_DATA", "")]
        if process.pid != os.getpid() and any(str(place) in sign for sign in signs):
            found.append(process)
    return found
