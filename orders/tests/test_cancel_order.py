"""POST /api/v1/orders/{id}/cancel, and /api/v1/orders/cancel for many."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from orders import selectors
from orders.models import Order, OrderEvent
from orders.tests.factories import OrderFactory
from orders.tests.test_submit_order import errors

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def order_of_alice(status: str) -> Order:
    return OrderFactory(owner=User.objects.get(username="alice"), status=status)


@pytest.mark.parametrize("status", ["pending", "failed"])
def test_an_order_that_is_not_at_the_venue_is_canceled(alice: APIClient, status: str) -> None:
    order = order_of_alice(status)

    response = alice.post(f"/api/v1/orders/{order.pk}/cancel", {"reason": "Fat finger."})

    assert response.status_code == 200
    assert response.json()["status"] == "canceled"
    event = selectors.history(order.pk).last()
    assert event is not None
    assert (event.event, event.actor, event.reason) == ("cancel_requested", "client:alice", "Fat finger.")


@pytest.mark.parametrize(
    ("status", "after", "request_status"),
    [
        ("submitting", "submitting", "waiting"),
        ("unconfirmed", "unconfirmed", "waiting"),
        ("placed", "pending_cancel", "pending"),
        ("partially_filled", "pending_cancel", "pending"),
        ("pending_replace", "pending_cancel", "pending"),
    ],
)
def test_the_venue_of_an_order_that_may_be_there_is_asked(
    alice: APIClient, status: str, after: str, request_status: str
) -> None:
    order = order_of_alice(status)

    response = alice.post(f"/api/v1/orders/{order.pk}/cancel", {"reason": "Fat finger.", "client_order_id": "c-1"})

    body = response.json()
    assert (response.status_code, body["status"]) == (202, after)
    assert body["cancel_requested_at"] is not None
    asked = body["open_request"]
    assert {name: asked[name] for name in ("kind", "client_order_id", "status", "attempts")} == {
        "kind": "cancel",
        "client_order_id": "c-1",
        "status": request_status,
        "attempts": 0,
    }
    assert MOMENT.fullmatch(asked["since"])


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("done_for_day", "done for the day: that is final"),
        ("filled", "filled, which is final"),
        ("expired", "expired, which is final"),
        ("rejected", "rejected, which is final"),
    ],
)
def test_one_that_has_ended_is_refused_with_the_reason(alice: APIClient, status: str, why: str) -> None:
    order = order_of_alice(status)

    response = alice.post(f"/api/v1/orders/{order.pk}/cancel")

    assert response.status_code == 409
    assert response.json()["type"] == "urn:quiktrade:problem:cannot-cancel"
    assert why in response.json()["detail"]
    assert Order.objects.get(pk=order.pk).status == status


def test_a_second_cancel_at_the_venue_returns_the_first(alice: APIClient) -> None:
    path = f"/api/v1/orders/{order_of_alice('placed').pk}/cancel"
    first = alice.post(path)

    again = alice.post(path, {"reason": "Now, please."})

    assert (again.status_code, again.json()) == (202, first.json())
    assert again["Idempotency-Replayed"] == "true"
    assert OrderEvent.objects.filter(event="cancel_asked").count() == 1


def test_an_id_that_another_request_has_is_refused(alice: APIClient) -> None:
    paths = [f"/api/v1/orders/{order_of_alice('placed').pk}/cancel" for _ in range(2)]
    alice.post(paths[0], HTTP_IDEMPOTENCY_KEY="c-1")
    refused = alice.post(paths[1], HTTP_IDEMPOTENCY_KEY="c-1")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:quiktrade:problem:client-order-id-taken")


def test_anothers_order_is_not_there(alice: APIClient, bob: APIClient) -> None:
    order = order_of_alice("placed")
    assert bob.post(f"/api/v1/orders/{order.pk}/cancel").status_code == 404
    assert bob.post(f"/api/v1/orders/{order.pk}/replace", {"quantity": 50}).status_code == 404
    assert Order.objects.get(pk=order.pk).status == "placed"


def test_canceling_again_answers_with_the_canceled_order(alice: APIClient) -> None:
    path = f"/api/v1/orders/{order_of_alice('pending').pk}/cancel"
    first = alice.post(path, {"reason": "Fat finger."})

    again = alice.post(path, {"reason": None})

    assert (again.status_code, again.json()) == (200, first.json())
    assert first.json()["status"] == "canceled"
    assert OrderEvent.objects.filter(event="cancel_requested").count() == 1


def test_a_wrong_body_is_refused(alice: APIClient) -> None:
    path = f"/api/v1/orders/{order_of_alice('pending').pk}/cancel"
    assert errors(alice.post(path, {"why": "x"})) == {("#/why", "unknown")}
    assert errors(alice.post(path, {"reason": "x" * 501})) == {("#/reason", "max_length")}
    assert errors(alice.post(path, [])) == {("#", "invalid")}


# ---- Many ----

MANY = "/api/v1/orders/cancel"


def test_those_that_match_are_canceled_and_counted(alice: APIClient, bob: APIClient) -> None:
    placed, pending, asked = (order_of_alice(status) for status in ("placed", "pending", "partially_filled"))
    alice.post(f"/api/v1/orders/{asked.pk}/cancel")
    of_bob = OrderFactory(owner=User.objects.get(username="bob"), status="placed")

    response = alice.post(MANY, {"instrument": "US0378331005", "side": "buy", "reason": "Out of this share."})

    assert (response.status_code, response.json()) == (
        202,
        {"requested": 1, "canceled": 1, "already": 1, "more": False},
    )
    assert Order.objects.get(pk=placed.pk).status == "pending_cancel"
    assert Order.objects.get(pk=pending.pk).status == "canceled"
    assert Order.objects.get(pk=of_bob.pk).status == "placed"


def test_the_ids_of_others_orders_match_nothing(alice: APIClient, bob: APIClient) -> None:
    of_bob = OrderFactory(owner=User.objects.get(username="bob"), status="placed", client_order_id="b-1")
    response = alice.post(MANY, {"client_order_ids": ["b-1"]})
    assert response.json() == {"requested": 0, "canceled": 0, "already": 0, "more": False}
    assert Order.objects.get(pk=of_bob.pk).status == "placed"


def test_all_is_said_in_so_many_words(alice: APIClient) -> None:
    order_of_alice("placed")
    assert alice.post(MANY, {"all": True}).json()["requested"] == 1


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ("#", "empty")),
        ({"all": False}, ("#", "empty")),
        ({"reason": "Out."}, ("#", "empty")),
        ({"all": True, "side": "buy"}, ("#/all", "not_alone")),
        ({"all": "true"}, ("#/all", "invalid")),
        ({"all": 1}, ("#/all", "invalid")),
        ({"all": 0, "side": "buy"}, ("#/all", "invalid")),
        ({"side": "both"}, ("#/side", "invalid_choice")),
        ({"venue": "x"}, ("#/venue", "invalid")),
        ({"instrument": "AAPL"}, ("#/instrument", "invalid")),
        ({"client_order_ids": []}, ("#/client_order_ids", "min_length")),
        ({"client_order_ids": ["a b"]}, ("#/client_order_ids/0", "invalid")),
        ({"owner": 7}, ("#/owner", "unknown")),
    ],
)
def test_a_filter_that_is_wrong_or_empty_is_refused(
    alice: APIClient, body: dict[str, Any], named: tuple[str, str]
) -> None:
    order = order_of_alice("placed")
    response = alice.post(MANY, body)
    assert response.status_code == 400
    assert named in errors(response)
    assert Order.objects.get(pk=order.pk).status == "placed"
