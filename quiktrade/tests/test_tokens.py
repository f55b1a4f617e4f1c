"""What makes a token void: its claims, its kind, its account, the clock. Every endpoint that reads one agrees."""

from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.contrib.auth.models import Group, Permission, User
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import Token
from rest_framework_simplejwt.utils import aware_utcnow

from orders.tests.factories import UserFactory
from quiktrade.auth.keys import ring
from quiktrade.auth.tokens import AccessToken, RefreshToken
from quiktrade.tests.test_api_errors import PASSWORD, TOKEN, bearing, check_problem, expired

pytestmark = pytest.mark.django_db

ABSENT = object()
VOID = ("invalid-token", "expired-token")


@pytest.fixture
def alice() -> User:
    user: User = UserFactory(username="alice", password=PASSWORD)
    return user


def signed(token: Token, **claims: Any) -> str:
    """The token with other claims, with a valid signature."""
    changed = {**token.payload, **claims}
    payload = {name: value for name, value in changed.items() if value is not ABSENT}
    return ring.encode(payload)


def refresh(token: object) -> Any:
    return APIClient().post(f"{TOKEN}/refresh", {"refresh": str(token)})


def verify(token: object) -> Any:
    return APIClient().post(f"{TOKEN}/verify", {"token": str(token)})


def log_out(token: object) -> Any:
    return APIClient().post("/api/v1/auth/logout", {"refresh": str(token)})


def log_in(**given: Any) -> Any:
    return APIClient().post(TOKEN, {"username": "alice", "password": PASSWORD, **given})


# ---- Claims ----

WRONG: dict[str, list[Any]] = {
    "user_id": [
        ABSENT,
        None,
        "",
        "alice",
        "-1",
        "1.0",
        "١",
        "1\0",
        "9" * 18,
        "9" * 400,
        1,
        1.0,
        True,
        [],
        [1],
        {},
        "\ud800",
    ],
    "exp": [ABSENT, None, "soon", "99999999999", 10**12, 10**30, -1, -(10**30), 1e300, 4e9, True, [], {}],
    "iat": [None, "now", 10**30, [], {}],
    "nbf": [None, "now", 10**30, [], {}],
    "jti": [ABSENT, None, "", "x\0", "\ud800", "0" * 33, "A" * 32, 10**31, [], {}],
    "token_type": [ABSENT, None, "", "untyped", 1, [], {}],
    "hash_password": [ABSENT, None, "", "x" * 32, 1, [], {}],
    "scope": [ABSENT, None, 1, [], {}],
    "sid": ["", "x", "0" * 32, "00000000-0000-0000-0000-000000000000", "\0", 1, [], {}],
    "gen": [0, -1, 1.0, True, "1", 2**31, 10**30, [], {}],
}


@pytest.mark.parametrize("claim", WRONG)
def test_a_signed_token_with_a_claim_that_is_none_of_ours_is_void(alice: User, claim: str) -> None:
    access, renewable = AccessToken.for_user(alice), RefreshToken.for_user(alice)
    for value in WRONG[claim]:
        for response in (
            bearing(signed(access, **{claim: value})).get("/api/v1/venues"),
            refresh(signed(renewable, **{claim: value})),
            log_out(signed(renewable, **{claim: value})),
        ):
            assert response.status_code == 401, (value, response.content)
            assert response.json()["type"].rsplit(":")[-1] in VOID
        if claim != "token_type":
            assert verify(signed(access, **{claim: value})).status_code == 401, value
    assert bearing(access).get("/api/v1/venues").status_code == 200
    assert refresh(renewable).status_code == 200


def test_a_payload_that_is_no_object_is_void(alice: User) -> None:
    for payload in (b"[]", b"7", b"null", b'"x"', b"\xff", b"[" * 20_000):
        key = ring.signer()
        token = jwt.PyJWS().encode(payload, key.private, "EdDSA", headers={"kid": key.kid})
        for response in (bearing(token).get("/api/v1/venues"), refresh(token), verify(token), log_out(token)):
            check_problem(response, 401, "invalid-token")


def test_each_kind_of_token_is_taken_where_it_belongs(alice: User) -> None:
    access, renewable = AccessToken.for_user(alice), RefreshToken.for_user(alice)
    assert "access" in check_problem(bearing(renewable).get("/api/v1/venues"), 401, "invalid-token")["detail"]
    assert "refresh" in check_problem(refresh(access), 401, "invalid-token")["detail"]
    check_problem(log_out(access), 401, "invalid-token")
    assert (verify(access).status_code, verify(renewable).status_code) == (200, 200)


