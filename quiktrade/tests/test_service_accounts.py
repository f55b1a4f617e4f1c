"""Service accounts over the API: tokens for a client id and a secret."""

import base64
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.auth import clients
from quiktrade.models import ApiClient, ApiClientSecret
from quiktrade.tests.test_api_errors import PASSWORD, bearing, check_problem

pytestmark = pytest.mark.django_db

PATH = "/api/v1/auth/client-token"
GRANT = {"grant_type": "client_credentials"}
SCOPE = "orders:read orders:write"


@pytest.fixture
def alice() -> User:
    VenueFactory()
    user: User = UserFactory(username="alice")
    return user


@pytest.fixture
def bot(alice: User) -> ApiClient:
    return clients.create(user=alice, name="bot", scope=SCOPE)


def ask(bot: ApiClient, secret: str, address: str = "127.0.0.1", **more: Any) -> Any:
    body = {**GRANT, "client_id": bot.pk, "client_secret": secret, **more}
    return APIClient(REMOTE_ADDR=address).post(PATH, body)


def token_of(bot: ApiClient) -> str:
    token: str = ask(bot, clients.add_secret(bot)).json()["access_token"]
    return token


def test_a_program_gets_a_token_and_acts_for_the_account(bot: ApiClient) -> None:
    response = ask(bot, clients.add_secret(bot))
    answer = response.json()
    assert set(answer) == {"access_token", "token_type", "expires_in", "scope"}
    assert (answer["token_type"], answer["expires_in"], answer["scope"]) == ("Bearer", 300, SCOPE)
    assert response["Cache-Control"] == "no-store"
    order = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1}
    client = bearing(answer["access_token"])
    assert client.post("/api/v1/orders", order).status_code == 201
    check_problem(client.post("/api/v1/orders/cancel", {"all": True}), 403, "insufficient-scope")


def test_the_standard_form_with_the_secret_in_the_header_is_taken(bot: ApiClient) -> None:
    pair = base64.b64encode(f"{bot.pk}:{clients.add_secret(bot)}".encode()).decode()
    form = "application/x-www-form-urlencoded"
    client = APIClient(HTTP_AUTHORIZATION=f"Basic {pair}")
    response = client.generic("POST", PATH, "grant_type=client_credentials&scope=orders%3Aread", form)
    assert (response.status_code, response.json()["scope"]) == (200, "orders:read")
    for body in ("grant_type=client_credentials&grant_type=x", "x", "=" * 100, "%ff=\udcff"):
        sent: Any = body.encode(errors="surrogateescape")
        refused = client.generic("POST", PATH, sent, form)
        assert refused.status_code == 400, body


def test_what_is_wrong_is_not_told(bot: ApiClient) -> None:
    secret = clients.add_secret(bot)
    for id, wrong in ((bot.pk, "x"), ("qtc_x", secret), (bot.pk, secret[:-1]), (bot.pk.upper(), secret)):
        response = ask(ApiClient(pk=id), wrong)
        assert check_problem(response, 401, "invalid-client")["error"] == "invalid_client"
        assert response["WWW-Authenticate"] == 'Basic realm="api"'
    check_problem(APIClient().post(PATH, GRANT), 401, "invalid-client")
    for header in ("Basic x", "Basic", "Basic eA=="):
        check_problem(APIClient(HTTP_AUTHORIZATION=header).post(PATH, GRANT), 401, "invalid-client")


def test_a_secret_is_replaced_without_a_gap_and_its_last_use_shows(bot: ApiClient) -> None:
    old, new = clients.add_secret(bot), clients.add_secret(bot)
    with pytest.raises(ValueError, match="Remove the one"):
        clients.add_secret(bot)
    assert ask(bot, old).status_code == ask(bot, new).status_code == 200
    first, second = bot.secrets.order_by("pk")
    assert None not in (first.last_used_at, second.last_used_at)

    first.delete()
    check_problem(ask(bot, old), 401, "invalid-client")
    assert ask(bot, new).status_code == 200


