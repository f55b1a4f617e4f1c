"""3: how many waiting orders one worker node places in a second.

A slow venue (0.5 s) shows how many of the allowed requests are kept in flight: the limit is Little's law, requests in
flight divided by the venue's time. A quick venue (2 ms) shows what an order costs; the reference is then one django-q2
task for each order.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection

from benchmarks.speed import seed
from benchmarks.speed.processes import CpuMeter, memory_bytes, milliseconds_each
from benchmarks.speed.session import Session
from benchmarks.speed.stage import Server
from benchmarks.stage.processes import Part
from exchanges import demo
from exchanges.services import halt_venue, resume_venue
from quiktrade.jobs import doorbell
from quiktrade.local.venv import ROOT

IN_FLIGHT = 1024
SLOW_SECONDS = 0.5
QUICK_SECONDS = 0.002
NAIVE_WORKERS = 16
"""Processes: enough to keep two cores busy while some of them wait for the venue."""
MEGABYTE = 1_000_000
_PATIENCE_SECONDS = 120.0
_ACTOR = "system:benchmark"

_DRAIN = """
SELECT count(*) FILTER (WHERE event = 'acknowledged') AS placed,
    extract(epoch FROM max(at) FILTER (WHERE event = 'acknowledged') - min(at) FILTER (WHERE event = 'claimed')),
    count(*) FILTER (WHERE event NOT IN ('accepted', 'claimed', 'acknowledged'))
FROM orders_orderevent
"""
_STEADY = """
SELECT extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY at) - percentile_disc(0.1) WITHIN GROUP
    (ORDER BY at)) FROM orders_orderevent WHERE event = 'acknowledged'
"""
# Each of these is one look-up in an index.
_LEFT = """
SELECT EXISTS (SELECT 1 FROM orders_order WHERE status = 'pending')
    OR EXISTS (SELECT 1 FROM orders_order WHERE status = 'submitting')
    OR EXISTS (SELECT 1 FROM orders_order WHERE status = 'unconfirmed')
"""
_NAIVE_LEFT = "SELECT EXISTS (SELECT 1 FROM naive_order WHERE status = 'pending')"
_NAIVE_DRAIN = """
SELECT count(*) FILTER (WHERE status = 'placed'), extract(epoch FROM max(placed_at) - min(taken_at)),
    extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY placed_at)
    - percentile_disc(0.1) WITHIN GROUP (ORDER BY placed_at)) FROM naive_order
"""


class NotPlaced(Exception):
    """Orders were left or something went wrong, so the measurement is not valid."""


@dataclass(frozen=True, slots=True)
class Drained:
    rate: float
    """From the first claim to the last acknowledgement on record."""
    steady_rate: float
    """The rate of the middle four fifths."""
    memory: list[int]
    """The memory of each of the worker's processes, in bytes, at the moment when they were seen to take the most."""
    cpu: dict[str, float]


class Peak:
    """Waits, and measures now and then how much memory process families take. Raises: NotPlaced, after too long."""

    def __init__(self, roots: list[int]) -> None:
        self.memory: list[int] = []
        """The memory of each process, in bytes, at the moment when all of them took the most."""
        self._roots = roots
        self._deadline = time.monotonic() + _PATIENCE_SECONDS
        self._look_at = 0.0

    def look(self) -> None:
        now = time.monotonic()
        if now > self._deadline:
            raise NotPlaced(f"orders were left after {_PATIENCE_SECONDS:g} s")
        if now >= self._look_at:  # seldom, because the kernel has to visit all their pages
            self._look_at = now + 1.5
            self.memory = max(self.memory, [size for root in self._roots for size in memory_bytes(root)], key=sum)
        time.sleep(0.2)


def measure(session: Session) -> None:
    _slow(session)
    _quick(session)


def _slow(session: Session) -> None:
    limit = IN_FLIGHT / SLOW_SECONDS
    # Ten seconds at the limit, so that the half second at either end does not count for much.
    count = int(limit * (2 if session.options.quick else 10))
    with session.stage.exchange(SLOW_SECONDS) as exchange, _worker(session, exchange) as worker:
        contestants = {
            "QuikTrade, venue 0.5 s": lambda seconds: drain(session, {"worker": worker, "venue": exchange.part}, count)
        }
        (found,) = session.interleave(contestants, warm_up=False).values()
    rates = [drained.rate for drained in found]
    session.measure(
        "one node, venue 0.5 s, 1,024 in flight", "orders/s", rates,
        against="in flight ÷ latency", reference=[limit] * len(rates), target=0.7,
    )  # fmt: skip
    memory = [sum(drained.memory) / MEGABYTE for drained in found]
    session.measure("worker's memory (PSS), 1,024 in flight", "MB", memory, target=150.0, at_most=True)
    each = ", ".join(f"{size / MEGABYTE:.0f}" for size in found[-1].memory)
    session.note(f"the worker's processes take {each} MB; processor time per order, venue 0.5 s: {found[-1].cpu} ms")


