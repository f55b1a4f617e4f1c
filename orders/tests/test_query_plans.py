"""Each statement that runs often finds its rows by an index, however many orders there are.

Asked of PostgreSQL's planner, for plans without knowledge of the values, on a table of which one order in a
hundred is open.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from django.db import connection
from django.db.models import Model

from orders import archive, attention, executions, feed, gauges, lifecycle, positions, selectors
from orders.executions import Place
from orders.models import Order, OrderRequest
from orders.selectors import Position
from orders.tests.factories import UserFactory, VenueFactory
from orders.webhooks import rows as webhooks

ORDERS = 20_000

_FILL = """
INSERT INTO orders_order (id, owner_id, client_order_id, venue_id, instrument, side, type, quantity, time_in_force,
    status, version, attempt, failures, in_doubt, next_attempt_at, lease_expires_at, parked_at, place_by,
    venue_order_id, last_error, created_at)
SELECT gen_random_uuid(), CASE WHEN n %% 2 = 0 THEN %(alice)s ELSE %(bob)s END, 'c' || n, 'XSIM', 'US0378331005',
    'buy', 'market', 1, 'day', s.status, 1, 1, 0, false,
    CASE WHEN s.status IN ('pending', 'unconfirmed') THEN now() END,
    CASE WHEN s.status = 'submitting' THEN now() END,
    CASE WHEN s.status = 'unconfirmed' AND n %% 800 = 2 THEN now() END,
    CASE WHEN n %% 1000 = 0 THEN now() END,
    CASE WHEN s.status = 'placed' THEN 'v' || n ELSE '' END, '', now() - n * interval '1 second'
FROM generate_series(1, %(orders)s) n, LATERAL (SELECT CASE n %% 400 WHEN 0 THEN 'pending' WHEN 1 THEN 'submitting'
    WHEN 2 THEN 'unconfirmed' WHEN 3 THEN 'failed' ELSE 'placed' END AS status) s
"""


_FILL_EXECUTIONS = """
INSERT INTO orders_execution (venue_id, execution_id, kind, refers_to, order_id, owner_id, instrument, side, quantity,
    price, venue_sequence, executed_at)
SELECT venue_id, 'e' || id, CASE WHEN n % 100 = 0 THEN 'corrected' ELSE 'executed' END,
    CASE WHEN n % 100 = 0 THEN 'x' || id ELSE '' END, id, owner_id, 'US' || lpad((n % 500)::text, 10, '0'), side, 1, 1,
    n, now()
FROM (SELECT *, row_number() OVER () AS n FROM orders_order) o
"""

_FILL_REQUESTS = """
INSERT INTO orders_orderrequest (id, order_id, owner_id, venue_id, kind, client_order_id, status, attempt,
    next_attempt_at, lease_expires_at, look_up_at, actor, reason, resolved_at)
SELECT gen_random_uuid(), o.id, owner_id, venue_id, 'cancel', CASE WHEN n % 2 = 0 THEN 'q' || n ELSE '' END, s.status,
    1, CASE WHEN s.status = 'pending' THEN now() END, CASE WHEN s.status = 'submitting' THEN now() END,
    CASE WHEN s.status = 'unconfirmed' THEN now() END, 'client:alice', '', CASE WHEN s.status = 'accepted'
    THEN now() END
FROM (SELECT *, row_number() OVER () AS n FROM orders_order) o, LATERAL (SELECT CASE n % 400 WHEN 0 THEN 'pending'
    WHEN 1 THEN 'submitting' WHEN 2 THEN 'unconfirmed' ELSE 'accepted' END AS status) s
"""

_FILL_EVENTS = """
INSERT INTO orders_orderevent (order_id, sequence, event, from_status, to_status, attempt, actor, reason, detail, at,
    owner_id, stamp)
SELECT id, 1, 'accepted', '', 'pending', 0, 'client:alice', '', '{}', created_at, owner_id,
    1000 + row_number() OVER (ORDER BY created_at) FROM orders_order
"""

_FILL_POSITIONS = """
INSERT INTO orders_position (owner_id, venue_id, instrument, bought_quantity, bought_value, sold_quantity, sold_value)
SELECT n, 'XSIM', 'US0378331005', 1, 1, 0, 0 FROM generate_series(1, 50000) n
"""


_FILL_ENDPOINTS = """
INSERT INTO orders_webhookendpoint (id, owner_id, url, description, event_types, secret, old_secret, cursor_stamp,
    cursor_id, disabled_by, disabled_reason, failures, slow, last_error)
