"""What a client sees when the database is in trouble, on real connections."""

from typing import Any
from unittest.mock import patch

import pytest
from django.db import OperationalError, connection
from django.db.backends.signals import connection_created
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken

from orders import lifecycle
from orders.models import Order
from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.database import WEB, bound_waits

ORDER = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1, "client_order_id": "a"}


@pytest.fixture
def alice(transactional_db: None) -> APIClient:
    VenueFactory()
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {AccessToken.for_user(UserFactory())}")
    return client


def check_unavailable(response: Any) -> None:
    assert response.status_code == 503
    assert response["Content-Type"] == "application/problem+json"
    assert int(response["Retry-After"]) > 0
    assert "Traceback" not in response.content.decode()


def test_a_connection_that_was_ended_costs_one_answer_and_the_same_order_again_is_stored_once(
    alice: APIClient,
) -> None:
    def end_the_connection(rows: Any, *, actor: str) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with patch("orders.services.lifecycle.accept", end_the_connection):
        check_unavailable(alice.post("/api/v1/orders", ORDER))
    connection.close()

    assert alice.post("/api/v1/orders", ORDER).status_code == 201
    assert alice.post("/api/v1/orders", ORDER).status_code == 200
    assert Order.objects.count() == 1


def test_a_commit_whose_standby_was_not_waited_for_is_no_201(alice: APIClient) -> None:
    real = lifecycle.accept

    def cut_short(rows: Any, *, actor: str) -> Any:
        stored = real(rows, actor=actor)
        with connection.cursor() as cursor:  # the very warning of PostgreSQL, from a server without a standby
            cursor.execute(
                "DO $$ BEGIN RAISE WARNING USING ERRCODE = '01000',"
                " MESSAGE = 'canceling wait for synchronous replication due to user request'; END $$"
            )
        return stored

    with patch("orders.services.lifecycle.accept", cut_short):
        check_unavailable(alice.post("/api/v1/orders", ORDER))

    again = alice.post("/api/v1/orders", ORDER)
    assert (again.status_code, again["Idempotency-Replayed"]) == (200, "true")


def test_the_web_gives_a_statement_up_that_takes_too_long(transactional_db: None) -> None:
    bound_waits({**WEB, "statement_timeout": "50ms"})
    try:
        connection.close()
        with pytest.raises(OperationalError, match="statement timeout"), connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(10)")
    finally:
        connection_created.disconnect(dispatch_uid="quiktrade.database")
        connection.close()
