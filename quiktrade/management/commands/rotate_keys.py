"""`manage.py rotate_keys`: the keys that sign tokens."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from quiktrade.auth import keys
from quiktrade.management.operator_command import OperatorCommand, refuse
from quiktrade.models import SigningKey


class Command(OperatorCommand):
    help = """Replace the key that signs tokens, without ending a token.

The new key is published at once and signs ten minutes later; the earlier keys verify until the last token that they
signed has run out. --withdraw ends a key that others may have: every token that it signed is void in a few seconds."""
    examples = """\
  manage.py rotate_keys
  manage.py rotate_keys --list
  manage.py rotate_keys --withdraw 3f9c0a7b51de2846
"""

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--list", action="store_true", help="show the keys that verify tokens, and change nothing")
        what.add_argument("--withdraw", metavar="KID", help="let this key verify nothing any more")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["withdraw"]:
                keys.withdraw(options["withdraw"])
            elif not options["list"]:
                keys.rotate()
        except ValueError as error:
            refuse(str(error))
        valid = keys.valid_keys()
        ready = [key for key in valid if key.signs_from <= timezone.now()]
        states = {key.kid: "verifies" if key in ready else "waits" for key in valid}
        if ready:
            states[ready[-1].kid] = "signs"
        document = {"keys": [{"kid": key.kid, "state": states[key.kid], **_times(key)} for key in valid]}
        lines = [_line(key, states[key.kid]) for key in valid]
        self.tell(options, document, "\n".join(lines) or "There is no key. The first token makes one.")


def _times(key: SigningKey) -> dict[str, Any]:
    return {"made_at": key.made_at, "signs_from": key.signs_from, "verifies_until": key.verifies_until}


def _line(key: SigningKey, state: str) -> str:
    until = f"until {key.verifies_until:%Y-%m-%d %H:%M} UTC" if key.verifies_until else "until it is replaced"
    return f"{key.kid}  {state:8}  signs from {key.signs_from:%Y-%m-%d %H:%M} UTC, verifies {until}"
