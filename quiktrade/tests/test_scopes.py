"""What a token may be used for: every operation of the API, with each scope alone."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.auth.scopes import Scope
from quiktrade.auth.tokens import AccessToken
from quiktrade.tests.test_api_errors import PASSWORD, TOKEN, bearing, check_problem

pytestmark = pytest.mark.django_db

AN_ID = "019a1c2e-7b1f-7c3d-9a55-0242ac120002"
NEEDED: dict[str, str | None] = {
    "POST /api/v1/orders": "orders:write",
    "POST /api/v1/orders/batch": "orders:write",
    "POST /api/v1/orders/{id}/replace": "orders:write",
    "POST /api/v1/orders/{id}/cancel": "orders:cancel",
    "POST /api/v1/orders/cancel": "orders:cancel",
    "GET /api/v1/orders": "orders:read",
    "GET /api/v1/orders/{id}": "orders:read",
    "GET /api/v1/orders/{id}/events": "orders:read",
    "GET /api/v1/orders/{id}/executions": "orders:read",
    "GET /api/v1/orders/events": "orders:read",
    "GET /api/v1/executions": "orders:read",
    "GET /api/v1/positions": "orders:read",
    "GET /api/v1/orders/stream": "stream",
    "GET /api/v1/webhooks": "stream",
    "POST /api/v1/webhooks": "stream",
    "GET /api/v1/webhooks/{id}": "stream",
    "PATCH /api/v1/webhooks/{id}": "stream",
    "DELETE /api/v1/webhooks/{id}": "stream",
    "POST /api/v1/webhooks/{id}/disable": "stream",
    "POST /api/v1/webhooks/{id}/enable": "stream",
    "POST /api/v1/webhooks/{id}/rotate": "stream",
    "POST /api/v1/webhooks/{id}/test": "stream",
    "POST /api/v1/webhooks/{id}/replay": "stream",
    "GET /api/v1/webhooks/{id}/deliveries": "stream",
    "POST /api/v1/webhooks/{id}/deliveries/{delivery_id}/resend": "stream",
    "GET /api/v1/venues": None,
    "GET /api/v1/venues/{code}": None,
    "POST /api/v1/auth/password": "orders:read orders:write orders:cancel stream",
}


@pytest.fixture
def alice() -> User:
    VenueFactory()
    user: User = UserFactory(username="alice", password=PASSWORD)
    return user


def with_scope(user: User, *scopes: str) -> APIClient:
    return bearing(AccessToken.for_user(user, " ".join(scopes)))


def operations() -> Iterator[tuple[str, str]]:
    """Those that need a token, from the OpenAPI document: a new one is asked for its scope here."""
    document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if {"jwtAuth": []} in operation.get("security", []):
                yield method.upper(), path


def answer(client: APIClient, method: str, path: str) -> Any:
    """HEAD stands for the GET of the stream, which would not end."""
    path = path.replace("{id}", AN_ID).replace("{code}", "XSIM").replace("{delivery_id}", "1")
    return client.generic("HEAD" if path.endswith("/stream") else method, path)


def test_every_operation_has_its_scope_here() -> None:
    assert {f"{method} {path}" for method, path in operations()} == set(NEEDED)


@pytest.mark.parametrize("scope", Scope)
def test_a_scope_opens_its_operations_and_no_others(alice: User, scope: str) -> None:
    client = with_scope(alice, scope)
    for operation, needed in NEEDED.items():
        response = answer(client, *operation.split())
        assert (response.status_code == 403) == (needed not in (None, scope)), operation


def test_a_token_without_any_scope_opens_what_needs_none(alice: User) -> None:
    client = with_scope(alice)
    opened = [each for each in NEEDED if answer(client, *each.split()).status_code != 403]
    assert opened == ["GET /api/v1/venues", "GET /api/v1/venues/{code}"]


def test_the_refusal_says_what_is_needed(alice: User) -> None:
    response = with_scope(alice, "orders:read", "stream").post("/api/v1/orders", {})
    problem = check_problem(response, 403, "insufficient-scope")
    assert problem["scope"] == "orders:write"
    assert response["WWW-Authenticate"] == 'Bearer realm="api", error="insufficient_scope", scope="orders:write"'


def test_a_method_that_is_not_offered_needs_no_scope(alice: User) -> None:
    check_problem(with_scope(alice).put("/api/v1/orders"), 405, "method-not-allowed")


def test_a_log_in_can_ask_for_less_and_a_refresh_keeps_it(alice: User) -> None:
    wanted = {"username": "alice", "password": PASSWORD, "scope": "stream  orders:read"}
    tokens = APIClient().post(TOKEN, wanted).json()
    assert tokens["scope"] == "orders:read stream"
    newer = APIClient().post(f"{TOKEN}/refresh", {"refresh": tokens["refresh"]}).json()
    for access in (tokens["access"], newer["access"]):
        assert bearing(access).get("/api/v1/orders").status_code == 200
        check_problem(bearing(access).post("/api/v1/orders", {}), 403, "insufficient-scope")


def test_a_log_in_has_every_scope_unless_it_asks_for_less(alice: User) -> None:
    tokens = APIClient().post(TOKEN, {"username": "alice", "password": PASSWORD}).json()
    assert tokens["scope"] == "orders:read orders:write orders:cancel stream"


@pytest.mark.parametrize("scope", ["", " ", "orders", "orders:read admin", "ORDERS:READ", None, 1, []])
def test_a_scope_that_there_is_not_is_refused_by_name(alice: User, scope: Any) -> None:
    response = APIClient().post(TOKEN, {"username": "alice", "password": PASSWORD, "scope": scope})
    problem = check_problem(response, 400, "validation-error")
    assert [error["pointer"] for error in problem["errors"]] == ["#/scope"]
