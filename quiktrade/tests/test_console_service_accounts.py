"""The console's pages of service accounts."""

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from orders.tests.factories import UserFactory
from quiktrade.auth import clients
from quiktrade.models import ApiClient
from quiktrade.tests.test_service_accounts import ask

pytestmark = pytest.mark.django_db

PAGES = "/admin/quiktrade/apiclient/"


@pytest.fixture
def alice() -> User:
    user: User = UserFactory(username="alice")
    return user


@pytest.fixture
def bot(alice: User) -> ApiClient:
    return clients.create(user=alice, name="bot", scope="orders:read")


@pytest.fixture
def adam() -> Client:
    client = Client()
    client.force_login(UserFactory(username="adam", group="Administrator"))
    return client


def shown(content: bytes) -> str:
    found = re.search(r'id="secret">([^<]+)<', content.decode())
    assert found is not None
    return found[1]


def sent(user: User, **changed: Any) -> dict[str, Any]:
    given = {"name": "bot", "user": user.pk, "scopes": ["stream", "orders:read"], "networks": "", "enabled": "on"}
    return {**given, "expires_at_0": "", "expires_at_1": "", **changed}


def test_a_service_account_is_made_with_a_secret_that_is_shown_once(adam: Client, alice: User) -> None:
    response = adam.post(f"{PAGES}add/", sent(alice, networks="127.0.0.0/8, ::1"))
    bot = ApiClient.objects.get()
    secret = shown(response.content)
    assert "no-store" in response["Cache-Control"]
    assert (bot.user, bot.scope, bot.networks) == (alice, "orders:read stream", "127.0.0.0/8 ::1/128")
    assert ask(bot, secret).status_code == 200
    for page in (PAGES, f"{PAGES}{bot.pk}/change/", f"{PAGES}{bot.pk}/secrets/"):
        assert secret not in adam.get(page).content.decode()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"networks": "192.0.2.1/24"}, "has host bits set"),
        ({"scopes": []}, "This field is required"),
        ({"scopes": ["admin"]}, "admin is not one of the available choices"),
        ({"name": ""}, "This field is required"),
    ],
)
def test_a_wrong_one_is_refused(adam: Client, alice: User, changed: dict[str, Any], message: str) -> None:
    response = adam.post(f"{PAGES}add/", sent(alice, **changed))
    assert message in response.content.decode()
    assert not ApiClient.objects.exists()


def test_nobody_is_given_a_service_account_who_works_in_the_console(adam: Client) -> None:
    olga = UserFactory(username="olga", group="Operator")
    assert "not one of the available choices" in adam.post(f"{PAGES}add/", sent(olga)).content.decode()
    assert not ApiClient.objects.exists()


def test_it_is_switched_off_and_on_and_keeps_its_account(adam: Client, alice: User, bot: ApiClient) -> None:
    other, secret = UserFactory(), clients.add_secret(bot)
    adam.post(f"{PAGES}{bot.pk}/change/", sent(other, enabled=""))
    assert ask(bot, secret).status_code == 401
    adam.post(f"{PAGES}{bot.pk}/change/", sent(other, enabled="on"))
    assert ask(bot, secret).status_code == 200
    assert ApiClient.objects.get().user == alice


def test_a_secret_is_replaced(adam: Client, bot: ApiClient) -> None:
    old = clients.add_secret(bot)
    new = shown(adam.post(f"{PAGES}{bot.pk}/secrets/").content)
    page = adam.post(f"{PAGES}{bot.pk}/secrets/", follow=True).content.decode()
    assert "There are 2 secrets. Remove the one that is not used any more." in page
    assert page.count("never used") == 2
    assert ask(bot, new).status_code == 200

    adam.post(f"{PAGES}{bot.pk}/secrets/", {"remove": bot.secrets.order_by("pk")[0].pk})
    assert (ask(bot, old).status_code, ask(bot, new).status_code) == (401, 200)
    assert "last used" in adam.get(f"{PAGES}{bot.pk}/secrets/").content.decode()
    told = [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]
    assert told == ["Made a secret.", "Removed a secret."]


@pytest.mark.parametrize("key", ["0", "-1", "x", "٣", "9" * 30])
def test_a_secret_that_there_is_not_is_not_removed(adam: Client, bot: ApiClient, key: str) -> None:
    clients.add_secret(bot)
    assert adam.post(f"{PAGES}{bot.pk}/secrets/", {"remove": key}).status_code == 302
    assert bot.secrets.count() == 1


@pytest.mark.parametrize("group", ["Viewer", "Operator"])
def test_only_administrators_come_here(bot: ApiClient, group: str) -> None:
    client = Client()
    client.force_login(UserFactory(group=group))
    for page in (PAGES, f"{PAGES}add/", f"{PAGES}{bot.pk}/change/", f"{PAGES}{bot.pk}/secrets/"):
        assert client.get(page).status_code == 403
    assert client.post(f"{PAGES}{bot.pk}/secrets/").status_code == 403
    assert bot.secrets.count() == 0


def test_the_list_shows_the_last_use(adam: Client, bot: ApiClient) -> None:
    assert bot.pk in adam.get(PAGES).content.decode()
    ask(bot, clients.add_secret(bot))
    assert "s ago" in adam.get(PAGES).content.decode()
