"""Installs the references' packages in their own environment, so that the product's has only what it ships with.

It uses only the standard library. The stamp says which lock file's packages are installed, and is written last.
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
    """The references' packages cannot be installed. The text says why."""


def ensure() -> Path:
    """Return the Python that has the references' packages, and install them if necessary. Raises: CannotInstall."""
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if _STAMP.exists() and _STAMP.read_text() == wanted and PYTHON.exists():
        return PYTHON
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.parent.mkdir(parents=True, exist_ok=True)
    # A pip outside the environment is used, because Debian's Python has none to put into it.
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
    environment = {**os.environ, "PIP_USER": "0"}  # otherwise a user's setting could put them into the home directory
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise CannotInstall(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
