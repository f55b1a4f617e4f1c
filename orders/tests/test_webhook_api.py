"""Webhooks over HTTP: a client's own, their secrets shown once, and wrong requests refused with what is allowed."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from orders.models import OrderEvent
from orders.tests.factories import OrderFactory
from orders.webhook_models import WebhookDelivery, WebhookEndpoint
from orders.webhooks import rows, services

pytestmark = pytest.mark.django_db

WEBHOOKS = "/api/v1/webhooks"
URL = "https://example.com/quiktrade"


def create(client: APIClient, **given: Any) -> dict[str, Any]:
    answer = client.post(WEBHOOKS, {"url": URL, **given})
    assert answer.status_code == 201, answer.json()
    made: dict[str, Any] = answer.json()
    return made


def own(made: dict[str, Any]) -> str:
    return f"{WEBHOOKS}/{made['id']}"


def delivery_of(made: dict[str, Any], **given: Any) -> WebhookDelivery:
    endpoint = WebhookEndpoint.objects.get(pk=made["id"])
    order = OrderFactory(owner=endpoint.owner)
    return WebhookDelivery.objects.create(endpoint=endpoint, event=OrderEvent.objects.get(order=order), **given)


def test_a_webhook_is_made_and_its_secret_shown_this_once(alice: APIClient) -> None:
    answer = alice.post(WEBHOOKS, {"url": URL, "event_types": ["order.executed"], "description": "desk 7"})
    made = answer.json()
    assert answer.status_code == 201
    assert answer["Location"].endswith(own(made))
    assert (made["url"], made["event_types"], made["enabled"]) == (URL, ["order.executed"], True)
    assert made["secret"] == WebhookEndpoint.objects.get().secret

    for read in (alice.get(own(made)), alice.get(WEBHOOKS), alice.patch(own(made), {"description": ""})):
        assert read.status_code == 200
        assert "whsec_" not in read.content.decode()


def test_a_webhook_is_changed_where_asked_and_nowhere_else(alice: APIClient) -> None:
    made = create(alice, description="desk 7")
    changed = alice.patch(own(made), {"url": "https://example.org/", "event_types": ["order.accepted"]}).json()
    assert (changed["url"], changed["description"]) == ("https://example.org/", "desk 7")
    assert changed["event_types"] == ["order.accepted"]
    assert alice.patch(own(made), {"event_types": []}).json()["event_types"] == []


def test_a_deleted_webhook_is_gone_with_its_secret(alice: APIClient) -> None:
    made = create(alice)
    assert alice.delete(own(made)).status_code == 204
    assert alice.get(own(made)).status_code == 404
    assert alice.get(WEBHOOKS).json() == []
    assert WebhookEndpoint.objects.get().secret == ""


@pytest.mark.exhaustive
def test_a_webhook_is_disabled_and_enabled(alice: APIClient) -> None:
    made = create(alice)
    disabled = alice.post(f"{own(made)}/disable", {"reason": "we move"}).json()
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "we move")
    assert alice.post(f"{own(made)}/disable").json()["disabled_reason"] == "we move"
    assert alice.post(f"{own(made)}/enable").json()["enabled"] is True
    assert alice.post(f"{own(made)}/enable").status_code == 200


def test_a_webhook_that_is_enabled_again_is_told_what_happens_from_then_on(alice: APIClient) -> None:
    made = create(alice)
    endpoint = WebhookEndpoint.objects.get()
    WebhookEndpoint.objects.update(cursor_stamp=1, failures=5, failing_since=timezone.now())
    alice.post(f"{own(made)}/disable")
    alice.post(f"{own(made)}/enable")
    endpoint.refresh_from_db()
    assert endpoint.cursor_stamp > 1
    assert (endpoint.failures, endpoint.failing_since) == (0, None)


def test_a_secret_is_replaced_with_an_overlap_or_at_once(alice: APIClient) -> None:
    made = create(alice)
    rotated = alice.post(f"{own(made)}/rotate", {"overlap_hours": 48}).json()
    endpoint = WebhookEndpoint.objects.get()
    assert rotated["secret"] == endpoint.secret != made["secret"] == endpoint.old_secret
    assert endpoint.old_secret_until is not None
    assert timedelta(hours=47) < endpoint.old_secret_until - timezone.now() <= timedelta(hours=48)

    alice.post(f"{own(made)}/rotate", {"overlap_hours": 0})
    at_once = WebhookEndpoint.objects.get()
    assert (at_once.old_secret, at_once.old_secret_until) == ("", None)


def test_deliveries_are_listed_in_pages_and_by_status(alice: APIClient) -> None:
    made = create(alice)
    dead = delivery_of(made, status="dead", ended_at=timezone.now(), last_code=500, last_text="down", attempt=10)
    others = [delivery_of(made) for _ in range(2)]

    page = alice.get(f"{own(made)}/deliveries?limit=2").json()
    assert [each["id"] for each in page["results"]] == [others[1].pk, others[0].pk]
    page = alice.get(f"{own(made)}/deliveries?limit=2&cursor={page['next_cursor']}").json()
    assert (page["next_cursor"], [each["id"] for each in page["results"]]) == (None, [dead.pk])
    (only,) = alice.get(f"{own(made)}/deliveries?status=dead").json()["results"]
    assert (only["last_code"], only["last_text"], only["attempts"]) == (500, "down", 10)
    assert (only["type"], only["message_id"]) == ("order.accepted", f"evt_{dead.event_id}")
    assert only["next_attempt_at"] is None


def test_a_dead_letter_is_sent_again_on_request(alice: APIClient) -> None:
    made = create(alice)
    dead = delivery_of(made, status="dead", ended_at=timezone.now(), failures=10)
    again = alice.post(f"{own(made)}/deliveries/{dead.pk}/resend").json()
    assert (again["status"], again["message_id"]) == ("pending", dead.message_id)
    dead.refresh_from_db()
    assert (dead.failures, dead.ended_at) == (0, None)


def test_a_test_is_sent(alice: APIClient) -> None:
    made = create(alice)
    sent = alice.post(f"{own(made)}/test").json()
    assert (sent["type"], sent["status"], sent["order_id"]) == ("webhook.test", "pending", None)


def test_a_time_is_replayed(alice: APIClient) -> None:
    made = create(alice)
    OrderFactory(owner=WebhookEndpoint.objects.get().owner)
    at = timezone.now()
    before = {"from": (at - timedelta(hours=2)).isoformat(), "to": (at - timedelta(hours=1)).isoformat()}
    assert alice.post(f"{own(made)}/replay", before).json() == {"deliveries": 0, "next_from": None, "archived": False}
    since = {"from": before["to"], "to": (at + timedelta(hours=1)).isoformat()}
    assert alice.post(f"{own(made)}/replay", since).json() == {"deliveries": 1, "next_from": None, "archived": False}
    assert WebhookDelivery.objects.count() == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", ""),
        ("patch", ""),
        ("delete", ""),
        ("post", "/disable"),
        ("post", "/enable"),
        ("post", "/rotate"),
        ("post", "/test"),
        ("post", "/replay"),
        ("get", "/deliveries"),
        ("post", "/deliveries/{delivery}/resend"),
    ],
)
def test_the_webhook_of_another_client_is_as_if_it_did_not_exist(
    alice: APIClient, bob: APIClient, method: str, path: str
) -> None:
    made = create(alice)
    delivery = delivery_of(made, status="dead", ended_at=timezone.now())
    path = path.format(delivery=delivery.pk)
    before = WebhookEndpoint.objects.values().get()

    answer = getattr(bob, method)(f"{own(made)}{path}", {"description": "mine"} if method == "patch" else None)
    assert answer.status_code == 404
    assert bob.get(WEBHOOKS).json() == []
    mine = create(bob)
    assert bob.post(f"{own(mine)}/deliveries/{delivery.pk}/resend").status_code == 404
    assert WebhookEndpoint.objects.values().get(pk=made["id"]) == before
    assert WebhookDelivery.objects.get().status == "dead"


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "#/url", "required"),
        ({"url": 7}, "#/url", "invalid"),
        ({"url": "x"}, "#/url", "invalid_url"),
        ({"url": "https://user:password@example.com/"}, "#/url", "invalid_url"),
        ({"url": URL, "event_types": ["order.bought"]}, "#/event_types/0", "invalid_choice"),
        ({"url": URL, "event_types": ["order.executed", "order.executed"]}, "#/event_types", "repeated"),
        ({"url": URL, "event_types": "order.executed"}, "#/event_types", "not_a_list"),
        ({"url": URL, "secret": "whsec_mine"}, "#/secret", "unknown"),
        ({"url": URL, "description": "x" * 201}, "#/description", "max_length"),
    ],
)
def test_what_is_wrong_is_named(alice: APIClient, body: dict[str, Any], pointer: str, code: str) -> None:
    answer = alice.post(WEBHOOKS, body)
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == (pointer, code)
    assert not WebhookEndpoint.objects.exists()


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("rotate", {"overlap_hours": -1}, "#/overlap_hours"),
        ("rotate", {"overlap_hours": 169}, "#/overlap_hours"),
        ("replay", {}, "#/from"),
        ("replay", {"from": "yesterday"}, "#/from"),
        ("replay", {"from": "2026-01-31T10:00:00Z", "to": "2026-01-31T10:00:00Z"}, "#/from"),
        ("replay", {"from": "2999-01-31T10:00:00Z"}, "#/from"),
        ("replay", {"from": "2020-01-31T10:00:00Z"}, "#/from"),
        ("disable", {"reason": 7}, "#/reason"),
    ],
)
def test_what_is_wrong_in_an_action_is_named(alice: APIClient, path: str, body: dict[str, Any], pointer: str) -> None:
    answer = alice.post(f"{own(create(alice))}/{path}", body)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize("query", ["status=lost", "limit=0", "cursor=x", "status=dead&status=dead", "page=2"])
def test_a_wrong_parameter_of_the_list_is_named(alice: APIClient, query: str) -> None:
    answer = alice.get(f"{own(create(alice))}/deliveries?{query}")
    assert answer.status_code == 400
    assert [error["parameter"] for error in answer.json()["errors"]] == [query.partition("=")[0]]


def test_an_account_has_ten_webhooks_at_most(alice: APIClient) -> None:
    made = [create(alice) for _ in range(services.MOST_ENDPOINTS)]
    answer = alice.post(WEBHOOKS, {"url": URL})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:quiktrade:problem:too-many-webhooks")
    alice.delete(own(made[0]))
    create(alice)


@pytest.mark.parametrize("path", ["test", "replay", "deliveries/{delivery}/resend"])
def test_nothing_is_sent_to_a_disabled_webhook_on_request(alice: APIClient, path: str) -> None:
    made = create(alice)
    delivery = delivery_of(made, status="dead", ended_at=timezone.now())
    alice.post(f"{own(made)}/disable")
    since = {"from": (timezone.now() - timedelta(hours=1)).isoformat()} if path == "replay" else None
    answer = alice.post(f"{own(made)}/{path.format(delivery=delivery.pk)}", since)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:quiktrade:problem:webhook-disabled")
    assert rows.claim(places=9, troubled=9) == []


def test_without_a_token_there_is_nothing(venue: Any) -> None:
    assert APIClient().get(WEBHOOKS).status_code == 401
