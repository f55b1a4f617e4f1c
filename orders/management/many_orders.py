"""What commands have in common that do something with many orders: they show these first, or ask before they act."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.core.management.base import CommandParser

from orders.management.order_arguments import order_document, order_id, order_table
from orders.models import Order
from quiktrade.management.operator_command import OperatorCommand, misuse, reason, refuse
from quiktrade.outcomes import Outcome

BATCH = 1000
"""Orders moved in one transaction: a long transaction would delay placement."""

SHOWN = 20


class ManyOrdersCommand(OperatorCommand):
    """`verb` and `done` say what the command does with the orders: "requeue", "requeued"."""

    verb: ClassVar[str]
    done: ClassVar[str]

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("ids", nargs="*", type=order_id, metavar="ID", help="the orders themselves")
        self.add_conditions(parser)
        add("--reason", type=reason, metavar="TEXT", help="why; kept in each order's history (not with --dry-run)")
        add("--dry-run", action="store_true", help=f"only show which orders would be {self.done}")
        add("--yes", action="store_true", help="do not ask for confirmation when there is more than one")
        self.add_json(parser)

    def add_conditions(self, parser: CommandParser) -> None:
        raise NotImplementedError

    def may_begin(self, options: Mapping[str, Any], chosen: Sequence[UUID]) -> bool:
        """Whether to do it. With --dry-run the orders are shown instead; a person who says no ends the command."""
        if options["dry_run"]:
            self._show(options, chosen)
            return False
        if options["reason"] is None:
            misuse("--reason is needed: it is kept in each order's history.")
        if len(chosen) > 1 and not options["yes"] and not self._confirmed(options, chosen):
            refuse(f"Nothing was {self.done}.")
        return True

    def _show(self, options: Mapping[str, Any], chosen: Sequence[UUID]) -> None:
        if options["json"]:
            orders = Order.objects.filter(pk__in=chosen).select_related("owner").order_by("pk")
            self.tell(options, {"dry_run": True, "orders": [order_document(order) for order in orders]}, "")
            return
        self._table(chosen)
        self.stdout.write(f"Would {self.verb} {counted(len(chosen))}. Nothing was changed.")

    def _confirmed(self, options: Mapping[str, Any], chosen: Sequence[UUID]) -> bool:
        if options["json"] or not self.interactive():
            misuse(f"This would {self.verb} {counted(len(chosen))}. Add --yes to do so, or --dry-run to see them.")
        self._table(chosen)
        return input(f"{self.verb.capitalize()} {counted(len(chosen))}? [y/N] ").strip().lower() in ("y", "yes")

    def _table(self, chosen: Sequence[UUID]) -> None:
        shown = Order.objects.filter(pk__in=chosen[:SHOWN]).order_by("pk")
        if chosen:
            title = f"{min(SHOWN, len(chosen))} of {counted(len(chosen))}, oldest first"
            self.show(order_table(shown, title=title))


def in_batches(act: Callable[[Sequence[UUID]], Sequence[Outcome]], chosen: Sequence[UUID]) -> list[Outcome]:
    return [result for start in range(0, len(chosen), BATCH) for result in act(chosen[start : start + BATCH])]


def counted(count: int) -> str:
    return "1 order" if count == 1 else f"{count} orders"
