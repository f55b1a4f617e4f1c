"""Accounts in the console: who may make them, and that nobody grants more than they have."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.test import Client

from orders.tests.factories import UserFactory, console_group

pytestmark = pytest.mark.django_db

USERS = "/admin/auth/user/"
Login = Callable[..., Client]


@pytest.fixture
def login(db: None) -> Login:
    def login(group: str | None = "Administrator", **user: Any) -> Client:
        client = Client()
        client.force_login(UserFactory(username="adam", group=group, **user))
        return client

    return login


def shown_password(content: bytes) -> str:
    found = re.search(r'id="password">([^<]+)<', content.decode())
    assert found is not None
    return found[1]


def access(group: str) -> str:
    return str(console_group(group).pk)


def changed(client: Client, user: User, **fields: Any) -> User:
    """Send the account's page, and return the account as it is then."""
    sent = {"is_active": "on", "is_staff": "on", "email": user.email, **fields}
    assert client.post(f"{USERS}{user.pk}/change/", sent).status_code == 302
    return User.objects.get(pk=user.pk)


@pytest.mark.exhaustive
def test_a_client_is_made_with_a_password_that_is_shown_once(login: Login) -> None:
    client = login()
    response = client.post(f"{USERS}add/", {"username": "alice", "access": "client"})
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    alice = User.objects.get(username="alice")
    assert alice.check_password(shown_password(response.content))
    assert (alice.is_staff, alice.is_superuser, alice.groups.count()) == (False, False, 0)
    assert shown_password(response.content) not in client.get(f"{USERS}{alice.pk}/change/").content.decode()


def test_an_operator_is_made_with_a_group(login: Login) -> None:
    login().post(f"{USERS}add/", {"username": "olga", "access": access("Operator"), "email": "o@example.com"})
    olga = User.objects.get(username="olga")
    assert (olga.is_staff, olga.email, [group.name for group in olga.groups.all()]) == (
        True,
        "o@example.com",
        ["Operator"],
    )
    assert olga.has_perm("orders.operate_order")


def test_what_is_missing_from_a_new_account_is_named(login: Login) -> None:
    response = login().post(f"{USERS}add/", {"username": "adam"})
    errors = response.context["adminform"].form.errors
    assert set(errors) == {"username", "access"}
    assert User.objects.count() == 1


@pytest.mark.parametrize("group", ["Viewer", "Operator", None])
def test_who_is_no_administrator_makes_no_account_and_no_password(login: Login, group: str | None) -> None:
    client, alice = login(group, is_staff=True), UserFactory(username="alice", password="as-it-was")
    assert client.get(f"{USERS}add/").status_code == 403
    assert client.post(f"{USERS}add/", {"username": "eve", "access": "client"}).status_code == 403
    assert client.post(f"{USERS}{alice.pk}/password/").status_code == 403
    assert client.post(f"{USERS}{alice.pk}/change/", {"is_staff": "on"}).status_code == 403
    alice.refresh_from_db()
    assert alice.check_password("as-it-was")
    assert not User.objects.filter(username="eve").exists()


def test_an_administrator_gives_only_groups_that_may_no_more_than_he(login: Login) -> None:
    client, above = login(), Group.objects.create(name="Above")
    above.permissions.add(Permission.objects.get(codename="change_group"))
    response = client.post(f"{USERS}add/", {"username": "eve", "access": str(above.pk)})
    assert set(response.context["adminform"].form.errors) == {"access"}
    adam = User.objects.get(username="adam")
    sent = {"is_active": "on", "is_staff": "on", "groups": [str(above.pk)]}
    response = client.post(f"{USERS}{adam.pk}/change/", sent)
    assert set(response.context["adminform"].form.errors) == {"groups"}
    assert [group.name for group in adam.groups.all()] == ["Administrator"]


@pytest.mark.parametrize("active", [True, False])
def test_an_administrator_cannot_take_over_who_may_more(login: Login, active: bool) -> None:
    client, above = login(), UserFactory(is_staff=True, password="as-it-was", is_active=active)
    above.user_permissions.add(Permission.objects.get(codename="change_group"))
    assert client.post(f"{USERS}{above.pk}/password/").status_code == 403
    assert client.post(f"{USERS}{above.pk}/change/", {"is_active": "on"}).status_code == 403
    above.refresh_from_db()
    assert above.check_password("as-it-was")
    assert above.is_active == active


def test_only_a_superuser_makes_superusers_and_permissions_come_by_group_alone(login: Login) -> None:
    permission = Permission.objects.get(codename="change_group")
    client, wanted = login(), {"is_superuser": "on", "user_permissions": [str(permission.pk)]}
    assert not changed(client, UserFactory(username="alice"), **wanted).is_superuser
    User.objects.filter(username="adam").update(is_superuser=True)
    alice = changed(client, User.objects.get(username="alice"), **wanted)
    assert (alice.is_superuser, alice.user_permissions.count()) == (True, 0)


def test_a_group_is_a_superusers_to_change(login: Login) -> None:
    client, adam, viewer = login(), User.objects.get(username="adam"), console_group("Viewer")
    adam.user_permissions.set(Permission.objects.filter(codename__in=("add_group", "change_group")))
    for path in ("add/", f"{viewer.pk}/change/"):
        assert client.post(f"/admin/auth/group/{path}", {"name": "Mine"}).status_code == 403
    User.objects.filter(pk=adam.pk).update(is_superuser=True)
    assert client.post(f"/admin/auth/group/{viewer.pk}/change/", {"name": "Spectator"}).status_code == 302


def test_a_lost_password_is_replaced_by_a_new_one(login: Login) -> None:
    client, olga = login(), UserFactory(username="olga", group="Operator", password="as-it-was")
    there = Client()
    there.force_login(olga)
    assert "Make a new password" in client.get(f"{USERS}{olga.pk}/password/").content.decode()
    password = shown_password(client.post(f"{USERS}{olga.pk}/password/").content)
    olga.refresh_from_db()
    assert olga.check_password(password)
    assert not olga.check_password("as-it-was")
    assert there.get("/admin/").status_code == 302  # the session of the old password is over
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_id) == ("adam", str(olga.pk))
    assert entry.get_change_message() == "Gave it a new password."


def test_ones_own_password_is_changed_with_the_old_one_alone(login: Login) -> None:
    client, adam = login(password="as-it-was"), User.objects.get(username="adam")
    assert client.post(f"{USERS}{adam.pk}/password/").headers["Location"] == "/admin/password_change/"
    new = {"new_password1": "night-shift-7", "new_password2": "night-shift-7"}
    client.post("/admin/password_change/", {"old_password": "wrong", **new})
    assert User.objects.get(username="adam").check_password("as-it-was")
    assert client.post("/admin/password_change/", {"old_password": "as-it-was", **new}).status_code == 302
    assert User.objects.get(username="adam").check_password("night-shift-7")


def test_a_name_that_histories_may_have_stays(login: Login) -> None:
    client = login(is_superuser=True)
    olga = changed(client, UserFactory(username="olga"), username="paula", first_name="Olga")
    assert (olga.username, olga.first_name) == ("olga", "Olga")


def test_a_log_in_that_names_no_page_leads_to_the_first(db: None) -> None:
    UserFactory(username="olga", group="Operator", password="night-shift-7")
    sent = {"username": "olga", "password": "night-shift-7"}
    response = Client().post("/admin/login/", sent, follow=True)
    assert (response.status_code, response.redirect_chain) == (200, [("/admin/", 302)])
