"""Sessions: the chain of refresh tokens that a log-in begins, and everything that ends it."""

import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory
from quiktrade.auth import sessions
from quiktrade.auth.tokens import InvalidToken, RefreshToken
from quiktrade.models import Session
from quiktrade.tests.test_api_errors import PASSWORD, TOKEN, bearing, check_problem
from quiktrade.tests.test_tokens import log_in, log_out, refresh, verify

pytestmark = pytest.mark.django_db

VENUES = "/api/v1/venues"


@pytest.fixture
def alice() -> User:
    user: User = UserFactory(username="alice", password=PASSWORD)
    return user


def make_time_pass(duration: timedelta) -> None:
    for session in Session.objects.all():
        times = {"refreshed_at": session.refreshed_at - duration, "expires_at": session.expires_at - duration}
        Session.objects.filter(pk=session.pk).update(**times)


LATER = timedelta(seconds=sessions.GRACE_SECONDS + 1)


def test_a_lost_answer_is_given_again(alice: User) -> None:
    first = log_in().json()
    answer = refresh(first["refresh"]).json()
    again = refresh(first["refresh"]).json()
    assert again["refresh"] == answer["refresh"]
    assert bearing(again["access"]).get(VENUES).status_code == 200
    assert Session.objects.get().generation == 2


def test_a_refresh_token_that_is_used_again_later_ends_the_session(alice: User) -> None:
    first = log_in().json()
    second = refresh(first["refresh"]).json()
    make_time_pass(LATER)

    check_problem(refresh(first["refresh"]), 401, "invalid-token")

    check_problem(refresh(second["refresh"]), 401, "invalid-token")
    check_problem(bearing(second["access"]).get(VENUES), 401, "invalid-token")
    assert Session.objects.get().revoked_for == "reuse"
    assert bearing(log_in().json()["access"]).get(VENUES).status_code == 200


def test_a_token_of_two_exchanges_ago_is_never_taken_for_a_lost_answer(alice: User) -> None:
    first = log_in().json()
    second = refresh(first["refresh"]).json()
    refresh(second["refresh"])
    check_problem(refresh(first["refresh"]), 401, "invalid-token")
    assert Session.objects.get().revoked_for == "reuse"


def test_a_token_that_the_database_has_lost_goes_on(alice: User) -> None:
    """As after a failover that lost a commit: the row is older than what the client was given."""
    first = log_in().json()
    second = refresh(first["refresh"]).json()
    Session.objects.update(generation=1)
    third = refresh(second["refresh"]).json()
    assert Session.objects.get().generation == 3
    assert bearing(third["access"]).get(VENUES).status_code == 200


def test_the_reuse_is_told(alice: User, caplog: pytest.LogCaptureFixture) -> None:
    first = log_in().json()
    refresh(first["refresh"])
    make_time_pass(LATER)
    refresh(first["refresh"])
    (record,) = [each for each in caplog.records if getattr(each, "event", "") == "auth.refresh_reused"]
    assert (record.levelname, record.account_id) == ("ERROR", alice.pk)  # type: ignore[attr-defined]


@pytest.mark.django_db(transaction=True)
def test_of_twelve_refreshes_at_once_one_moves_the_session_and_all_get_its_answer() -> None:
    UserFactory(username="alice", password=PASSWORD)
    token, start, answers = log_in().json()["refresh"], threading.Barrier(12), []

    def go() -> None:
        start.wait()
        answers.append(refresh(token))
        connection.close()

    _at_once(go)
    assert [answer.status_code for answer in answers] == [200] * 12
    assert len({answer.json()["refresh"] for answer in answers}) == 1
    assert Session.objects.get().generation == 2


@pytest.mark.django_db(transaction=True)
def test_of_twelve_late_uses_of_a_spent_token_none_succeeds() -> None:
    UserFactory(username="alice", password=PASSWORD)
    token, start, answers = log_in().json()["refresh"], threading.Barrier(12), []
    refresh(token)
    make_time_pass(LATER)

    def go() -> None:
        start.wait()
        answers.append(refresh(token).status_code)
        connection.close()

    _at_once(go)
    assert answers == [401] * 12
    assert Session.objects.get().revoked_for == "reuse"


