"""What a client executed and what it holds: queries. None of them locks a row."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from itertools import starmap
from typing import Any, NamedTuple
from uuid import UUID

from orders import archive
from orders.positions import cost
from quiktrade.database import replica
from quiktrade.database.statements import fetch
from quiktrade.decimals import divided


@dataclass(slots=True)
class Trade:
    """An execution as its client sees it: one that was made, also if it was taken back or corrected later."""

    id: int
    venue_id: str
    execution_id: str
    order_id: UUID
    client_order_id: str
    instrument: str
    side: str
    quantity: int
    price: Decimal
    executed_at: datetime
    recorded_at: datetime
    corrects: str
    """The execution in whose place it is; empty for most."""
    busted_by: str | None
    corrected_by: str | None


# What takes an execution back or corrects it is a report about the same order: the ids of executions are the venue's.
def _trades(executions: str, orders: str) -> str:
    return f"""
SELECT e.id, e.venue_id, e.execution_id, e.order_id, o.client_order_id, e.instrument, e.side, e.quantity, e.price,
    e.executed_at, e.recorded_at, e.refers_to, later.busted_by, later.corrected_by
FROM {executions} e JOIN {orders} o ON o.id = e.order_id CROSS JOIN LATERAL (
    SELECT min(x.execution_id) FILTER (WHERE x.kind = 'busted') AS busted_by,
        min(x.execution_id) FILTER (WHERE x.kind = 'corrected') AS corrected_by
    FROM {executions} x WHERE x.venue_id = e.venue_id AND x.refers_to = e.execution_id AND x.refers_to <> ''
        AND x.order_id = e.order_id) later
"""


_TRADES, _ARCHIVED = _trades("orders_execution", "orders_order"), _trades(archive.EXECUTION, archive.ORDER)

FILTERS = {
    "order": "e.order_id = %(order)s",
    "venue": "e.venue_id = %(venue)s",
    "instrument": "e.instrument = %(instrument)s",
    "from": "e.executed_at >= %(from)s",
    "to": "e.executed_at < %(to)s",
}


class Place(NamedTuple):
    """The last execution of a page, by its time and our number of it."""

    executed_at: datetime
    id: int


def page_of_executions(
    owner_id: int, filters: Mapping[str, Any], *, after: Place | None, newest_first: bool, limit: int
) -> list[Trade]:
    """Up to `limit` of this client's executions behind a place, by the time at which they were made.

    Those of archived orders are among them. As in selectors.page_of_orders, they are read only where they may be.
    """
    conditions = ["e.owner_id = %(owner)s", "e.kind <> 'busted'", *(FILTERS[name] for name in filters)]
    parameters = {"owner": owner_id, "limit": limit, **filters}
    if after is not None:
        conditions.append(f"(e.executed_at, e.id) {'<' if newest_first else '>'} (%(after_at)s, %(after_id)s)")
        parameters |= {"after_at": after.executed_at, "after_id": after.id}
    direction = "DESC" if newest_first else "ASC"
    order = f"ORDER BY e.executed_at {direction}, e.id {direction} LIMIT %(limit)s"
    of_both = f"ORDER BY executed_at {direction}, id {direction} LIMIT %(limit)s"
    where = f"WHERE {' AND '.join(conditions)} {order}"
    both = f"({_TRADES} {where}) UNION ALL ({_ARCHIVED} {where}) {of_both}"
    bounds = [filters.get("from"), after.executed_at if after and not newest_first else None]
    begins = max((at for at in bounds if at is not None), default=None)

    def read() -> list[tuple[Any, ...]]:
        rows = fetch(f"{_TRADES} {where}", parameters)
        if rows and "order" in filters:  # an order is archived with all of its executions
            return rows
        oldest = begins
        if newest_first and len(rows) == limit:  # no older execution is on the page
            oldest = rows[-1][_EXECUTED_AT]
        if not archive.may_have(oldest) or (newest := archive.newest_execution_at(owner_id)) is None:
            return rows
        return fetch(both, parameters) if oldest is None or oldest <= newest else rows

    return list(starmap(Trade, replica.read(read)))


_EXECUTED_AT = [column.name for column in fields(Trade)].index("executed_at")


@dataclass(slots=True)
class Held:
    """What a client holds of an instrument; below zero, what it owes."""

    instrument: str
    bought_quantity: Decimal
    bought_value: Decimal
    sold_quantity: Decimal
    sold_value: Decimal
    realized: Decimal
    as_of: datetime
    """When an execution changed it last."""

    @property
    def quantity(self) -> int:
        return int(self.bought_quantity) - int(self.sold_quantity)

    @property
    def cost(self) -> Decimal:
        return cost(self.bought_value, self.sold_value, self.realized)

    @property
    def average_cost(self) -> Decimal | None:
        return divided(self.cost, self.quantity) if self.quantity else None


def page_of_positions(owner_id: int, *, venue: str | None, after: str | None, limit: int) -> list[Held]:
    """Up to `limit` of this client's positions by instrument, added up over venues or at one of them."""
    conditions = ["owner_id = %(owner)s"]
    conditions += ["venue_id = %(venue)s"] if venue else []
    conditions += ["instrument > %(after)s"] if after else []
    statement = f"{_POSITIONS} WHERE {' AND '.join(conditions)} GROUP BY instrument ORDER BY instrument LIMIT %(limit)s"
    parameters = {"owner": owner_id, "venue": venue, "after": after, "limit": limit}
    return list(starmap(Held, replica.read(lambda: fetch(statement, parameters))))


_POSITIONS = """
SELECT instrument, sum(bought_quantity), sum(bought_value), sum(sold_quantity), sum(sold_value), sum(realized),
    max(updated_at) FROM orders_position
"""
