"""Reads what the database and the exchange know, as plain rows."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from http.client import HTTPException
from typing import Any

import psycopg

from benchmarks.faults.listeners import Listeners
from benchmarks.faults.records import (
    Evidence,
    Execution,
    Position,
    Request,
    Row,
    Step,
    Terms,
    VenueEntry,
    VenueReport,
)
from benchmarks.faults.system import System
from benchmarks.faults.traffic import Traffic

_PAGE = 5_000
_TRIES = 15

_ROWS = """
SELECT o.id::text, u.username, o.client_order_id, o.instrument, o.side, o.type,
    COALESCE((o.original_terms->>'quantity')::bigint, o.quantity), o.status, o.parked_at IS NOT NULL, o.attempt,
    o.version, o.venue_order_id, o.quantity, o.limit_price, o.stop_price, o.time_in_force,
    extract(epoch FROM o.expires_at)::float8, o.filled_quantity, o.filled_value
FROM orders_order o JOIN auth_user u ON u.id = o.owner_id
"""
_STEPS = """
SELECT order_id::text, sequence, event, from_status, to_status, attempt, extract(epoch FROM at)::float8, reason
FROM orders_orderevent ORDER BY order_id, sequence
"""
_EXECUTIONS = """
SELECT e.execution_id, e.kind, e.refers_to, e.order_id::text, u.username, e.instrument, e.side, e.quantity, e.price
FROM orders_execution e JOIN auth_user u ON u.id = e.owner_id
"""
_POSITIONS = """
SELECT u.username, p.instrument, p.bought_quantity, p.bought_value, p.sold_quantity, p.sold_value
FROM orders_position p JOIN auth_user u ON u.id = p.owner_id
"""
_EXECUTED_AS = {"fill": "executed", "bust": "busted", "correction": "corrected"}
_REQUESTS = "SELECT id::text, order_id::text, kind, status FROM orders_orderrequest"
_UNDER_WAY = """
SELECT (SELECT count(*) FROM orders_order WHERE status IN ('pending', 'submitting')
        OR status = 'unconfirmed' AND parked_at IS NULL),
    (SELECT count(*) FROM orders_orderrequest r JOIN orders_order o ON o.id = r.order_id
        WHERE r.resolved_at IS NULL AND o.parked_at IS NULL),
    (SELECT max(next_sequence) FROM exchanges_reportsession WHERE stream = %s)
"""
_EVENTS = """
SELECT u.username, count(*) FROM orders_orderevent e JOIN orders_order o ON o.id = e.order_id
JOIN auth_user u ON u.id = o.owner_id GROUP BY u.username
"""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What is not finished yet."""

    orders: int
    requests: int
    reports: int
    """Of the exchange, not read yet."""
    events: int
    """Not told yet to those who listen; summed over them. It is asked for only when the rest is finished."""

    def __str__(self) -> str:
        return f"{self.orders} orders, {self.requests} requests, {self.reports} reports, {self.events} events under way"


CALM = UnderWay(0, 0, 0, 0)


def under_way(system: System, listeners: Listeners) -> UnderWay | None:
    """None while the database or the exchange does not answer."""
    try:
        end = system.admin("GET", "/reports?limit=1")
        with system.connect() as connection:
            found = connection.execute(_UNDER_WAY, [end["stream"]]).fetchone()
            assert found is not None
            orders, requests, due = found
            reports = end["last"] + 1 - (due or 1)
            if orders or requests or reports:
                return UnderWay(orders, requests, reports, 0)
            return UnderWay(0, 0, 0, listeners.behind(dict(connection.execute(_EVENTS).fetchall())))
    except (psycopg.Error, OSError, HTTPException, ValueError):
        return None


def gather(system: System, traffic: Traffic, listeners: Listeners) -> Evidence:
    """Read all of it while nothing is under way, and again if the exchange has reported something meanwhile.

    Orders that are good till a date still end when all is quiet otherwise.

    Raises: psycopg.Error, OSError, ValueError, if a part of the system does not work.
    """
    for _ in range(_TRIES):
        before, calm = _last_report(system), under_way(system, listeners)
        evidence = _gather(system, traffic, listeners)
        if calm == CALM and _last_report(system) == before:
            break
        time.sleep(1)
    return evidence


def _last_report(system: System) -> Any:
    return system.admin("GET", "/reports?limit=1")["last"]


def _gather(system: System, traffic: Traffic, listeners: Listeners) -> Evidence:
    histories: dict[str, list[Step]] = defaultdict(list)
    with system.connect() as connection, _one_snapshot(connection):
        rows = [_row(*row) for row in connection.execute(_ROWS)]
        for order_id, *step in connection.execute(_STEPS):
            histories[order_id].append(Step(*step))
        executions = [Execution(*row) for row in connection.execute(_EXECUTIONS)]
        positions = [Position(*row) for row in connection.execute(_POSITIONS)]
        requests = [Request(*row) for row in connection.execute(_REQUESTS)]
        unmatched = connection.execute("SELECT count(*) FROM exchanges_unmatchedreport").fetchone()
    return Evidence(
        told=list(traffic.told),
        rows=rows,
        histories=dict(histories),
        ledger=[_entry(order) for order in _pages(system, "/orders", "orders")],
        foreign_reads=list(traffic.foreign_reads),
        asked=list(traffic.asked),
        executions=executions,
        positions=positions,
        requests=requests,
        reports=[_report(report) for report in _pages(system, "/reports", "reports")],
        streams=listeners.streams,
        webhooks=listeners.webhooks,
        unmatched=unmatched[0] if unmatched else 0,
    )


def _one_snapshot(connection: psycopg.Connection[Any]) -> AbstractContextManager[Any]:
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    return connection.transaction()


def circuit_openings(system: System) -> int:
    with system.connect() as connection:
        found = connection.execute(
            "SELECT count(*) FROM exchanges_venueevent WHERE event = 'circuit_opened'"
        ).fetchone()
    return int(found[0]) if found else 0


def _row(*columns: Any) -> Row:
    return Row._make((*columns[:3], columns[3:7], *columns[7:12], Terms(*columns[12:17]), *columns[17:]))


def _pages(system: System, path: str, name: str) -> Iterator[dict[str, Any]]:
    after: int | None = 0
    while after is not None:
        page: dict[str, Any] = system.admin("GET", f"{path}?limit={_PAGE}&after={after}")
        yield from page[name]
        after = page["next"]


def _entry(order: dict[str, Any]) -> VenueEntry:
    return VenueEntry(order["client_order_id"], order["venue_order_id"], order["status"], order["received_at"])


def _report(report: dict[str, Any]) -> VenueReport:
    expires_at = report.get("expires_at")
    terms = Terms(
        report["order_quantity"],
        _decimal(report.get("limit_price")),
        _decimal(report.get("stop_price")),
        report.get("time_in_force", ""),
        None if expires_at is None else datetime.fromisoformat(expires_at).timestamp(),
    )
    return VenueReport(
        report["sequence"],
        report["kind"],
        report["client_order_id"],
        report["venue_order_id"],
        report["status"],
        terms,
        report["cumulative_quantity"],
        report["leaves_quantity"],
        report.get("request_id", ""),
        _execution(report) if report["kind"] in _EXECUTED_AS else None,
    )


def _execution(report: dict[str, Any]) -> Execution:
    return Execution(
        report["execution_id"],
        _EXECUTED_AS[report["kind"]],
        report.get("refers_to", ""),
        report["client_order_id"],
        "",
        report["instrument"],
        report["side"],
        report.get("quantity", 0),
        _decimal(report.get("price")),
    )


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
