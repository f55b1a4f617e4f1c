"""Whose token it is, and for how long that is remembered."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from exchanges import directory
from exchanges.models import Venue
from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.auth import authentication
from quiktrade.auth.authentication import TokenAuthentication
from quiktrade.auth.keys import ring as token_backend
from quiktrade.auth.tokens import AccessToken

ORDERS = "/api/v1/orders"


@pytest.fixture
def alice(db: None) -> User:
    user: User = UserFactory(username="alice")
    return user


def status_with(token: AccessToken | str) -> int:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client.get(ORDERS).status_code


def test_a_token_is_taken_again_without_being_verified_again(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token = str(AccessToken.for_user(alice))
    assert status_with(token) == 200

    def verify(*args: Any) -> None:
        raise AssertionError("verified again")

    monkeypatch.setattr(AccessToken, "__init__", verify)
    assert status_with(token) == 200


def test_a_token_is_not_remembered_beyond_its_life(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_backend, "leeway", 0)
    token = AccessToken.for_user(alice)
    token.set_exp(lifetime=timedelta(seconds=-60))
    assert status_with(token) == 401

    token.set_exp(lifetime=timedelta(seconds=2.5))
    assert status_with(token) == 200
    time.sleep(max(0.0, token["exp"] + 0.1 - time.time()))
    assert status_with(token) == 401


def test_a_forged_token_is_refused_however_well_its_like_is_known(alice: User) -> None:
    token = str(AccessToken.for_user(alice))
    assert status_with(token) == 200
    head, payload, signature = token.split(".")
    for forged in (f"{head}.{payload}.{signature[::-1]}", f"{head}.{payload[:-2]}.{signature}", token[:-3]):
        assert status_with(forged) == 401


@pytest.mark.parametrize("change", [{"is_active": False}, {"gone": True}, {"password": "another"}])
def test_a_closed_account_is_shut_out_at_the_next_look(alice: User, change: dict[str, Any]) -> None:
    token = AccessToken.for_user(alice)
    assert status_with(token) == 200
    if change.get("gone"):
        alice.delete()
    else:
        User.objects.update(**change)
    assert status_with(token) == 401


@pytest.mark.remembers
def test_an_account_is_looked_at_once_a_second(alice: User) -> None:
    token = AccessToken.for_user(alice)
    assert status_with(token) == 200
    User.objects.update(is_active=False)
    assert status_with(token) == 200
    time.sleep(authentication.ACCOUNT_SECONDS + 0.1)
    assert status_with(token) == 401


@pytest.mark.remembers
def test_a_token_of_an_earlier_password_does_not_find_the_account_that_a_later_one_left(alice: User) -> None:
    earlier = AccessToken.for_user(alice)
    alice.set_password("correct horse")
    alice.save()
    assert status_with(AccessToken.for_user(alice)) == 200
    assert status_with(earlier) == 401


@pytest.mark.remembers
def test_an_account_that_is_remembered_costs_no_statement(
    alice: User, django_assert_num_queries: Callable[[int], Any]
) -> None:
    token = AccessToken.for_user(alice)
    authenticate = TokenAuthentication().get_user
    with django_assert_num_queries(1):
        authenticate(token)
    with django_assert_num_queries(0):
        authenticate(token)


@pytest.mark.remembers
def test_the_venues_are_looked_at_once_a_second(alice: User) -> None:
    venue = VenueFactory()
    assert list(directory.listings()) == [venue.code]
    Venue.objects.update(enabled=False)
    assert list(directory.listings()) == [venue.code]
    time.sleep(directory.SECONDS + 0.1)
    assert list(directory.listings()) == []
