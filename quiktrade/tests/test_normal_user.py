"""The commands for a normal user. If root runs the tests, they run as nobody, otherwise as the tests' user."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.stage.ports import free_ports
from quiktrade.local.venv import ROOT
from quiktrade.tests.places import open_place, processes_of
from quiktrade.tests.processes import wait_until

pytestmark = pytest.mark.timeout(300)

USER = os.geteuid() or 65534
CHANGE: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
STATE = {".venv", ".data", ".git", "staticfiles"}


class Checkout:
    """A copy of this checkout that everybody can read and only the tests' user can write."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "checkout"
        shutil.copytree(ROOT, self.directory, ignore=lambda directory, names: STATE.intersection(names))
        ours = ("QUIKTRADE", "DATABASE")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        # The packages of the tests, for a Python that has none.
        self._environment = {**inherited, "HOME": str(place), "PYTHONPATH": sysconfig.get_path("purelib")}
        self._python = self._find_python()
        self._log = place / "log"

    @property
    def output(self) -> str:
        return self._log.read_text()

    def manage(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        with open(self._log, "wb") as log:
            return subprocess.Popen(
                [self._python, "manage.py", *arguments],
                cwd=self.directory,
                env={**self._environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **CHANGE,
            )

    def _find_python(self) -> str:
        """The Python of the tests, or the system's if other users cannot run root's."""
        for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
            try:
                subprocess.run([python, "-c", "import django, psycopg"], env=self._environment, check=True, **CHANGE)
            except (OSError, subprocess.CalledProcessError):
                continue
            return python
        pytest.skip("a normal user can run no Python that has the packages")


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    with open_place() as place:
        yield Checkout(place)
        for process in processes_of(place):
            process.kill()
        wait_until(lambda: not processes_of(place))


@pytest.mark.exhaustive
def test_a_normal_user_runs_everything_and_owns_all_of_it(checkout: Checkout) -> None:
    data = checkout.directory / ".data"
    data.mkdir(mode=0o700)
    if CHANGE:
        os.chown(data, USER, USER)
    api, console, exchange = free_ports(1)[0], free_ports(1)[0], free_ports(2)[0]
    ports = ["--port", str(api), "--console-port", str(console), "--exchange-port", str(exchange)]
    up = checkout.manage("up", *ports)
    wait_until(lambda: "Ready." in checkout.output or up.poll() is not None)
    assert "Ready." in checkout.output, checkout.output

    server = psutil.Process(int((data / "pg" / "data" / "postmaster.pid").read_text().split()[0]))
    processes = [up.pid, server.pid, *(process.pid for process in processes_of(checkout.directory))]
    assert {psutil.Process(number).uids().effective for number in processes} == {USER}
    made = [data / "pg", data / "pg" / "data", data / "pg" / "run", data / "secret_key"]
    assert {(path.stat().st_uid, path.stat().st_mode & 0o077) for path in made} == {(USER, 0)}

    up.send_signal(signal.SIGINT)
    assert up.wait(60) == 0
    wait_until(lambda: processes_of(checkout.directory) == [], seconds=10.0)


@pytest.mark.exhaustive
@pytest.mark.skipif(os.geteuid() != 0, reason="takes two users")
def test_a_checkout_that_the_user_cannot_write_is_named_with_what_to_do(checkout: Checkout) -> None:
    assert checkout.manage("migrate").wait(60) == 1
    assert checkout.output.startswith(f"Cannot make {checkout.directory}/.data: Permission denied.\n")
    assert "Or set QUIKTRADE_DATA to a directory of your own" in checkout.output
    assert "Traceback" not in checkout.output

    own = checkout.directory.parent / "own"
    own.mkdir()
    os.chown(own, USER, USER)
    assert checkout.manage("migrate", "--verbosity", "0", QUIKTRADE_DATA=str(own)).wait(120) == 0
    assert (own / "pg" / "data" / "PG_VERSION").exists()
