"""The second factor of whoever works in the console: set up, asked for, guessed, lost and removed."""

import re
import threading
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory
from quiktrade.auth import second_factor
from quiktrade.models import RecoveryCode, SecondFactor
from quiktrade.tests.test_api_errors import PASSWORD, TOKEN, bearing, check_problem

pytestmark = pytest.mark.django_db

PAGE = "/admin/second-factor/"
KEY, AS_TYPED = b"12345678901234567890", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
CODES = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]
"""RFC 4226, appendix D: the codes of this key. RFC 6238 counts with the steps of 30 seconds since 1970."""


class Clock:
    """Tells the time to what computes codes. It begins at step 4."""

    step = 4

    def time(self) -> float:
        return self.step * 30 + 7


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(second_factor, "time", clock)
    monkeypatch.setattr(second_factor, "secrets", SimpleNamespace(token_bytes=_bytes()))
    return clock


def _bytes() -> Callable[[int], bytes]:
    """The known key, and recovery codes that differ."""
    number = iter(range(1000))
    return lambda length: KEY if length == len(KEY) else next(number).to_bytes(length, "big")


@pytest.fixture
def olga() -> User:
    user: User = UserFactory(username="olga", password=PASSWORD, group="Operator")
    return user


def logged_in(name: str = "olga") -> Client:
    client = Client()
    assert client.post("/admin/login/", {"username": name, "password": PASSWORD}).status_code == 302
    return client


def set_up(user: User, step: int = 0) -> list[str]:
    """Without a look at the clock: the code of that step is used up."""
    factor = second_factor.begin(user)
    assert factor is not None
    SecondFactor.objects.update(confirmed=True, last_step=step)
    return second_factor.renew_codes(factor)


def enter(client: Client, code: str, address: str = PAGE) -> Any:
    return client.post(address, {"code": code})


def is_inside(client: Client) -> bool:
    return client.get("/admin/").status_code == 200


def make_time_pass(seconds: float) -> None:
    for factor in SecondFactor.objects.exclude(throttling_failure_timestamp=None):
        factor.throttling_failure_timestamp -= timedelta(seconds=seconds)
        factor.save()


def test_it_is_set_up_with_the_password_and_a_code(olga: User) -> None:
    client = logged_in()
    page = client.get(PAGE)
    assert "no-store" in page["Cache-Control"]
    assert AS_TYPED in page.content.decode()
    assert "<svg" in page.content.decode()
    done = client.post(PAGE, {"password": PASSWORD, "code": CODES[4]}).content.decode()
    assert len(re.findall(r"<li>[a-z2-7]{4}(?:-[a-z2-7]{4}){3}</li>", done)) == 10
    assert is_inside(client)
    assert not is_inside(logged_in())


def test_what_an_app_reads_from_the_picture(olga: User) -> None:
    factor = second_factor.begin(olga)
    assert factor is not None
    address = f"otpauth://totp/QuikTrade%3Aolga?secret={AS_TYPED}&issuer=QuikTrade&digits=6&period=30"
    assert second_factor.address_of(factor) == address


@pytest.mark.parametrize(
    ("password", "code", "message"),
    [("wrong", CODES[4], "It is not your password."), (PASSWORD, "000000", "The code is wrong"), (PASSWORD, "", "")],
)
def test_it_is_not_set_up_without_both(olga: User, password: str, code: str, message: str) -> None:
    client = logged_in()
    client.get(PAGE)
    page = client.post(PAGE, {"password": password, "code": code}).content.decode()
    assert message in page
    assert AS_TYPED in page
    assert not SecondFactor.objects.filter(confirmed=True).exists()


def test_the_password_is_not_guessed_at_an_open_session(olga: User) -> None:
    client = logged_in()
    client.get(PAGE)
    for _ in range(5):
        client.post(PAGE, {"password": "wrong", "code": CODES[4]})
    page = client.post(PAGE, {"password": PASSWORD, "code": CODES[4]}).content.decode()
    assert "Too many log-ins with this name failed" in page
    assert not SecondFactor.objects.filter(confirmed=True).exists()