def test_a_token_that_was_logged_out_does_not_verify(alice: User) -> None:
    token = RefreshToken.for_user(alice)
    assert log_out(token).status_code == 204
    check_problem(verify(token), 401, "invalid-token")
    check_problem(log_out(token), 401, "invalid-token")


def test_a_token_that_has_run_out_does_not_verify(alice: User) -> None:
    check_problem(verify(expired(alice)), 401, "expired-token")


@pytest.mark.parametrize(("ahead", "status"), [(2, 200), (60, 401)])
def test_a_token_of_a_node_whose_clock_is_a_little_ahead_is_taken(alice: User, ahead: float, status: int) -> None:
    token = AccessToken.for_user(alice)
    token.set_iat(at_time=aware_utcnow() + timedelta(seconds=ahead))
    assert bearing(token).get("/api/v1/venues").status_code == status


# ---- Accounts ----


@pytest.mark.parametrize("end", ["deactivated", "deleted", "password"])
def test_a_token_ends_with_its_account_and_its_password(alice: User, end: str) -> None:
    tokens = log_in().json()
    assert verify(tokens["access"]).status_code == 200
    if end == "deactivated":
        User.objects.update(is_active=False)
    elif end == "deleted":
        alice.delete()
    else:
        alice.set_password("another horse")
        alice.save()

    check_problem(bearing(tokens["access"]).get("/api/v1/venues"), 401, "invalid-token")
    check_problem(refresh(tokens["refresh"]), 401, "invalid-token")
    check_problem(verify(tokens["access"]), 401, "invalid-token")
    check_problem(verify(tokens["refresh"]), 401, "invalid-token")


@pytest.mark.parametrize("password", [" leading", "trailing ", " ", "tab\t"])
def test_a_password_is_taken_with_its_blanks(alice: User, password: str) -> None:
    alice.set_password(password)
    alice.save()
    assert log_in(password=password).status_code == 200
    assert log_in(password=f"{password} ").status_code == 401


@pytest.mark.parametrize("text", [" ", "\x0b", "\u2003\n"])
def test_spaces_alone_are_a_wrong_token_and_a_wrong_name(alice: User, text: str) -> None:
    for answer in (refresh(text), verify(text), log_out(text)):
        check_problem(answer, 401, "invalid-token")
    assert log_in(username=text).status_code == 401


def test_spaces_around_a_token_and_a_name_do_not_matter(alice: User) -> None:
    tokens = log_in(username=" alice\n").json()
    assert verify(f" {tokens['access']}\n").status_code == 200
    assert refresh(f" {tokens['refresh']}\n").status_code == 200


# ---- Who works in the console does not trade ----


@pytest.mark.parametrize("role", [{"is_staff": True}, {"is_superuser": True}, {"is_staff": True, "is_superuser": True}])
def test_staff_get_no_token_and_a_token_of_before_is_refused(alice: User, role: dict[str, bool]) -> None:
    tokens = log_in().json()
    User.objects.update(**role)

    assert "console" in check_problem(log_in(), 403, "not-a-client")["detail"]
    check_problem(bearing(tokens["access"]).get("/api/v1/venues"), 403, "not-a-client")
    check_problem(bearing(tokens["access"]).post("/api/v1/orders", {}), 403, "not-a-client")
    check_problem(refresh(tokens["refresh"]), 403, "not-a-client")
    check_problem(log_in(password="wrong"), 401, "wrong-credentials")


@pytest.mark.parametrize("by_group", [False, True])
@pytest.mark.parametrize("superuser", [False, True])
def test_staff_may_be_given_the_permission(alice: User, superuser: bool, by_group: bool) -> None:
    User.objects.update(is_staff=True, is_superuser=superuser)
    permission = Permission.objects.get(content_type__app_label="orders", codename="use_api")
    if by_group:
        traders = Group.objects.create(name="Traders")
        traders.permissions.add(permission)
        alice.groups.add(traders)
    else:
        alice.user_permissions.add(permission)

    tokens = log_in().json()
    assert bearing(tokens["access"]).get("/api/v1/venues").status_code == 200
    assert refresh(tokens["refresh"]).status_code == 200


@pytest.mark.parametrize("name", ["Viewer", "Operator", "Administrator"])
def test_none_of_the_consoles_groups_has_it(name: str) -> None:
    user = UserFactory(group=name)
    check_problem(bearing(AccessToken.for_user(user)).get("/api/v1/venues"), 403, "not-a-client")
