"""`manage.py resume_venue`: send orders to a halted venue again."""

from typing import Any

from django.core.management.base import CommandParser

from exchanges import services
from quiktrade.management.operator_command import OperatorCommand, actor, reason, refuse


class Command(OperatorCommand):
    help = "Resume a halted venue: the orders that waited are sent at once."
    examples = '  manage.py resume_venue XSIM --reason "prices are right again"\n'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("code", metavar="CODE", help="the venue's market identifier code, such as XSIM")
        parser.add_argument("--reason", required=True, type=reason, metavar="TEXT", help="why; kept in its history")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            venue = services.resume_venue(options["code"], actor=actor(), reason=options["reason"])
        except services.VenueNotChanged as error:
            refuse(str(error))
        document = {"venue": venue.code, "halted": False, "reason": options["reason"]}
        self.tell(options, document, f"{venue.code} is resumed; its waiting orders are due now.")
