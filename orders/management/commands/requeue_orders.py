"""`manage.py requeue_orders`: have failed orders tried again."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.core.management.base import CommandParser
from django.utils import timezone

from orders.attention import failed_orders
from orders.management.order_arguments import (
    duration,
    known_venue,
    order_document,
    order_id,
    order_table,
    refusals,
    result_documents,
)
from orders.models import Order
from orders.services import requeue_orders
from quiktrade.management.operator_command import OperatorCommand, actor, misuse, reason, refuse
from quiktrade.outcomes import Outcome
from quiktrade.texts import storable

BATCH = 1000
"""Orders moved in one transaction: a long transaction would delay placement."""

SHOWN = 20


class Command(OperatorCommand):
    help = """Have failed orders tried again, with a fresh count of attempts.

Failed means that nothing of the order is at the venue, so this cannot place an order twice.
Choose orders by id, or all failed ones that meet every condition given."""
    examples = """\
  manage.py requeue_orders 01a205ec-fe66-77e0-a5bf-48ec8dd4e003 --reason "venue is back"
  manage.py requeue_orders --venue XSIM --error stale_request --dry-run
  manage.py requeue_orders --venue XSIM --older-than 10m --yes --reason "incident 4711 is over"
"""

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("ids", nargs="*", type=order_id, metavar="ID", help="the orders themselves")
        add("--venue", metavar="CODE", help="failed orders for this venue")
        add("--older-than", type=duration, metavar="AGE", help="accepted longer ago than this: 90s, 10m, 2h, 3d")
        add("--error", type=storable, metavar="TEXT", help="whose last error contains this, in any case")
        add("--reason", type=reason, metavar="TEXT", help="why; kept in each order's history (not with --dry-run)")
        add("--dry-run", action="store_true", help="only show what would be requeued")
        add("--yes", action="store_true", help="do not ask before requeuing more than one")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = _chosen(options)
        if options["dry_run"]:
            self._show(options, chosen)
            return
        if options["reason"] is None:
            misuse("--reason is needed: it is kept in each order's history.")
        if len(chosen) > 1 and not options["yes"] and not self._confirmed(options, chosen):
            refuse("Nothing was requeued.")
        results: list[Outcome] = []
        for start in range(0, len(chosen), BATCH):
            results += requeue_orders(chosen[start : start + BATCH], actor=actor(), reason=options["reason"])
        done = sum(result.done for result in results)
        document = {"requeued": done, "refused": len(results) - done, "orders": result_documents(results)}
        lines = [*refusals(results), f"Requeued {_orders(done)}." if chosen else "No failed order meets that."]
        self.tell(options, document, "\n".join(lines))
        if done < len(results):
            refuse(f"{_orders(len(results) - done)} not requeued.")

    def _show(self, options: Mapping[str, Any], chosen: Sequence[UUID]) -> None:
        orders = Order.objects.filter(pk__in=chosen).select_related("owner").order_by("pk")
        if options["json"]:
            self.tell(options, {"dry_run": True, "orders": [order_document(order) for order in orders]}, "")
            return
        self._table(chosen)
        self.stdout.write(f"Would requeue {_orders(len(chosen))}. Nothing was changed.")

    def _confirmed(self, options: Mapping[str, Any], chosen: Sequence[UUID]) -> bool:
        if options["json"] or not self.interactive():
            misuse(f"This would requeue {_orders(len(chosen))}. Add --yes to do so, or --dry-run to see them.")
        self._table(chosen)
        return input(f"Requeue {_orders(len(chosen))}? [y/N] ").strip().lower() in ("y", "yes")

    def _table(self, chosen: Sequence[UUID]) -> None:
        shown = Order.objects.filter(pk__in=chosen[:SHOWN]).order_by("pk")
        if chosen:
            title = f"{min(SHOWN, len(chosen))} of {_orders(len(chosen))}, oldest first"
            self.show(order_table(shown, title=title))


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


def _orders(count: int) -> str:
    return "1 order" if count == 1 else f"{count} orders"
