"""`manage.py requeue_orders`: have failed orders tried again."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from django.core.management.base import CommandParser
from django.utils import timezone

from orders.attention import failed_orders
from orders.management.many_orders import ManyOrdersCommand, counted, in_batches
from orders.management.order_arguments import duration, known_venue, refusals, result_documents
from orders.services import requeue_orders
from quiktrade.management.operator_command import actor, misuse, refuse
from quiktrade.texts import storable


class Command(ManyOrdersCommand):
    verb, done = "requeue", "requeued"
    help = """Have failed orders tried again, with a fresh count of attempts.

Failed means that nothing of the order is at the venue, so this cannot place an order twice.
Choose orders by id, or all failed ones that meet every condition given."""
    examples = """\
  manage.py requeue_orders 01a205ec-fe66-77e0-a5bf-48ec8dd4e003 --reason "venue is back"
  manage.py requeue_orders --venue XSIM --error stale_request --dry-run
  manage.py requeue_orders --venue XSIM --older-than 10m --yes --reason "incident 4711 is over"
"""

    def add_conditions(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--venue", metavar="CODE", help="failed orders for this venue")
        add("--older-than", type=duration, metavar="AGE", help="accepted longer ago than this: 90s, 10m, 2h, 3d")
        add("--error", type=storable, metavar="TEXT", help="whose last error contains this, in any case")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = _chosen(options)
        if not self.may_begin(options, chosen):
            return
        results = in_batches(partial(requeue_orders, actor=actor(), reason=options["reason"]), chosen)
        done = sum(result.done for result in results)
        document = {"requeued": done, "refused": len(results) - done, "orders": result_documents(results)}
        lines = [*refusals(results), f"Requeued {counted(done)}." if chosen else "No failed order meets that."]
        self.tell(options, document, "\n".join(lines))
        if done < len(results):
            refuse(f"{counted(len(results) - done)} not requeued.")


def _chosen(options: Mapping[str, Any]) -> list[UUID]:
    selected = any(options[name] is not None for name in ("venue", "older_than", "error"))
    if options["ids"] and selected:
        misuse("Name orders by id, or select them by --venue, --older-than and --error; not both.")
    if options["ids"]:
        return list(dict.fromkeys(options["ids"]))
    if not selected:
        misuse("Name orders by id, or select failed ones by --venue, --older-than or --error.")
    before = timezone.now() - options["older_than"] if options["older_than"] is not None else None
    orders = failed_orders(venue=known_venue(options["venue"]), accepted_before=before, error=options["error"])
    return list(orders.values_list("pk", flat=True))
