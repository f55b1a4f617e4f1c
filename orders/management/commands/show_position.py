"""`manage.py show_position`: what a client holds."""

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandParser
from rich.table import Table

from orders.executions import Held, page_of_positions
from orders.management.order_arguments import known_venue, price_text
from orders.models import Position
from quiktrade.console.times import stamp
from quiktrade.management.operator_command import OperatorCommand, refuse
from quiktrade.texts import storable

PAGE = 500


class Command(OperatorCommand):
    acts = False
    help = """Show what a client holds of each instrument, computed from its executions and added up over venues.

For one instrument, the positions at the venues are shown, too, if there is more than one."""
    examples = """\
  manage.py show_position alice
  manage.py show_position alice US0378331005
  manage.py show_position alice --venue XSIM --json | jq '.positions[].realized'
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("client", type=storable, metavar="CLIENT", help="the user's name")
        help_ = "only this one, by its ISIN"
        parser.add_argument("instrument", nargs="?", type=storable, metavar="INSTRUMENT", help=help_)
        parser.add_argument("--venue", metavar="CODE", help="only what was executed at this venue")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        venue, instrument = known_venue(options["venue"]), options["instrument"]
        owner = User.objects.filter(username=options["client"]).values_list("pk", flat=True).first()
        if owner is None:
            refuse(f"There is no user {options['client']!r}.")
        found = [held for held in _all(owner, venue) if instrument in (None, held.instrument)]
        if not found:
            refuse(f"{options['client']!r} has no position{f' in {instrument}' if instrument else ''} there.")
        codes = _venues(owner, instrument) if instrument and venue is None else []
        parts = [(code, held) for code in codes for held in _all(owner, code) if held.instrument == instrument]
        if options["json"]:
            document = {"client": options["client"], "positions": [_document(held) for held in found]}
            if parts:
                document["venues"] = {code: _document(held) for code, held in parts}
            self.tell(options, document, "")
            return
        rows = [("all" if venue is None else venue, held) for held in found]
        self.show(_table(rows + parts if len(parts) > 1 else rows))


def _all(owner: int, venue: str | None) -> list[Held]:
    found: list[Held] = []
    after = None
    while page := page_of_positions(owner, venue=venue, after=after, limit=PAGE):
        found += page
        after = page[-1].instrument
    return found


def _venues(owner: int, instrument: str) -> list[str]:
    rows = Position.objects.filter(owner_id=owner, instrument=instrument).order_by("venue_id")
    return list(rows.values_list("venue_id", flat=True))


def _document(held: Held) -> dict[str, Any]:
    return {
        "instrument": held.instrument,
        "quantity": str(held.quantity),
        "average_cost": price_text(held.average_cost),
        "cost": price_text(held.cost),
        "realized": price_text(held.realized),
        "bought_quantity": price_text(held.bought_quantity),
        "sold_quantity": price_text(held.sold_quantity),
        "as_of": held.as_of,
    }


def _table(rows: Sequence[tuple[str, Held]]) -> Table:
    table = Table("Instrument", "Venue")
    for heading in ("Held", "Average cost", "Cost", "Realized", "Bought", "Sold"):
        table.add_column(heading, justify="right")
    table.add_column("As of")
    for venue, held in rows:
        told = _document(held)
        names = ("quantity", "average_cost", "cost", "realized", "bought_quantity", "sold_quantity")
        table.add_row(held.instrument, venue, *(told[name] or "" for name in names), stamp(held.as_of))
    return table
