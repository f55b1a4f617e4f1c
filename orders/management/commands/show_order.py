"""`manage.py show_order`: one order and all that happened to it."""

from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import CommandParser
from rich.table import Table
from rich.text import Text

from orders import selectors
from orders.management.order_arguments import (
    event_document,
    foreign,
    history_table,
    order_document,
    order_id,
    price_text,
    status_text,
)
from orders.models import Order
from quiktrade.console.times import ahead, stamp
from quiktrade.management.operator_command import OperatorCommand, misuse, refuse
from quiktrade.texts import storable


class Command(OperatorCommand):
    help = "Show an order and its history."
    examples = """\
  manage.py show_order 01a205ec-fe66-77e0-a5bf-48ec8dd4e003
  manage.py show_order mom-20261123-0042 --client alice
  manage.py show_order 01a205ec-fe66-77e0-a5bf-48ec8dd4e003 --json | jq '.events[-1]'
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", metavar="ID", help="the order's id or, with --client, that client's own id for it")
        parser.add_argument("--client", metavar="NAME", help="ID is the client_order_id of this user's order")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        order = _find(options["id"], options["client"])
        events = list(selectors.history(order.pk))
        if options["json"]:
            self.tell(options, {**order_document(order), "events": [event_document(event) for event in events]}, "")
            return
        self.show(_facts(order), history_table(events))


def _find(text: str, client: str | None) -> Order:
    orders = Order.objects.select_related("owner")
    if client is not None:
        order = orders.filter(owner__username=storable(client), client_order_id=storable(text)).first()
        if order is None:
            refuse(f"{client!r} has no order with the client_order_id {text!r}.")
        return order
    try:
        order = orders.filter(pk=order_id(text)).first()
    except ArgumentTypeError as error:
        misuse(f"{error}.")
    if order is None:
        refuse(f"There is no order {text}.")
    return order


def _facts(order: Order) -> Table:
    facts: list[tuple[str, object]] = [
        ("order", order.pk),
        ("client", f"{order.owner.get_username()}, {order.client_order_id}"),
        ("status", status_text(order.stands)),
        ("terms", f"{order.side} {order.quantity} {order.instrument} {order.type} {order.time_in_force}"),
        ("limit price", price_text(order.limit_price)),
        ("stop price", price_text(order.stop_price)),
        ("expires at", order.expires_at and stamp(order.expires_at)),
        ("place by", order.place_by and stamp(order.place_by)),
        ("venue", f"{order.venue_id} {order.venue_order_id}".strip()),
        ("attempts", order.attempt),
        ("next attempt", order.next_attempt_at and f"{order.next_attempt_at:%H:%M:%S}, {ahead(order.next_attempt_at)}"),
        ("last error", order.last_error or None),
    ]
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts:
        if value is not None:
            table.add_row(name, value if isinstance(value, Text) else foreign(str(value)))
    return table
