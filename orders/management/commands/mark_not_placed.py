"""`manage.py mark_not_placed`: an operator's word on a parked order."""

from typing import Any

from django.core.management.base import CommandParser

from orders.management.order_arguments import order_id, result_documents
from orders.reconciliation import mark_not_placed
from quiktrade.management.operator_command import OperatorCommand, actor, reason, refuse


class Command(OperatorCommand):
    help = """Record your word that a parked order is not at its venue.

The venue is asked once more first. Where it gives no answer nothing is recorded, and where it says something
else, that is recorded instead. The order is failed then: requeue or cancel it."""
    examples = """\
  manage.py mark_not_placed 01a205ec-fe66-77e0-a5bf-48ec8dd4e003 --reason "seen on the screen"
"""

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("id", type=order_id, metavar="ID", help="the order")
        add("--reason", type=reason, required=True, metavar="TEXT", help="why; kept in the order's history")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        result = mark_not_placed(options["id"], actor=actor(), reason=options["reason"])
        self.tell(options, {"orders": result_documents([result])}, f"{result.key}: {result.explanation}")
        if not result.done:
            refuse("Not recorded.")
