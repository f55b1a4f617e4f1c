"""What happened to a client's orders, by polling."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from orders import feed
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from quiktrade.auth.tokens import AccessToken

EVENTS = "/api/v1/orders/events"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice() -> User:
    VenueFactory()
    user: User = UserFactory(username="alice")
    return user


@pytest.fixture
def client(alice: User) -> APIClient:
    return APIClient(HTTP_AUTHORIZATION=f"Bearer {AccessToken.for_user(alice)}")


def steps(page: dict[str, Any]) -> list[tuple[str, int]]:
    return [(event["client_order_id"], event["sequence"]) for event in page["results"]]


def test_a_client_begins_without_events_and_reads_on_from_there(client: APIClient, alice: User) -> None:
    OrderFactory(owner=alice)
    begin = client.get(EVENTS).json()
    assert begin["results"] == []
    OrderFactory(owner=alice, client_order_id="one", status="placed")
    OrderFactory(owner=UserFactory())
    page = client.get(EVENTS, {"after": begin["next_cursor"]}).json()
    assert steps(page) == [("one", 1), ("one", 2), ("one", 3)]
    assert client.get(EVENTS, {"after": page["next_cursor"]}).json()["results"] == []


def test_pages_follow_one_another_by_cursor_or_by_an_events_own(client: APIClient, alice: User) -> None:
    begin = client.get(EVENTS).json()["next_cursor"]
    OrderFactory(owner=alice, client_order_id="one", status="placed")
    first = client.get(EVENTS, {"after": begin, "limit": 2}).json()
    assert first["next_cursor"] == first["results"][-1]["cursor"]
    assert steps(client.get(EVENTS, {"after": first["next_cursor"], "limit": 2}).json()) == [("one", 3)]
    again = client.get(EVENTS, {"after": first["results"][0]["cursor"]}).json()
    assert steps(again) == [("one", 2), ("one", 3)]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"after": "x"}, "after"),
        ({"after": ""}, "after"),
        ({"after": "1.2.3"}, "after"),
        ({"after": "a1b2.1.1'; SELECT"}, "after"),
        ({"after": f"a1b2.{2**63}.1"}, "after"),
        ({"after": "a1b2.1.1\0"}, "after"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"since": "x"}, "since"),
    ],
)
def test_what_was_never_a_cursor_is_refused_by_name(client: APIClient, query: dict[str, str], parameter: str) -> None:
    answer = client.get(EVENTS, query)
    assert answer.status_code == 400
    assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]


def test_a_forged_or_lost_cursor_is_told_where_to_go_on(client: APIClient, alice: User) -> None:
    here = feed.horizon()
    for cursor in ("0000.1.1", str(here.cursor._replace(stamp=here.stamp + 1_000_000))):
        answer = client.get(EVENTS, {"after": cursor})
        assert (answer.status_code, answer.json()["type"]) == (410, "urn:quiktrade:problem:cursor-lost")
        assert "List your orders" in answer.json()["detail"]
        assert client.get(EVENTS, {"after": answer.json()["next_cursor"]}).status_code == 200


def test_an_ancient_cursor_is_told_where_to_go_on(
    client: APIClient, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = client.get(EVENTS).json()["next_cursor"]
    OrderFactory(owner=alice)
    in_eight_days = feed.horizon()._replace(at=timezone.now() + timedelta(days=8))
    monkeypatch.setattr(feed, "horizon", lambda: in_eight_days)
    answer = client.get(EVENTS, {"after": begin})
    assert (answer.status_code, answer.json()["next_cursor"]) == (410, str(in_eight_days.cursor))


def test_a_forged_place_within_the_feed_shows_no_others_events(client: APIClient, alice: User) -> None:
    OrderFactory(owner=UserFactory())
    begin = str(feed.Cursor(feed.horizon().cluster, 0, 0))
    assert client.get(EVENTS, {"after": begin}).json()["results"] == []


def test_only_reading_is_offered(client: APIClient) -> None:
    assert client.post(EVENTS).status_code == 405
    assert APIClient().get(EVENTS).status_code == 401
