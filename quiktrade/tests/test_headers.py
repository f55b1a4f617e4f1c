"""What browsers are told: what a page may load, and what is kept."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory
from quiktrade.tests.test_api_errors import PASSWORD, TOKEN

pytestmark = pytest.mark.django_db

FROM_HERE = (
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
CONSOLE = f"default-src 'none'; script-src 'self' 'unsafe-eval'; {FROM_HERE}"
DOCUMENT = f"default-src 'none'; script-src 'self'; {FROM_HERE}"


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/api/v1", "default-src 'none'; frame-ancestors 'none'"),
        ("/api/v1/orders", "default-src 'none'; frame-ancestors 'none'"),
        ("/api/v1/nothing", "default-src 'none'; frame-ancestors 'none'"),
        ("/api/v1/docs", DOCUMENT),
        ("/api/v1/docs/", DOCUMENT),
        ("/api/v1/redoc", f"{DOCUMENT}; worker-src blob:; child-src blob:"),
        ("/admin/login/", CONSOLE),
        ("/admin/nothing/", CONSOLE),
    ],
)
def test_a_page_loads_from_this_host_only(path: str, policy: str) -> None:
    response = Client().get(path)
    assert response["Content-Security-Policy"] == policy
    assert ("Permissions-Policy" in response) == (policy != "default-src 'none'; frame-ancestors 'none'")
    assert response["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/api/v1/docs", "/api/v1/docs?script=", "/api/v1/redoc", "/api/v1/schema"])
def test_the_documents_pages_set_no_cookie_and_have_no_script_of_their_own(path: str) -> None:
    response = Client().get(path)
    assert response.status_code == 200
    assert not response.cookies
    assert "<script>" not in response.content.decode()


def test_the_script_of_the_document_comes_by_itself() -> None:
    assert "/api/v1/docs?script=" in Client().get("/api/v1/docs").content.decode()
    response = Client().get("/api/v1/docs?script=")
    assert response["Content-Type"].startswith("application/javascript")
    assert "SwaggerUIBundle({" in response.content.decode()


def test_tokens_are_kept_by_no_cache() -> None:
    UserFactory(username="alice", password=PASSWORD)

    def asked(path: str, body: dict[str, Any]) -> Any:
        response = APIClient().post(path, body)
        assert response["Cache-Control"] == "no-store"
        return response

    refresh = asked(TOKEN, {"username": "alice", "password": PASSWORD}).json()["refresh"]
    assert asked(f"{TOKEN}/refresh", {"refresh": refresh}).status_code == 200
    assert asked(TOKEN, {"username": "alice", "password": "wrong"}).status_code == 401
    assert asked("/api/v1/auth/client-token", {}).status_code == 400


def test_a_session_of_the_console_ends_after_a_shift_and_its_row_goes() -> None:
    UserFactory(username="olga", password=PASSWORD, group="Operator")
    client, log_in = Client(), {"username": "olga", "password": PASSWORD}
    cookie = client.post("/admin/login/", log_in).cookies["sessionid"]
    assert (cookie["max-age"], cookie["httponly"], cookie["samesite"]) == (12 * 3600, True, "Lax")
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert client.get("/admin/")["Location"].startswith("/admin/login/")
    Client().post("/admin/login/", log_in)
    assert Session.objects.get().expire_date > timezone.now()
