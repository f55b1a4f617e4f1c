"""12: how long after the exchange has written a report its order says so, with 1,000 reports a second.

The exchange and the session with it are the real ones; the orders are sent to the exchange past the product. Each
second a buyer and a seller meet 250 times, which is four reports: two orders that came, and two executions. Those that
are counted are the executions. Their time is from the exchange's own, in the report, to the commit of the transaction
that wrote it, by PostgreSQL. Both are of the same machine's clock.
"""

import http.client
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import connections

from benchmarks.speed.client import percentiles
from benchmarks.speed.pgbench import Pgbench
from benchmarks.speed.processes import CpuMeter
from benchmarks.speed.seed import INSTRUMENT, accept_orders
from benchmarks.speed.session import Session
from benchmarks.speed.stage import Server, Stage
from exchanges import demo
from orders import lifecycle
from quiktrade.asking import ask

REPORTS_A_SECOND = 1_000
REPORTS_OF_A_PAIR = 4
WARM_UP_SECONDS = 1.0
LEASE_SECONDS = 3_600.0
PATIENCE_SECONDS = 15.0

_ANALYZE = "ANALYZE orders_order, orders_orderevent, orders_execution, orders_position"
_WRITTEN = "SELECT count(*) FROM orders_execution WHERE executed_at >= to_timestamp(%s)"
_LAGS = """
SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - executed_at)::float8, xmin::text FROM orders_execution
WHERE executed_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)
"""


class NotWritten(Exception):
    """Executions that the exchange reported are not in the database."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Milliseconds, and processor time in milliseconds per report."""

    p50: float
    p99: float
    most: float
    reports_a_second: float
    executions_together: float
    """How many were written in one transaction."""
    cpu: dict[str, float]


def measure(session: Session) -> None:
    stage = session.stage
    stage.forget_orders()
    with stage.commit_times(), stage.exchange() as exchange:
        stage.point_venue_at(exchange)
        with stage.venue_session() as reader:
            pgbench = Pgbench(stage)
            families = {"session": reader.pid or 0, "postgres": stage.postgres_pid, "exchange": exchange.pid}

            def lag(seconds: float) -> Lag:
                return _lag(stage, exchange, families, seconds)

            lag(2.0)
            found: dict[str, list[Any]] = session.interleave(
                {"reports": lag, "pgbench": pgbench.commits}, warm_up=False
            )  # fmt: skip
    lags: list[Lag] = found["reports"]
    commits: list[dict[str, float]] = found["pgbench"]
    what = f"a report's way into its order, {REPORTS_A_SECOND:,} a second"
    session.measure(f"{what}, p99", "ms", [each.p99 for each in lags], target=50.0, at_most=True)
    for name, of in (("p50", [each.p50 for each in lags]), ("p99", [each.p99 for each in lags])):
        reference = [each[name] for each in commits]
        session.measure(f"{what}, {name}", "ms", of, against="a commit of pgbench", reference=reference)
    last = lags[-1]
    session.note(
        f"{last.reports_a_second:.0f} reports/s, {last.executions_together:.1f} executions in a transaction, at most "
        f"{last.most:.0f} ms; processor time of one report, ms: {last.cpu}"
    )


def _lag(stage: Stage, exchange: Server, cpu_of: dict[str, int], seconds: float) -> Lag:
    """Raises: NotWritten."""
    pairs = _pairs(round(REPORTS_A_SECOND / REPORTS_OF_A_PAIR * (WARM_UP_SECONDS + seconds)))
    with stage.connect() as connection:
        connection.execute(_ANALYZE)  # autovacuum does it within a minute
    before = ask(exchange.admin_port, "/stats")["reports"]
    begun, meter = time.time(), CpuMeter(cpu_of)
    _trade(exchange, pairs)
    ended, cpu = time.time(), meter.read()
    reports = ask(exchange.admin_port, "/stats")["reports"] - before
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (
        written := stage.ask("SELECT count(*) FROM orders_execution WHERE executed_at > to_timestamp(%s)", [begun])[0]
    ) < 2 * len(pairs):
        if time.monotonic() > deadline:
            raise NotWritten(f"{written} executions of {2 * len(pairs)} are written after {PATIENCE_SECONDS:g} s")
        time.sleep(0.1)
    with stage.connect() as connection:
        rows = connection.execute(_LAGS, [begun + WARM_UP_SECONDS, ended]).fetchall()
    lags = percentiles([lag for lag, _ in rows])
    return Lag(
        p50=lags["p50"],
        p99=lags["p99"],
        most=lags["max"],
        reports_a_second=round(reports / (ended - begun), 1),
        executions_together=round(len(rows) / len({transaction for _, transaction in rows}), 2),
        cpu={name: round(1000 * spent / reports, 4) for name, spent in cpu.items()},
    )


def _pairs(count: int) -> list[tuple[UUID, UUID]]:
    """A buyer's order and a seller's, each claimed, as if it were just being placed."""
    buyer, seller = (get_user_model().objects.get(username=name).pk for name in demo.CLIENTS)
    buys = accept_orders(count, owner_id=buyer, venue=demo.VENUE)
    sells = accept_orders(count, owner_id=seller, venue=demo.VENUE, side="sell")
    whole = 2 * count
    actor = "system:benchmark"
    lifecycle.claim(demo.VENUE, limit=whole, in_flight=whole, lease=LEASE_SECONDS, actor=actor)
    connections.close_all()
    return list(zip(buys, sells, strict=True))


def _trade(exchange: Server, pairs: Sequence[tuple[UUID, UUID]]) -> None:
    """Have each pair meet at the exchange, at random times."""
    dice = random.Random(1)  # noqa: S311  the same times in every run
    line = http.client.HTTPConnection("127.0.0.1", exchange.port, timeout=10)
    due = time.monotonic()
    for pair in pairs:
        time.sleep(max(0.0, due - time.monotonic()))
        for side, order_id in zip(("buy", "sell"), pair, strict=True):
            content = {
                "client_order_id": str(order_id), "instrument": INSTRUMENT, "side": side, "type": "limit",
                "quantity": 100, "limit_price": "187.50", "time_in_force": "day",
            }  # fmt: skip
            line.request("POST", "/orders", json.dumps(content), {"Content-Type": "application/json"})
            answer = line.getresponse()
            if answer.status != http.client.CREATED:
                raise NotWritten(f"the exchange answered {answer.status} {answer.read()[:200]!r}")
            answer.read()
        due += dice.expovariate(REPORTS_A_SECOND / REPORTS_OF_A_PAIR)
    line.close()
