"""Reads what the database and the exchange know, as plain rows."""

from collections import defaultdict
from typing import Any

import psycopg

from benchmarks.faults.invariants import Evidence, Row, Step, VenueEntry
from benchmarks.faults.system import System
from benchmarks.faults.traffic import Traffic

_PAGE = 5_000

_ROWS = """
SELECT o.id::text, u.username, o.client_order_id, o.instrument, o.side, o.type, o.quantity, o.status,
    o.parked_at IS NOT NULL, o.attempt, o.version, o.venue_order_id
FROM orders_order o JOIN auth_user u ON u.id = o.owner_id
"""
_STEPS = """
SELECT order_id::text, sequence, event, from_status, to_status, attempt, extract(epoch FROM at)::float8, reason
FROM orders_orderevent ORDER BY order_id, sequence
"""
_UNDER_WAY = """
SELECT count(*) FROM orders_order WHERE status IN ('pending', 'submitting')
    OR status = 'unconfirmed' AND parked_at IS NULL
"""


def under_way(system: System) -> int | None:
    """How many orders are not finished yet; None while the database does not answer."""
    try:
        with system.connect() as connection:
            found = connection.execute(_UNDER_WAY).fetchone()
    except psycopg.Error:
        return None
    return int(found[0]) if found else None


def gather(system: System, traffic: Traffic) -> Evidence:
    """Raises: psycopg.Error, OSError, ValueError, if a part of the system does not work."""
    histories: dict[str, list[Step]] = defaultdict(list)
    with system.connect() as connection:
        rows = [Row._make((*row[:3], tuple(row[3:7]), *row[7:])) for row in connection.execute(_ROWS)]
        for order_id, *step in connection.execute(_STEPS):
            histories[order_id].append(Step(*step))
    return Evidence(
        told=list(traffic.told),
        rows=rows,
        histories=dict(histories),
        ledger=_ledger(system),
        foreign_reads=list(traffic.foreign_reads),
    )


def circuit_openings(system: System) -> int:
    with system.connect() as connection:
        found = connection.execute(
            "SELECT count(*) FROM exchanges_venueevent WHERE event = 'circuit_opened'"
        ).fetchone()
    return int(found[0]) if found else 0


def _ledger(system: System) -> list[VenueEntry]:
    entries: list[VenueEntry] = []
    after: int | None = 0
    while after is not None:
        page: dict[str, Any] = system.admin("GET", f"/orders?limit={_PAGE}&after={after}")
        entries += [
            VenueEntry(order["client_order_id"], order["venue_order_id"], order["status"], order["received_at"])
            for order in page["orders"]
        ]
        after = page["next"]
    return entries
