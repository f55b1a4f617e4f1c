"""POST /api/v1/auth/password."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory
from orders.tests.test_submit_order import errors
from quiktrade.auth.serializers import PasswordSerializer
from quiktrade.auth.tokens import AccessToken
from quiktrade.auth.views import PasswordThrottle
from quiktrade.tests.test_api_errors import PASSWORD, bearing, check_problem

pytestmark = pytest.mark.django_db

PATH = "/api/v1/auth/password"
NEW = " staple battery "
CHANGE = {"old_password": PASSWORD, "new_password": NEW}


@pytest.fixture
def alice() -> APIClient:
    return bearing(AccessToken.for_user(UserFactory(username="alice", password=PASSWORD)))


def has_password(password: str) -> bool:
    return User.objects.get(username="alice").check_password(password)


def test_the_new_password_holds_and_the_tokens_of_the_old_one_end(alice: APIClient) -> None:
    response = alice.post(PATH, CHANGE)

    assert (response.status_code, response.content) == (204, b"")
    assert has_password(NEW)
    check_problem(alice.get("/api/v1/orders"), 401, "invalid-token")
    log_in = {"username": "alice", "password": NEW}
    assert APIClient().post("/api/v1/auth/token", log_in).status_code == 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({**CHANGE, "old_password": "wrong"}, {("#/old_password", "wrong_password")}),
        ({**CHANGE, "old_password": f"{PASSWORD} "}, {("#/old_password", "wrong_password")}),
        ({**CHANGE, "new_password": "short"}, {("#/new_password", "password_too_short")}),
        (
            {**CHANGE, "new_password": "1234567"},
            {("#/new_password", f"password_{why}") for why in ("too_short", "too_common", "entirely_numeric")},
        ),
        ({**CHANGE, "new_password": "alice-xy"}, {("#/new_password", "password_too_similar")}),
        ({**CHANGE, "new_password": ""}, {("#/new_password", "blank")}),
        ({**CHANGE, "again": NEW}, {("#/again", "unknown")}),
        ({}, {("#/old_password", "required"), ("#/new_password", "required")}),
        ([], {("#", "invalid")}),
    ],
)
def test_a_wrong_change_is_refused(alice: APIClient, body: Any, expected: set[tuple[str, str]]) -> None:
    response = alice.post(PATH, body)
    check_problem(response, 400, "validation-error")
    assert errors(response) == expected
    assert has_password(PASSWORD)


def test_it_needs_a_token() -> None:
    check_problem(APIClient().post(PATH, CHANGE), 401, "unauthorized")


def test_guessing_with_a_stolen_token_is_slowed_down(alice: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PasswordThrottle, "THROTTLE_RATES", {"token": "3/min"})
    for _ in range(3):
        assert alice.post(PATH, {**CHANGE, "old_password": "wrong"}).status_code == 400
    check_problem(alice.post(PATH, CHANGE), 429, "too-many-requests")


def test_of_two_changes_at_once_one_takes_effect(alice: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(self: PasswordSerializer, value: str) -> str:
        other = User.objects.get(username="alice")
        other.set_password("faster than that")
        other.save()
        return value

    monkeypatch.setattr(PasswordSerializer, "validate_new_password", meanwhile)
    assert errors(alice.post(PATH, CHANGE)) == {("#/old_password", "wrong_password")}
    assert has_password("faster than that")
