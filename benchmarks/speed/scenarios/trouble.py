"""5: whether the API is as quick with its venue dead, or 30 s slow, as with a healthy one. A worker runs.

Each state starts from the beginning: no orders, a closed circuit, a new worker. It is measured twice: at half of the
rate that a healthy system takes, for the p99; and by 32 connections that never pause, for the throughput. With a
healthy venue the machine places the orders as well, so the comparison is with the more expensive case.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.speed.load import Answers
from benchmarks.speed.session import SINGLE, Session
from quiktrade.asking import ask

STATES: dict[str, dict[str, Any]] = {
    "healthy": {},
    "dead": {"refuse": True},
    "30 s slow": {"latency": {"seconds": 30}},
}
PACED_SHARE = 0.5
WARM_UP_RATE = 100.0


@dataclass(frozen=True, slots=True)
class Pair:
    paced: Answers
    closed: Answers


def measure(session: Session) -> None:
    stage = session.stage
    with stage.exchange() as exchange, stage.web() as web:
        stage.point_venue_at(exchange)
        headers = stage.headers(web)
        post = partial(session.load, web, SINGLE, headers=headers)
        with stage.worker():
            rate = PACED_SHARE * post(seconds=min(4.0, session.options.seconds)).rate

        def in_state(state: str, seconds: float) -> Pair:
            stage.forget_orders()
            ask(exchange.admin_port, "/admin/faults", method="PUT", content=STATES[state])
            with stage.worker():
                post(seconds=2.0, rate=WARM_UP_RATE)  # this also opens the circuit of a dead venue
                return Pair(post(seconds=seconds, rate=rate, connections=64), post(seconds=seconds))

        found = session.interleave(
            {f"venue {state}": partial(in_state, state) for state in STATES},
            warm_up=False,
        )
        ask(exchange.admin_port, "/admin/faults", method="DELETE")
    healthy = found["venue healthy"]
    for state in list(STATES)[1:]:
        pairs = found[f"venue {state}"]
        session.measure(
            f"accepted, venue {state}", "orders/s", [pair.closed.rate for pair in pairs],
            against="venue healthy", reference=[pair.closed.rate for pair in healthy], target=0.95,
        )  # fmt: skip
        session.measure(
            f"p99 of the answers, venue {state}", "ms", [pair.paced.latency["p99"] for pair in pairs],
            against="venue healthy", reference=[pair.paced.latency["p99"] for pair in healthy],
            target=1.05, at_most=True,
        )  # fmt: skip
