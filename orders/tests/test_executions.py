"""What the rows of executions refuse."""

from decimal import Decimal
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from orders.models import Execution
from orders.tests.factories import OrderFactory

pytestmark = pytest.mark.django_db


def execution(**given: Any) -> Execution:
    order = OrderFactory()
    terms: dict[str, Any] = {"execution_id": "E1", "kind": "executed", "quantity": 100, "price": Decimal("10.5")}
    owned = {name: getattr(order, name) for name in ("venue", "owner", "instrument", "side")}
    return Execution.objects.create(
        **{**terms, **owned, "order": order, "venue_sequence": 1, "executed_at": timezone.now(), **given}
    )


@pytest.mark.parametrize("statement", ["UPDATE orders_execution SET quantity = 1", "DELETE FROM orders_execution"])
def test_an_execution_is_neither_changed_nor_deleted(statement: str) -> None:
    execution()
    with pytest.raises(DatabaseError, match="append-only"), connection.cursor() as cursor:
        cursor.execute(statement)


def test_an_execution_is_stored_once() -> None:
    execution()
    with pytest.raises(IntegrityError, match="execution_once"), transaction.atomic():
        execution()


@pytest.mark.parametrize(
    "given",
    [
        {"quantity": 0},
        {"price": Decimal("-0.01")},
        {"price": None},
        {"refers_to": "E0"},
        {"kind": "corrected"},
        {"kind": "corrected", "refers_to": "E0", "price": None},
        {"kind": "busted", "refers_to": "E0"},
        {"kind": "busted", "quantity": 0, "price": None},
        {"kind": "void"},
    ],
)
def test_an_execution_has_what_its_kind_needs(given: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="execution_by_kind"), transaction.atomic():
        execution(**given)


@pytest.mark.parametrize(
    "given",
    [{"kind": "corrected", "refers_to": "E0"}, {"kind": "busted", "refers_to": "E0", "quantity": 0, "price": None}],
)
def test_what_became_of_an_execution_is_stored(given: dict[str, Any]) -> None:
    assert execution(**given).pk
