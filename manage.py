#!/usr/bin/env python3
"""Django's command line. If packages are missing, it first installs them into .venv, and runs there."""

import io
import os
import sys

OLDEST_PYTHON = (3, 11)
WRONG_USAGE = 2


def main() -> None:
    # These imports come late, because an older Python, or one without the packages, can read only this file.
    refuse_old_python()
    from quiktrade.local import bootstrap

    write_whatever_it_is()
    bootstrap.ensure_packages(sys.argv)

    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    from quiktrade import processes
    from quiktrade.local.postgres import lease

    processes.forget_inherited_signals()
    processes.end_with_parent()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quiktrade.settings")
    try:
        lease.configure(sys.argv)
    except lease.LocalDatabaseError as error:
        sys.exit(str(error))
    try:
        import quiktrade.settings  # noqa: F401  Django would show a traceback of the same
    except ImproperlyConfigured as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(WRONG_USAGE)
    execute_from_command_line(sys.argv)


def write_whatever_it_is() -> None:
    """Escape what the output cannot encode. The text of a client or a venue must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None for a program whose output was closed
            stream.reconfigure(errors="backslashreplace")


def refuse_old_python() -> None:
    if sys.version_info >= OLDEST_PYTHON:
        return
    from shutil import which

    needed = ".".join(map(str, OLDEST_PYTHON))
    version = ".".join(map(str, sys.version_info[:3]))
    newer = [name for name in ("python3.14", "python3.13", "python3.12", "python3.11") if which(name)]
    advice = "Run: " + " ".join([newer[0], *sys.argv]) if newer else "Install one and run this with it."
    sys.exit(f"QuikTrade needs Python {needed} or newer; {sys.executable} is {version}.\n{advice}")


if __name__ == "__main__":
    main()
