"""An operator limits what a client may send: in the console, and by a command."""

import json
import logging
import re
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.auth.tokens import AccessToken
from quiktrade.models import ClientLimits
from quiktrade.tests.test_api_errors import bearing
from quiktrade.tests.test_limits import limit, spend

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> User:
    VenueFactory()
    user: User = UserFactory(username="alice")
    return user


@pytest.fixture
def client(alice: User) -> APIClient:
    return bearing(AccessToken.for_user(alice))


@pytest.fixture
def adam() -> Client:
    client = Client()
    client.force_login(UserFactory(username="adam", group="Administrator"))
    return client


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Any:
    """What the log was told of changed limits."""
    caplog.set_level(logging.INFO)

    def told() -> list[dict[str, Any]]:
        names = ("account", "actor", "orders_per_second", "orders_per_second_before", "reads_per_second")
        changes = [vars(record) for record in caplog.records if vars(record).get("event") == "limits.changed"]
        return [{name: change[name] for name in names if name in change} for change in changes]

    return told


def page_of(user: User) -> str:
    return f"/admin/auth/user/{user.pk}/change/"


def test_an_administrator_limits_a_client_in_the_console(
    alice: User, client: APIClient, adam: Client, told: Any
) -> None:
    sent = {"is_active": "on", "email": "", "orders_per_second": "1", "reads_per_second": ""}
    assert adam.post(page_of(alice), sent).status_code == 302
    assert spend(client, 2) == [201, 429]
    assert told() == [
        {
            "account": "alice",
            "actor": "operator:adam",
            "orders_per_second": "1",
            "orders_per_second_before": "default",
        }
    ]
    assert 'value="1"' in adam.get(page_of(alice)).content.decode()
    assert "Changed Orders per second" in adam.get(f"/admin/auth/user/{alice.pk}/history/").content.decode()
    sent["initial-orders_per_second"] = "1"
    assert adam.post(page_of(alice), sent).status_code == 302  # nothing is changed, and nothing told
    assert adam.post(page_of(alice), {**sent, "orders_per_second": "0"}).status_code == 302
    assert [change["orders_per_second"] for change in told()] == ["1", "none"]
    assert spend(client, 3) == [201] * 3


def limits_on(page: str) -> dict[str, str]:
    """What a browser sends of the limits if nobody touches them."""
    sent = {}
    for tag in re.findall(r"<input[^>]*>", page):
        attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if attributes.get("name", "").endswith("_per_second"):
            sent[attributes["name"]] = attributes.get("value", "")
    return sent


def test_saving_a_page_undoes_no_limit_that_was_set_since_it_was_opened(alice: User, adam: Client, told: Any) -> None:
    opened = limits_on(adam.get(page_of(alice)).content.decode())
    limit(alice, orders_per_second=50, reads_per_second=7)
    assert set(opened) == {f"{kind}{name}_per_second" for kind in ("", "initial-") for name in ("orders", "reads")}
    for fields in (opened, {}):
        sent = {"is_active": "on", "email": "alice@example.com", **fields}
        assert adam.post(page_of(alice), sent).status_code == 302
    assert told() == []
    sent = {"is_active": "on", "email": "alice@example.com", **opened, "reads_per_second": "9"}
    assert adam.post(page_of(alice), sent).status_code == 302
    assert ClientLimits.objects.values_list("orders_per_second", "reads_per_second").get() == (50, 9)
    opened = limits_on(adam.get(page_of(alice)).content.decode())
    sent = {"is_active": "on", "email": "alice@example.com", **opened, "orders_per_second": ""}
    assert adam.post(page_of(alice), sent).status_code == 302
    assert ClientLimits.objects.values_list("orders_per_second", "reads_per_second").get() == (None, 9)
    assert User.objects.get(pk=alice.pk).email == "alice@example.com"


@pytest.mark.parametrize("wrong", ["-1", "1000001", "x", "1.5"])
def test_a_limit_that_is_none_is_refused_by_its_name(alice: User, adam: Client, wrong: str) -> None:
    response = adam.post(page_of(alice), {"is_active": "on", "email": "", "orders_per_second": wrong})
    assert set(response.context["adminform"].form.errors) == {"orders_per_second"}
    assert not ClientLimits.objects.exists()


def test_who_may_only_look_sees_the_limit(alice: User, settings: Any) -> None:
    settings.READ_RATE = 30
    limit(alice, orders_per_second=7)
    viewer = Client()
    viewer.force_login(UserFactory(username="vera", is_superuser=False, is_staff=True))
    User.objects.get(username="vera").user_permissions.add(Permission.objects.get(codename="view_user"))
    page = viewer.get(page_of(alice)).content.decode()
    assert ">7<" in page
    assert "30 (the default)" in page


def test_a_command_shows_and_changes_a_limit(alice: User, told: Any) -> None:
    def run(*arguments: str) -> str:
        output = StringIO()
        call_command("limit_client", "alice", *arguments, stdout=output)
        return output.getvalue().strip()

    assert run() == "alice may send in a second: orders not limited (the default), reads not limited (the default)."
    assert run("--orders", "20", "--reads", "none") == "alice may send in a second: orders 20, reads not limited."
    answer = json.loads(run("--orders", "default", "--json"))
    assert answer == {"account": "alice", "changed": True, "orders_per_second": None, "reads_per_second": 0}
    assert [change["orders_per_second"] for change in told()] == ["20", "default"]
    assert told()[0]["actor"].endswith(" (command)")
    for wrong in ("0", "-1", "1000001", "x", "٣"):
        with pytest.raises(CommandError, match="a whole number from 1 to 1000000, none or default"):
            run("--orders", wrong)
    with pytest.raises(CommandError, match="There is no account nobody"):
        call_command("limit_client", "nobody")


@pytest.mark.parametrize("name", ["\udcff", "a\0b"])
@pytest.mark.parametrize("command", ["limit_client", "remove_second_factor"])
def test_a_name_that_no_account_can_have_is_that_of_none(command: str, name: str) -> None:
    with pytest.raises(CommandError, match="There is no account"):
        call_command(command, name)
