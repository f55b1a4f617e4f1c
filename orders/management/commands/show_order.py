"""`manage.py show_order`: one order, what of it was executed, and all that happened to it."""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django.core.management.base import CommandParser
from rich.table import Table
from rich.text import Text

from orders import archive, selectors
from orders.archive_models import ClientKey
from orders.executions import Trade, page_of_executions
from orders.facts import average_price, leaves_quantity
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
    acts = False
    help = "Show an order, its executions and its history."
    examples = """\
  manage.py show_order 01a205ec-fe66-77e0-a5bf-48ec8dd4e003
  manage.py show_order mom-20261123-0042 --client alice
  manage.py show_order 01a205ec-fe66-77e0-a5bf-48ec8dd4e003 --json | jq '.events[-1]'
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", metavar="ID", help="the order's id or, with --client, its client_order_id")
        parser.add_argument("--client", metavar="NAME", help="ID is the client_order_id that this user gave the order")
        self.add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        order = _find(options["id"], options["client"])
        events = selectors.whole_history(order.pk)
        trades = page_of_executions(
            order.owner_id, {"order": order.pk}, after=None, newest_first=False, limit=MOST_EXECUTIONS
        )
        if options["json"]:
            document = {
                **order_document(order),
                "leaves_quantity": leaves_quantity(order),
                "average_price": price_text(_average(order)),
                "executions": [_document(trade) for trade in trades],
                "events": [event_document(event) for event in events],
            }
            self.tell(options, document, "")
            return
        self.show(_facts(order), *([_executions(trades)] if trades else []), history_table(events))


def _find(text: str, client: str | None) -> Order:
    orders = Order.objects.select_related("owner")
    if client is not None:
        order = orders.filter(owner__username=storable(client), client_order_id=storable(text)).first()
        order = order or _archived_as(storable(client), storable(text))
        if order is None:
            refuse(f"{client!r} has no order with the client_order_id {text!r}.")
        return order
    try:
        order = archive.orders_anywhere([order_id(text)]).get(order_id(text))
    except ArgumentTypeError as error:
        misuse(f"{error}.")
    if order is None:
        refuse(f"There is no order {text}.")
    return order


def _archived_as(client: str, client_order_id: str) -> Order | None:
    keys = ClientKey.objects.filter(owner__username=client, client_order_id=client_order_id, of=ClientKey.Of.ORDER)
    ids = list(keys.values_list("order_id", flat=True))
    return archive.orders_anywhere(ids).get(ids[0]) if ids else None


MOST_EXECUTIONS = 10_000


def _average(order: Order) -> Decimal | None:
    return average_price(order.filled_value, order.filled_quantity)


def _document(trade: Trade) -> dict[str, Any]:
    """As clients see it, without what is true of the whole order."""
    return {
        "execution_id": trade.execution_id,
        "quantity": trade.quantity,
        "price": price_text(trade.price),
        "corrects": trade.corrects or None,
        "busted_by": trade.busted_by,
        "corrected_by": trade.corrected_by,
        "executed_at": trade.executed_at,
        "recorded_at": trade.recorded_at,
    }


def _executions(trades: Sequence[Trade]) -> Table:
    table = Table("Executed (UTC)", "Execution", "Quantity", "Price", "Counts")
    for trade in trades:
        later = (("taken back by", trade.busted_by), ("corrected by", trade.corrected_by))
        counts = ", ".join(f"no: {word} {name}" for word, name in later if name) or "yes"
        counts += f", in place of {trade.corrects}" if trade.corrects else ""
        at = f"{trade.executed_at:%Y-%m-%d %H:%M:%S}.{trade.executed_at.microsecond // 1000:03}"
        price = price_text(trade.price) or ""
        table.add_row(at, foreign(trade.execution_id), str(trade.quantity), price, foreign(counts))
    return table


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
        ("executed", f"{order.filled_quantity} of {order.quantity}, {leaves_quantity(order)} left"),
        ("average price", price_text(_average(order))),
        ("ended there", order.ended or None),
        ("attempts", order.attempt),
        ("next attempt", order.next_attempt_at and f"{order.next_attempt_at:%H:%M:%S}, {ahead(order.next_attempt_at)}"),
        ("last error", order.last_error or None),
    ]
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts:
        if value is not None:
            table.add_row(name, value if isinstance(value, Text) else foreign(str(value)))
    return table
