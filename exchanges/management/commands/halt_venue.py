"""`manage.py halt_venue`: stop sending orders to a venue."""

from typing import Any

from django.core.management.base import CommandParser

from exchanges import services
from quiktrade.management.operator_command import OperatorCommand, actor, reason, refuse


class Command(OperatorCommand):
    help = "Halt a venue: its orders are still accepted, and wait. Requests under way are not called back."
    examples = '  manage.py halt_venue XSIM --reason "wrong prices, see incident 4711"\n'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("code", metavar="CODE", help="the venue's market identifier code, such as XSIM")
        parser.add_argument("--reason", required=True, type=reason, metavar="TEXT", help="why; kept in its history")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            venue = services.halt_venue(options["code"], actor=actor(), reason=options["reason"])
        except services.VenueNotChanged as error:
            refuse(str(error))
        document = {
            "venue": venue.code,
            "halted": True,
            "halted_at": venue.halted_at,
            "halted_by": venue.halted_by,
            "reason": venue.halt_reason,
        }
        later = f"Resume it with: manage.py resume_venue {venue.code} --reason …"
        self.tell(options, document, f"{venue.code} is halted. {later}")
