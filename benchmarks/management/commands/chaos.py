"""`manage.py chaos`: the fault laboratory (see `benchmarks/faults`)."""

import argparse
import os
import sys
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psycopg
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError

from benchmarks.faults.run import Laboratory, Options, tidy_up
from benchmarks.faults.system import DidNotStart
from quiktrade.local.postgres.server import LocalDatabaseError
from quiktrade.management.operator_command import DJANGOS_OPTIONS

_DIRECTORY = "QUIKTRADE_LABORATORY"
"""The command sets this variable when it starts itself again with its own directory and database."""

EPILOG = """\
It runs its own system, with its own database and ports, beside whatever else runs here. Orders are submitted
through the API while processes are killed and frozen, the database crashes, and the connection to the exchange
fails in every way; orders trade, are canceled and replaced, and clients listen to what becomes of them. At the end
the records of the clients, the database and the exchange are compared.

exit status: 0 all is well; 1 an order was lost, doubled or misreported, or the system did not come to rest;
2 wrong usage; 3 the run could not be made

  manage.py chaos --quick                 half a minute, ten faults
  manage.py chaos --minutes 3 --seed 7    every kind of fault at least once
  manage.py chaos --minutes 30 --seed 1   what a release is judged by
"""


class Command(BaseCommand):
    help = "Break the system in every way it should survive, and check that no order was lost, doubled or misreported."
    epilog = EPILOG
    laboratory: type[Laboratory] = Laboratory
    requires_system_checks = []
    suppressed_base_arguments = DJANGOS_OPTIONS

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        form = argparse.RawDescriptionHelpFormatter
        return super().create_parser(prog_name, subcommand, epilog=self.epilog, formatter_class=form, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--minutes", type=_above_zero, default=3.0, metavar="N", help="how long orders come (%(default)g)")
        add("--faults-per-minute", type=_not_negative, default=20.0, metavar="N", help="how many (%(default)g)")
        add("--quick", action="store_true", help="half a minute, ten faults, 20 orders a second")
        self.add_arguments_of_all(parser)

    def add_arguments_of_all(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--seed", type=int, default=1, metavar="S", help="the same seed gives the same faults (%(default)s)")
        add("--rate", type=_above_zero, default=50.0, metavar="N", help="orders a second (%(default)g)")
        add("--clients", type=_clients, default=8, metavar="N", help="how many submit them at once (%(default)s)")
        add("--keep", type=Path, metavar="DIR", help="keep journal, database and logs, in this new directory")
        add("--json", type=Path, metavar="FILE", help="write the figures there too")

    def handle(self, *args: Any, **options: Any) -> None:
        if sys.platform != "linux":
            raise CommandError("The laboratory needs Linux: it finds its processes in /proc.", returncode=2)
        directory = os.environ.get(_DIRECTORY)
        if directory is None:
            made = _make_directory(options["keep"])
            _start_anew(made, self.environment(made))
        else:
            self._run(self.options(options, Path(directory)))

    def environment(self, directory: Path) -> dict[str, str]:
        """Further variables for the run."""
        return {}

    def _run(self, options: Options) -> None:
        report = None
        try:
            report = self.laboratory(options).run()
        except (DidNotStart, LocalDatabaseError, RuntimeError, OSError, ValueError, HTTPException) as error:
            raise CommandError(f"The run failed: {error}", returncode=3) from error
        except (psycopg.Error, DatabaseError) as error:
            raise CommandError(f"The run failed, its database is away: {error}", returncode=3) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=130) from None
        finally:
            if tidy_up(options, report):
                self.stdout.write(f"Logs and journal are in {options.directory}")
        if not report.passed:
            raise CommandError("Something is wrong: see above.")
        self.stdout.write("All is well.")

    def options(self, options: dict[str, Any], directory: Path) -> Options:
        quick: bool = options["quick"]
        return Options(
            seed=options["seed"],
            seconds=35.0 if quick else 60 * options["minutes"],
            rate=20.0 if quick else options["rate"],
            clients=options["clients"],
            faults_per_minute=19.0 if quick else options["faults_per_minute"],
            quick=quick,
            directory=directory,
            json=options["json"],
            keep=options["keep"] is not None,
        )


def _make_directory(keep: Path | None) -> Path:
    if keep is not None:
        try:
            keep.mkdir(parents=True)
        except FileExistsError:
            raise CommandError(f"--keep: {keep} is there already.", returncode=2) from None
        directory = keep.resolve()
    else:
        directory = Path(tempfile.mkdtemp(prefix="quiktrade-chaos-")).resolve()
    directory.chmod(0o711 if os.geteuid() == 0 else 0o700)  # PostgreSQL's own account must pass through
    return directory


def _start_anew(directory: Path, more: dict[str, str]) -> None:
    """Start this command again, with its data, database and secret key in the directory."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("QUIKTRADE_", "PG"))}
    environment.pop("DATABASE_URL", None)
    environment |= {_DIRECTORY: str(directory), "QUIKTRADE_DATA": str(directory), **more}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # noqa: S606  this very program


def _number(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1e6:
        raise argparse.ArgumentTypeError("a number from 0 to a million is needed")
    return number


def _above_zero(text: str) -> float:
    number = _number(text)
    if not number:
        raise argparse.ArgumentTypeError("must be above zero")
    return number


_not_negative = _number


def _clients(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError("a number from 1 to 64 is needed")
    return number
