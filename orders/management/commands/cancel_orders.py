"""`manage.py cancel_orders`: cancel orders, or have their venues cancel them."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from orders.cancels import cancel_anywhere
from orders.management.many_orders import ManyOrdersCommand, counted, in_batches
from orders.management.order_arguments import known_venue, refusals, result_documents
from orders.models import WORKING, Order, Side, Status
from quiktrade.management.operator_command import actor, misuse, refuse
from quiktrade.texts import storable

FILTERS = ("client", "venue", "instrument", "side")


class Command(ManyOrdersCommand):
    verb, done = "cancel", "canceled"
    help = """Cancel orders, or ask their venues to cancel them.

If nothing of an order is at a venue, it is canceled at once. Otherwise its venue is asked to cancel it, also if it is
halted: the order is canceled when the venue says so, and may be executed until then. Choose orders by id, or all that
may still be executed and meet every condition given, or --all of them."""
    examples = """\
  manage.py cancel_orders 01a205ec-fe66-77e0-a5bf-48ec8dd4e003 --reason "client asked by telephone"
  manage.py cancel_orders --client alice --instrument US0378331005 --dry-run
  manage.py cancel_orders --venue XSIM --yes --reason "wrong prices, incident 4711"
"""

    def add_conditions(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--client", type=storable, metavar="NAME", help="orders of this user")
        add("--venue", metavar="CODE", help="orders for this venue")
        add("--instrument", type=storable, metavar="ISIN", help="orders for this instrument")
        add("--side", choices=Side.values, help="orders of this side")
        add("--all", action="store_true", help="all orders that may still be executed, of every client and venue")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = _chosen(options)
        if not self.may_begin(options, chosen):
            return
        results = in_batches(partial(cancel_anywhere, actor=actor(), reason=options["reason"]), chosen)
        canceled = sum(result.done and result.explanation == "canceled" for result in results)
        asked = sum(result.done for result in results) - canceled
        refused = len(results) - canceled - asked
        document = {"canceled": canceled, "asked": asked, "refused": refused, "orders": result_documents(results)}
        told = f"Canceled {counted(canceled)}, and asked venues to cancel {counted(asked)}."
        self.tell(options, document, "\n".join([*refusals(results), told if chosen else "No order meets that."]))
        if refused:
            refuse(f"{counted(refused)} not canceled.")


def _chosen(options: Mapping[str, Any]) -> list[UUID]:
    selected = {name: options[name] for name in FILTERS if options[name] is not None}
    if bool(options["ids"]) + bool(selected) + options["all"] != 1:
        misuse("Name orders by id, or select them by --client, --venue, --instrument and --side, or say --all.")
    if options["ids"]:
        return list(dict.fromkeys(options["ids"]))
    known_venue(options["venue"])
    orders = Order.objects.filter(open_cancel__isnull=True)
    if "client" in selected:
        orders = orders.filter(owner_id=_client(selected.pop("client")))
    orders = orders.filter(**{"venue_id" if name == "venue" else name: value for name, value in selected.items()})
    # One query for each index of orders that are open.
    found: list[UUID] = list(orders.filter(status__in=WORKING).values_list("pk", flat=True))
    for status in (Status.PENDING, Status.SUBMITTING, Status.UNCONFIRMED, Status.FAILED):
        found += orders.filter(status=status).values_list("pk", flat=True)
    return sorted(found)


def _client(name: str) -> int:
    found = User.objects.filter(username=name).values_list("pk", flat=True).first()
    if found is None:
        misuse(f"There is no user {name!r}.")
    return found