SELECT gen_random_uuid(), %(alice)s, 'https://example.com/', '', '{}', 'x', '', 1, n, '', '', 0, false, ''
FROM generate_series(1, 100) n
"""
_FILL_DELIVERIES = """
INSERT INTO orders_webhookdelivery (endpoint_id, event_id, status, attempt, failures, last_text, due_at, ended_at)
SELECT w.id, n, s.status, 1, 0, '', now(), CASE WHEN s.status IN ('delivered', 'dead') THEN now() END
FROM orders_webhookendpoint w, generate_series(1, 200) n, LATERAL (SELECT CASE n % 100 WHEN 0 THEN 'pending'
    WHEN 1 THEN 'sending' WHEN 2 THEN 'dead' ELSE 'delivered' END AS status) s
"""


MONTH = date(2020, 1, 1)
_OF_MONTH = "overlay({}::text PLACING left(%(first)s, 13) FROM 1)::uuid"
"""An id as if it had been given out at the beginning of the month."""


def _fill_archive(model: type[Model], **changed: str) -> str:
    values = [changed.get(column, column) for column in archive.columns(model)]
    source, target = model._meta.db_table, archive.TABLES[model]
    return f"INSERT INTO {target} ({', '.join(archive.columns(model))}) SELECT {', '.join(values)} FROM {source}"


@pytest.fixture(scope="module")
def full_table(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        VenueFactory()
        clients = {name: UserFactory(username=name).pk for name in ("alice", "bob")}
        cursor.execute(_FILL, {**clients, "orders": ORDERS})
        cursor.execute(_FILL_EXECUTIONS)
        cursor.execute(_FILL_REQUESTS)
        cursor.execute(_FILL_ENDPOINTS, clients)
        cursor.execute(_FILL_DELIVERIES)
        cursor.execute(_FILL_EVENTS)
        cursor.execute(_FILL_POSITIONS)
        archive.make_partitions([MONTH])
        first = {"first": str(archive.first_id_of(MONTH))}
        cursor.execute(_fill_archive(Order, id=_OF_MONTH.format("id"), status="'filled'"), first)
        cursor.execute(_fill_archive(OrderRequest, order_id=_OF_MONTH.format("order_id")), first)
        cursor.execute(f"ANALYZE {archive.ORDER}, {archive.REQUEST}")
        # As autovacuum leaves them in time. Until then PostgreSQL scans no index alone, and takes an empty table for
        # one of ten pages.
        cursor.execute(f"VACUUM ANALYZE {', '.join(connection.introspection.django_table_names())}")
    yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        tables = "orders_position, orders_execution, orders_orderevent, orders_order, exchanges_venue, auth_user"
        cursor.execute(f"TRUNCATE {tables}, {', '.join(archive.TABLES.values())} CASCADE")


def plan(statement: str) -> list[dict[str, Any]]:
    """All steps of the generic plan, which is used whatever the values are."""
    names: dict[str, str] = {}
    numbered = re.sub(r"%\((\w+)\)s", lambda name: names.setdefault(name[1], f"${len(names) + 1}"), statement)
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (GENERIC_PLAN, FORMAT JSON) " + numbered)
        (found,) = cursor.fetchone()
    steps = [json.loads(found)[0]["Plan"] if isinstance(found, str) else found[0]["Plan"]]
    for step in steps:
        steps += step.get("Plans", [])
    return steps


def page(*, archived: bool = False, **asked: Any) -> str:
    """The statement of a list's page, in use or with the archive."""
    said: list[str] = []

    def fetch(statement: str, parameters: Any) -> list[Any]:
        said.append(statement)
        return [(None,)] if statement == selectors._ALL_THERE_BEFORE else []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selectors, "fetch", fetch)
        patch.setattr(archive, "may_have", lambda at: archived)
        patch.setattr(archive, "newest_order_at", lambda owner_id: datetime.now(UTC))
        filters = asked.pop("filters", {})
        selectors.page_of_orders(1, filters, **{"after": None, "newest_first": True, "limit": 50, **asked})
    return said[-1]


