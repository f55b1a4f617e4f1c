"""The log-in guard: how long guessing has to wait, and that nobody is locked out by others."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory
from quiktrade.auth import turns
from quiktrade.auth.guard import ELSEWHERE, network_of
from quiktrade.auth.turns import ConsoleHasher
from quiktrade.models import LogInFailures
from quiktrade.tests.test_api_errors import PASSWORD, TOKEN, check_problem

pytestmark = pytest.mark.django_db

HOME, NEXT_DOOR, FAR = "192.0.2.7", "192.0.2.200", "198.51.100.1"
HOME_NETWORK = "192.0.2.0/24"


@pytest.fixture
def alice() -> User:
    user: User = UserFactory(username="alice", password=PASSWORD)
    return user


def attempt(password: str, address: str = HOME, name: str = "alice") -> Any:
    return APIClient(REMOTE_ADDR=address).post(TOKEN, {"username": name, "password": password})


def fail(times: int, address: str = HOME) -> None:
    for _ in range(times):
        assert attempt("wrong", address).status_code == 401


def make_time_pass(**duration: float) -> None:
    for row in LogInFailures.objects.all():
        LogInFailures.objects.filter(pk=row.pk).update(last_at=row.last_at - timedelta(**duration))


def have_failed(times: int) -> None:
    """The failures are many where a wait must not be over before the test is, however slow the machine."""
    fail(1)
    LogInFailures.objects.exclude(network=ELSEWHERE).update(failures=times)


def have_failed_elsewhere(times: int) -> None:
    """The last time five minutes from now, because ten seconds are over too soon on a slow machine."""
    last_at = timezone.now() + timedelta(minutes=5)
    LogInFailures.objects.filter(network=ELSEWHERE).update(failures=times, last_at=last_at)


def test_five_failures_are_free(alice: User) -> None:
    fail(4)
    assert attempt(PASSWORD).status_code == 200


@pytest.mark.parametrize(("failures", "seconds"), [(11, 64), (12, 128), (14, 512), (15, 900), (200, 900)])
def test_the_wait_doubles_and_has_a_bound(alice: User, failures: int, seconds: int) -> None:
    have_failed(failures)
    response = attempt(PASSWORD, NEXT_DOOR)  # of the same network
    check_problem(response, 429, "too-many-requests")
    assert seconds - 50 < int(response["Retry-After"]) <= seconds
    make_time_pass(seconds=seconds)
    assert attempt(PASSWORD).status_code == 200


def test_a_failure_after_the_wait_doubles_it(alice: User) -> None:
    have_failed(11)
    make_time_pass(seconds=64)
    fail(1)
    assert 78 < int(attempt(PASSWORD)["Retry-After"]) <= 128


def test_a_refused_attempt_is_not_counted_and_costs_no_hash(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    have_failed(12)

    def check(*args: Any) -> bool:
        raise AssertionError("The password was looked at.")

    monkeypatch.setattr(User, "check_password", check)
    for _ in range(10):
        assert attempt(PASSWORD).status_code == 429
    assert LogInFailures.objects.exclude(network=ELSEWHERE).get().failures == 12


def test_a_success_forgets_the_failures(alice: User) -> None:
    fail(4)
    assert attempt(PASSWORD).status_code == 200
    fail(4)
    assert attempt(PASSWORD).status_code == 200


def test_a_day_forgets_them_too(alice: User) -> None:
    fail(5)
    make_time_pass(hours=25)
    fail(5)


def test_failures_elsewhere_do_not_slow_down_the_owner_at_home(alice: User) -> None:
    assert attempt(PASSWORD, HOME).status_code == 200
    for number in range(20):
        fail(1, f"10.0.{number}.1")
    have_failed_elsewhere(1000)
    check_problem(attempt("wrong", FAR), 429, "too-many-requests")
    assert attempt(PASSWORD, HOME).status_code == 200


def test_the_owner_comes_in_from_a_new_place_after_ten_seconds_at_most(alice: User) -> None:
    for number in range(20):
        fail(1, f"10.0.{number}.1")
    have_failed_elsewhere(1000)
    response = attempt(PASSWORD, FAR)
    assert (response.status_code, 0 < int(response["Retry-After"]) <= 310) == (429, True)
    make_time_pass(seconds=310)
    assert attempt(PASSWORD, FAR).status_code == 200


def test_a_name_that_there_is_not_is_slowed_down_alike(alice: User) -> None:
    assert attempt(PASSWORD, name="nobody").status_code == 401
    LogInFailures.objects.update(failures=12)
    assert attempt(PASSWORD, name="NOBODY").status_code == 429
    assert attempt(PASSWORD).status_code == 200


def test_the_console_and_the_api_count_together() -> None:
    UserFactory(username="olga", password=PASSWORD, group="Operator")
    client = Client(REMOTE_ADDR=HOME)
    for _ in range(12):
        client.post("/admin/login/", {"username": "olga", "password": "wrong"})
        make_time_pass(seconds=200)
    LogInFailures.objects.update(last_at=timezone.now())
    page = client.post("/admin/login/", {"username": "olga", "password": PASSWORD})
    assert page.status_code == 200
    assert "Too many log-ins with this name failed. Try again in 1" in page.content.decode()
    assert attempt(PASSWORD, name="olga").status_code == 429
    make_time_pass(seconds=200)
    assert client.post("/admin/login/", {"username": "olga", "password": PASSWORD}).status_code == 302


@pytest.mark.django_db(transaction=True)
def test_of_twenty_attempts_at_once_after_a_wait_one_is_looked_at() -> None:
    UserFactory(username="alice", password=PASSWORD)
    have_failed(14)
    make_time_pass(seconds=512)
    start, answers = threading.Barrier(20), []

    def go() -> None:
        start.wait()
        answers.append(attempt("wrong").status_code)
        connection.close()

    threads = [threading.Thread(target=go) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [401] + [429] * 19


def test_no_name_and_no_password_is_stored(alice: User) -> None:
    attempt("wrong", name="my-password-by-mistake")
    assert "my-password" not in str(list(LogInFailures.objects.values_list()))


def test_what_is_old_is_deleted(alice: User) -> None:
    attempt(PASSWORD)
    for days, kept in ((2, {HOME_NETWORK}), (61, set())):
        fail(1, FAR)
        age = timezone.now() - timedelta(days=days)
        LogInFailures.objects.update(last_at=age)
        LogInFailures.objects.exclude(succeeded_at=None).update(succeeded_at=age)
        attempt("wrong", name="another")
        old = LogInFailures.objects.filter(last_at=age)
        assert set(old.values_list("network", flat=True)) == kept


def test_where_a_name_came_in_is_known_for_sixty_days(alice: User) -> None:
    attempt(PASSWORD)
    LogInFailures.objects.update(last_at=timezone.now() - timedelta(days=59))
    LogInFailures.objects.update(succeeded_at=timezone.now() - timedelta(days=59))
    attempt("wrong", name="another")
    assert LogInFailures.objects.exclude(succeeded_at=None).count() == 1


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.0/24"),
        ("", "unknown"),
        ("x, y", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_network_of_an_address(address: str | None, network: str) -> None:
    assert network_of(address) == network


def test_who_is_sent_away_because_of_others_has_not_failed(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(*args: Any) -> bool:
        raise turns.Busy

    monkeypatch.setattr(User, "check_password", check)
    response = attempt(PASSWORD)
    check_problem(response, 429, "too-many-requests")
    assert response["Retry-After"] == "2"
    assert not LogInFailures.objects.exists()


def test_who_waits_too_long_for_a_hash_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAIT_SECONDS", 0.01)
    with turns._one_at_a_time, pytest.raises(turns.Busy):
        ConsoleHasher().encode("password", "salt", 1)
    assert ConsoleHasher().encode("password", "salt", 1).startswith("pbkdf2_sha256$1$salt$")


def test_a_page_of_the_console_says_when_too_many_passwords_are_hashed(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_password(*args: Any) -> None:
        raise turns.Busy

    client = Client(raise_request_exception=False)
    client.force_login(UserFactory(group="Administrator"))
    monkeypatch.setattr(User, "set_password", set_password)
    response = client.post(f"/admin/auth/user/{alice.pk}/password/")
    assert (response.status_code, response["Retry-After"]) == (429, "2")
    assert "Too many passwords are being checked" in response.content.decode()
