"""`manage.py limit_client`: what a client may send in a second, as the console's page of its account has it."""

import argparse
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from quiktrade import limits
from quiktrade.management.operator_command import OperatorCommand, actor, refuse
from quiktrade.texts import storable


def rate(text: str) -> int | None:
    """An argparse type: `none` is 0, and `default` is None."""
    if text in ("none", "default"):
        return 0 if text == "none" else None
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= settings.MOST_PER_SECOND:
        return int(text)
    raise argparse.ArgumentTypeError(f"a whole number from 1 to {settings.MOST_PER_SECOND}, none or default")


class Command(OperatorCommand):
    help = """Show or change how many orders and reads a client may send in a second.

A number holds for all web processes together. `none` lifts the limit, and `default` has the client follow
QUIKTRADE_ORDER_RATE or QUIKTRADE_READ_RATE again. Every process knows it within two seconds. The log has it as the
event limits.changed, with who changed it."""
    examples = """\
  manage.py limit_client alice
  manage.py limit_client alice --orders 200
  manage.py limit_client alice --orders default --reads none
"""
    acts = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", type=storable, help="the account's name")
        for limit in limits.LIMITS:
            text = f"{limit.name} in a second: a number, none or default"
            parser.add_argument(f"--{limit.name}", type=rate, default=argparse.SUPPRESS, metavar="RATE", help=text)
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        user = User.objects.filter(username=name).first()
        if user is None:
            refuse(f"There is no account {name}.")
        given = {limit.field: options[limit.name] for limit in limits.LIMITS if limit.name in options}
        changed = bool(given) and limits.change(user, given, by=actor())
        own = limits.own(user)
        held = ", ".join(f"{limit.name} {limit.in_words(own[limit.field])}" for limit in limits.LIMITS)
        document = {"account": name, "changed": changed, **own}
        self.tell(options, document, f"{name} may send in a second: {held}.")
