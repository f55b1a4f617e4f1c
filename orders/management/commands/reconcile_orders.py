"""`manage.py reconcile_orders`: ask the venues what became of unconfirmed orders."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.core.management.base import CommandParser

from orders.attention import unconfirmed_orders
from orders.management.order_arguments import known_venue, order_id, result_documents
from orders.reconciliation import reconcile_orders
from quiktrade.management.operator_command import OperatorCommand, actor, misuse, refuse
from quiktrade.outcomes import Outcome

BATCH = 200


class Command(OperatorCommand):
    help = """Ask the venues now what became of unconfirmed orders, parked ones included.

An order moves only on the venue's word: it is found (placed or rejected), or the venue does not know it and
its class makes a re-send safe. Without an answer it stays unconfirmed."""
    examples = """\
  manage.py reconcile_orders 01a205ec-fe66-77e0-a5bf-48ec8dd4e003
  manage.py reconcile_orders --venue XSIM
  manage.py reconcile_orders --all --json
"""

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("ids", nargs="*", type=order_id, metavar="ID", help="the orders themselves")
        add("--venue", metavar="CODE", help="all unconfirmed orders of this venue")
        add("--all", action="store_true", help="all unconfirmed orders")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = _chosen(options)
        results: list[Outcome] = []
        for start in range(0, len(chosen), BATCH):
            results += reconcile_orders(chosen[start : start + BATCH], actor=actor())
        done = sum(result.done for result in results)
        document = {"reconciled": done, "undecided": len(results) - done, "orders": result_documents(results)}
        lines = [f"{result.key}: {'now ' if result.done else ''}{result.explanation}" for result in results]
        self.tell(options, document, "\n".join(lines or ["There is no unconfirmed order."]))
        if done < len(results):
            refuse(f"{len(results) - done} of {len(results)} not reconciled.")


def _chosen(options: Mapping[str, Any]) -> list[UUID]:
    if sum(map(bool, (options["ids"], options["venue"], options["all"]))) != 1:
        misuse("Name orders by id, or give --venue CODE, or --all.")
    if options["ids"]:
        return list(dict.fromkeys(options["ids"]))
    return list(unconfirmed_orders(venue=known_venue(options["venue"])).values_list("pk", flat=True))