def _quick(session: Session) -> None:
    stage = session.stage
    count, naive_count = (4_000, 500) if session.options.quick else (30_000, 4_000)
    with stage.venue(QUICK_SECONDS) as venue, stage.exchange(QUICK_SECONDS) as exchange:
        capacity = {
            name: session.load(server, "/orders", connections=128, seconds=min(4.0, session.options.seconds)).rate
            for name, server in (("lean venue", venue), ("simulated exchange", exchange))
        }
    session.note(
        f"asked by nobody but the load generator, 128 connections, the lean venue takes {capacity['lean venue']:,.0f} "
        f"orders/s, the simulated exchange {capacity['simulated exchange']:,.0f}"
    )
    with stage.venue(QUICK_SECONDS) as venue, stage.exchange(QUICK_SECONDS) as exchange:
        # Each starts and ends its own workers: idle ones would take processor time from the others.
        contestants: dict[str, Callable[[float], Drained]] = {
            "QuikTrade, venue 2 ms": lambda seconds: _with_worker(session, venue, count),
            "one task per order, venue 2 ms": lambda seconds: _naive(session, venue, naive_count),
            "QuikTrade, simulated exchange 2 ms": lambda seconds: _with_worker(session, exchange, count),
        }
        found, peers, exchanged = session.interleave(contestants, warm_up=False).values()
    rates = [drained.rate for drained in found]
    session.measure("one node, venue 2 ms", "orders/s", rates, target=3_500.0)
    session.measure(
        "one node, venue 2 ms", "orders/s", rates,
        against="a task per order", reference=[drained.rate for drained in peers], target=7.0,
    )  # fmt: skip
    session.measure(
        "one node, simulated exchange 2 ms", "orders/s", [drained.rate for drained in exchanged],
        against="lean venue", reference=rates,
    )  # fmt: skip
    session.note(
        f"processor time per order, venue 2 ms: QuikTrade {found[-1].cpu}, a task per order {peers[-1].cpu} ms"
    )


def _with_worker(session: Session, venue: Server, count: int) -> Drained:
    with _worker(session, venue) as worker:
        return drain(session, {"worker": worker, "venue": venue.part}, count)


@contextmanager
def _worker(session: Session, venue: Server) -> Iterator[Part]:
    session.stage.point_venue_at(venue, max_in_flight=IN_FLIGHT)
    with session.stage.worker() as worker:
        yield worker


def drain(session: Session, parts: dict[str, Part], count: int) -> Drained:
    """Have `count` orders wait at a halted venue, resume it, and measure how long it takes until all are placed.

    Raises: NotPlaced.
    """
    stage = session.stage
    stage.forget_orders()
    halt_venue(demo.VENUE, actor=_ACTOR, reason="orders are being prepared")
    seed.accept_orders(count, owner_id=stage.client_id, venue=demo.VENUE)
    stage.settle()
    meter = CpuMeter({"postgres": stage.postgres_pid, **{name: part.pid or 0 for name, part in parts.items()}})
    resume_venue(demo.VENUE, actor=_ACTOR, reason="orders are ready")
    doorbell.ring()
    connection.close()
    memory = _wait_until_placed(session, parts)
    cpu = milliseconds_each(meter.read(), count)
    placed, seconds, others = stage.ask(_DRAIN)
    if placed != count or others:
        raise NotPlaced(f"{placed} of {count} orders were placed, with {others} events of another kind")
    (middle,) = stage.ask(_STEADY)
    return Drained(count / float(seconds), 0.8 * count / float(middle), memory, cpu)


def _wait_until_placed(session: Session, parts: dict[str, Part]) -> list[int]:
    """Returns the memory of each of the workers' processes when they took the most."""
    workers = [part.pid for name, part in parts.items() if name.startswith("worker") and part.pid]
    peak = Peak(workers)
    with session.stage.connect() as database:
        while database.execute(_LEFT).fetchone() == (True,):
            peak.look()
    return peak.memory


def _naive(session: Session, venue: Server, count: int) -> Drained:
    """The same for one task per order: from the first task's beginning to the last one's end."""
    stage = session.stage
    environment = {**os.environ, **stage.naive_settings(venue, NAIVE_WORKERS)}
    subprocess.run(stage.naive("submit", str(count)), cwd=ROOT, env=environment, check=True)
    stage.settle()
    with stage.naive_cluster(venue, NAIVE_WORKERS) as cluster, stage.connect(database="naive") as database:
        meter = CpuMeter({"postgres": stage.postgres_pid, "worker": cluster.pid or 0, "venue": venue.pid})
        peak = Peak([cluster.pid or 0])
        while database.execute(_NAIVE_LEFT).fetchone() == (True,):
            peak.look()
        cpu = milliseconds_each(meter.read(), count)
        found = database.execute(_NAIVE_DRAIN).fetchone()
    assert found is not None
    if found[0] != count:
        raise NotPlaced(f"one task per order: {found[0]} of {count} orders were placed")
    return Drained(count / float(found[1]), 0.8 * count / float(found[2]), peak.memory, cpu)
