"""Statements of the hot path are read and planned once for each connection."""

import pytest
from django.db import IntegrityError, connection, transaction

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
