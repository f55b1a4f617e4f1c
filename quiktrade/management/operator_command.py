"""What the operators' commands have in common: who acts, how they answer, and with which exit code."""

import argparse
import getpass
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import InterfaceError, OperationalError
from rich.console import Console, RenderableType

from quiktrade.texts import kept_reason, shown

REFUSED = 1
USAGE = 2
DATABASE_AWAY = 3
PLAIN_WIDTH = 240
EXIT_CODES = """\
exit codes: 0 all done, 1 something was refused or not found, 2 wrong usage, 3 the database was away
"""
WHO_ACTS = """\
The history names the actor "operator:NAME (command)", NAME being the user of this machine (with sudo, its user).
"""


DJANGOS_OPTIONS = {"--version", "-v", "--settings", "--pythonpath", "--traceback", "--no-color", "--force-color"}
"""Every command takes these. Its --help shows only its own options: `suppressed_base_arguments` leaves these out."""


class OperatorCommand(BaseCommand):
    """`examples` ends the --help text; with --json one document goes to standard output, and nothing else.

    `acts` says whether the history of what it is used on names the person who used it.
    """

    examples: ClassVar[str]
    acts: ClassVar[bool] = True
    suppressed_base_arguments = DJANGOS_OPTIONS

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name,
            subcommand,
            epilog=f"examples:\n{self.examples}\n{EXIT_CODES}{WHO_ACTS if self.acts else ''}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except (OperationalError, InterfaceError) as error:
            raise CommandError(
                f"The database cannot be relied on at this moment: {shown(str(error).strip())}\n"
                "What you asked for may or may not have been done. Look before you ask for it again.",
                returncode=DATABASE_AWAY,
            ) from None

    def add_json(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="answer with one JSON document on standard output")

    def tell(self, options: Mapping[str, Any], document: Mapping[str, Any], text: str) -> None:
        """Answer with the document if --json asked for it, otherwise with the text."""
        if options["json"]:
            self.stdout.write(json.dumps(document, indent=2, cls=DjangoJSONEncoder))
        else:
            self.stdout.write(shown(text, but="\n"))

    def show(self, *things: RenderableType) -> None:
        """Write tables and text: coloured and fitted on a terminal, otherwise plain and wide."""
        terminal = self.stdout.isatty()
        console = Console(force_terminal=terminal, width=None if terminal else PLAIN_WIDTH, highlight=False)
        with console.capture() as capture:
            console.print(*things, sep="\n")
        self.stdout.write(capture.get(), ending="")

    def interactive(self) -> bool:
        return sys.stdin is not None and sys.stdin.isatty()


def actor() -> str:
    """Who acts, marked as acting by command: the same name in the console and on this machine may be two people."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no name
        name = f"uid {os.getuid()}"
    return f"operator:{name} (command)"


def reason(text: str) -> str:
    """An argparse type for a reason, which must not be empty because the history keeps it."""
    try:
        return kept_reason(text)
    except ValueError:
        raise argparse.ArgumentTypeError("say why: the reason is kept in the history") from None


def refuse(message: str) -> NoReturn:
    raise CommandError(shown(message), returncode=REFUSED)


def misuse(message: str) -> NoReturn:
    raise CommandError(shown(message), returncode=USAGE)
