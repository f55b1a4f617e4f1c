from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from exchanges import demo
from quiktrade.management.operator_command import DJANGOS_OPTIONS


class Command(BaseCommand):
    help = (
        "Fill an empty database with what it takes to try QuikTrade: a venue, an operator for the console and two "
        "clients of the API. Their passwords are shown once. A database with users or venues is left as it is."
    )
    suppressed_base_arguments = DJANGOS_OPTIONS

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--exchange",
            default="http://127.0.0.1:8765",
            metavar="URL",
            help="where the simulated exchange takes orders (%(default)s)",
        )

    def handle(self, *args: Any, exchange: str, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("Production takes no demo data. Its first user: manage.py createsuperuser")
        passwords = demo.load(exchange)
        if not passwords:
            self.stdout.write("The database is in use: no demo data.")
            return
        self.stdout.write("New accounts, with passwords that are shown only now:\n\n")
        for name, password in passwords.items():
            self.stdout.write(f"  {name:10} {password}")
