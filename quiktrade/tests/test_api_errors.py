"""What every endpoint has in common: tokens, methods, media types, paths, and the shape of a problem."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import Token

from orders.models import Order
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from quiktrade.auth.tokens import AccessToken, RefreshToken
from quiktrade.auth.views import TokenThrottle
from quiktrade.models import WorkerNode

pytestmark = pytest.mark.django_db

TOKEN = "/api/v1/auth/token"
PASSWORD = "correct horse"


@pytest.fixture
def user() -> User:
    VenueFactory()
    user: User = UserFactory(username="alice", password=PASSWORD)
    return user


def bearing(token: object) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


def check_problem(response: Any, status: int, kind: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    assert problem["type"] == f"urn:quiktrade:problem:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem


# ---- Tokens ----


def test_a_session_from_the_first_token_to_the_logout(user: User) -> None:
    client = APIClient()
    pair = client.post(TOKEN, {"username": "alice", "password": PASSWORD}).json()
    assert bearing(pair["access"]).get("/api/v1/orders").status_code == 200
    assert client.post(f"{TOKEN}/verify", {"token": pair["access"]}).status_code == 200

    newer = client.post(f"{TOKEN}/refresh", {"refresh": pair["refresh"]}).json()
    assert bearing(newer["access"]).get("/api/v1/orders").status_code == 200
    again = client.post(f"{TOKEN}/refresh", {"refresh": pair["refresh"]})  # as if the first answer had been lost
    assert again.json()["refresh"] == newer["refresh"]

    assert client.post("/api/v1/auth/logout", {"refresh": newer["refresh"]}).status_code == 204
    check_problem(client.post(f"{TOKEN}/refresh", {"refresh": newer["refresh"]}), 401, "invalid-token")


def expired(user: User, kind: type[Token] = AccessToken) -> Token:
    token = kind.for_user(user)
    token.set_exp(lifetime=-timedelta(minutes=1))
    return token


NO_ERROR = 'Bearer realm="api"'
INVALID_TOKEN = 'Bearer realm="api", error="invalid_token", error_description="'


@pytest.mark.parametrize("path", ["/api/v1/orders", "/api/v1/orders/17", "/api/v1/venues"])
@pytest.mark.parametrize("header", [None, "", "Basic YWxpY2U6eA==", "Bearer-ish x"])
def test_without_a_token_the_scheme_that_is_wanted_is_named(user: User, path: str, header: str | None) -> None:
    response = APIClient().get(path, headers={} if header is None else {"Authorization": header})
    problem = check_problem(response, 401, "unauthorized")
    assert response["WWW-Authenticate"] == NO_ERROR
    assert "Authorization: Bearer TOKEN" in problem["detail"]
    assert TOKEN in problem["detail"]


@pytest.mark.parametrize("path", ["/api/v1/orders", "/api/v1/orders/17", "/api/v1/venues"])
def test_with_a_bad_token_the_answer_is_to_log_in(user: User, path: str) -> None:
    header, payload, signature = str(AccessToken.for_user(user)).split(".")
    for token in (
        "",
        "x",
        "one two",
        RefreshToken.for_user(user),
        f"{header}.{payload}.",
        f"{header}.{payload}x.{signature}",
        "\xff\xfe",
    ):
        response = bearing(token).get(path)
        problem = check_problem(response, 401, "invalid-token")
        assert response["WWW-Authenticate"].startswith(INVALID_TOKEN)
        assert problem["detail"].endswith("Log in for a new one: POST /api/v1/auth/token.")


def test_with_a_token_that_has_run_out_the_answer_is_to_refresh(user: User) -> None:
    response = bearing(expired(user)).get("/api/v1/orders")
    problem = check_problem(response, 401, "expired-token")
    assert response["WWW-Authenticate"] == f'{INVALID_TOKEN}{problem["detail"]}"'
    assert f"{TOKEN}/refresh" in problem["detail"]


def test_with_a_refresh_token_that_has_run_out_the_answer_is_to_log_in(user: User) -> None:
    response = APIClient().post(f"{TOKEN}/refresh", {"refresh": str(expired(user, RefreshToken))})
    problem = check_problem(response, 401, "expired-token")
    assert problem["detail"].endswith("Log in for a new one: POST /api/v1/auth/token.")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_schemes_name_has_no_case(user: User, scheme: str) -> None:
    authorization = f"{scheme} {AccessToken.for_user(user)}"
    assert APIClient().get("/api/v1/venues", headers={"Authorization": authorization}).status_code == 200


def test_an_account_that_was_closed_is_shut_out_at_once(user: User) -> None:
    client = bearing(AccessToken.for_user(user))
    user.is_active = False
    user.save()
    check_problem(client.get("/api/v1/orders"), 401, "invalid-token")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"username": "alice", "password": "wrong"}, 401),
        ({"username": "nobody", "password": PASSWORD}, 401),
        ({"username": "alice"}, 400),
        ({"username": None, "password": None}, 400),
        ({"username": "a\x00b", "password": "x"}, 400),
        ([], 400),
    ],
)
def test_wrong_credentials_are_refused(user: User, body: Any, status: int) -> None:
    response = APIClient().post(TOKEN, body)
    check_problem(response, status, "wrong-credentials" if status == 401 else "validation-error")


def test_guessing_passwords_is_slowed_down(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenThrottle, "THROTTLE_RATES", {"token": "3/min"})
    client = APIClient(REMOTE_ADDR="192.0.2.7")
    for _ in range(3):
        assert client.post(TOKEN, {"username": "alice", "password": "wrong"}).status_code == 401
    response = client.post(TOKEN, {"username": "alice", "password": PASSWORD})
    check_problem(response, 429, "too-many-requests")
    assert int(response["Retry-After"]) > 0


# ---- Methods, media types, paths ----


def test_a_method_that_is_not_offered_is_a_405_that_names_those_that_are(user: User) -> None:
    client = bearing(AccessToken.for_user(user))
    response = client.delete("/api/v1/orders")
    check_problem(response, 405, "method-not-allowed")
    assert "POST" in response["Allow"]
    check_problem(client.post("/api/v1/venues"), 405, "method-not-allowed")


def test_an_answer_in_another_media_type_is_not_offered(user: User) -> None:
    client = bearing(AccessToken.for_user(user))
    check_problem(client.get("/api/v1/orders", headers={"Accept": "text/csv"}), 406, "not-acceptable")


def test_a_wrong_path_is_a_problem_too() -> None:
    check_problem(APIClient().get("/api/v1/order"), 404, "not-found")
    check_problem(APIClient().get("/nothing"), 404, "not-found")


def test_paths_answer_with_and_without_a_trailing_slash(user: User) -> None:
    client = bearing(AccessToken.for_user(user))
    order = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1}
    assert client.post("/api/v1/orders/", order).status_code == 201
    assert client.get("/api/v1/orders/").status_code == 200
    assert APIClient().post(f"{TOKEN}/", {"username": "alice", "password": PASSWORD}).status_code == 200


# ---- Venues, documents, probes ----


def test_venues_can_be_read(user: User) -> None:
    VenueFactory(code="XOFF", enabled=False)
    VenueFactory(code="XHLT", halted_at="2026-01-01T00:00:00Z", halted_by="operator:olga", halt_reason="secret")
    VenueFactory(code="XBRK", adapter="telepathy")
    client = bearing(AccessToken.for_user(user))

    venues = {venue["code"]: venue for venue in client.get("/api/v1/venues").json()}

    assert set(venues) == {"XSIM", "XHLT", "XBRK"}
    assert venues["XBRK"]["order_types"] == []  # its orders wait until its row names an adapter that there is
    assert (venues["XSIM"]["halted"], venues["XHLT"]["halted"]) == (False, True)
    assert venues["XSIM"]["is_default"] is True
    assert "stop_limit" in venues["XSIM"]["order_types"]
    assert "secret" not in str(venues)
    assert client.get("/api/v1/venues/XSIM").json() == venues["XSIM"]
    check_problem(client.get("/api/v1/venues/XOFF"), 404, "not-found")


def test_the_openapi_document_describes_the_orders_and_the_problems() -> None:
    document = APIClient().get("/api/v1/schema").json()
    submit = document["paths"]["/api/v1/orders"]["post"]
    assert submit["security"] == [{"jwtAuth": []}]
    assert document["components"]["securitySchemes"]["jwtAuth"]["scheme"] == "bearer"
    assert {"200", "201", "400", "401", "409", "413", "415", "500", "503"} <= set(submit["responses"])
    assert set(submit["requestBody"]["content"]) == {"application/json"}
    assert "Limit order" in str(submit["requestBody"]) or "LimitOrder" in str(submit["requestBody"])
    assert document["components"]["schemas"]["Problem"]


@pytest.mark.parametrize("path", ["/api/v1/docs", "/api/v1/redoc"])
def test_the_documents_pages_load_nothing_from_other_hosts(path: str) -> None:
    page = APIClient().get(path).content.decode()
    assert "/static/drf_spectacular_sidecar/" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_the_probes_answer_without_a_token() -> None:
    assert APIClient().get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("method", ["get", "head"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_the_probes_answer_to_any_host_over_plain_http(settings: Any, path: str, method: str) -> None:
    settings.SECURE_SSL_REDIRECT = True
    response = getattr(Client(), method)(path, headers={"Host": "10.1.2.3:8000"})
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")
    assert int(response["Content-Length"]) > 0
    assert Client().get("/api/v1/docs", headers={"Host": "10.1.2.3:8000"}).status_code == 400


def test_the_probes_are_for_reading() -> None:
    assert APIClient().post("/healthz").status_code == 405


@pytest.mark.django_db(databases=[])
def test_the_liveness_probe_touches_no_database() -> None:
    assert APIClient().get("/healthz").status_code == 200


def test_readiness_tells_what_is_missing(user: User) -> None:
    degraded = APIClient().get("/readyz")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    assert degraded.json()["checks"]["job_cluster"]["ok"] is False
    assert APIClient().get("/readyz?strict").status_code == 503

    WorkerNode.objects.create(name="n", started_at=timezone.now(), heartbeat_at=timezone.now())
    ready = APIClient().get("/readyz?strict")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")


def test_a_long_overdue_order_shows_in_the_readiness(user: User) -> None:
    OrderFactory()
    Order.objects.update(next_attempt_at="2026-01-01T00:00:00Z")
    check = APIClient().get("/readyz").json()["checks"]["oldest_due_order"]
    assert check["ok"] is False
    assert check["overdue_seconds"] > 30
