"""What the log says of accounts and their tokens: who, and nothing that would let anybody in."""

import logging
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory

pytestmark = pytest.mark.django_db

PASSWORD, WRONG = "zz-first-S3CRET", "zz-wrong-S3CRET"
TOKEN = "/api/v1/auth/token"


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "quiktrade.auth.audit")


@pytest.fixture
def alice() -> User:
    user: User = UserFactory(username="alice", password=PASSWORD)
    return user


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[Any, ...]]:
    """Each event with its account, by name or else by number, and why or where."""
    found = []
    for record in caplog.records:
        fields = vars(record)
        if str(fields.get("event", "")).startswith("auth."):
            assert "S3CRET" not in str(fields)
            account, why = fields.get("account", fields.get("account_id")), fields.get("why", fields.get("to"))
            found.append((fields["event"], account, why))
    return found


def log_in(name: str, password: str) -> Any:
    return APIClient().post(TOKEN, {"username": name, "password": password}, format="json")


def test_a_log_in_at_the_api_is_told(alice: User, caplog: pytest.LogCaptureFixture) -> None:
    assert log_in("alice", PASSWORD).status_code == 200
    assert told(caplog) == [("auth.logged_in", "alice", "api")]


def test_a_wrong_password_is_told_with_the_name_of_the_account(alice: User, caplog: pytest.LogCaptureFixture) -> None:
    assert log_in("alice", WRONG).status_code == 401
    assert told(caplog) == [("auth.log_in_refused", "alice", "wrong name or password")]
    assert WRONG not in caplog.text


def test_a_name_that_no_account_has_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    assert log_in(WRONG, "x").status_code == 401
    assert told(caplog) == [("auth.log_in_refused", None, "wrong name or password")]
    assert WRONG not in "".join(str(vars(record)) for record in caplog.records)


def test_an_operator_who_is_no_client_is_told(caplog: pytest.LogCaptureFixture) -> None:
    UserFactory(username="olga", password=PASSWORD, group="Operator")
    assert log_in("olga", PASSWORD).status_code == 403
    assert told(caplog) == [("auth.log_in_refused", "olga", "not a client")]


def test_what_becomes_of_a_refresh_token_is_told(alice: User, caplog: pytest.LogCaptureFixture) -> None:
    first = log_in("alice", PASSWORD).json()["refresh"]
    caplog.clear()
    second = APIClient().post(f"{TOKEN}/refresh", {"refresh": first}, format="json").json()["refresh"]
    assert APIClient().post("/api/v1/auth/logout", {"refresh": second}, format="json").status_code == 204
    assert APIClient().post(f"{TOKEN}/refresh", {"refresh": second}, format="json").status_code == 401
    assert told(caplog) == [
        ("auth.refreshed", str(alice.pk), None),
        ("auth.session_ended", str(alice.pk), None),
        ("auth.refresh_refused", None, "invalid-token"),
    ]
    assert first not in caplog.text
    assert second not in caplog.text


def test_log_ins_to_the_console_are_told(caplog: pytest.LogCaptureFixture) -> None:
    UserFactory(username="olga", password=PASSWORD, group="Operator")
    client = Client()
    client.post("/admin/login/", {"username": "olga", "password": WRONG})
    client.post("/admin/login/", {"username": "olga", "password": PASSWORD})
    client.post("/admin/logout/")
    assert told(caplog) == [
        ("auth.log_in_refused", "olga", "wrong name or password"),
        ("auth.logged_in", "olga", "console"),
        ("auth.logged_out", "olga", None),
    ]


def test_accounts_that_are_made_or_changed_in_the_console_are_told(caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    client.force_login(UserFactory(username="adam", group="Administrator"))
    caplog.clear()
    client.post("/admin/auth/user/add/", {"username": "bob", "access": "client"})
    bob = User.objects.get(username="bob")
    client.post(f"/admin/auth/user/{bob.pk}/change/", {"email": "bob@example.com"})
    assert told(caplog) == [("auth.account_made", "bob", None), ("auth.account_changed", "bob", None)]
    made, changed = (vars(record) for record in caplog.records if "auth." in str(vars(record).get("event")))
    assert (made["actor"], changed["actor"]) == ("operator:adam", "operator:adam")
    assert "bob@example.com" not in str(changed["what"])
