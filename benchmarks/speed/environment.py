"""The references' packages: in an environment of their own, so that the product's stays what it ships.

Standard library only. The stamp says which lock file's packages are in it, and is written last.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
LOCK = HERE / "requirements.lock"
VENV = HERE.parent / ".data" / "benchmarks" / "venv"
PYTHON = VENV / "bin" / "python"
_STAMP = VENV / "benchmarks.txt"


class CannotInstall(Exception):
    """The text says why."""


def ensure() -> Path:
    """Returns the Python that has the references' packages; they are installed if need be. Raises: CannotInstall."""
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if _STAMP.exists() and _STAMP.read_text() == wanted and PYTHON.exists():
        return PYTHON
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.parent.mkdir(parents=True, exist_ok=True)
    # pip is brought from outside: Debian's Python has none to put into an environment.
    _run(sys.executable, "-m", "venv", "--without-pip", str(VENV))
    _run(*_pip(), "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(LOCK))
    _STAMP.write_text(wanted)
    return PYTHON


def _pip() -> list[str]:
    for python in (sys.executable, str(getattr(sys, "_base_executable", sys.executable))):
        pip = [python, "-m", "pip", "--python", str(PYTHON), "--disable-pip-version-check", "--no-input"]
        if subprocess.run([*pip, "--version"], capture_output=True).returncode == 0:
            return pip
    raise CannotInstall("There is no pip to install the references' packages with.")


def _run(*command: str) -> None:
    environment = {**os.environ, "PIP_USER": "0"}  # or a user's setting would put them into the home directory
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise CannotInstall(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