def trades(**asked: Any) -> str:
    """The statement of a page of executions."""
    said: list[str] = []

    def keep(statement: str, parameters: Any) -> list[Any]:
        said.append(statement)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executions, "fetch", keep)
        patch.setattr(archive, "may_have", lambda at: False)
        filters = asked.pop("filters", {})
        executions.page_of_executions(1, filters, **{"after": None, "newest_first": True, "limit": 50, **asked})
    return said[-1]


def held() -> str:
    """The statement of a page of positions."""
    said: list[str] = []

    def keep(statement: str, parameters: Any) -> list[Any]:
        said.append(statement)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executions, "fetch", keep)
        executions.page_of_positions(1, venue="XSIM", after="US0378331005", limit=50)
    return said[-1]


def console(client: str | None = None) -> str:
    """The statements of the console's list, its count and its search by a client's name: the shapes are the same."""
    orders = (
        Order.objects.filter(owner_id=1).order_by("-created_at", "-pk") if client else Order.objects.order_by("-pk")
    )
    return str(orders[:50].query).replace("%", "%%")


POSITION = Position(None, None)  # type: ignore[arg-type]
PLACE = Place(None, None)  # type: ignore[arg-type]
ARCHIVED, ARCHIVED_REQUEST = (archive.partition(table, MONTH) for table in (archive.ORDER, archive.REQUEST))
ARCHIVED_LIST, ARCHIVED_AT_VENUE = f"{ARCHIVED}_owner_id_created_at_id_idx", f"{ARCHIVED}_venue_order_id_idx"
STATEMENTS = {
    "accept one": (lifecycle._ACCEPT_ONE, {"order_client_order_id_unique"}),
    "accept many": (lifecycle._ACCEPT_MANY, {"order_client_order_id_unique"}),
    "claim": (lifecycle._CLAIM, {"order_due", "order_leased", "orders_order_pkey"}),
    "record": (lifecycle._ADVANCE, {"orders_order_pkey"}),
    "take what a venue reports": (
        lifecycle._TAKE_REPORTED,
        {"orders_order_pkey", "order_venue_order_id", "execution_once", "execution_referred", "orders_position_pkey"}
        | {ARCHIVED_AT_VENUE},
    ),
    "reports that were kept": (
        lifecycle._KEPT_REPORTS,
        {"orders_order_pkey", "order_venue_order_id"}
        | {f"{ARCHIVED}_pkey", ARCHIVED_AT_VENUE, f"{ARCHIVED_REQUEST}_id_idx"},
    ),
    "put what a venue reports": (lifecycle._PUT_REPORTED, {"orders_order_pkey", "orders_position_pkey"}),
    "a client's executions": (trades(), {"execution_list", "execution_referred", "orders_order_pkey"}),
    "a client's next executions": (
        trades(after=PLACE, newest_first=False, filters={"instrument": 1, "from": 1, "to": 1}),
        {"execution_list", "execution_referred", "orders_order_pkey"},
    ),
    "an order's executions": (
        trades(filters={"order": 1}, after=PLACE),
        {"execution_order", "execution_referred", "orders_order_pkey"},
    ),
    "a client's positions": (held(), {"orders_position_pkey"}),
    "executions of positions": (positions._RECORDED, {"execution_position"}),
    "sweep": (lifecycle._SWEEP, {"order_leased", "orders_order_pkey"}),
    "overtake": (lifecycle._OVERTAKE, {"order_overtaken", "orders_order_pkey"}),
    "claim look-ups": (lifecycle._CLAIM_LOOKUPS, {"order_unconfirmed", "orders_order_pkey"}),
    "claim look-ups of parked orders": (lifecycle._CLAIM_PARKED_LOOKUPS, {"order_parked", "orders_order_pkey"}),
    "pull times back": (
        lifecycle._PULL_BACK,
        {"order_due", "order_leased", "order_unconfirmed", "order_parked", "orders_order_pkey"},
    ),
    "what is due when": (
        selectors._SECONDS_UNTIL_DUE,
        {"order_due", "order_leased", "order_overtaken", "order_unconfirmed", "order_parked"},
    ),
    "venues with due orders": (selectors._VENUES_WITH_DUE_WORK, {"order_due"}),
    "read an order": (selectors._LOOK_UP, {"orders_order_pkey"}),
    "repeats of orders": (selectors._SUBMITTED, {"order_client_order_id_unique"}),
    "the feed of all": (feed._OF_ALL, {"orderevent_feed", "orders_order_pkey"}),
    "the feed of one client": (feed._OF_ONE, {"orderevent_feed_of_owner", "orders_order_pkey"}),
    "first page": (page(), {"order_list"}),
    "next page": (page(after=POSITION), {"order_list"}),
    "oldest first": (page(newest_first=False, after=POSITION), {"order_list"}),
    "at any of some statuses": (page(filters={"status": ["placed"]}, after=POSITION), {"order_list"}),
    "with the archive": (page(archived=True), {"order_list", ARCHIVED_LIST}),
    "of the archive at any of some statuses": (
        page(archived=True, filters={"status": ["filled"]}, after=POSITION),
        {"order_list", ARCHIVED_LIST},
    ),
    "by the client's id": (
        page(filters={"client_order_id": 1}),
        {"order_client_order_id_unique", "request_id_unique", "orders_order_pkey"},
    ),
    "the console's list": (console(), {"orders_order_pkey"}),
    "the console's list of a client": (console("alice"), {"order_list"}),
    "webhooks: move cursors": (
        webhooks._FAN_OUT,
        {"orderevent_feed_of_owner", "webhook_event_once"},
    ),
    "webhooks: what is due when": (webhooks._SECONDS_UNTIL_DUE, {"orderevent_feed_of_owner", "webhook_due"}),
    "webhooks: claim": (
        webhooks._CLAIM,
        {"webhook_due", "webhook_sending", "orders_webhookdelivery_pkey"},
    ),
    "webhooks: record": (webhooks._RECORD, {"orders_webhookdelivery_pkey"}),
    "webhooks: remove what is old": (
        webhooks._REMOVE_OLD,
        {"webhook_ended", "webhook_list", "orders_webhookdelivery_pkey"},
    ),
    "webhooks: give up": (webhooks._GIVE_UP, {"webhook_due", "orders_webhookdelivery_pkey"}),
    "what needs an operator": (
        attention._COUNTS,
        {"order_failed", "order_unconfirmed", "order_parked", "order_leased"},
    ),
    "what needs an operator, by venue": (
        attention._BY_VENUE,
        {"order_failed", "order_unconfirmed", "order_parked"},
    ),
    "what waits at venues": (attention._QUEUES, {"order_due"}),
    "metrics of venues": (gauges._VENUES, {"order_due", "order_leased"}),
    "metrics of what needs an operator": (gauges._ATTENTION, {"order_failed", "order_parked", "order_unconfirmed"}),
    "metrics of what clients are told": (gauges._TOLD, {"orderevent_feed_of_owner", "webhook_due"}),
    "what needs an operator, by cause": (
        attention._GROUPS,
        {"order_failed", "order_unconfirmed", "order_parked", "orders_order_pkey"},
    ),
}


