"""POST /api/v1/orders/batch."""

import json
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import pytest
from django.conf import settings
from django.db import OperationalError
from rest_framework.test import APIClient

from exchanges.models import Venue
from orders import lifecycle
from orders.models import Order, OrderEvent
from orders.tests.test_submit_order import LIMIT, MARKET, ORDERS, errors, post_bytes
from quiktrade.api.renderers import FastJSONRenderer

BATCH = f"{ORDERS}/batch"


def post(client: APIClient, *orders: Any) -> Any:
    return client.post(BATCH, {"orders": orders})


def results(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.json()
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def problems(result: dict[str, Any]) -> set[tuple[str, str]]:
    return {(error["pointer"], error["code"]) for error in result["problem"]["errors"]}


def test_every_order_is_stored_and_answered_in_its_place(alice: APIClient) -> None:
    ids = [f"desk-{number}" for number in (3, 1, 2)]

    first, second, third = results(post(alice, *(LIMIT | {"client_order_id": name} for name in ids)))

    assert [result["status"] for result in (first, second, third)] == [201, 201, 201]
    assert [result["order"]["client_order_id"] for result in (first, second, third)] == ids
    assert {order.client_order_id for order in Order.objects.all()} == set(ids)
    assert OrderEvent.objects.filter(event="accepted", sequence=1).count() == 3
    alone = alice.get(f"{ORDERS}/{second['order']['id']}").json()
    assert second["order"] == alone


def test_a_batch_stores_what_single_orders_store(alice: APIClient) -> None:
    order = MARKET | {"place_by": "2100-01-01T00:00:00Z", "time_in_force": "gtd", "expires_at": "2099-01-01T00:00:00Z"}
    (result,) = results(post(alice, order, LIMIT))[:1]
    alone = alice.post(ORDERS, order).json()

    differ = {"id", "client_order_id", "created_at", "updated_at", "next_attempt_at"}
    assert {k: v for k, v in result["order"].items() if k not in differ} == {
        k: v for k, v in alone.items() if k not in differ
    }


def test_a_wrong_order_keeps_no_other_out(alice: APIClient) -> None:
    wrong = [
        LIMIT | {"quantity": 0},
        7,
        LIMIT | {"venue": "XNOT"},
        LIMIT | {"colour": "red", "side": "up"},
        MARKET | {"expires_at": "2020-01-01T00:00:00Z", "time_in_force": "gtd"},
    ]

    found = results(post(alice, LIMIT, *wrong, MARKET))

    assert [result["status"] for result in found] == [201, 400, 400, 400, 400, 400, 201]
    assert problems(found[1]) == {("#/orders/1/quantity", "min_value")}
    assert problems(found[2]) == {("#/orders/2", "invalid")}
    assert problems(found[3]) == {("#/orders/3/venue", "unknown_venue")}
    assert problems(found[4]) == {("#/orders/4/colour", "unknown"), ("#/orders/4/side", "invalid_choice")}
    assert problems(found[5]) == {("#/orders/5/expires_at", "past")}
    assert Order.objects.count() == 2


def test_the_same_batch_again_stores_nothing_new(alice: APIClient) -> None:
    orders = [LIMIT | {"client_order_id": f"desk-{number}"} for number in range(3)]
    first = results(post(alice, *orders[:2]))

    again = results(post(alice, *orders))

    assert [result["status"] for result in again] == [200, 200, 201]
    assert [result["order"] for result in again[:2]] == [result["order"] for result in first]
    assert Order.objects.count() == OrderEvent.objects.count() == 3


def test_an_id_taken_by_another_order_is_a_conflict_of_its_own(alice: APIClient) -> None:
    stored = alice.post(ORDERS, LIMIT | {"client_order_id": "desk-1"}).json()

    taken, new = results(post(alice, MARKET | {"client_order_id": "desk-1"}, MARKET | {"client_order_id": "desk-2"}))

    assert (taken["status"], new["status"]) == (409, 201)
    assert taken["problem"]["type"] == "urn:quiktrade:problem:client-order-id-taken"
    assert taken["problem"]["order_id"] == stored["id"]


def test_within_a_batch_the_first_of_an_id_is_stored(alice: APIClient) -> None:
    order = LIMIT | {"client_order_id": "desk-1"}

    first, same, other = results(post(alice, order, order, order | {"quantity": 5}))

    assert (first["status"], same["status"], other["status"]) == (201, 200, 409)
    assert same["order"] == first["order"]
    assert Order.objects.get().quantity == 100


def test_what_was_accepted_is_found_again_after_its_venue_closed(alice: APIClient) -> None:
    order = LIMIT | {"client_order_id": "desk-1", "venue": "XSIM"}
    post(alice, order)
    Venue.objects.update(enabled=False)

    again, new = results(post(alice, order, order | {"client_order_id": "desk-2"}))

    assert (again["status"], new["status"]) == (200, 400)


def test_another_clients_ids_are_not_in_the_way(alice: APIClient, bob: APIClient) -> None:
    order = LIMIT | {"client_order_id": "desk-1"}
    assert results(post(alice, order))[0]["status"] == 201
    assert results(post(bob, order | {"quantity": 5}))[0]["status"] == 201


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ("#/orders", "required")),
        ({"orders": []}, ("#/orders", "min_length")),
        ({"orders": LIMIT}, ("#/orders", "not_a_list")),
        ({"orders": [MARKET] * 501}, ("#/orders", "max_length")),
        ({"orders": [MARKET], "venue": "XSIM"}, ("#/venue", "unknown")),
        ([MARKET], ("#", "invalid")),
    ],
)
def test_a_body_that_is_no_batch_is_refused_as_a_whole(alice: APIClient, body: Any, expected: tuple[str, str]) -> None:
    response = alice.post(BATCH, body)
    assert response.status_code == 400
    assert errors(response) == {expected}
    assert not Order.objects.exists()


