"""Makes `.venv` and installs the packages of a lock file, checked by their hashes. Uses only the standard library."""

import os
import shutil
import subprocess
import sys
from typing import NoReturn

from quiktrade import file_lock
from quiktrade.local.venv import EVERYDAY_LOCK, PYTHON, ROOT, STAMP, TESTING_LOCK, VENV, fit_for_use, stamp

_FIRST_PYTHON_WITHOUT_PACKAGES = (3, 15)
_DEBIAN = "On Debian and Ubuntu: apt-get install python3-venv"

# A lock file names every package, so pip need not look for more. Only ready-made packages are taken, because building
# one would run its code and need a compiler.
_PIP_OPTIONS = (
    "--disable-pip-version-check",
    "--no-input",
    "--no-deps",
    "--require-hashes",
    "--only-binary=:all:",
)
_UNREACHABLE = (
    "Max retries exceeded",
    "Name or service not known",
    "NewConnectionError",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "Connection refused",
    "ProxyError",
    "SSLError",
    "timed out",
)


def install(lock: str, *, afresh: bool) -> None:
    """Install the packages of the lock file in `.venv`; `afresh` if what is there is known to be broken.

    Ends the program with a message if that is not possible.
    """
    checkout = os.open(ROOT, os.O_RDONLY | os.O_CLOEXEC)  # a directory can be locked like a file
    try:
        if not file_lock.try_lock(checkout):
            _say("Another command is installing the packages; waiting for it")
            file_lock.wait_for_lock(checkout)
            if fit_for_use(lock):
                return
        _say(f"Installing the packages of {lock} into .venv: just this once, less than a minute")
        _make_environment(afresh=afresh)
        _install_packages(lock, checkout)
    except OSError as error:
        _give_up(
            f"Cannot write {VENV}: {error.strerror}.",
            "Make an environment of your own, and run the command with its Python:",
            f"  python3 -m venv ~/quiktrade && ~/quiktrade/bin/pip install -r {ROOT / lock}",
        )
    except KeyboardInterrupt:
        _give_up("", "Interrupted. Give the same command again; it starts afresh.")
    finally:
        os.close(checkout)


def _make_environment(*, afresh: bool) -> None:
    if sys.version_info >= _FIRST_PYTHON_WITHOUT_PACKAGES:
        version = ".".join(map(str, sys.version_info[:2]))
        _give_up(f"There are no packages for Python {version} yet.", "Use Python 3.11 to 3.14.")
    cut_short = STAMP.exists() and not STAMP.read_text()
    if VENV.exists() and (afresh or cut_short or not PYTHON.exists()):
        shutil.rmtree(VENV)
    VENV.mkdir(exist_ok=True)
    STAMP.write_text("")
    if PYTHON.exists():
        return
    make = [_base(), "-m", "venv", str(VENV)]
    # Debian without python3-venv cannot put a pip into the environment, but its own pip can install packages there.
    if not _works(*make) and not _works(*make, "--without-pip"):
        _give_up(f"{_base()} cannot make a virtual environment.", _DEBIAN)


def _install_packages(lock: str, checkout: int) -> None:
    pip = _pip()
    done = subprocess.run(
        [*pip, "install", *_PIP_OPTIONS, "-r", ROOT / lock],
        env={**os.environ, "PIP_USER": "0"},  # otherwise a user's setting could put them into the home directory
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[checkout],  # a pip that outlives this process keeps the lock, so that no other runs beside it
    )
    if done.returncode:
        _explain(lock, done.stdout)
    locks = [EVERYDAY_LOCK, TESTING_LOCK] if lock == TESTING_LOCK else [lock]
    draft = STAMP.with_suffix(".new")
    draft.write_text("".join(f"{stamp(name)}\n" for name in locks))
    draft.replace(STAMP)


def _pip() -> list[str]:
    own = [str(PYTHON), "-m", "pip"]
    outside = [_base(), "-m", "pip", "--python", str(PYTHON)]
    pip = next((pip for pip in (own, outside) if _works(*pip, "--version")), None)
    return pip or _give_up(f"{_base()} has no pip to install packages with.", _DEBIAN)


def _base() -> str:
    """The Python that this one's virtual environment was made with, or this one if it is in none."""
    return str(getattr(sys, "_base_executable", sys.executable))


def _works(*command: str) -> bool:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def _explain(lock: str, output: str) -> NoReturn:
    lines = output.strip().splitlines()
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-15:]
    if any(sign in output for sign in _UNREACHABLE):
        advice = (
            "The package registry cannot be reached. Check the network; behind a proxy set HTTPS_PROXY, for\n"
            "a mirror PIP_INDEX_URL. Then give the same command again."
        )
    elif "No matching distribution" in output:
        version = sys.version.split()[0]
        advice = f"There is no ready-made package for Python {version} on this machine. Use Docker instead."
    else:
        advice = "Give the same command again; it starts afresh."
    _give_up(f"pip could not install the packages of {lock}:", *(f"  {line}" for line in errors), advice)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _give_up(*lines: str) -> NoReturn:
    sys.exit("\n".join(lines))
