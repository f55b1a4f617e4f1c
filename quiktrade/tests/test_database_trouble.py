"""What a client sees when the database is in trouble, on real connections."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections, connection, transaction
from django.db.backends.signals import connection_created
from django.test import Client
from psycopg import sql
from rest_framework.test import APIClient

from exchanges.venue import Acknowledgement, NewOrder
from orders import lifecycle
from orders.models import Order
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from orders.tests.scripted_venue import answering, run_engine
from quiktrade.api import health
from quiktrade.auth.tokens import AccessToken
from quiktrade.database.connection import WEB, Bounds, Connection, bound_waits
from quiktrade.jobs import doorbell
from quiktrade.tests.servers import Server, used_by_this_process


@contextmanager
def bounded(*, answer_seconds: float = WEB.answer_seconds, **server: str) -> Iterator[Any]:
    """A cursor on a separate connection with the bounds of the web, except for these."""
    bound_waits(Bounds({**WEB.server, **server}, answer_seconds))
    try:
        connection.close()
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection_created.disconnect(dispatch_uid="quiktrade.database.connection")
        Connection.answer_seconds = None
        connection.close()


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
    def end_the_connection(rows: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with patch("orders.together.lifecycle.accept", end_the_connection):
        check_unavailable(alice.post("/api/v1/orders", ORDER))
    connection.close()

    assert alice.post("/api/v1/orders", ORDER).status_code == 201
    assert alice.post("/api/v1/orders", ORDER).status_code == 200
    assert Order.objects.count() == 1


def test_a_commit_whose_standby_was_not_waited_for_is_no_201(alice: APIClient) -> None:
    real = lifecycle.accept

    def cut_short(rows: Any) -> Any:
        stored = real(rows)
        with connection.cursor() as cursor:  # the very warning of PostgreSQL, from a server without a standby
            cursor.execute(
                "DO $$ BEGIN RAISE WARNING USING ERRCODE = '01000',"
                " MESSAGE = 'canceling wait for synchronous replication due to user request'; END $$"
            )
        return stored

    with patch("orders.together.lifecycle.accept", cut_short):
        check_unavailable(alice.post("/api/v1/orders", ORDER))

    again = alice.post("/api/v1/orders", ORDER)
    assert (again.status_code, again["Idempotency-Replayed"]) == (200, "true")


@contextmanager
def new_connections_read_only() -> Iterator[None]:
    """Make new connections read-only, as hosted servers do with a database whose disk fills."""
    with psycopg.connect(**doorbell.connection_parameters(), autocommit=True) as admin:
        name = sql.Identifier(connection.settings_dict["NAME"])
        admin.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        try:
            yield
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))


@contextmanager
def read_only() -> Iterator[None]:
    with new_connections_read_only():
        connection.close()
        yield
    connection.close()


def test_a_read_only_database_is_a_503_and_its_connection_is_not_kept(alice: APIClient) -> None:
    with new_connections_read_only():
        connection.close()
        check_unavailable(alice.post("/api/v1/orders", ORDER))
    close_old_connections()  # as at every request's end

    assert alice.post("/api/v1/orders", ORDER).status_code == 201
    assert Order.objects.count() == 1


def test_the_console_answers_503_where_the_database_is_read_only(client: Client, admin_user: Any) -> None:
    client.raise_request_exception = False
    client.force_login(admin_user)
    venue = VenueFactory()
    with read_only():
        response = client.post(
            f"/admin/exchanges/venue/{venue.pk}/change/", {"max_in_flight": 7, "adapter": "x", "settings": "{}"}
        )
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0


@pytest.mark.parametrize("state", ["08006", "25006", "25P03", "25P04", "53100", "53200", "57P01", "57P03", "58030"])
def test_a_server_that_cannot_work_loses_its_connection(transactional_db: None, state: str) -> None:
    with pytest.raises(OperationalError), connection.cursor() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$")
    with pytest.raises((OperationalError, InterfaceError), match="closed"), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    close_old_connections()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.parametrize("state", ["22001", "23505", "25P02", "40P01", "42601", "55P03", "57014"])
def test_a_statement_that_fails_keeps_its_connection(transactional_db: None, state: str) -> None:
    with pytest.raises(DatabaseError), connection.cursor() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def test_a_transaction_that_was_idle_for_too_long_is_the_database_being_away(transactional_db: None) -> None:
    with bounded(idle_in_transaction_session_timeout="50ms") as cursor:
        cursor.execute("BEGIN")
        time.sleep(0.5)
        with pytest.raises(OperationalError):
            cursor.execute("SELECT 1")


def test_what_a_venue_answered_is_kept_until_the_database_can_be_written_again(transactional_db: None) -> None:
    sent = []

    async def answer(order: NewOrder) -> Acknowledgement:
        sent.append(order.client_order_id)
        outage.enter_context(new_connections_read_only())
        asyncio.get_running_loop().call_later(1.5, outage.close)
        return Acknowledgement(venue_order_id="V")

    with ExitStack() as outage, answering(answer):
        order = OrderFactory()
        run_engine()

    order.refresh_from_db()
    assert (order.status, order.attempt, order.venue_order_id) == ("placed", 1, "V")
    assert len(sent) == 1


def test_readiness_fails_where_the_database_is_read_only(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_latest", None)
    with read_only():
        response = Client().get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"]["database"] == {"ok": False, "detail": "The database is read-only."}


def test_the_console_tells_an_operator_that_the_database_is_away(client: Client, settings: Any) -> None:
    client.raise_request_exception = False
    client.cookies[settings.SESSION_COOKIE_NAME] = "of an operator who is logged in"
    with patch.object(connection, "ensure_connection", side_effect=OperationalError("connection refused")):
        response = client.get("/admin/orders/order/")

    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    page = response.content.decode()
    assert "database cannot be relied on" in page
    assert "Look before you ask for it again" in page
    assert "connection refused" not in page


def test_the_web_gives_a_statement_up_that_takes_too_long(transactional_db: None) -> None:
    with pytest.raises(OperationalError, match="statement timeout"), bounded(statement_timeout="50ms") as cursor:
        cursor.execute("SELECT pg_sleep(10)")


def test_a_statement_gets_one_process_of_the_server(transactional_db: None) -> None:
    with bounded(parallel_setup_cost="0", parallel_tuple_cost="0", min_parallel_table_scan_size="0") as cursor:
        cursor.execute("EXPLAIN SELECT * FROM pg_attribute")
        assert "Gather" not in str(cursor.fetchall())
        cursor.execute("SET max_parallel_workers_per_gather = 2")
        cursor.execute("EXPLAIN SELECT * FROM pg_attribute")
        assert "Gather" in str(cursor.fetchall())


def test_a_statement_whose_answer_does_not_come_closes_the_connection(transactional_db: None) -> None:
    with bounded(answer_seconds=0.2) as cursor:
        with pytest.raises(OperationalError, match=r"not answered for 0\.2 s"):
            cursor.execute("SELECT pg_sleep(2)")
        with pytest.raises(OperationalError, match="closed"):
            cursor.execute("SELECT 1")


def test_a_commit_whose_answer_does_not_come_is_an_error(transactional_db: None) -> None:
    """PostgreSQL's statement_timeout is over when the commit begins."""
    with bounded(answer_seconds=0.5, statement_timeout="100ms"):
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE FUNCTION pg_temp.linger() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END'"
            )
            cursor.execute("CREATE TEMPORARY TABLE slow (id int)")
            cursor.execute(
                "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION pg_temp.linger()"
            )
        with pytest.raises(OperationalError, match="not answered"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO slow VALUES (1)")


def test_on_a_full_disk_orders_are_503_and_readiness_says_so_although_the_log_has_room(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REMEMBER_SECONDS", 0.0)
    monkeypatch.setattr(health, "_latest", None)
    orders = {"orders": [{**ORDER, "client_order_id": str(number)} for number in range(200)]}
    with small_disk(megabytes=110) as disk, server_on(disk) as server, used_by_this_process(server):
        VenueFactory()
        alice = APIClient(HTTP_AUTHORIZATION=f"Bearer {AccessToken.for_user(UserFactory())}")
        assert Client().get("/readyz").status_code == 200

        fill(disk)
        with server.connect() as admin:
            admin.execute("SELECT pg_logical_emit_message(true, '', '')")  # a commit by itself does not fail
        answer = Client().get("/readyz")
        assert (answer.status_code, answer.json()["checks"]["database"]["detail"]) == (
            503,
            "The database's disk is full.",
        )
        check_unavailable(alice.post("/api/v1/orders/batch", orders))

        (disk / "filler").unlink()
        close_old_connections()  # as at every request's end
        assert Client().get("/readyz").status_code == 200
        assert alice.post("/api/v1/orders/batch", orders).status_code == 200


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="quiktrade-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=711", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("A disk of a test's own needs the right to mount one.")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


@contextmanager
def server_on(disk: Path) -> Iterator[Server]:
    server = Server(disk / "server")
    server.make()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def fill(disk: Path) -> None:
    filler = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
    with suppress(OSError):
        while True:
            os.write(filler, bytes(4096))
    os.close(filler)
