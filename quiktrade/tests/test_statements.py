"""Statements of the hot path are read and planned once for each connection."""

import logging

import pytest
from django.db import IntegrityError, connection, transaction

from quiktrade.database import statements
from quiktrade.database.statements import fetch

pytestmark = pytest.mark.django_db

PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%marker of this test%%'"


def test_a_statement_is_prepared_once_and_used_again() -> None:
    statement = "SELECT %(number)s::int /* marker of this test */"
    assert [fetch(statement, {"number": number}) for number in (1, 2, 3)] == [[(1,)], [(2,)], [(3,)]]
    with connection.cursor() as cursor:
        cursor.execute(PREPARED)
        # This query is not prepared, otherwise it would find itself.
        assert cursor.fetchone() == (1,)


def test_its_errors_are_djangos() -> None:
    statement = "INSERT INTO exchanges_venueevent (venue_id) VALUES (%(code)s) RETURNING id"
    with pytest.raises(IntegrityError), transaction.atomic():
        fetch(statement, {"code": "XNOT"})


def test_it_refuses_a_transaction_that_has_failed() -> None:
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(transaction.TransactionManagementError):
            fetch("SELECT 1", {})
        transaction.set_rollback(False)


SLOW = "SELECT pg_sleep(0.3), %(secret)s::text"


def slow_ones(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if vars(record).get("event") == "database.slow"]


def test_a_slow_statement_is_told_once_in_a_while_and_without_its_values(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "TELL_AGAIN_SECONDS", 3600.0)
    monkeypatch.setattr(statements, "_told_at", {})
    for _ in range(2):
        fetch(SLOW, {"secret": "zzSECRETzz"})
    (told,) = slow_ones(caplog)
    assert (told.levelno, vars(told)["statement"]) == (logging.WARNING, SLOW)
    assert vars(told)["seconds"] >= 0.3


def test_a_statement_that_takes_less_is_not_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "SLOW_SECONDS", 3600.0)
    fetch(SLOW, {"secret": "x"})
    assert not slow_ones(caplog)
