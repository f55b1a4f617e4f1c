"""1: how many single orders are accepted in a second. No worker runs, so that only the accepting is measured.

QuikTrade verifies the client's token, recognises a repeated order by the client's id, and writes the order's history;
the inline stack does none of this. Both have two processes and 32 connections.

What metrics and limits cost is measured apart, with QuikTrade against itself: many short turns, because one server's
rate varies by more from one minute to the next.
"""

from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.speed.load import Answers
from benchmarks.speed.pgbench import NotThere, Pgbench
from benchmarks.speed.session import SINGLE, Session
from benchmarks.stage.ports import free_ports

SHIPPED_CONNECTIONS = 4
"""Enough to keep it busy: it answers two orders a second from each process."""
COUNTING_SECONDS = 0.5
"""Statements are counted for this long, because the server's log of them must stay small."""
PAIRS, PAIR_SECONDS = 12, 2.0
METRICS_TARGET, LIMITS_TARGET = 0.97, 0.98
MOST_ORDERS = 10_000
"""Orders in a second that the client may send where they are limited: more than are accepted, but not so many more
that a lease of a tenth of them would last for long."""


def measure(session: Session) -> None:
    stage = session.stage
    with ExitStack() as started:
        web = started.enter_context(stage.web())
        instant = started.enter_context(stage.inline("instant"))
        store = started.enter_context(stage.inline("store"))
        granian = started.enter_context(stage.granian())
        single = partial(session.load, web, SINGLE, headers=stage.headers(web))
        servers = {
            "QuikTrade": single,
            "inline stack": partial(session.load, instant, "/orders"),
            "inline stack, store only": partial(session.load, store, "/orders"),
            "QuikTrade under granian": partial(session.load, granian, SINGLE, headers=stage.headers(web)),
        }
        contestants: dict[str, Any] = {name: partial(_for_seconds, load) for name, load in servers.items()}
        try:
            pgbench = Pgbench(stage)
            contestants["pgbench"] = pgbench.run
        except NotThere as error:
            session.note(f"not compared with pgbench: {error}")
        found: dict[str, list[Any]] = session.interleave(contestants)
        statements = {
            name: session.statements(partial(load, connections=1, seconds=COUNTING_SECONDS))
            for name, load in servers.items()
        }
    _compare(session, found, _shipped(session))
    _metrics(session)
    _limits(session)
    for name, answers in found.items():
        session.cost(name, answers, statements=statements.get(name, 1.0))


def _for_seconds(load: Any, seconds: float) -> Answers:
    answers: Answers = load(seconds=seconds)
    return answers


def _compare(session: Session, found: dict[str, list[Any]], shipped: dict[int, Answers]) -> None:
    rates = {name: [answers.rate for answers in each] for name, each in found.items()}
    p99 = {name: [answers.latency["p99"] for answers in each] for name, each in found.items() if name != "pgbench"}
    ours, instant = "QuikTrade", "inline stack"
    session.measure(
        "single POST", "orders/s", rates[ours], against=instant, reference=rates[instant], target=1.0
    )  # fmt: skip
    session.measure(
        "single POST, p99", "ms", p99[ours], against=instant, reference=p99[instant], target=1.0, at_most=True
    )
    for name in found:
        if name not in (ours, instant):
            session.measure("single POST", "orders/s", rates[ours], against=name, reference=rates[name])
    for workers, answers in shipped.items():
        session.measure(
            "single POST", "orders/s", rates[ours],
            against=f"inline stack as shipped, {workers} process{'es' if workers > 1 else ''}",
            reference=[answers.rate] * len(rates[ours]), target=200.0 if workers == 2 else None,
        )  # fmt: skip


def _metrics(session: Session) -> None:
    """Metrics on against off. Off, the same is counted in the memory of each process and shown to nobody."""
    port = free_ports(1)[0]
    _on_and_off(session, "metrics", "QUIKTRADE_METRICS_PORT", on=port, target=METRICS_TARGET)


def _limits(session: Session) -> None:
    """Orders of which a client may send only a number in a second, against orders that are not limited."""
    _on_and_off(session, "limits", "QUIKTRADE_ORDER_RATE", on=MOST_ORDERS, target=LIMITS_TARGET)


def _on_and_off(session: Session, what: str, setting: str, *, on: int, target: float) -> None:
    stage = session.stage
    with stage.web(**{setting: "0"}) as without, stage.web(**{setting: str(on)}) as with_it:
        loads = {
            name: partial(session.load, web, SINGLE, headers=stage.headers(web))
            for name, web in ((f"QuikTrade, {what} on", with_it), (f"QuikTrade, {what} off", without))
        }
        pairs, seconds = (1, 1.0) if session.options.quick else (PAIRS, PAIR_SECONDS)
        contestants: dict[str, Any] = {name: partial(_for_seconds, load) for name, load in loads.items()}
        found: dict[str, list[Answers]] = session.interleave(contestants, seconds=seconds, repeats=pairs)
        statements = {
            name: session.statements(partial(load, connections=1, seconds=COUNTING_SECONDS))
            for name, load in loads.items()
        }
    ours, reference = found.values()
    session.measure(
        f"single POST, {what} on", "orders/s", [answers.rate for answers in ours],
        against=f"{what} off", reference=[answers.rate for answers in reference], target=target,
    )  # fmt: skip
    for name, answers in found.items():
        session.cost(name, answers, statements=statements[name])


def _shipped(session: Session) -> dict[int, Answers]:
    """The answers by number of processes. They are measured once: waits of half a second vary little."""
    found = {}
    for workers in (1, 2):
        with session.stage.inline("shipped", workers) as server:
            load = partial(
                session.load, server, "/orders", connections=SHIPPED_CONNECTIONS, allowed=(201, 500)
            )  # fmt: skip
            shipped = {f"inline stack as shipped, {workers}": partial(_for_seconds, load)}
            seconds = 4.0 if session.options.quick else 12.0
            ((found[workers],),) = session.interleave(shipped, seconds=seconds, repeats=1, warm_up=False).values()
    return found
