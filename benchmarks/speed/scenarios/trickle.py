"""4: how soon an order is at its venue when there is little to do, and how much processor time the idle system takes.

The client and the exchange have the same machine's clock. The time is counted from the last byte of the answer to the
client until the exchange has recorded the order; it is below zero if the exchange was quicker.
"""

import time
from dataclasses import dataclass
from datetime import datetime

from benchmarks.speed.client import percentiles
from benchmarks.speed.processes import CpuMeter
from benchmarks.speed.session import SINGLE, Session
from benchmarks.speed.stage import Server
from quiktrade.asking import ask

RATE = 20.0
CONNECTIONS = 4
_COME_TO_REST_SECONDS = 5.0


class NotSeen(Exception):
    """Orders were accepted and did not reach the exchange."""


@dataclass(frozen=True, slots=True)
class Trickle:
    p50: float
    p99: float
    answer_p50: float
    idle: dict[str, float]
    """Per cent of a core, by process family."""


def measure(session: Session) -> None:
    stage, quick = session.stage, session.options.quick
    stage.forget_orders()
    with stage.exchange() as exchange, stage.web() as web:
        stage.point_venue_at(exchange)
        headers = stage.headers(web)
        with stage.worker() as worker:
            families = {"web": web.pid, "worker": worker.pid or 0, "exchange": exchange.pid}
            families["postgres"] = stage.postgres_pid

            def trickle(seconds: float) -> Trickle:
                p50, p99, answer = _delays(session, web, exchange, headers, seconds)
                idle_seconds = 5.0 if quick else 30.0
                session.say("doing nothing")
                time.sleep(1.0 if quick else _COME_TO_REST_SECONDS)
                meter = CpuMeter(families)
                time.sleep(idle_seconds)
                idle = {name: round(100 * cpu / idle_seconds, 3) for name, cpu in meter.read().items()}
                return Trickle(p50, p99, answer, idle)

            _delays(session, web, exchange, headers, 3.0)
            (found,) = session.interleave(
                {"20 orders/s": trickle}, seconds=6.0 if quick else 30.0, warm_up=False
            ).values()  # fmt: skip
    session.measure(
        "answered → at the venue, 20 orders/s, p50", "ms", [each.p50 for each in found], target=5.0, at_most=True
    )
    session.measure(
        "answered → at the venue, 20 orders/s, p99", "ms", [each.p99 for each in found], target=50.0, at_most=True
    )
    session.measure(
        "whole system idle", "% of a core", [sum(each.idle.values()) for each in found], target=2.0, at_most=True
    )
    session.note(f"idle, % of a core: {found[-1].idle}")


def _delays(
    session: Session, web: Server, exchange: Server, headers: dict[str, str], seconds: float
) -> tuple[float, float, float]:
    """Milliseconds, p50 and p99; and the p50 of the answers themselves. Raises: NotSeen."""
    record = session.stage.directory / "trickle.txt"
    before = ask(exchange.admin_port, "/stats")["orders"]
    answers = session.load(
        web, SINGLE, headers=headers, seconds=seconds, rate=RATE, connections=CONNECTIONS, record=str(record)
    )
    answered = {}
    for line in record.read_text().splitlines():
        _, _, _, at, order_id = line.split()
        answered[order_id] = float(at)
    received = _received(exchange, before, len(answered))
    delays = percentiles([received[order_id] - at for order_id, at in answered.items()])
    return delays["p50"], delays["p99"], answers.latency["p50"]


def _received(exchange: Server, after: int, count: int) -> dict[str, float]:
    """When the exchange had each order on record, as Unix time."""
    deadline = time.monotonic() + 10
    while ask(exchange.admin_port, "/stats")["orders"] < after + count:
        if time.monotonic() > deadline:
            raise NotSeen(f"of {count} orders some are not at the exchange after 10 s")
        time.sleep(0.2)
    page = ask(exchange.admin_port, f"/orders?limit=10000&after={after}")
    return {
        order["client_order_id"]: datetime.fromisoformat(order["received_at"]).timestamp() for order in page["orders"]
    }
