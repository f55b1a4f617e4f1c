import importlib.util
import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from quiktrade.local.venv import ROOT, TESTING_LOCK
from quiktrade.management.operator_command import DJANGOS_OPTIONS


class Command(BaseCommand):
    help = (
        "Run the tests with pytest, each process on a private PostgreSQL of its own; or, in one process, in a database "
        "of their own on the server in DATABASE_URL. Everything after `test` is for pytest: paths, seen from the "
        "checkout, and options like `-k requeue`, `-x` and `-vv`. For pytest's own help: test -- --help"
    )

    requires_system_checks = []
    suppressed_base_arguments = DJANGOS_OPTIONS  # pytest would get them

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("arguments", nargs="*", help="for pytest; none runs all tests")

    def run_from_argv(self, argv: list[str]) -> None:
        """Hand the arguments over as they are: Django would take pytest's options for its own."""
        if argv[2:3] in (["-h"], ["--help"]):
            self.print_help(argv[0], argv[1])
            return
        try:
            self.handle(*(argv[3:] if argv[2:3] == ["--"] else argv[2:]))
        except CommandError as error:
            self.stderr.write(str(error))
            sys.exit(1)

    def handle(self, *arguments: str, **options: Any) -> None:
        if not importlib.util.find_spec("pytest"):  # an environment of the user's own
            raise CommandError(f"pytest is not in this environment: pip install -r {TESTING_LOCK}")
        os.chdir(ROOT)  # where pyproject.toml is
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])  # noqa: S606
