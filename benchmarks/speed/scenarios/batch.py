"""2: how many orders are accepted in a second when they come 500 to a request."""

from dataclasses import replace
from typing import Any

from benchmarks.speed.load import Answers, LoadFailed
from benchmarks.speed.pgbench import NotThere, Pgbench, Stored
from benchmarks.speed.session import SINGLE, Session
from benchmarks.speed.stage import Server

BATCH = 500
CONNECTIONS = 8


def measure(session: Session) -> None:
    stage = session.stage
    with stage.web() as web:
        headers = stage.headers(web)

        def single(seconds: float) -> Answers:
            return session.load(web, SINGLE, headers=headers, seconds=seconds)

        def batches(seconds: float) -> Answers:
            return _batches(session, web, headers, seconds)

        contestants: dict[str, Any] = {"one by one": single, f"{BATCH} at a time": batches}
        try:
            pgbench = Pgbench(stage)
            contestants["pgbench"] = pgbench.run
        except NotThere as error:
            session.note(f"not compared with pgbench: {error}")
        found: dict[str, list[Any]] = session.interleave(contestants)
    ours: list[Answers] = found[f"{BATCH} at a time"]
    rates = [answers.rate for answers in ours]
    session.measure(
        f"{BATCH} at a time", "orders/s", rates,
        against="single POST", reference=[answers.rate for answers in found["one by one"]], target=10.0,
    )  # fmt: skip
    if "pgbench" in found:
        stored: list[Stored] = found["pgbench"]
        session.measure(
            f"{BATCH} at a time", "orders/s", rates,
            against="pgbench", reference=[one.rate for one in stored], target=0.5,
        )  # fmt: skip
    session.cost(f"QuikTrade, {BATCH} at a time", ours)


def _batches(session: Session, web: Server, headers: dict[str, str], seconds: float) -> Answers:
    """Rate and cost are those of orders and not of requests. The latency is that of the whole batch."""
    prefix = session.prefix()
    answers = session.load(
        web, f"{SINGLE}/batch", headers=headers, seconds=seconds, batch=BATCH, connections=CONNECTIONS, prefix=prefix
    )
    asked = answers.good * BATCH
    (stored,) = session.stage.ask("SELECT count(*) FROM orders_order WHERE client_order_id LIKE %s", [f"{prefix}-%"])
    if answers.raw["stored"] != asked or stored != asked:
        raise LoadFailed(f"{asked} orders in batches: {answers.raw['stored']} answered 201, {stored} stored")
    cpu = {name: milliseconds / BATCH for name, milliseconds in answers.cpu.items()}
    return replace(answers, rate=answers.rate * BATCH, cpu=cpu)
