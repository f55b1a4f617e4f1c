"""How commands choose orders, and show them."""

import argparse
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from rich.table import Table
from rich.text import Text

from exchanges.models import Venue
from orders.models import Order, OrderEvent
from orders.reconciliation import checked_venue_order_id
from quiktrade.console.times import span
from quiktrade.decimals import decimal_text
from quiktrade.management.operator_command import misuse
from quiktrade.outcomes import Outcome
from quiktrade.texts import shown

COLOURS = {
    "failed": "red",
    "parked": "red",
    "rejected": "red",
    "unconfirmed": "yellow",
    "placed": "green",
    "filled": "green",
}

_DURATION = re.compile(r"(\d+)([smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def order_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an order id; find it by a client's own with: show_order {shown(text)} --client NAME"
        ) from None


def venue_order_id(text: str) -> str:
    try:
        return checked_venue_order_id(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def duration(text: str) -> timedelta:
    match = _DURATION.match(text)
    if match is None or len(match[1]) > 6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a length of time; write 90s, 10m, 2h or 3d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def known_venue(code: str | None) -> str | None:
    """End the command with a message if there is no such venue, rather than find no orders."""
    codes = list(Venue.objects.values_list("code", flat=True))
    if code is not None and code not in codes:
        misuse(f"There is no venue {code!r}. Known: {', '.join(codes) or 'none'}.")
    return code


def price_text(price: Decimal | None) -> str | None:
    """The number without the zeros that the column adds."""
    return None if price is None else decimal_text(price)


def foreign(text: str) -> Text:
    """A text of a client, a venue or a person on one line. The terminal and rich interpret nothing in it."""
    return Text(shown(text))


def status_text(status: str) -> Text:
    return Text(status, style=COLOURS.get(status, ""))


def order_table(orders: Iterable[Order], *, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("Order", no_wrap=True, min_width=36)
    for heading in ("Venue", "Terms", "Status", "Attempts", "Last error"):
        table.add_column(heading, no_wrap=True)
    for order in orders:
        terms = f"{order.side} {order.quantity} {order.instrument} {order.type}"
        table.add_row(
            str(order.pk),
            order.venue_id,
            terms,
            status_text(order.stands),
            str(order.attempt),
            foreign(order.last_error),
        )
    return table


def history_table(events: Sequence[OrderEvent]) -> Table:
    table = Table("#", "Time (UTC)", "After", "Event", "Status", "Attempt", "Actor", "Reason", "Detail")
    for event, before in zip(events, [None, *events], strict=False):
        table.add_row(
            str(event.sequence),
            f"{event.at:%Y-%m-%d %H:%M:%S}.{event.at.microsecond // 1000:03}",
            _after(event.at - before.at) if before else "",
            event.event,
            status_text(event.to_status),
            str(event.attempt or ""),
            foreign(event.actor),
            foreign(event.reason),
            foreign(", ".join(f"{key}={value}" for key, value in event.detail.items())),
        )
    return table


def _after(length: timedelta) -> str:
    milliseconds = length.total_seconds() * 1000
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else span(length)


def order_document(order: Order) -> dict[str, Any]:
    """All columns under their names; prices and times as text, exact."""
    columns = {field.name: getattr(order, field.attname) for field in Order._meta.concrete_fields}
    return {**columns, "owner": order.owner.get_username()}


def event_document(event: OrderEvent) -> dict[str, Any]:
    names = ("sequence", "at", "event", "from_status", "to_status", "attempt", "actor", "reason", "detail")
    return {name: getattr(event, name) for name in names}


def result_documents(results: Iterable[Outcome]) -> list[dict[str, Any]]:
    return [{"id": result.key, "done": result.done, "explanation": result.explanation} for result in results]


def refusals(results: Iterable[Outcome]) -> list[str]:
    return [f"{result.key}: {result.explanation}" for result in results if not result.done]
