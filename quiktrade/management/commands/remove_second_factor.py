"""`manage.py remove_second_factor`: for somebody who lost their app and their recovery codes."""

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from quiktrade.auth import second_factor
from quiktrade.management.operator_command import OperatorCommand, refuse
from quiktrade.texts import storable


class Command(OperatorCommand):
    help = """Take the second factor from an account, whose owner lost the app and the recovery codes.

The console does the same on the account's page. This is for whoever is the only one that could do it there. Where a
second factor is required, the owner sets up another one at the next log-in."""
    examples = "  manage.py remove_second_factor olga"
    acts = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", type=storable, help="the account's name")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        user = User.objects.filter(username=name).first()
        if user is None:
            refuse(f"There is no account {name}.")
        if not second_factor.remove(user):
            refuse(f"The account {name} has no second factor.")
        self.tell(options, {"account": name, "removed": True}, f"{name} has no second factor any more.")