def test_a_key_that_was_seen_before_is_not_used(olga: User) -> None:
    logged_in().get(PAGE)
    first = SecondFactor.objects.get()
    logged_in().get(PAGE)
    assert SecondFactor.objects.get().pk != first.pk


def test_nothing_but_the_page_is_shown_before_a_code(olga: User) -> None:
    set_up(olga)
    client = logged_in()
    for path in ("/admin/", "/admin/orders/order/", "/admin/password_change/", "/admin/nothing/", "/admin"):
        assert client.get(path)["Location"].startswith(PAGE), path
        assert client.post(path)["Location"] == PAGE, path
    page = client.get(PAGE).content.decode()
    assert "Enter the code" in page
    assert "Remove it" not in page
    assert client.post("/admin/logout/").status_code == 200


def test_a_code_opens_the_page_that_was_wanted(olga: User) -> None:
    set_up(olga)
    client = logged_in()
    wanted = client.get("/admin/orders/order/?status=failed")["Location"]
    assert wanted == f"{PAGE}?next=%2Fadmin%2Forders%2Forder%2F%3Fstatus%3Dfailed"
    before = client.session.session_key
    assert enter(client, f" {CODES[4][:3]} {CODES[4][3:]} ", wanted)["Location"] == "/admin/orders/order/?status=failed"
    assert is_inside(client)
    assert client.session.session_key != before


@pytest.mark.parametrize("wanted", ["https://example.com/", "//example.com", "javascript:alert(1)", "\0"])
def test_a_code_leads_nowhere_else(olga: User, wanted: str) -> None:
    set_up(olga)
    client = logged_in()
    response = client.post(f"{PAGE}?next={wanted}", {"code": CODES[4]})
    assert response.get("Location", "/admin/") == "/admin/"


@pytest.mark.parametrize(("step", "right"), [(2, False), (3, True), (4, True), (5, True), (6, False)])
def test_clocks_may_differ_by_a_step(olga: User, step: int, right: bool) -> None:
    set_up(olga)
    client = logged_in()
    enter(client, CODES[step])
    assert is_inside(client) == right


def test_a_code_is_good_once_and_so_is_each_before_it(olga: User) -> None:
    set_up(olga)
    enter(logged_in(), CODES[4])
    for spent in (CODES[4], CODES[3]):
        client = logged_in()
        assert "The code is wrong, or it was used before." in enter(client, spent).content.decode()
        assert not is_inside(client)
        make_time_pass(60)
    enter(client, CODES[5])
    assert is_inside(client)


@pytest.mark.parametrize("code", ["", " ", "12345", "1234567", "١٢٣٤٥٦", "-", "x" * 16, "\0", "9" * 30, "a" * 31])
def test_what_is_no_code_is_wrong(olga: User, code: str) -> None:
    set_up(olga)
    client = logged_in()
    assert enter(client, code).status_code in (200, 400)
    assert not is_inside(client)


def test_a_recovery_code_is_good_once(olga: User) -> None:
    first, second, *_ = set_up(olga)
    client, other = logged_in(), logged_in()
    enter(client, first.upper())
    enter(other, first)
    assert (is_inside(client), is_inside(other)) == (True, False)
    make_time_pass(60)
    enter(other, second.replace("-", ""))
    assert is_inside(other)
    assert RecoveryCode.objects.count() == 8


def test_a_recovery_code_of_somebody_else_is_wrong(olga: User) -> None:
    set_up(olga)
    others = set_up(UserFactory(username="otto", password=PASSWORD, group="Operator"))
    client = logged_in()
    enter(client, others[0])
    assert not is_inside(client)
    assert RecoveryCode.objects.count() == 20


def test_nothing_that_is_stored_can_be_used(olga: User) -> None:
    codes = set_up(olga)
    stored = str([*SecondFactor.objects.values_list(), *RecoveryCode.objects.values_list()])
    for secret in (KEY.decode(), KEY.hex(), AS_TYPED, *codes, *(code.replace("-", "") for code in codes)):
        assert secret not in stored


def test_after_another_secret_key_the_recovery_codes_are_left(olga: User, settings: Any) -> None:
    codes = set_up(olga)
    settings.SECRET_KEY = "another" * 10
    client = logged_in()
    enter(client, CODES[4])
    assert not is_inside(client)
    make_time_pass(60)
    enter(client, codes[0])
    assert is_inside(client)


