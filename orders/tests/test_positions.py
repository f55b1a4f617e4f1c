"""Positions: what is held and realized, against the average-cost method in exact fractions."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from exchanges.models import ReportSession
from exchanges.venue import ExecutionReport, ReportKind
from orders import lifecycle, positions
from orders.facts import EXACT
from orders.models import Execution, Order, Position
from orders.positions import Holding, Recorded
from orders.reports import Checkpoint, ingest
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory

EXAMPLES = int(os.environ.get("QUIKTRADE_TEST_EXAMPLES", "60"))
LARGE = Decimal("9999999999.99999999")
STEP = Fraction(1, 10**8)


# ---- By hand ----


@pytest.mark.parametrize(
    ("trades", "quantity", "cost", "realized"),
    [
        ([("buy", 100, "10")], 100, "1000", "0"),
        ([("buy", 100, "10"), ("buy", 100, "12")], 200, "2200", "0"),
        ([("buy", 100, "10"), ("buy", 100, "12"), ("sell", 50, "13")], 150, "1650", "100"),  # 50 of 11 each
        ([("buy", 100, "10"), ("sell", 100, "9.5")], 0, "0", "-50"),
        ([("buy", 100, "10"), ("sell", 150, "11")], -50, "-550", "100"),  # sold short: 50 for 11 each
        ([("sell", 100, "10"), ("buy", 40, "9")], -60, "-600", "40"),
        ([("sell", 100, "10"), ("buy", 150, "9")], 50, "450", "100"),
        # A third of 100 is rounded, and the rest of the cost is what is left of it.
        ([("buy", 3, "33.33333333"), ("buy", 3, "0.00000001"), ("sell", 2, "50")], 4, "66.66666668", "66.66666666"),
        # 0.5, 1.5 and 2.5 steps: a half goes to the even one.
        ([("buy", 2, "0.00000001"), ("sell", 1, "1")], 1, "0.00000001", "0.99999999"),
        ([("buy", 1, "0.00000001"), ("buy", 1, "0.00000002"), ("sell", 1, "1")], 1, "0.00000001", "0.99999998"),
        ([("buy", 1, "0.00000002"), ("buy", 1, "0.00000003"), ("sell", 1, "1")], 1, "0.00000003", "0.99999998"),
    ],
)
def test_trades_are_counted_at_average_cost(
    trades: list[tuple[str, int, str]], quantity: int, cost: str, realized: str
) -> None:
    holding = Holding()
    for side, count, price in trades:
        holding.trade(side, count, Decimal(price))
    assert (holding.quantity, holding.cost, holding.realized) == (quantity, Decimal(cost), Decimal(realized))


def test_no_digit_of_the_largest_holding_is_lost() -> None:
    holding = Holding()
    for _ in range(3):
        holding.trade("buy", 10**15 - 1, LARGE)
    holding.trade("sell", 1, Decimal("0.00000001"))
    assert holding.realized == Decimal("0.00000001") - LARGE
    holding.trade("sell", 3 * (10**15 - 1) - 1, LARGE)
    assert holding.quantity == 0
    assert EXACT.subtract(holding.bought_value, holding.realized.copy_negate()) == holding.sold_value
    assert holding.cost == 0


def recorded(execution_id: str, side: str, quantity: int, price: str | None, refers_to: str = "") -> Recorded:
    return Recorded(ORDERS[side], execution_id, refers_to, side, quantity, None if price is None else Decimal(price))


ORDERS = {"buy": uuid4(), "sell": uuid4()}


@pytest.mark.parametrize(
    ("executions", "realized"),
    [
        # bought at 10, sold at 11, bought at 20: a correction of the first is counted first
        ([("E1", "buy", 10, "10"), ("E2", "sell", 10, "11"), ("E3", "buy", 10, "20")], "10"),
        (
            [("E1", "buy", 10, "10"), ("E2", "sell", 10, "11"), ("E3", "buy", 10, "20"), ("C", "buy", 10, "9", "E1")],
            "20",
        ),
        ([("C", "buy", 10, "9", "E1"), ("E2", "sell", 10, "11"), ("E1", "buy", 10, "10")], "20"),
        ([("E1", "buy", 10, "10"), ("E2", "sell", 10, "11"), ("B", "buy", 0, None, "E1")], "0"),
        ([("B", "buy", 0, None, "E1"), ("E1", "buy", 10, "10"), ("E2", "sell", 10, "11")], "0"),
        # a correction of a correction
        (
            [
                ("E1", "buy", 10, "10"),
                ("E2", "sell", 10, "11"),
                ("E3", "buy", 10, "20"),
                ("C1", "buy", 10, "9", "E1"),
                ("C2", "buy", 10, "8", "C1"),
            ],
            "30",
        ),
        # an id of the same name at another order is another execution
        ([("E1", "buy", 10, "10"), ("E2", "sell", 10, "11"), ("B", "sell", 0, None, "E1")], "10"),
    ],
)
def test_what_is_taken_back_or_corrected_is_counted_as_if_it_had_always_been_so(
    executions: list[tuple[Any, ...]], realized: str
) -> None:
    assert positions.realized(recorded(*each) for each in executions) == Decimal(realized)


# ---- Against exact fractions ----


def in_fractions(executions: Sequence[tuple[str, int, Decimal]]) -> tuple[int, Fraction, Fraction]:
    """Quantity, cost and realized, with nothing rounded."""
    quantity, cost, realized = 0, Fraction(0), Fraction(0)
    for side, count, price in executions:
        for _ in range(2):  # what closes, then what opens
            signed = count if side == "buy" else -count
            closes = quantity * signed < 0
            part = min(count, abs(quantity)) if closes else count
            if closes:
                released = cost * part / abs(quantity)
                realized += (1 if side == "sell" else -1) * part * Fraction(price) - released
                cost -= released
            else:
                cost += (1 if side == "buy" else -1) * part * Fraction(price)
            quantity += part if side == "buy" else -part
            count -= part
    return quantity, cost, realized


PRICES = st.one_of(
    st.decimals("0.00000001", "9999999999.99999999", places=8), st.sampled_from([Decimal("0.00000003"), LARGE])
)
QUANTITIES = st.one_of(st.integers(1, 10), st.integers(1, 10**15))
TRADES = st.tuples(st.sampled_from(("buy", "sell")), QUANTITIES, PRICES)


@settings(max_examples=5 * EXAMPLES, deadline=None)
@given(st.lists(TRADES, max_size=25))
def test_a_holding_is_that_of_exact_fractions(trades: list[tuple[str, int, Decimal]]) -> None:
    holding = Holding()
    for trade in trades:
        holding.trade(*trade)
    quantity, cost, realized = in_fractions(trades)
    assert holding.quantity == quantity
    assert abs(Fraction(holding.realized) - realized) <= len(trades) * STEP
    assert abs(Fraction(holding.cost) - cost) <= len(trades) * STEP
    bought = sum((count * Fraction(price) for side, count, price in trades if side == "buy"), Fraction(0))
    sold = sum((count * Fraction(price) for side, count, price in trades if side == "sell"), Fraction(0))
    assert Fraction(holding.cost) == bought - sold + Fraction(holding.realized)
    if quantity == 0:
        assert Fraction(holding.realized) == sold - bought


class Told:
    """What a venue tells of two orders of one owner, as it was drawn."""

    def __init__(self, drawn: Sequence[tuple[str, str, int, int, Decimal]]) -> None:
        self.owner = UserFactory()
        self.orders = {side: OrderFactory(owner=self.owner, status="placed", side=side) for side in ("buy", "sell")}
        self.reports = [self.report(number, *each) for number, each in enumerate(drawn, 1)]
        self.sides = {str(order.pk): side for side, order in self.orders.items()}

    def report(
        self, number: int, kind: str, side: str, refers_to: int, quantity: int, price: Decimal
    ) -> ExecutionReport:
        prefix, order = f"{self.owner.pk}-", self.orders[side]
        refers = "" if kind == "executed" else f"{prefix}{refers_to if refers_to != number else number + 1}"
        return ExecutionReport(
            sequence=number,
            kind=ReportKind(kind),
            client_order_id=str(order.pk),
            venue_order_id=order.venue_order_id,
            execution_id=f"{prefix}{number}",
            refers_to=refers,
            quantity=0 if kind == "busted" else quantity,
            price=None if kind == "busted" else price,
        )

    def counting(self) -> list[tuple[str, int, Decimal]]:
        """Those that count, as exact trades: found by following each correction to the earliest report about it."""
        gone = {(each.client_order_id, each.refers_to) for each in self.reports if each.refers_to}
        at = {(each.client_order_id, each.execution_id): each for each in self.reports}

        def first(report: ExecutionReport) -> int:
            """The earliest of the reports that are linked to it, either way."""
            linked, todo = {report.execution_id}, [report]
            while todo:
                each = todo.pop()
                near = [at.get((each.client_order_id, each.refers_to))]
                near += [other for other in self.reports if other.refers_to and self._same(other, each)]
                for other in near:
                    if other is not None and other.execution_id not in linked:
                        linked.add(other.execution_id)
                        todo.append(other)
            return min(int(name.partition("-")[2]) for name in linked)

        counted = [
            (first(each), each.sequence, self.sides[each.client_order_id], each.quantity, each.price)
            for each in self.reports
            if each.price is not None and (each.client_order_id, each.execution_id) not in gone
        ]
        return [(side, quantity, price) for _, _, side, quantity, price in sorted(counted)]

    @staticmethod
    def _same(other: ExecutionReport, each: ExecutionReport) -> bool:
        """Whether `other` is about the execution `each`, or about what `each` is about."""
        return other.client_order_id == each.client_order_id and other.refers_to in (each.execution_id, each.refers_to)


KINDS = st.sampled_from(("executed", "executed", "executed", "busted", "corrected"))
SMALL = st.decimals("0.00000001", "99.99999999", places=8)
DRAWN = st.lists(
    st.tuples(KINDS, st.sampled_from(("buy", "sell")), st.integers(1, 12), st.integers(1, 9), SMALL),
    min_size=1,
    max_size=12,
)


@pytest.mark.django_db
def test_a_position_is_that_of_exact_fractions_with_busts_and_corrections_in_any_order() -> None:
    VenueFactory()

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(DRAWN, st.lists(st.integers(1, 5), min_size=12, max_size=12))
    def check(drawn: list[tuple[str, str, int, int, Decimal]], cuts: list[int]) -> None:
        told, at = Told(drawn), session()
        left, sizes = list(told.reports), iter(cuts)
        while left:
            size = next(sizes)
            at = ingest(left[:size], at, lease=5)
            left = left[size:]
        quantity, _, realized = in_fractions(told.counting())
        held = Position.objects.filter(owner=told.owner).first()
        if held is None:
            assert told.counting() == []
            return
        assert held.bought_quantity - held.sold_quantity == quantity
        assert abs(Fraction(held.realized) - realized) <= len(drawn) * STEP
        columns = [name for name in Recorded._fields if name != "order_id"]
        rows = Execution.objects.filter(owner=told.owner).values_list("order_id", *columns)
        assert held.realized == positions.realized(map(Recorded._make, rows.order_by("id")))

    check()


# ---- As it is written ----


def session(stream: str = "") -> Checkpoint:
    row = ReportSession.objects.create(
        venue=VenueFactory(),
        stream=stream or str(uuid4()),
        token=uuid4(),
        holder="node-1",
        lease_expires_at=timezone.now(),
    )
    return Checkpoint(row.venue_id, row.stream, row.token, 1)


def fill(order: Order, sequence: int, quantity: int, price: str) -> ExecutionReport:
    return ExecutionReport(
        sequence=sequence,
        kind=ReportKind.EXECUTED,
        client_order_id=str(order.pk),
        venue_order_id=order.venue_order_id,
        execution_id=f"E{sequence}",
        quantity=quantity,
        price=Decimal(price),
    )


def bust(order: Order, sequence: int, refers_to: str) -> ExecutionReport:
    return ExecutionReport(
        sequence=sequence,
        kind=ReportKind.BUSTED,
        client_order_id=str(order.pk),
        venue_order_id=order.venue_order_id,
        execution_id=f"B{sequence}",
        refers_to=refers_to,
    )


@pytest.fixture
def sides(db: None) -> tuple[Order, Order]:
    owner = UserFactory()
    return OrderFactory(owner=owner, status="placed"), OrderFactory(owner=owner, status="placed", side="sell")


Sides = tuple[Order, Order]


def held() -> tuple[int, Decimal]:
    row = Position.objects.get()
    return int(row.bought_quantity - row.sold_quantity), row.realized


def test_a_bust_that_counts_for_nothing_may_say_which_executions_are_one(sides: Sides) -> None:
    buy, sell = sides
    corrected = partial(replace, kind=ReportKind.CORRECTED)
    told = [
        fill(buy, 1, 1, "10"),
        fill(buy, 2, 1, "20"),
        fill(sell, 3, 1, "30"),
        corrected(fill(buy, 4, 1, "10"), refers_to="E1"),
        corrected(fill(buy, 5, 1, "40"), refers_to="B6"),  # before the report that it corrects
    ]
    at = ingest(told, session(), lease=5)
    assert held() == (2, Decimal(15))
    ingest([bust(buy, 6, "E1")], at, lease=5)  # so the fifth is about the first, too: 30 - (10 + 40 + 20) / 3
    assert held() == (2, Decimal("6.66666667"))


def test_what_was_realized_follows_a_bust(sides: Sides) -> None:
    buy, sell = sides
    at = ingest([fill(buy, 1, 10, "10"), fill(buy, 2, 10, "20"), fill(sell, 3, 10, "18")], session(), lease=5)
    assert held() == (10, Decimal(30))
    at = ingest([bust(buy, 4, "E2")], at, lease=5)
    assert held() == (0, Decimal(80))
    ingest([fill(sell, 5, 10, "9"), bust(sell, 6, "E3")], at, lease=5)
    assert held() == (0, Decimal(-10))


def moved_meanwhile(monkeypatch: pytest.MonkeyPatch, times: int, write: Callable[[], Any]) -> list[None]:
    """Have somebody else write a position between the two statements of a batch."""
    take, seen = lifecycle.take_reported, list[None]()

    def taken(*args: Any, **kwargs: Any) -> Any:
        found = take(*args, **kwargs)
        seen.append(None)
        if len(seen) <= times:
            write()
        return found

    monkeypatch.setattr(lifecycle, "take_reported", taken)
    return seen


def other_version() -> None:
    Position.objects.update(version=7)


def test_a_position_that_another_writer_changed_is_read_again(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    buy, sell = sides
    at = ingest([fill(buy, 1, 10, "10")], session(), lease=5)
    tries = moved_meanwhile(monkeypatch, 1, other_version)
    ingest([fill(sell, 2, 4, "11")], at, lease=5)
    assert (len(tries), held()) == (2, (6, Decimal(4)))


def test_a_position_that_another_writer_began_is_read_again(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = dict.fromkeys(("bought_quantity", "bought_value", "sold_quantity", "sold_value"), 0)
    key = {"owner": sides[0].owner, "venue": sides[0].venue, "instrument": sides[0].instrument}
    tries = moved_meanwhile(monkeypatch, 1, lambda: Position.objects.create(**key, **sums))
    ingest([fill(sides[0], 1, 10, "10")], session(), lease=5)
    assert (len(tries), held()) == (2, (10, Decimal(0)))


def test_a_position_that_never_stands_still_is_an_error_of_the_database(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ingest([fill(sides[0], 1, 10, "10")], session(), lease=5)
    moved_meanwhile(monkeypatch, 99, other_version)
    with pytest.raises(OperationalError, match="were changed 5 times"):
        ingest([fill(sides[0], 2, 10, "10"), fill(sides[0], 3, 10, "10")], at, lease=5)
    assert held() == (10, Decimal(0))


def test_of_too_many_executions_what_was_realized_stays(
    sides: Sides, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(positions, "MOST_REPLAYED", 3)
    buy, sell = sides
    at = ingest([fill(buy, 1, 10, "10"), fill(buy, 2, 10, "20"), fill(sell, 3, 10, "18")], session(), lease=5)
    at = ingest([bust(buy, 4, "E1")], at, lease=5)  # four executions by now
    assert held() == (0, Decimal(-20))  # nothing is held, so what was realized is known: 180 for 200
    ingest([fill(buy, 5, 1, "10"), bust(sell, 6, "E3")], at, lease=5)
    assert held() == (11, Decimal(-20))
    events = [getattr(record, "event", "") for record in caplog.records]
    assert events.count("position.not_replayed") == 2
