"""Each statement that runs often finds its rows by an index, however many orders there are.

Asked of PostgreSQL's planner, for plans without knowledge of the values, on a table of which one order in a
hundred is open.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from orders import attention, lifecycle, selectors
from orders.models import Order
from orders.selectors import Position
from orders.tests.factories import UserFactory, VenueFactory

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


@pytest.fixture(scope="module")
def full_table(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        VenueFactory()
        clients = {name: UserFactory(username=name).pk for name in ("alice", "bob")}
        cursor.execute(_FILL, {**clients, "orders": ORDERS})
        cursor.execute("ANALYZE orders_order, orders_orderevent, exchanges_venue, exchanges_venuehealth")
    yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("TRUNCATE orders_orderevent, orders_order, exchanges_venue, auth_user CASCADE")


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


def page(**asked: Any) -> str:
    """The statement of a list's page."""
    said: list[str] = []

    def fetch(statement: str, parameters: Any) -> list[Any]:
        said.append(statement)
        return [(None,)] if statement == selectors._ALL_THERE_BEFORE else []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selectors, "fetch", fetch)
        filters = asked.pop("filters", {})
        selectors.page_of_orders(1, filters, **{"after": None, "newest_first": True, "limit": 50, **asked})
    return said[-1]


def console(client: str | None = None) -> str:
    """The statements of the console's list, its count and its search by a client's name: the shapes are the same."""
    orders = (
        Order.objects.filter(owner_id=1).order_by("-created_at", "-pk") if client else Order.objects.order_by("-pk")
    )
    return str(orders[:50].query).replace("%", "%%")


POSITION = Position(None, None)  # type: ignore[arg-type]
STATEMENTS = {
    "accept one": (lifecycle._ACCEPT_ONE, {"order_client_order_id_unique"}),
    "accept many": (lifecycle._ACCEPT_MANY, {"order_client_order_id_unique"}),
    "claim": (lifecycle._CLAIM, {"order_due", "order_leased", "orders_order_pkey"}),
    "record": (lifecycle._ADVANCE, {"orders_order_pkey"}),
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
    "venues with due orders": (selectors._VENUES_WITH_DUE_ORDERS, {"order_due"}),
    "read an order": (selectors._LOOK_UP, {"orders_order_pkey"}),
    "repeats of orders": (selectors._SUBMITTED, {"order_client_order_id_unique"}),
    "first page": (page(), {"order_list"}),
    "next page": (page(after=POSITION), {"order_list"}),
    "oldest first": (page(newest_first=False, after=POSITION), {"order_list"}),
    "at any of some statuses": (page(filters={"status": 1}, after=POSITION), {"order_list"}),
    "by the client's id": (page(filters={"client_order_id": 1}), {"order_client_order_id_unique"}),
    "the console's list": (console(), {"orders_order_pkey"}),
    "the console's list of a client": (console("alice"), {"order_list"}),
    "what needs an operator": (
        attention._COUNTS,
        {"order_failed", "order_unconfirmed", "order_parked", "order_leased"},
    ),
    "what waits at venues": (attention._QUEUES, {"order_due"}),
    "what needs an operator, by cause": (
        attention._GROUPS,
        {"order_failed", "order_unconfirmed", "order_parked", "orders_order_pkey"},
    ),
}


@pytest.mark.usefixtures("full_table")
@pytest.mark.django_db
@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_that_runs_often_uses_its_indexes(name: str) -> None:
    statement, indexes = STATEMENTS[name]
    steps = plan(statement)

    scanned = {step["Relation Name"] for step in steps if step["Node Type"] == "Seq Scan"}
    assert not scanned & {"orders_order", "orders_orderevent"}
    used = {step["Index Name"] for step in steps if "Index Name" in step}
    used |= {index for step in steps for index in step.get("Conflict Arbiter Indexes", [])}
    assert used & INDEXES == indexes


INDEXES = {index for _, indexes in STATEMENTS.values() for index in indexes}
