"""`manage.py mark_placed`: an operator's word on a parked order."""

from typing import Any

from django.core.management.base import CommandParser

from orders.management.order_arguments import order_id, result_documents, venue_order_id
from orders.reconciliation import mark_placed
from quiktrade.management.operator_command import OperatorCommand, actor, reason, refuse


class Command(OperatorCommand):
    help = """Record your word that a parked order is at its venue.

The venue is asked once more first. Where it gives no answer nothing is recorded, and where it says something
else, that is recorded instead."""
    examples = """\
  manage.py mark_placed 01a205ec-fe66-77e0-a5bf-48ec8dd4e003 --venue-order-id S-17 --reason "seen on the screen"
"""

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("id", type=order_id, metavar="ID", help="the order")
        add(
            "--venue-order-id", type=venue_order_id, required=True, metavar="ID", help="the venue's own id of the order"
        )
        add("--reason", type=reason, required=True, metavar="TEXT", help="why; kept in the order's history")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        result = mark_placed(
            options["id"], venue_order_id=options["venue_order_id"], actor=actor(), reason=options["reason"]
        )
        self.tell(options, {"orders": result_documents([result])}, f"{result.key}: {result.explanation}")
        if not result.done:
            refuse("Not recorded.")
