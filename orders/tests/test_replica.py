"""Lists are read from a streaming replica, and miss nothing: a real primary, and a real standby."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import NamedTuple
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection, connections
from django.test import Client
from psycopg.conninfo import make_conninfo
from rest_framework.test import APIClient

from orders import submission
from orders.models import Order, new_order_id
from orders.selectors import ClientOrder, page_of_orders
from orders.tests.factories import UserFactory, VenueFactory
from orders.webhooks.services import create_endpoint
from quiktrade.auth.tokens import AccessToken
from quiktrade.database import replica
from quiktrade.database.statements import fetch, reads_from
from quiktrade.local.postgres.server import NAME, PORT
from quiktrade.metrics.gauges import FromRows
from quiktrade.tests.processes import Process, Processes, wait_until
from quiktrade.tests.servers import Server, read_by_this_process, used_by_this_process

THREADS = 4
READS = 5_000
"""In each phase."""


@pytest.fixture
def servers(transactional_db: None) -> Iterator[tuple[Server, Server]]:
    """A primary that this process writes to, and its standby."""
    with tempfile.TemporaryDirectory(prefix="quiktrade-") as folder:
        Path(folder).chmod(0o711)
        primary, standby = Server(Path(folder) / "a"), Server(Path(folder) / "b")
        primary.make()
        primary.start()
        try:
            standby.copy_of(primary)
            standby.start()
            with used_by_this_process(primary):
                VenueFactory()
                yield primary, standby
        finally:
            standby.stop()
            primary.stop()


@pytest.fixture
def standby(servers: tuple[Server, Server]) -> Iterator[Server]:
    """A standby that this process reads from."""
    with read_by_this_process(servers[1]):
        wait_until(is_used)
        yield servers[1]


@pytest.fixture
def left(servers: tuple[Server, Server]) -> Iterator[Server]:
    """A second standby, which goes on to follow the primary when the other one is promoted."""
    left = Server(servers[0].private.base.parent / "c")
    left.copy_of(servers[0])
    left.start()
    try:
        yield left
    finally:
        left.stop()


def is_used() -> bool:
    return replica.read(reads_from.get) == replica.ALIAS


def submitted_and_read(owner: User, reads: int) -> Counter[str | None]:
    """Where as many reads were answered, each right after the order that it must find. `missed` counts the others."""
    found: Counter[str | None] = Counter()
    try:
        for _ in range(reads):
            client_order_id = str(new_order_id())
            stored(owner, client_order_id)
            where, page = replica.read(partial(newest, owner, client_order_id))
            found[where if len(page) == 1 else "missed"] += 1
    finally:
        connection.close()
    return found


def newest(owner: User, client_order_id: str) -> tuple[str | None, list[ClientOrder]]:
    given = {"client_order_id": client_order_id}
    return reads_from.get(), page_of_orders(owner.pk, given, after=None, newest_first=True, limit=2)


def counted(reads: int) -> Counter[str | None]:
    owner = UserFactory()
    with ThreadPoolExecutor(THREADS) as threads:
        calls = [threads.submit(submitted_and_read, owner, reads // THREADS) for _ in range(THREADS)]
    return sum((call.result() for call in calls), Counter())


def test_a_list_is_read_from_the_replica_and_has_what_was_just_stored(standby: Server) -> None:
    found = counted(200)
    assert found["missed"] == 0
    assert found[replica.ALIAS] > 0


def said(caplog: pytest.LogCaptureFixture) -> str:
    return " ".join(f"{record.msg} {getattr(record, 'error', '')}" for record in caplog.records)


@pytest.mark.exhaustive
def test_a_standby_of_another_system_is_refused_with_a_word_in_the_log(
    servers: tuple[Server, Server], caplog: pytest.LogCaptureFixture
) -> None:
    other = Server(servers[0].private.base.parent / "c", "max_connections=100")  # as initdb had
    other.make()
    other.become_standby()
    other.start()
    try:
        with read_by_this_process(other):
            assert not is_used()  # the first read has a connection made
            wait_until(lambda: "It is no replica of this primary: its system identifier is" in said(caplog))
            assert counted(40) == {"default": 40}
    finally:
        other.stop()


@pytest.mark.exhaustive
def test_a_standby_that_was_promoted_is_read_no_more(standby: Server, caplog: pytest.LogCaptureFixture) -> None:
    with standby.connect() as admin:
        admin.execute("SELECT pg_promote()")
    wait_until(lambda: not is_used())
    assert "It is no standby any more." in said(caplog)
    assert counted(40) == {"default": 40}


@pytest.mark.exhaustive
def test_a_replica_of_the_old_primary_is_not_read_for_the_new_one(
    servers: tuple[Server, Server], left: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Its position may be ahead, since the old primary was written to after the new one was promoted."""
    old, new = servers
    with new.connect() as admin, old.connect() as writer:
        admin.execute("SELECT pg_promote()")
        wait_until(lambda: not admin.execute("SELECT pg_is_in_recovery()").fetchall()[0][0])
        for _ in range(20):
            writer.execute("SELECT pg_switch_wal()")
            writer.execute("CREATE TABLE IF NOT EXISTS written AS SELECT 1")
    connection.settings_dict["HOST"] = new.host
    connection.close()
    with read_by_this_process(left):
        assert not is_used()
        wait_until(lambda: "It follows timeline 1, and the primary is on 2." in said(caplog))
        assert counted(40) == {"default": 40}