def test_an_earlier_secret_key_reads_it_until_it_is_used(olga: User, settings: Any) -> None:
    set_up(olga)
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another" * 10
    client = logged_in()
    enter(client, CODES[4])
    assert is_inside(client)
    settings.SECRET_KEY_FALLBACKS = []
    assert second_factor.base32_of(SecondFactor.objects.get()) == AS_TYPED.replace(" ", "")


@pytest.mark.parametrize(("failures", "seconds"), [(7, 64), (8, 128), (10, 512)])
def test_the_wait_doubles_with_each_wrong_code_and_has_a_bound(olga: User, failures: int, seconds: int) -> None:
    set_up(olga)
    client = logged_in()
    for _ in range(min(failures, 9)):
        enter(client, "000000")
        make_time_pass(600)
    for _ in range(3 if failures == 10 else 0):
        enter(client, "000000")
        make_time_pass(600)
    make_time_pass(-600)  # back to the last of them
    found = re.search(r"The last code was wrong. Try again in (\d+) s.", enter(client, CODES[4]).content.decode())
    assert found is not None
    assert seconds - 50 < int(found[1]) <= seconds
    make_time_pass(seconds)
    enter(client, CODES[4])
    assert is_inside(client)


@pytest.mark.django_db(transaction=True)
def test_of_twelve_uses_of_a_code_at_once_one_succeeds() -> None:
    user = UserFactory(username="olga", password=PASSWORD, group="Operator")
    set_up(user)
    start, answers = threading.Barrier(12), []

    def go() -> None:
        start.wait()
        try:
            second_factor.verify(user, CODES[4])
            answers.append("right")
        except (second_factor.WrongCode, second_factor.TooManyCodes):
            answers.append("wrong")
        connection.close()

    threads = [threading.Thread(target=go) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["right"] + ["wrong"] * 11


def test_another_account_in_the_same_browser_is_asked_again(olga: User) -> None:
    set_up(olga)
    set_up(UserFactory(username="otto", password=PASSWORD, group="Operator"))
    client = logged_in()
    enter(client, CODES[4])
    client.post("/admin/login/", {"username": "otto", "password": PASSWORD})
    assert not is_inside(client)


def test_new_recovery_codes_need_a_code_and_end_the_earlier_ones(olga: User) -> None:
    old, *_ = set_up(olga)
    client = logged_in()
    enter(client, CODES[4])
    client.post(PAGE, {"do": "codes", "code": "000000"})
    make_time_pass(60)
    page = client.post(PAGE, {"do": "codes", "code": CODES[5]}).content.decode()
    new = re.findall(r"<li>([a-z2-7-]{19})</li>", page)
    assert len(new) == 10
    with pytest.raises(second_factor.WrongCode):
        second_factor.verify(olga, old)
    make_time_pass(60)
    second_factor.verify(olga, new[0])


def test_it_is_removed_with_a_code(olga: User) -> None:
    set_up(olga)
    client = logged_in()
    enter(client, CODES[4])
    client.post(PAGE, {"do": "remove", "code": CODES[4]})
    assert second_factor.of(olga) is not None
    make_time_pass(60)
    assert client.post(PAGE, {"do": "remove", "code": CODES[5]}).status_code == 302
    assert second_factor.of(olga) is None
    assert is_inside(client)


def test_who_must_have_one_sets_it_up_first_and_another_one_after_it(olga: User, settings: Any) -> None:
    settings.SECOND_FACTOR = "required"
    client = logged_in()
    assert client.get("/admin/")["Location"] == f"{PAGE}?next=%2Fadmin%2F"
    assert "must have a second factor" in client.get(PAGE).content.decode()
    client.post(PAGE, {"password": PASSWORD, "code": CODES[4]})
    assert is_inside(client)
    assert "Set up another app" in client.get(PAGE).content.decode()
    assert client.post(PAGE, {"do": "remove", "code": CODES[5]})["Location"] == PAGE
    assert not is_inside(client)
    assert AS_TYPED in client.get(PAGE).content.decode()


def test_a_client_has_nothing_to_do_with_it(settings: Any) -> None:
    settings.SECOND_FACTOR = "required"
    UserFactory(username="alice", password=PASSWORD)
    assert APIClient().post(TOKEN, {"username": "alice", "password": PASSWORD}).status_code == 200
    client = Client()
    client.force_login(User.objects.get(username="alice"))
    assert client.get(PAGE)["Location"] == "/admin/login/"
    assert Client().get(PAGE)["Location"] == "/admin/login/"


# ---- The API ----


def trader() -> User:
    user: User = UserFactory(username="tina", password=PASSWORD, group="Operator")
    user.user_permissions.add(Permission.objects.get(codename="use_api"))
    return user


def token(**more: Any) -> Any:
    return APIClient().post(TOKEN, {"username": "tina", "password": PASSWORD, **more})


def test_whoever_may_use_the_api_too_is_asked_there(settings: Any) -> None:
    set_up(trader())
    check_problem(token(), 401, "code-needed")
    check_problem(token(code="000000"), 401, "wrong-code")
    make_time_pass(-600)  # the second that it costs is over too soon on a slow machine
    response = token(code=CODES[4])
    check_problem(response, 429, "too-many-requests")
    assert 500 < int(response["Retry-After"]) <= 601
    make_time_pass(660)
    assert token(code=CODES[4]).status_code == 200
    check_problem(token(code=CODES[4]), 401, "wrong-code")
    check_problem(APIClient().post(TOKEN, {"username": "tina", "password": "x"}), 401, "wrong-credentials")


def test_where_it_is_required_the_api_asks_for_it_too(settings: Any) -> None:
    before = (trader(), token().json())[1]
    settings.SECOND_FACTOR = "required"
    check_problem(token(), 403, "second-factor-missing")
    check_problem(APIClient().post(f"{TOKEN}/refresh", {"refresh": before["refresh"]}), 403, "second-factor-missing")


def test_setting_it_up_ends_what_was_begun_without_it() -> None:
    tina = trader()
    before = token().json()
    second_factor.begin(tina)
    second_factor.confirm(tina, CODES[4])
    check_problem(APIClient().post(f"{TOKEN}/refresh", {"refresh": before["refresh"]}), 401, "invalid-token")
    check_problem(bearing(before["access"]).get("/api/v1/orders"), 401, "invalid-token")


# ---- Lost phones ----


@pytest.fixture
def adam() -> Client:
    client = Client()
    client.force_login(UserFactory(username="adam", group="Administrator"))
    return client


def removal(user: User) -> str:
    return f"/admin/auth/user/{user.pk}/second-factor/"


def test_an_administrator_removes_that_of_somebody_who_lost_it(adam: Client, olga: User) -> None:
    set_up(olga)
    assert removal(olga) in adam.get(f"/admin/auth/user/{olga.pk}/change/").content.decode()
    assert adam.get(removal(olga)).status_code == 200
    assert second_factor.of(olga) is not None
    assert adam.post(removal(olga)).status_code == 302
    assert second_factor.of(olga) is None
    assert LogEntry.objects.get().get_change_message() == "Removed its second factor."


def test_nobody_removes_that_of_an_account_that_may_do_more_nor_their_own_this_way(adam: Client, olga: User) -> None:
    root = UserFactory(username="root", is_staff=True, is_superuser=True)
    me = User.objects.get(username="adam")
    set_up(root)
    assert adam.post(removal(root)).status_code == 403
    operator = Client()
    operator.force_login(olga)
    assert operator.post(removal(me)).status_code == 403
    assert adam.post(removal(me))["Location"] == PAGE
    assert second_factor.of(root) is not None
    assert adam.post("/admin/auth/user/999999/second-factor/").status_code == 404


def test_a_command_removes_that_of_the_last_administrator(olga: User) -> None:
    set_up(olga)
    output = StringIO()
    call_command("remove_second_factor", "olga", stdout=output)
    assert "olga" in output.getvalue()
    assert second_factor.of(olga) is None
    with pytest.raises(CommandError, match="olga has no second factor"):
        call_command("remove_second_factor", "olga")
    with pytest.raises(CommandError, match="no account nobody"):
        call_command("remove_second_factor", "nobody")
