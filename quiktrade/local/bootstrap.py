"""Makes sure that the packages can be imported, even if only Python is installed. Uses only the standard library.

An environment of the user's own in which the packages can be imported, such as an active virtual environment or a
Docker image, is used as it is. Otherwise they are installed into `.venv` (see `installation.py`), and the command
starts again there. `.venv/quiktrade.txt` says which lock files' packages are in it. During an installation the file
is empty, so an installation that was interrupted is noticed and repeated.

Every command comes through here, so this module imports little.
"""

import importlib.util
import os
import sys
from pathlib import Path

from quiktrade.local.venv import EVERYDAY_LOCK, PYTHON, TESTING_LOCK, VENV, fit_for_use

_PACKAGES = ("aiohttp", "django", "django_q", "gunicorn", "psycopg", "rest_framework", "rich", "unfold")
_INSTALLED_JUST_NOW = "QUIKTRADE_INSTALLED_JUST_NOW"


def ensure_packages(arguments: list[str]) -> None:
    """Return if the packages can be imported; otherwise install them and start the command again."""
    just_now = os.environ.pop(_INSTALLED_JUST_NOW, None)
    tests = arguments[1:2] == ["test"] and arguments[2:3] not in (["-h"], ["--help"])
    lock = TESTING_LOCK if tests else EVERYDAY_LOCK
    found = packages_found()
    in_venv = Path(sys.prefix).resolve() == VENV
    if found and (not in_venv or fit_for_use(lock)):
        return
    if just_now:
        sys.exit(f"Python cannot import the packages in {VENV}. Remove that directory and try again.")
    if in_venv or not fit_for_use(lock):
        from quiktrade.local import installation

        installation.install(lock, afresh=in_venv and not found)
        os.environ[_INSTALLED_JUST_NOW] = "1"
    os.execv(PYTHON, [str(PYTHON), *arguments])  # noqa: S606  this very program


def packages_found() -> bool:
    return all(importlib.util.find_spec(name) for name in _PACKAGES)
