"""`.venv`: where it is, and whether it holds what a lock file says. Uses only the standard library."""

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "quiktrade.txt"
EVERYDAY_LOCK = "requirements-local.lock"
TESTING_LOCK = "requirements-dev.lock"
"""It includes every package of EVERYDAY_LOCK."""


def fit_for_use(lock: str) -> bool:
    """Whether `.venv` holds what the lock file says. One without a stamp is the user's own, and is taken as it is."""
    if not PYTHON.exists():
        return False
    try:
        installed = STAMP.read_text()
    except FileNotFoundError:
        return True
    return stamp(lock) in installed.splitlines()


def stamp(lock: str) -> str:
    """The line of the stamp file that says: the packages of this lock file, as it is now, are installed."""
    return f"{lock} {hashlib.sha256((ROOT / lock).read_bytes()).hexdigest()}"