def test_a_secret_cannot_be_read_from_what_is_stored(bot: ApiClient) -> None:
    secret = clients.add_secret(bot)
    assert len(secret) == 43  # 256 bits
    assert secret not in str(list(ApiClientSecret.objects.values_list()))


@pytest.mark.parametrize(
    "change",
    [
        {"disabled_at": timezone.now()},
        {"expires_at": timezone.now() - timedelta(seconds=1)},
    ],
)
def test_a_service_account_that_was_disabled_or_has_run_out_ends_with_its_tokens(
    bot: ApiClient, change: dict[str, Any]
) -> None:
    secret = clients.add_secret(bot)
    token = ask(bot, secret).json()["access_token"]
    ApiClient.objects.update(**change)
    check_problem(ask(bot, secret), 401, "invalid-client")
    check_problem(bearing(token).get("/api/v1/orders"), 401, "invalid-token")


def test_it_ends_with_its_account(bot: ApiClient, alice: User) -> None:
    secret = clients.add_secret(bot)
    token = ask(bot, secret).json()["access_token"]
    User.objects.update(is_active=False)
    check_problem(ask(bot, secret), 401, "invalid-client")
    check_problem(bearing(token).get("/api/v1/orders"), 401, "invalid-token")
    User.objects.update(is_active=True, is_staff=True)
    check_problem(ask(bot, secret), 401, "invalid-client")


def test_it_ends_when_its_account_comes_to_work_in_the_console(bot: ApiClient, alice: User) -> None:
    secret, token = clients.add_secret(bot), token_of(bot)
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    alice.user_permissions.add(Permission.objects.get(codename="use_api"))
    check_problem(ask(bot, secret), 401, "invalid-client")
    check_problem(bearing(token).get("/api/v1/orders"), 401, "invalid-token")


def test_it_may_be_used_from_its_networks_only_and_its_token_too(bot: ApiClient) -> None:
    ApiClient.objects.update(networks=clients.networks_of("192.0.2.0/24, 2001:db8::/32"))
    secret = clients.add_secret(bot)
    check_problem(ask(bot, secret, "198.51.100.1"), 403, "wrong-network")
    check_problem(ask(bot, secret, ""), 403, "wrong-network")
    assert bot.secrets.get().last_used_at is None
    assert ask(bot, secret, "2001:db8::7").status_code == 200
    assert ask(bot, secret, "::ffff:192.0.2.7").status_code == 200
    token = ask(bot, secret, "192.0.2.7").json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert APIClient(REMOTE_ADDR="192.0.2.8").get("/api/v1/venues", headers=headers).status_code == 200
    elsewhere = APIClient(REMOTE_ADDR="198.51.100.1").get("/api/v1/venues", headers=headers)
    check_problem(elsewhere, 403, "wrong-network")


def test_more_than_it_may_have_and_another_grant_are_refused(bot: ApiClient) -> None:
    secret = clients.add_secret(bot)
    for wrong in ({"scope": "stream"}, {"scope": "admin"}, {"grant_type": "password"}, {"username": "alice"}):
        problem = check_problem(ask(bot, secret, **wrong), 400, "validation-error")
        assert [error["pointer"] for error in problem["errors"]] == [f"#/{next(iter(wrong))}"]


def test_its_token_changes_no_password(bot: ApiClient) -> None:
    ApiClient.objects.update(scope="orders:read orders:write orders:cancel stream")
    bot.refresh_from_db()
    bot.user.set_password(PASSWORD)
    bot.user.save()
    change = {"old_password": PASSWORD, "new_password": "staple battery 7"}
    check_problem(bearing(token_of(bot)).post("/api/v1/auth/password", change), 403, "forbidden")
    bot.user.refresh_from_db()
    assert bot.user.check_password(PASSWORD)


@pytest.mark.parametrize("text", ["x", "192.0.2.1/24", "192.0.2.0/33", "::/129"])
def test_a_network_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        clients.networks_of(text)
