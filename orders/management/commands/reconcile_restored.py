"""`manage.py reconcile_restored`: after a restore, find out what became of the orders."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser
from rich.table import Table

from exchanges.models import Venue
from orders.management.many_orders import counted
from orders.management.order_arguments import foreign
from orders.models import Order
from orders.placement import sweep_orders
from orders.reconciliation import reconcile_due_orders
from orders.restoring import Listed, Orphan, doubt_orders, list_orphans, undecided
from quiktrade.management.operator_command import OperatorCommand, actor, misuse, reason, refuse

LOOK_SECONDS = 0.5


class Command(OperatorCommand):
    help = """After the database was restored to an earlier time, find out what became of its orders.

Stop the API, the workers and the sessions, and halt every venue first. Each order that waits to be sent may have been
sent since: its venue is asked, and it waits again only if the venue does not have it. Then the orders are listed that
venues have and this database does not: they were accepted after that time. Nothing is sent to a venue."""
    examples = """\
  manage.py reconcile_restored --reason "restored to 09:30, incident 4711"
  manage.py reconcile_restored --reason "restored to 09:30, incident 4711" --seconds 900 --json
"""

    def add_arguments(self, parser: CommandParser) -> None:
        help_ = "ask the venues for this long at most (%(default)g)"
        parser.add_argument("--reason", required=True, type=reason, metavar="TEXT", help="why; kept in the history")
        parser.add_argument("--seconds", type=float, default=300.0, metavar="N", help=help_)
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 < options["seconds"] < float("inf"):
            misuse("--seconds must be greater than 0.")
        venues = list(Venue.objects.order_by("code"))
        if sending := [venue.code for venue in venues if not venue.halted]:
            refuse(f"Halt every venue first, so that nothing is sent meanwhile. Not halted: {', '.join(sending)}.")
        until = time.monotonic() + options["seconds"]
        doubted = doubt_orders(actor=actor(), reason=options["reason"])
        while undecided().exists() and time.monotonic() < until:
            sweep_orders()
            if not reconcile_due_orders(stopping=lambda: time.monotonic() >= until):
                time.sleep(LOOK_SECONDS)
        left = list(undecided().order_by("pk").values_list("pk", flat=True))
        parked = list(Order.objects.filter(parked_at__isnull=False).order_by("pk").values_list("pk", flat=True))
        listed = {venue.code: list_orphans(venue) for venue in venues}
        orphans = [orphan for code in listed for orphan in listed[code].orphans]
        errors = {code: found.error for code, found in listed.items() if found.error}
        document = {
            "doubted": doubted,
            "undecided": left,
            "parked": parked,
            "orphans": [orphan._asdict() for orphan in orphans],
            "of_others": {code: found.foreign for code, found in listed.items() if found.foreign},
            "not_listed": errors,
        }
        self.tell(options, document, _text(document, listed))
        if orphans and not options["json"]:
            self.show(_table(orphans))
        counts = {"undecided": len(left), "parked": len(parked), "without a row": len(orphans)}
        counts["venues not listed"] = len(errors)
        if any(counts.values()):
            said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
            refuse(f"Left to you: {said}. See what to do in docs/operations.md, “After a restore”.")


def _text(document: Mapping[str, Any], listed: Mapping[str, Listed]) -> str:
    lines = [f"Orders that may have been sent since: {document['doubted']}."]
    if left := document["undecided"]:
        lines.append(f"Not decided yet: {len(left)}. Run the command again; the first is {left[0]}.")
    else:
        lines.append("What became of each is known, but for those that are parked.")
    lines.append(f"Parked, for an operator: {len(document['parked'])}.")
    for code, found in listed.items():
        if found.error:
            lines.append(f"{code}: compare with the venue's own records, because it was not listed: {found.error}.")
        else:
            others = f"; {found.foreign} under ids that are not ours" if found.foreign else ""
            count = len(found.orphans)
            lines.append(f"{code}: {counted(count)} there {'has' if count == 1 else 'have'} no row here{others}.")
    return "\n".join(lines)


def _table(orphans: Sequence[Orphan]) -> Table:
    table = Table("Venue", "Placed under the id", "Venue's own id", "There", "Executed", title="Without a row here")
    for orphan in orphans:
        executed = "" if orphan.executed is None else str(orphan.executed)
        there = "open" if orphan.works else "not open"
        table.add_row(orphan.venue, foreign(orphan.order_id), foreign(orphan.venue_order_id), there, executed)
    return table
