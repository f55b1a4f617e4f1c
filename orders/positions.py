"""What an owner holds of an instrument at one venue, and what trading it has brought in: the average-cost method.

A holding is four sums over the executions that count, and `realized`. Its cost follows from them exactly, as bought
value − sold value + realized, whatever was rounded. Where an execution closes a part of what is held, that part of the
cost is released, rounded half to even to eight places; closing all of it releases all of the cost, unrounded.

The method depends on the sequence of executions, which is that in which they were recorded. A correction takes the
place of what it corrects. So an execution that is taken back or corrected changes what later ones realized, and the
holding is computed again from its executions.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from orders import archive
from orders.facts import EXACT
from orders.models import Side
from quiktrade.database.statements import fetch
from quiktrade.decimals import divided

ZERO = Decimal(0)
MOST_REPLAYED = 100_000
"""Executions of one holding that are read again because one of them was taken back or corrected. This takes about half
a second; the lease of a session is a few seconds, and all reports of the venue wait meanwhile."""


@dataclass(slots=True)
class Holding:
    """A position while executions are counted. `version` is that of its row, 0 where there is none."""

    bought_quantity: int = 0
    bought_value: Decimal = ZERO
    sold_quantity: int = 0
    sold_value: Decimal = ZERO
    realized: Decimal = ZERO
    version: int = 0

    @property
    def quantity(self) -> int:
        """What is held; below zero, what is owed."""
        return self.bought_quantity - self.sold_quantity

    @property
    def cost(self) -> Decimal:
        """What was paid for it; below zero, what was received for it."""
        return cost(self.bought_value, self.sold_value, self.realized)

    def add(self, side: str, quantity: int, value: Decimal) -> None:
        """Count a quantity and its value, which are below zero for an execution that counts no more."""
        if side == Side.BUY:
            self.bought_quantity += quantity
            self.bought_value = EXACT.add(self.bought_value, value)
        else:
            self.sold_quantity += quantity
            self.sold_value = EXACT.add(self.sold_value, value)

    def trade(self, side: str, quantity: int, price: Decimal) -> None:
        """Count an execution that comes behind all others."""
        held = self.quantity
        closes = min(quantity, max(0, -held if side == Side.BUY else held))
        if closes:
            released = self.cost
            if closes < abs(held):
                released = divided(released, abs(held), times=closes)
            brought_in = EXACT.multiply(closes, price)
            if side == Side.BUY:
                brought_in = brought_in.copy_negate()
            self.realized = EXACT.add(self.realized, EXACT.subtract(brought_in, released))
        self.add(side, quantity, EXACT.multiply(quantity, price))


def cost(bought_value: Decimal, sold_value: Decimal, realized: Decimal) -> Decimal:
    return EXACT.add(EXACT.subtract(bought_value, sold_value), realized)


class Recorded(NamedTuple):
    """A stored execution of a holding."""

    order_id: UUID
    execution_id: str
    refers_to: str
    side: str
    quantity: int
    price: Decimal | None
    """None for one that takes another back, which counts for nothing itself."""


def realized(recorded: Iterable[Recorded]) -> Decimal:
    """What the executions that count have realized. `recorded` are all of a holding, as they were recorded."""
    holding = Holding()
    for side, quantity, price in _counting(list(recorded)):
        holding.trade(side, quantity, price)
    return holding.realized


def _counting(recorded: Sequence[Recorded]) -> Iterator[tuple[str, int, Decimal]]:
    """The executions that count, each in the place of the first report of what it corrects."""
    corrected: dict[tuple[UUID, str], tuple[UUID, str]] = {}

    def original(key: tuple[UUID, str]) -> tuple[UUID, str]:
        """The execution that it corrects, or that what it corrects corrects, and so on."""
        found = key
        while found in corrected:
            found = corrected[found]
        while key != found:  # so that the next one has one step to go
            corrected[key], key = found, corrected[key]
        return found

    gone = {(each.order_id, each.refers_to) for each in recorded if each.refers_to}
    for each in recorded:
        if each.refers_to:
            one, other = original((each.order_id, each.execution_id)), original((each.order_id, each.refers_to))
            if one != other:  # a venue may say that two executions correct each other
                corrected[one] = other
    places: dict[tuple[UUID, str], int] = {}
    counting = []
    for at, each in enumerate(recorded):
        own = (each.order_id, each.execution_id)
        place = places.setdefault(original(own), at)
        if own not in gone and each.price is not None:
            counting.append((place, at, each.side, each.quantity, each.price))
    return ((side, quantity, price) for _, _, side, quantity, price in sorted(counting))


_OF_HOLDING = """(SELECT x.id, x.owner_id, x.instrument, x.order_id, x.execution_id, x.refers_to, x.side, x.quantity,
        x.price FROM {} x WHERE x.owner_id = k.owner_id AND x.venue_id = %(venue)s AND x.instrument = k.instrument
        ORDER BY x.id LIMIT %(limit)s)"""
_RECORDED = f"""
SELECT e.owner_id, e.instrument, e.order_id, e.execution_id, e.refers_to, e.side, e.quantity, e.price
FROM unnest(%(owners)s::int[], %(instruments)s::text[]) AS k (owner_id, instrument) CROSS JOIN LATERAL (
    {" UNION ALL ".join(_OF_HOLDING.format(table) for table in ("orders_execution", archive.EXECUTION))}
    ORDER BY id LIMIT %(limit)s) e
ORDER BY e.id
"""
_INCOMPLETE = """
SELECT owner_id, instrument FROM orders_position WHERE venue_id = %(venue)s AND incomplete
    AND (owner_id, instrument) IN (SELECT * FROM unnest(%(owners)s::int[], %(instruments)s::text[]))
"""


def replay(venue: str, holdings: dict[tuple[int, str], Holding]) -> list[tuple[int, str]]:
    """Compute again what holdings of a venue have realized; the keys are owners and instruments.

    Returns the keys of those that have too many executions for that, or had some that are no longer stored. These keep
    what they had realized, except that a holding of nothing has no cost.
    """
    owners, instruments = [owner for owner, _ in holdings], [instrument for _, instrument in holdings]
    asked = {"venue": venue, "owners": owners, "instruments": instruments, "limit": MOST_REPLAYED + 1}
    found: dict[tuple[int, str], list[Recorded]] = {key: [] for key in holdings}
    for owner, instrument, *execution in fetch(_RECORDED, asked):
        found[owner, instrument].append(Recorded(*execution))
    incomplete = {(owner, instrument) for owner, instrument in fetch(_INCOMPLETE, asked)}
    too_many = []
    for key, recorded in found.items():
        holding = holdings[key]
        if len(recorded) <= MOST_REPLAYED and key not in incomplete:
            holding.realized = realized(recorded)
        else:
            too_many.append(key)
            if holding.quantity == 0:
                holding.realized = EXACT.subtract(holding.sold_value, holding.bought_value)
    return too_many
