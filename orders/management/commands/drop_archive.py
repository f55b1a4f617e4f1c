"""`manage.py drop_archive`: remove a month of the archive that was exported."""

import logging
from typing import Any

from django.core.management.base import CommandParser

from orders import exports
from orders.archive_models import ArchiveMonth
from orders.management.months import month
from quiktrade.management.operator_command import OperatorCommand, actor, misuse, reason, refuse

logger = logging.getLogger(__name__)


class Command(OperatorCommand):
    help = """Remove all archived orders of a month, with their events, executions and requests, for good.

A month that was not exported, or that has changed since, is refused. The clients' own ids of its orders stay taken,
unless QUIKTRADE_KEEP_KEYS_DAYS says otherwise. Positions stay as they are; but what they have realized is not computed
again when a venue takes an execution back."""
    examples = """\
  manage.py export_orders 2021-01 --to /var/lib/quiktrade/exports
  manage.py drop_archive 2021-01 --reason "kept for five years" --yes
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("month", type=month, metavar="MONTH", help="the month, as 2021-01")
        parser.add_argument("--reason", type=reason, required=True, metavar="TEXT", help="why; written to the log")
        parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = options["month"]
        orders = ArchiveMonth.objects.filter(month=chosen).values_list("orders", flat=True).first() or 0
        if not options["yes"]:
            if options["json"] or not self.interactive():
                misuse(f"This would remove {orders:,} orders of {chosen:%Y-%m} for good. Add --yes to do so.")
            if input(f"Remove {orders:,} orders of {chosen:%Y-%m} for good? [y/N] ").strip().lower() != "y":
                refuse("Nothing was removed.")
        try:
            dropped = exports.drop(chosen)
        except exports.Refused as why:
            refuse(str(why))
        fields = {"event": "archive.dropped", "month": f"{chosen:%Y-%m}", "orders": dropped, "actor": actor()}
        logger.warning("A month of the archive was removed", extra={**fields, "reason": options["reason"]})
        self.tell(
            options, {"month": f"{chosen:%Y-%m}", "orders": dropped}, f"Removed {dropped:,} orders of {chosen:%Y-%m}."
        )
