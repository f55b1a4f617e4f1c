"""POST /api/v1/orders/{id}/cancel."""

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from orders import selectors
from orders.models import Order, OrderEvent
from orders.tests.factories import OrderFactory
from orders.tests.test_submit_order import errors


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
    ("status", "why"),
    [
        ("submitting", "being sent"),
        ("unconfirmed", "may be working there"),
        ("placed", "at the venue"),
        ("rejected", "rejected, which is final"),
    ],
)
def test_any_other_is_refused_with_the_reason(alice: APIClient, status: str, why: str) -> None:
    order = order_of_alice(status)

    response = alice.post(f"/api/v1/orders/{order.pk}/cancel")

    assert response.status_code == 409
    assert response.json()["type"] == "urn:quiktrade:problem:cannot-cancel"
    assert why in response.json()["detail"]
    assert Order.objects.get(pk=order.pk).status == status


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
