"""POST /api/v1/orders/{id}/replace."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from orders.models import Order, OrderRequest
from orders.tests.factories import OrderFactory
from orders.tests.test_submit_order import errors


def order_of_alice(status: str = "placed", **given: Any) -> Order:
    return OrderFactory(owner=User.objects.get(username="alice"), status=status, **given)


def test_a_replace_is_taken_and_the_order_keeps_its_terms_until_it_is_done(alice: APIClient) -> None:
    order = order_of_alice()

    response = alice.post(
        f"/api/v1/orders/{order.pk}/replace", {"quantity": 80, "limit_price": "11.5", "client_order_id": "r-1"}
    )

    body = response.json()
    assert (response.status_code, body["status"], body["quantity"]) == (202, "pending_replace", 100)
    assert (body["open_request"]["kind"], body["open_request"]["client_order_id"]) == ("replace", "r-1")
    assert body["id"] == str(order.pk)


def test_the_same_request_again_is_answered_with_the_order(alice: APIClient) -> None:
    path = f"/api/v1/orders/{order_of_alice().pk}/replace"
    first = alice.post(path, {"quantity": 80}, HTTP_IDEMPOTENCY_KEY="r-1")
    again = alice.post(path, {"quantity": 80, "client_order_id": "r-1"})
    other = alice.post(path, {"quantity": 70}, HTTP_IDEMPOTENCY_KEY="r-1")
    assert (again.status_code, again.json(), again["Idempotency-Replayed"]) == (200, first.json(), "true")
    assert (other.status_code, other.json()["type"]) == (409, "urn:quiktrade:problem:client-order-id-taken")
    assert OrderRequest.objects.count() == 1


@pytest.mark.parametrize("status", ["pending", "submitting", "pending_cancel", "pending_replace", "filled", "canceled"])
def test_an_order_that_cannot_be_replaced_now_is_a_conflict(alice: APIClient, status: str) -> None:
    response = alice.post(f"/api/v1/orders/{order_of_alice(status).pk}/replace", {"quantity": 80})
    assert (response.status_code, response.json()["type"]) == (409, "urn:quiktrade:problem:cannot-replace")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ("#", "unchanged")),
        ({"quantity": 100, "limit_price": 10.25}, ("#", "unchanged")),
        ({"quantity": 39}, ("#/quantity", "below_filled")),
        ({"quantity": 0}, ("#/quantity", "min_value")),
        ({"quantity": "80"}, ("#/quantity", "invalid")),
        ({"limit_price": "0"}, ("#/limit_price", "not_positive")),
        ({"stop_price": "9"}, ("#/stop_price", "forbidden")),
        ({"time_in_force": "fok"}, ("#/time_in_force", "invalid_choice")),
        ({"time_in_force": "gtd"}, ("#/expires_at", "required")),
        ({"expires_at": "2100-01-01T00:00:00Z"}, ("#/expires_at", "forbidden")),
        ({"time_in_force": "gtd", "expires_at": "2000-01-01T00:00:00Z"}, ("#/expires_at", "past")),
        ({"side": "sell"}, ("#/side", "unknown")),
        ({"quantity": 80, "client_order_id": "a b"}, ("#/client_order_id", "invalid")),
    ],
)
def test_a_term_that_cannot_be_is_named(alice: APIClient, body: dict[str, Any], named: tuple[str, str]) -> None:
    order = order_of_alice("partially_filled")
    response = alice.post(f"/api/v1/orders/{order.pk}/replace", body)
    assert response.status_code == 400
    assert named in errors(response)
    assert Order.objects.get(pk=order.pk).status == "partially_filled"


def test_an_order_that_was_replaced_is_still_found_by_the_terms_that_were_submitted(alice: APIClient) -> None:
    body = {"type": "limit", "side": "buy", "instrument": "US0378331005", "quantity": 100, "limit_price": "10.25"}
    order = order_of_alice(client_order_id="a-1")
    Order.objects.filter(pk=order.pk).update(
        quantity=80,
        original_terms={
            "instrument": "US0378331005",
            "side": "buy",
            "type": "limit",
            "quantity": 100,
            "limit_price": "10.25000000",
            "stop_price": None,
            "time_in_force": "day",
            "expires_at": None,
        },
    )
    again = alice.post("/api/v1/orders", {**body, "client_order_id": "a-1"})
    assert (again.status_code, again.json()["id"], again.json()["quantity"]) == (200, str(order.pk), 80)