@pytest.mark.exhaustive
def test_a_replica_that_follows_a_new_primary_is_read_after_its_restart_point(
    servers: tuple[Server, Server], left: Server, caplog: pytest.LogCaptureFixture
) -> None:
    _, new = servers
    with new.connect() as admin, left.connect() as follower:
        admin.execute("SELECT pg_promote()")
        follower.execute(f"ALTER SYSTEM SET primary_conninfo = 'host={new.host} port={PORT} user=postgres'")
        follower.execute("SELECT pg_reload_conf()")
        connection.settings_dict["HOST"] = new.host
        connection.close()
        with read_by_this_process(left):
            assert not is_used()
            wait_until(lambda: "It follows timeline 1, and the primary is on 2." in said(caplog))
            admin.execute("CHECKPOINT")
            [(written,)] = admin.execute("SELECT pg_current_wal_flush_lsn()").fetchall()
            there = "SELECT WHERE pg_last_wal_replay_lsn() >= %s"
            wait_until(lambda: follower.execute(there, [written]).rowcount)
            follower.execute("CHECKPOINT")
            wait_until(is_used)
            assert counted(40)["missed"] == 0


@pytest.mark.exhaustive
def test_a_read_that_the_replica_cancels_is_answered_by_the_primary(standby: Server) -> None:
    def work() -> list[tuple[str]]:
        if reads_from.get() == replica.ALIAS:
            fail = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"
            with connections[replica.ALIAS].cursor() as cursor:
                cursor.execute(fail)
        return fetch("SELECT pg_is_in_recovery()::text", {})

    assert replica.read(work) == [("false",)]
    assert is_used()


@pytest.mark.exhaustive
def test_a_read_that_takes_too_long_is_not_begun_again(standby: Server) -> None:
    asked = []

    def work() -> None:
        asked.append(reads_from.get())
        fetch("SELECT set_config('statement_timeout', '10ms', false)", {})
        fetch("SELECT pg_sleep(10)", {})

    with pytest.raises(OperationalError):
        replica.read(work)
    assert asked == [replica.ALIAS]


@pytest.mark.exhaustive
def test_the_oldest_orders_end_before_one_that_is_being_stored(servers: tuple[Server, Server], standby: Server) -> None:
    """The replica does not know of transactions that run: the page must not show what is stored after them."""
    owner = UserFactory()
    with servers[0].connect(user=NAME) as storing, storing.transaction():
        storing.execute("SELECT pg_current_xact_id()")
        stored(owner, "later")
        assert oldest(owner) == []
    assert [order.client_order_id for order in oldest(owner)] == ["later"]