@pytest.mark.django_db
@pytest.mark.parametrize("statement", [lifecycle._TAKE_REPORTED, lifecycle._PUT_REPORTED], ids=["take", "put"])
def test_a_few_reports_do_not_read_all_of_a_small_table(statement: str) -> None:
    VenueFactory()
    with connection.cursor() as cursor:
        cursor.execute(_FILL, {"alice": UserFactory().pk, "bob": UserFactory().pk, "orders": 2_000})
        cursor.execute("ANALYZE orders_order")
    assert "orders_order" not in {step["Relation Name"] for step in plan(statement) if step["Node Type"] == "Seq Scan"}


@pytest.mark.exhaustive
@pytest.mark.usefixtures("full_table")
@pytest.mark.django_db
@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_that_runs_often_uses_its_indexes(name: str) -> None:
    statement, indexes = STATEMENTS[name]
    steps = plan(statement)
    scanned = {step["Relation Name"] for step in steps if step["Node Type"] == "Seq Scan"}
    large = {"orders_order", "orders_orderevent", "orders_orderrequest", "orders_execution", "orders_position"}
    large |= {"orders_webhookdelivery", ARCHIVED, ARCHIVED_REQUEST}
    assert not scanned & large
    used = {step["Index Name"] for step in steps if "Index Name" in step}
    used |= {index for step in steps for index in step.get("Conflict Arbiter Indexes", [])}
    assert used & INDEXES == indexes


INDEXES = {index for _, indexes in STATEMENTS.values() for index in indexes}
