"""Orders that clients look up at the same time are found with one statement, each client its own."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from django.db import DataError, connection
from django.utils import timezone

from orders import selectors
from orders.models import Order, new_order_id
from orders.tests.archiving import emptied_archive, move_all
from orders.tests.factories import OrderFactory
from quiktrade.database import statements as hot
from quiktrade.database.batching import Batcher
from quiktrade.tests.processes import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def look_up(find: Callable[..., Any], wanted: tuple[int, Any]) -> Any:
    """What is found, or the error."""
    try:
        return find(*wanted)
    except Exception as error:
        return error
    finally:
        connection.close()


@contextmanager
def first_statement_held() -> Iterator[tuple[list[str], threading.Event]]:
    """The first look-up waits until the test releases it. Yields all look-ups."""
    asked: list[str] = []
    go = threading.Event()

    def held(statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        asked.append(statement)
        if len(asked) == 1:
            go.wait(10)
        return hot.fetch(statement, parameters)

    with patch.object(selectors, "fetch", held):
        yield asked, go


def look_up_together(
    first: tuple[int, Any],
    others: Sequence[tuple[int, Any]],
    find: Callable[..., Any] = selectors.order_of,
    batcher: Batcher[Any] = selectors._look_ups,
) -> tuple[list[Any], int]:
    """What the others find that arrive while the first one is looked up, and how many statements all of it took."""
    with first_statement_held() as (asked, go), ThreadPoolExecutor(len(others) + 1) as pool:
        leading = pool.submit(look_up, find, first)
        wait_until(lambda: asked)
        calls = [pool.submit(look_up, find, wanted) for wanted in others]
        wait_until(lambda: batcher.waiting == len(others))
        go.set()
        leading.result()
        return [call.result() for call in calls], len(asked)


def test_each_client_finds_its_own_with_one_statement_for_all() -> None:
    order, other = OrderFactory(), OrderFactory()
    wanted = [
        (order.owner_id, order.pk),
        (other.owner_id, order.pk),
        (other.owner_id, other.pk),
        (order.owner_id, new_order_id()),
        (order.owner_id, order.pk),
    ]
    found, statements = look_up_together(wanted[0], wanted)
    assert [each and (each.owner_id, each.id) for each in found] == [wanted[0], None, wanted[2], None, wanted[4]]
    assert statements == 2 + 2  # the archive is asked for each of the two that are not found


def test_each_client_finds_what_it_submitted_with_one_statement_for_all() -> None:
    """Orders are looked up by their clients' own ids when they are refused, or sent again."""
    order, same = OrderFactory(client_order_id="a"), OrderFactory(client_order_id="a")
    more = OrderFactory(client_order_id="b", owner=order.owner)
    wanted = [
        (order.owner_id, ["a"]),
        (same.owner_id, ["a", "b"]),
        (order.owner_id, ["b", "c", "a"]),
        (same.owner_id, ["c"]),
    ]
    with emptied_archive():
        archived = OrderFactory(client_order_id="c", owner=same.owner, status="filled")
        move_all()
        found, statements = look_up_together(wanted[0], wanted, selectors.submitted, selectors._submitted)
    assert [{own_id: each.order.id for own_id, each in its.items()} for its in found] == [
        {"a": order.pk},
        {"a": same.pk},
        {"b": more.pk, "a": order.pk},
        {"c": archived.pk},
    ]
    assert statements == 2 + 1  # the archive is asked for the one that is there


def test_one_that_cannot_be_read_spoils_no_other_clients_look_up() -> None:
    """A constraint keeps orders readable. It is dropped here, for what may make a row unreadable in another way."""
    spoilt, good = OrderFactory(), OrderFactory()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE orders_order DROP CONSTRAINT order_times_readable")
        cursor.execute("UPDATE orders_order SET next_attempt_at = '20000-01-01Z' WHERE id = %s", [spoilt.pk])
    try:
        wanted = [(order.owner_id, order.pk) for order in (good, spoilt, good)]
        found, _ = look_up_together(wanted[1], wanted)
        assert [getattr(each, "id", type(each)) for each in found] == [good.pk, DataError, good.pk]
    finally:
        (constraint,) = [c for c in Order._meta.constraints if c.name == "order_times_readable"]
        Order.objects.update(next_attempt_at=timezone.now())
        with connection.schema_editor() as editor:
            editor.add_constraint(Order, constraint)