class Lists(NamedTuple):
    """A client of the API that has an order and a webhook, and the standby that this process reads from."""

    standby: Server
    client: APIClient
    order: UUID
    webhook: UUID

    def get(self, path: str) -> int:
        return int(self.client.get(f"/api/v1/{path.format(**self._asdict())}").status_code)

    def latest_read(self) -> str:
        """The statement that the standby answered last."""
        with self.standby.connect() as admin:
            asked = "SELECT query FROM pg_stat_activity WHERE usename = %s ORDER BY query_start DESC LIMIT 1"
            ((query,),) = admin.execute(asked, [NAME]).fetchall()
        return str(query)


@pytest.fixture
def lists(standby: Server) -> Lists:
    owner = UserFactory()
    client = APIClient(HTTP_AUTHORIZATION=f"Bearer {AccessToken.for_user(owner)}")
    stored(owner, "a")
    webhook = create_endpoint(owner.pk, url="https://example.com/")
    return Lists(standby, client, Order.objects.get().pk, webhook.pk)  # nothing is read from the standby yet


# A page that is not full ends with the question whether its client has archived rows.
TABLES = {
    "orders": "orders_archivedowner",
    "orders/{order}/events": '"orders_orderevent"',
    "orders/{order}/executions": "orders_archivedowner",
    "executions": "orders_archivedowner",
    "positions": "orders_position",
    "webhooks": '"orders_webhookendpoint"',
    "webhooks/{webhook}/deliveries": '"orders_webhookdelivery"',
}


def test_every_list_of_the_api_is_read_from_the_replica(lists: Lists) -> None:
    for path, table in TABLES.items():
        assert lists.get(path) == 200
        assert f"FROM {table}" in lists.latest_read(), path


@pytest.mark.exhaustive
def test_single_rows_and_the_feed_are_read_from_the_primary(lists: Lists) -> None:
    lists.get("positions")
    for path in ("orders/{order}", "webhooks/{webhook}", "orders/events?limit=10"):
        assert lists.get(path) == 200
        assert "FROM orders_position" in lists.latest_read(), path


@pytest.mark.exhaustive
def test_gauges_of_orders_are_read_from_the_replica(standby: Server) -> None:
    read = {metric.name: [sample.value for sample in metric.samples] for metric in FromRows().collect()}
    assert (read["quiktrade_database_up"], read["quiktrade_replica_in_use"]) == ([1], [1])
    with standby.connect() as admin:
        asked = "SELECT query FROM pg_stat_activity WHERE usename = %s"
        queries = " ".join(query for (query,) in admin.execute(asked, [NAME]).fetchall())
    assert read["quiktrade_orders_pending"] == [0]
    assert "COMMIT" in queries


def stored(owner: User, client_order_id: str) -> None:
    request = submission.NewOrderRequest(
        type="market", side="buy", instrument="US0378331005", quantity=1, client_order_id=client_order_id
    )
    submission.submit_order(request, owner_id=owner.pk, actor="client:alice")


def oldest(owner: User) -> list[ClientOrder]:
    return page_of_orders(owner.pk, {}, after=None, newest_first=False, limit=2)


def asked_of_replica() -> str:
    """The statements of Django's models in the latest request."""
    return " ".join(query["sql"] for query in connections[replica.ALIAS].queries_log)


@pytest.mark.exhaustive
def test_the_console_reads_its_lists_from_the_replica_and_without_it_from_the_primary(
    standby: Server, client: Client
) -> None:
    client.force_login(UserFactory(is_staff=True, is_superuser=True))
    stored(UserFactory(), "listed")
    connections[replica.ALIAS].force_debug_cursor = True
    for path, table in (("orders/order/", "orders_order"), ("", "exchanges_venue"), ("auth/user/", "auth_user")):
        assert client.get(f"/admin/{path}").status_code == 200
        assert f'FROM "{table}"' in asked_of_replica()
    standby.stop()
    page = client.get("/admin/orders/order/")
    assert (page.status_code, asked_of_replica()) == (200, "")
    assert "listed" in page.content.decode()


