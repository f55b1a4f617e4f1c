"""What a client is told about trouble: a code and a sentence, no addresses, and no words of libraries or people."""

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from orders import explanations, lifecycle
from orders.lifecycle import TRANSITIONS, Event, Step
from orders.models import Order
from orders.tests.factories import OrderFactory

pytestmark = pytest.mark.django_db

SECRET = "connect_failed: Cannot connect to host venue.internal:8765 ssl:default [Connect call failed]"
NOT_FOR_CLIENTS = ("venue.internal", "8765", "ssl", "olga", "Bloomberg")


def owned(client: APIClient, **fields: object) -> Order:
    return OrderFactory(owner=User.objects.get(username="alice"), **fields)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"status": "pending", "attempts": 1}, "not_placed_yet"),
        ({"status": "submitting", "attempts": 2}, "not_placed_yet"),
        ({"status": "unconfirmed"}, "outcome_unknown"),
        ({"status": "unconfirmed", "parked": True}, "outcome_unknown"),
        ({"status": "failed", "attempts": 2}, "not_placed"),
    ],
)
def test_an_order_in_trouble_tells_a_code_and_a_sentence(
    alice: APIClient, fields: dict[str, object], code: str
) -> None:
    order = owned(alice, error=SECRET, **fields)
    for body in (alice.get(f"/api/v1/orders/{order.pk}").json(), alice.get("/api/v1/orders").json()["results"][0]):
        told, _, sentence = body["last_error"].partition(": ")
        assert told == code
        assert sentence.endswith(".")
        assert not [word for word in NOT_FOR_CLIENTS if word in str(body)]
    assert Order.objects.get(pk=order.pk).last_error == SECRET  # operators keep the whole


def test_the_venues_own_refusal_is_told_as_it_is(alice: APIClient) -> None:
    order = owned(alice, status="rejected", error="quantity_above_maximum: 1001 is more than 1000")
    body = alice.get(f"/api/v1/orders/{order.pk}").json()
    assert body["last_error"] == "rejected_by_venue: quantity_above_maximum: 1001 is more than 1000"


def test_an_order_that_an_operator_found_placed_tells_no_error(alice: APIClient) -> None:
    order = owned(alice, status="unconfirmed", parked=True)
    mark = Step(order_id=order.pk, event=Event.MARKED_PLACED, venue_order_id="V1", reason="seen on Bloomberg")
    assert lifecycle.advance([mark], actor="operator:olga").moved
    assert alice.get(f"/api/v1/orders/{order.pk}").json()["last_error"] == ""


def test_the_history_tells_sentences_and_not_what_was_noted_for_operators(alice: APIClient) -> None:
    order = owned(alice, status="failed", attempts=2, error=SECRET)
    requeue = Step(order_id=order.pk, event=Event.REQUEUED, reason="olga rang their desk at venue.internal")
    lifecycle.advance([requeue], actor="operator:olga")

    history = alice.get(f"/api/v1/orders/{order.pk}/events").json()

    assert not [word for word in NOT_FOR_CLIENTS if word in str(history)]
    assert [event["reason"] for event in history if event["event"] == "not_sent"] == [
        "The attempt did not place it; it is tried again."
    ] * 2
    assert history[-1]["reason"] == "An operator has it tried again."


def test_a_client_reads_its_own_reason(alice: APIClient) -> None:
    order = owned(alice)
    alice.post(f"/api/v1/orders/{order.pk}/cancel", {"reason": "Fat finger."})
    assert alice.get(f"/api/v1/orders/{order.pk}/events").json()[-1]["reason"] == "Fat finger."


def test_every_event_that_needs_one_has_a_sentence() -> None:
    plain = {Event.ACCEPTED, Event.CLAIMED, Event.ACKNOWLEDGED, Event.REJECTED_BY_VENUE}
    assert {event for _, event in TRANSITIONS} - plain == set(explanations.BY_EVENT)