def test_one_key_for_many_orders_is_refused(alice: APIClient) -> None:
    response = alice.post(BATCH, {"orders": [LIMIT]}, headers={"Idempotency-Key": "desk-1"})
    assert response.status_code == 400
    assert {where for where, _ in errors(response)} == {"Idempotency-Key"}


def test_500_orders_with_every_field_are_not_too_large(alice: APIClient) -> None:
    order = LIMIT | {
        "type": "stop_limit",
        "stop_price": "1" * 10 + "." + "1" * 8,
        "limit_price": "1" * 10 + "." + "1" * 8,
        "time_in_force": "gtd",
        "expires_at": "2100-01-01T00:00:00.000000+00:00",
        "place_by": "2100-01-01T00:00:00.000000+00:00",
        "venue": "XSIM",
    }
    found = results(post(alice, *(order | {"client_order_id": f"{number:0>64}"} for number in range(500))))
    assert {result["status"] for result in found} == {201}


def test_a_body_beyond_bounds_is_refused(alice: APIClient) -> None:
    assert post_bytes(alice, b" " * (settings.API_MAX_BATCH_BYTES + 1), path=BATCH).status_code == 413
    assert post_bytes(alice, b" " * (settings.API_MAX_BODY_BYTES + 1)).status_code == 413


def test_without_the_database_nothing_is_known_of_any(alice: APIClient) -> None:
    with patch.object(lifecycle, "accept", side_effect=OperationalError("gone")):
        response = post(alice, LIMIT, LIMIT | {"quantity": 0})
    assert response.status_code == 503
    assert response["Retry-After"] == "2"


def test_a_batch_needs_a_token(alice: APIClient) -> None:
    assert APIClient().post(BATCH, {"orders": [LIMIT]}).status_code == 401


@pytest.mark.parametrize("wrong", [b'{"type": "\\ud800"}', b'{"\\uDFFF": 1}', b'["\\ud83d"]', b'{"venue": "\\ud800"}'])
def test_what_is_no_text_is_refused_and_the_others_answered(alice: APIClient, wrong: bytes) -> None:
    good = json.dumps(LIMIT).encode()
    found = results(post_bytes(alice, b'{"orders": [%b, %b]}' % (good, wrong), path=BATCH))
    assert [result["status"] for result in found] == [201, 400]
    assert post_bytes(alice, wrong).status_code == 400


def test_an_answer_is_written_whatever_is_in_it() -> None:
    assert json.loads(FastJSONRenderer().render({"a": "\ud800", "b": Decimal("1.5")})) == {"a": "\ud800", "b": "1.5"}
