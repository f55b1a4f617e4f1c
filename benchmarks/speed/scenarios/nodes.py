"""8: two worker nodes against one, when the venue limits them.

Each node may have `IN_FLIGHT` requests in flight at the venue (the adapter's `in_flight`), and the venue admits as
many as both together (`max_in_flight`). They are few enough to leave two cores some time.
"""

from contextlib import ExitStack

from benchmarks.speed.scenarios.placement import SLOW_SECONDS, Drained, drain
from benchmarks.speed.session import Session

IN_FLIGHT = 256


def measure(session: Session) -> None:
    stage = session.stage
    count = int(IN_FLIGHT / SLOW_SECONDS) * (4 if session.options.quick else 20)
    with stage.exchange(SLOW_SECONDS) as exchange:
        stage.point_venue_at(exchange, max_in_flight=2 * IN_FLIGHT, in_flight=IN_FLIGHT)

        def with_nodes(*names: str) -> Drained:
            with ExitStack() as started:
                workers = {f"worker {name}": started.enter_context(stage.worker(name)) for name in names}
                return drain(session, {**workers, "venue": exchange.part}, count)

        found = session.interleave(
            {"one node": lambda seconds: with_nodes("a"), "two nodes": lambda seconds: with_nodes("a", "b")},
            warm_up=False,
        )
    session.measure(
        "two nodes, venue 0.5 s", "orders/s", [drained.rate for drained in found["two nodes"]],
        against="one node", reference=[drained.rate for drained in found["one node"]], target=1.6,
    )  # fmt: skip
