"""The first command on a machine with only Python: real environments and a real pip, with one small package.

The package stands for all that the lock files name. It comes from a directory, so no network is needed.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from quiktrade.local.venv import ROOT
from quiktrade.tests.places import open_place, processes_of

MODULES = ("aiohttp", "django_q", "gunicorn", "psycopg", "rest_framework", "rich", "unfold")
DJANGO = """
import sys
def execute_from_command_line(arguments):
    import standin
    print("ran", standin.version, *arguments[1:])
"""


class Checkout:
    """A copy of the code that runs before Django, with its own lock files."""

    def __init__(self, place: Path) -> None:
        self.root = place / "a checkout"
        self.packages = place / "packages"
        self.root.mkdir()
        self.packages.mkdir()
        shutil.copy(ROOT / "manage.py", self.root)
        for folder in ("quiktrade", "quiktrade/local", "quiktrade/local/postgres"):
            (self.root / folder).mkdir()
            for source in (ROOT / folder).glob("*.py"):
                shutil.copy(source, self.root / folder)
        (self.root / "quiktrade" / "settings.py").write_text("")
        self.lock("requirements-local.lock", "1")
        self.lock("requirements-dev.lock", "2")

    def lock(self, name: str, version: str, digest: str = "") -> None:
        """Have a lock file name this version of the package, by its digest or the one given; make the package."""
        wheel = self.packages / f"standin-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            for module in MODULES:
                file.writestr(f"{module}.py", "")
            file.writestr("standin.py", f"version = {version!r}")
            file.writestr("django/__init__.py", "")
            file.writestr("django/core/__init__.py", "")
            file.writestr("django/core/exceptions.py", "class ImproperlyConfigured(Exception): pass")
            file.writestr("django/core/management.py", DJANGO)
            about = f"standin-{version}.dist-info"
            file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: standin\nVersion: {version}\n")
            tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            file.writestr(f"{about}/WHEEL", tag)
            file.writestr(f"{about}/RECORD", "".join(f"{item.filename},,\n" for item in file.infolist()))
        digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
        (self.root / name).write_text(f"standin=={version} --hash=sha256:{digest}\n")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        # -S: this Python must not see the packages that are installed with it.
        base: str = getattr(sys, "_base_executable", sys.executable)
        return subprocess.Popen(
            [base, "-S", "manage.py", *arguments],
            cwd=self.root,
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/nonexistent",
                "DATABASE_URL": "postgresql://elsewhere/quiktrade",
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_NO_INDEX": "1",
                "PIP_NO_CACHE_DIR": "1",
                "PIP_FIND_LINKS": f"{self.packages.as_uri()} /not/there",  # pip warns of the second
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        process = self.start(*arguments, **environment)
        out, error = process.communicate(timeout=90)
        return process.returncode, out, error


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    with open_place() as place:
        yield Checkout(place)


def installing(lock: str) -> str:
    return f"Installing the packages of {lock} into .venv: just this once, less than a minute\n"


@pytest.mark.exhaustive
def test_the_first_command_installs_what_the_lock_files_say_and_the_next_ones_just_run(checkout: Checkout) -> None:
    assert checkout.run("first") == (0, "ran 1 first\n", installing("requirements-local.lock"))
    assert checkout.run("second", "--option") == (0, "ran 1 second --option\n", "")
    # The tests need more, in the same environment; and it is enough for everything else.
    assert checkout.run("test", "-x") == (0, "ran 2 test -x\n", installing("requirements-dev.lock"))
    assert checkout.run("third") == (0, "ran 2 third\n", "")
    checkout.lock("requirements-dev.lock", "4")
    assert checkout.run("test", "--help") == (0, "ran 2 test --help\n", "")
    checkout.lock("requirements-local.lock", "3")
    assert checkout.run("fourth") == (0, "ran 3 fourth\n", installing("requirements-local.lock"))
    checkout.lock("requirements-local.lock", "4", digest="0" * 64)
    status, out, error = checkout.run("fifth")
    assert (status, out) == (1, "")
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in error


@pytest.mark.exhaustive
def test_two_first_commands_at_once_install_once(checkout: Checkout) -> None:
    commands = [checkout.start("first"), checkout.start("second")]
    said = [command.communicate(timeout=90) for command in commands]
    assert [out for out, _ in said] == ["ran 1 first\n", "ran 1 second\n"]
    assert sorted(error for _, error in said) == [
        "Another command is installing the packages; waiting for it\n",
        installing("requirements-local.lock"),
    ]


@pytest.mark.exhaustive
def test_an_installation_that_was_killed_is_made_anew(checkout: Checkout) -> None:
    with socket.socket() as stalled:  # takes connections and never answers
        stalled.bind(("127.0.0.1", 0))
        stalled.listen()
        index = f"http://127.0.0.1:{stalled.getsockname()[1]}/simple"
        first = checkout.start("first", PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_INDEX_URL=index)
        connection, _ = stalled.accept()
        first.kill()
        first.communicate(timeout=10)
        second = checkout.start("second")
        assert second.stderr
        # The pip of the first command is still running.
        assert second.stderr.readline() == "Another command is installing the packages; waiting for it\n"
        for process in processes_of(checkout.root):
            if "pip" in process.info["cmdline"]:
                process.kill()
        connection.close()
        out, _ = second.communicate(timeout=90)
        assert out == "ran 1 second\n"


@pytest.mark.exhaustive
def test_without_a_network_it_says_so(checkout: Checkout) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    status, out, error = checkout.run("first", PIP_NO_INDEX="0", PIP_FIND_LINKS="", **nowhere)
    assert (status, out) == (1, "")
    assert "pip could not install the packages of requirements-local.lock:\n  ERROR: " in error
    assert "The package registry cannot be reached. Check the network" in error
    assert "WARNING" not in error


def test_a_directory_that_cannot_be_written_gets_advice(checkout: Checkout) -> None:
    (checkout.root / ".venv").write_text("in the way")
    status, _, error = checkout.run("first")
    assert status == 1
    assert "Cannot write" in error
    assert "Make an environment of your own" in error


def test_an_environment_of_ones_own_is_used_as_it_is(checkout: Checkout) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from quiktrade.local import bootstrap; bootstrap.ensure_packages(sys.argv)",
    ]
    done = subprocess.run(command, cwd=checkout.root, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    assert not (checkout.root / ".venv").exists()


def test_an_old_python_is_told_what_is_needed() -> None:
    command = "import manage; manage.OLDEST_PYTHON = (3, 99); manage.main()"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("QuikTrade needs Python 3.99 or newer; ")
    assert "Traceback" not in done.stderr
