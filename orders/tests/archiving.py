"""What tests of the archive have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from orders import archive, retention
from orders.models import Order

IN_USE = {table: model._meta.db_table for model, table in archive.TABLES.items()}


def soon() -> datetime:
    """A time before which every order of the test has ended."""
    return timezone.now() + timedelta(minutes=1)


def move_all() -> archive.Moved:
    """Move every order that has ended, as the job does."""
    return retention.move_orders(soon(), seconds=30.0).moved


def rows(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        (count,) = cursor.fetchone()
    return int(count)


def sides(order: Order) -> tuple[int, int]:
    """How many rows the order has in use, and in the archive."""
    return _rows_of(order, IN_USE.values()), _rows_of(order, IN_USE.keys())


def _rows_of(order: Order, tables: Any) -> int:
    counted = " + ".join(
        f"(SELECT count(*) FROM {table} WHERE {'id' if table.endswith('order') else 'order_id'} = %(id)s)"
        for table in tables
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {counted}", {"id": order.pk})
        (count,) = cursor.fetchone()
    return int(count)


@contextmanager
def emptied_archive() -> Iterator[None]:
    """An archive that takes orders of any age, and is empty afterwards: Django's flush does not know its tables."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(archive, "LEAST_AGE", timedelta(minutes=-2))
            yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(archive.TABLES.values())}")