def _at_once(go: Callable[[], None]) -> None:
    threads = [threading.Thread(target=go) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("end", ["password", "deactivated"])
def test_a_new_password_and_a_deactivation_end_a_session_for_good(alice: User, end: str) -> None:
    tokens, before = log_in().json(), User.objects.get().password
    User.objects.update(**{"password": "another"} if end == "password" else {"is_active": False})
    assert Session.objects.get().revoked_for == end

    User.objects.update(password=before, is_active=True)  # undone, as by a restored row
    check_problem(refresh(tokens["refresh"]), 401, "invalid-token")
    check_problem(bearing(tokens["access"]).get(VENUES), 401, "invalid-token")


def test_a_deleted_account_ends_its_sessions(alice: User) -> None:
    tokens = log_in().json()
    alice.delete()
    check_problem(refresh(tokens["refresh"]), 401, "invalid-token")
    assert not Session.objects.exists()


def test_a_password_that_was_changed_while_it_was_checked_begins_no_session(alice: User) -> None:
    User.objects.update(password="another")
    with pytest.raises(InvalidToken, match="changed meanwhile"):
        RefreshToken.for_user(alice)
    assert not Session.objects.exists()


def test_the_statement_itself_asks_for_the_account(alice: User) -> None:
    begun = sessions.begin(alice)
    for wrong in ({"user_id": alice.pk + 1}, {"password_mark": "0" * 32}):
        account: dict[str, Any] = {"user_id": alice.pk, "password_mark": begun.password_mark, **wrong}
        with pytest.raises(sessions.Ended):
            sessions.refresh(begun.id, 1, **account)
    with pytest.raises(sessions.Ended):
        sessions.refresh(uuid.uuid4(), 1, user_id=alice.pk, password_mark=begun.password_mark)
    assert sessions.refresh(begun.id, 1, user_id=alice.pk, password_mark=begun.password_mark).generation == 2


def test_a_log_out_ends_the_access_token_too_and_no_other_session(alice: User) -> None:
    here, there = log_in().json(), log_in().json()
    assert log_out(here["refresh"]).status_code == 204
    check_problem(bearing(here["access"]).get(VENUES), 401, "invalid-token")
    assert bearing(there["access"]).get(VENUES).status_code == 200
    assert refresh(there["refresh"]).status_code == 200


def test_a_token_that_was_exchanged_does_not_verify(alice: User) -> None:
    first = log_in().json()
    second = refresh(first["refresh"]).json()
    check_problem(verify(first["refresh"]), 401, "invalid-token")
    assert (verify(second["refresh"]).status_code, verify(first["access"]).status_code) == (200, 200)


def test_a_session_lives_on_while_it_is_refreshed_and_runs_out_otherwise(alice: User) -> None:
    tokens = log_in().json()
    make_time_pass(timedelta(days=6))
    later = refresh(tokens["refresh"]).json()
    assert Session.objects.get().expires_at > timezone.now() + timedelta(days=6)
    make_time_pass(timedelta(days=8))
    check_problem(refresh(later["refresh"]), 401, "invalid-token")


def test_nothing_that_is_stored_can_be_used_and_what_has_run_out_goes(alice: User) -> None:
    tokens = log_in().json()
    with connection.cursor() as cursor:
        cursor.execute("SELECT quiktrade_session::text FROM quiktrade_session")
        (stored,) = cursor.fetchone()
    assert not any(part in stored for part in tokens["refresh"].split("."))
    make_time_pass(timedelta(days=8))
    log_in()
    assert Session.objects.get().expires_at > timezone.now()


@pytest.mark.remembers
def test_each_session_of_an_account_is_looked_at_for_itself(alice: User) -> None:
    here, there = log_in().json(), log_in().json()
    assert bearing(there["access"]).get(VENUES).status_code == 200
    log_out(here["refresh"])
    assert bearing(here["access"]).get(VENUES).status_code == 401


def test_a_refresh_token_without_a_session_is_void(alice: User) -> None:
    token = RefreshToken.for_user(alice)
    for claim in ("sid", "gen"):
        claims = {name: value for name, value in token.payload.items() if name != claim}
        without = token.get_token_backend().encode(claims)
        check_problem(refresh(without), 401, "invalid-token")
    assert APIClient().post(f"{TOKEN}/refresh", {"refresh": str(token)}).status_code == 200