@pytest.mark.exhaustive
def test_a_process_of_the_api_reads_lists_from_the_replica(
    servers: tuple[Server, Server], processes: Processes
) -> None:
    standby = servers[1]
    url = make_conninfo(host=standby.host, port=PORT, user=NAME, dbname=NAME)
    web = processes.web(QUIKTRADE_WEB_WORKERS="1", DATABASE_REPLICA_URL=url)
    token = AccessToken.for_user(UserFactory())

    def connected() -> bool:
        with standby.connect() as admin:
            asked = "SELECT FROM pg_stat_activity WHERE query LIKE '%%FROM orders_%%' AND usename = %s"
            return bool(found_by(web, token) and admin.execute(asked, [NAME]).rowcount)

    wait_until(connected, web)
    assert all(found_by(web, token) for _ in range(50))
    standby.stop()
    assert all(found_by(web, token) for _ in range(50))
    assert "event=replica.away" in web.output
    standby.start()
    wait_until(connected, web)
    assert "event=replica.used" in web.output
    assert all(found_by(web, token) for _ in range(50))
    assert web.stop() == 0


def found_by(web: Process, token: AccessToken) -> bool:
    """Whether an order is in the list after it was stored."""
    client_order_id = str(new_order_id())
    order = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1}
    asked = HTTPConnection("127.0.0.1", web.port, timeout=30)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        body = json.dumps(order | {"client_order_id": client_order_id})
        asked.request("POST", "/api/v1/orders", body, headers)
        accepted = asked.getresponse()
        accepted.read()
        assert accepted.status == 201
        asked.request("GET", f"/api/v1/orders?client_order_id={client_order_id}", headers=headers)
        page = json.load(asked.getresponse())
        return len(page["results"]) == 1
    finally:
        asked.close()


def counted_during(event: Callable[[], object], reads: int = 200) -> Counter[str | None]:
    """Likewise, with this happening meanwhile."""

    def count() -> Counter[str | None]:
        try:
            return counted(reads)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(count)
        time.sleep(0.1)
        event()
        return call.result()


def set_delay(standby: Server, delay: str) -> None:
    with standby.connect() as admin:
        admin.execute(f"ALTER SYSTEM SET recovery_min_apply_delay = '{delay}'")
        admin.execute("SELECT pg_reload_conf()")


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_no_order_is_missed_while_the_replica_is_late_frozen_gone_and_back(standby: Server) -> None:
    reads = READS
    phases = {"healthy": counted(reads)}
    phases["becoming late"] = counted_during(partial(set_delay, standby, "5s"))
    phases["late"] = counted(reads)
    phases["catching up"] = counted_during(partial(set_delay, standby, "0"))
    wait_until(is_used)
    phases["caught up"] = counted(reads)
    phases["freezing"] = counted_during(partial(standby.send_to_all, SIGSTOP))
    phases["frozen"] = counted(reads)
    phases["thawing"] = counted_during(partial(standby.send_to_all, SIGCONT))
    wait_until(is_used)
    phases["thawed"] = counted(reads)
    phases["being killed"] = counted_during(standby.stop)
    phases["gone"] = counted(reads)
    phases["coming back"] = counted_during(standby.start)
    wait_until(is_used)
    phases["back"] = counted(reads)
    for name, found in phases.items():
        print(f"{name:14} {dict(found)}")  # noqa: T201
    assert [name for name, found in phases.items() if found["missed"]] == []
    for name in ("healthy", "caught up", "thawed", "back"):
        assert phases[name][replica.ALIAS] > 0
    for name in ("late", "frozen", "gone"):
        assert phases[name][replica.ALIAS] == 0
