"""11: how many webhooks one worker delivers in a second, against one django-q2 task for each delivery.

At most four deliveries are under way to one endpoint, so that one endpoint shows the latency of its receiver. Here are
as many endpoints, each of another client, as fill the worker's places, and a receiver on this machine that answers at
once. All the events are there before the webhooks are enabled: the time is from the first delivery that is made of
them to the last one that is on record.
"""

import os
import subprocess
from dataclasses import dataclass

from django.contrib.auth import get_user_model
from django.db import connections

from benchmarks.speed import seed
from benchmarks.speed.processes import CpuMeter, milliseconds_each
from benchmarks.speed.scenarios.placement import NAIVE_WORKERS
from benchmarks.speed.session import Session
from benchmarks.speed.stage import Server
from exchanges import demo
from exchanges.services import halt_venue
from quiktrade.asking import ask
from quiktrade.local.venv import ROOT
from quiktrade.processes import wait_for

ENDPOINTS = 16
_PATIENCE_SECONDS = 60.0
_ACTOR = "system:benchmark"

_FORGET = "TRUNCATE orders_webhookendpoint CASCADE"
_ENABLE = """
UPDATE orders_webhookendpoint SET disabled_at = NULL, disabled_by = '', disabled_reason = '' RETURNING id
"""
"""The verb of the API would move the cursors to the newest event."""
_DELIVERED = "SELECT count(*) FROM orders_webhookdelivery WHERE status = 'delivered'"
_DRAIN = """
SELECT count(*), extract(epoch FROM max(ended_at) - min(created_at)), max(attempt),
    count(*) FILTER (WHERE status <> 'delivered')
FROM orders_webhookdelivery
"""
_NAIVE_DELIVERED = "SELECT count(*) FROM naive_delivery WHERE status = 'delivered'"
_NAIVE_DRAIN = "SELECT extract(epoch FROM max(delivered_at) - min(taken_at)) FROM naive_delivery"


class NotDelivered(Exception):
    """Deliveries were left or repeated, so the measurement is not valid."""


@dataclass(frozen=True, slots=True)
class Delivered:
    rate: float
    connections: int
    cpu: dict[str, float]


def measure(session: Session) -> None:
    count, naive_count = (1_600, 400) if session.options.quick else (16_000, 3_200)
    users = get_user_model().objects
    users.bulk_create([get_user_model()(username=f"receiver-{n}") for n in range(ENDPOINTS)])
    owners = list(users.filter(username__startswith="receiver-").values_list("pk", flat=True))
    connections.close_all()
    found = session.interleave(
        {
            "QuikTrade": lambda seconds: _deliver(session, owners, count),
            "a task per delivery": lambda seconds: _naive(session, naive_count),
        },
        warm_up=False,
    )
    ours, peers = found["QuikTrade"], found["a task per delivery"]
    name = f"webhooks, one worker, {ENDPOINTS} endpoints, receiver at once"
    rates = [delivered.rate for delivered in ours]
    session.measure(name, "webhooks/s", rates, target=1_000.0)
    session.measure(
        name, "webhooks/s", rates, against="a task per delivery", reference=[delivered.rate for delivered in peers]
    )  # fmt: skip
    session.note(
        f"processor time per webhook: QuikTrade {ours[-1].cpu}, over {ours[-1].connections} connections; a task per "
        f"delivery {peers[-1].cpu} ms, over {peers[-1].connections}"
    )


def _deliver(session: Session, owners: list[int], count: int) -> Delivered:
    from orders.webhooks import services

    stage = session.stage
    stage.forget_orders()
    with stage.connect() as database, stage.receiver() as receiver:
        database.execute(_FORGET)
        stage.point_venue_at(receiver)
        halt_venue(demo.VENUE, actor=_ACTOR, reason="the orders only have to be accepted")
        for owner in owners:
            endpoint = services.create_endpoint(owner, url=f"{receiver.url}/{owner}")
            services.disable_endpoint(endpoint, actor=_ACTOR, reason="events are being prepared")
            seed.accept_orders(count // len(owners), owner_id=owner, venue=demo.VENUE)
        connections.close_all()
        with stage.worker(QUIKTRADE_WEBHOOK_ALLOW="127.0.0.0/8") as worker:
            stage.settle()
            meter = CpuMeter({"worker": worker.pid or 0, "postgres": stage.postgres_pid, "receiver": receiver.pid})
            database.execute(_ENABLE)
            if not wait_for(
                lambda: database.execute(_DELIVERED).fetchone() == (count,), _PATIENCE_SECONDS, pause=0.2
            ):  # fmt: skip
                raise NotDelivered(f"not all were delivered after {_PATIENCE_SECONDS:g} s")
            cpu = milliseconds_each(meter.read(), count)
        made, seconds, attempts, others = stage.ask(_DRAIN)
        heard = _heard(receiver, count)
    if (made, attempts, others) != (count, 1, 0):
        raise NotDelivered(f"{made} of {count} deliveries in up to {attempts} attempts, {others} not delivered")
    return Delivered(count / float(seconds), heard, cpu)


def _naive(session: Session, count: int) -> Delivered:
    """The same for one task per delivery: from the first task's beginning to the last one's end."""
    stage = session.stage
    with stage.receiver() as receiver, stage.connect(database="naive") as database:
        environment = {**os.environ, **stage.naive_settings(receiver, NAIVE_WORKERS)}
        subprocess.run(stage.naive("notify", str(count)), cwd=ROOT, env=environment, check=True)
        stage.settle()
        with stage.naive_cluster(receiver, NAIVE_WORKERS) as cluster:
            meter = CpuMeter({"worker": cluster.pid or 0, "postgres": stage.postgres_pid, "receiver": receiver.pid})
            if not wait_for(
                lambda: database.execute(_NAIVE_DELIVERED).fetchone() == (count,), _PATIENCE_SECONDS, pause=0.2
            ):  # fmt: skip
                raise NotDelivered(f"a task per delivery: not all were delivered after {_PATIENCE_SECONDS:g} s")
            cpu = milliseconds_each(meter.read(), count)
        row = database.execute(_NAIVE_DRAIN).fetchone()
        assert row is not None
        return Delivered(count / float(row[0]), _heard(receiver, count), cpu)


def _heard(receiver: Server, count: int) -> int:
    """Over how many connections the receiver was sent them. Raises: NotDelivered, unless it had each of them once."""
    stats = ask(receiver.port, "/")
    if (stats["ids"], stats["requests"]) != (count, count):
        raise NotDelivered(f"the receiver had {stats['requests']} requests of {stats['ids']} webhooks, not {count}")
    return int(stats["connections"])
