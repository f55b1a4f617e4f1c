"""`manage.py run_exchange`: the simulated exchange, until SIGTERM or Ctrl-C."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from exchanges.simulator.options import DESCRIPTION, EPILOG, add_arguments, read_options
from exchanges.simulator.process import CannotRun, run
from quiktrade.management.operator_command import DJANGOS_OPTIONS


class Command(BaseCommand):
    help = DESCRIPTION
    requires_system_checks = []
    suppressed_base_arguments = DJANGOS_OPTIONS

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name,
            subcommand,
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run(read_options(argparse.Namespace(**options)))
        except (ValueError, CannotRun) as error:
            raise CommandError(str(error)) from error
