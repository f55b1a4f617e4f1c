"""`python -m benchmarks.speed.ingest WRITER BATCH SECONDS`: how many reports of a venue are written in a second.

WRITER is `session`, which writes a batch as the product does, or `orm`, which writes what a Django application writes
by its models: a transaction for each report. Both write the same rows into `DATABASE_URL`: executions, events, orders,
positions, and how far the stream was read. This process and its connection's backend share one core. The reports are
executions of random orders that work at the venue. Prints a line of JSON: reports a second, and the milliseconds of
processor time that one report takes here and in the backend.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import django

ORDERS = 4_000
QUANTITY = 10**9
LEASE_SECONDS = 60.0
STREAM = "benchmark"

Write = Callable[[int], None]
"""Writes the reports from this number on; one batch."""


def _work_at_the_venue(count: int) -> list[UUID]:
    """Orders of the demonstration's client, of which the venue has acknowledged each."""
    from django.contrib.auth import get_user_model

    from benchmarks.speed.seed import accept_orders
    from exchanges import demo
    from orders import lifecycle
    from orders.lifecycle import Event, Step
    from orders.models import Order

    accept_orders(count, owner_id=get_user_model().objects.get(username=demo.CLIENTS[0]).pk, venue=demo.VENUE)
    actor = "system:benchmark"
    claimed = lifecycle.claim(demo.VENUE, limit=count, in_flight=count, lease=LEASE_SECONDS, actor=actor)
    ids = [order.id for order in claimed]
    lifecycle.advance([Step(order_id=i, event=Event.ACKNOWLEDGED, venue_order_id=f"B-{i}") for i in ids], actor=actor)
    Order.objects.update(quantity=QUANTITY)
    return ids


def _session(ids: Sequence[UUID], batch: int) -> Write:
    from exchanges import demo
    from exchanges.models import ReportSession
    from exchanges.venue import ExecutionReport, ReportKind
    from orders.reports import Checkpoint, ingest

    token, dice = uuid4(), random.Random(1)  # noqa: S311  to be repeatable is the point
    now = datetime.now(UTC)
    ReportSession.objects.create(venue_id=demo.VENUE, stream=STREAM, token=token, lease_expires_at=now)

    def write(first: int) -> None:
        reports = [
            ExecutionReport(
                sequence=sequence,
                kind=ReportKind.EXECUTED,
                client_order_id=str(order_id := dice.choice(ids)),
                venue_order_id=f"B-{order_id}",
                execution_id=f"{STREAM}-{sequence}",
                quantity=100,
                price=Decimal("187.50"),
                at=now,
            )
            for sequence in range(first, first + batch)
        ]
        ingest(reports, Checkpoint(demo.VENUE, STREAM, token, first), lease=LEASE_SECONDS)

    return write


def _orm(ids: Sequence[UUID], batch: int) -> Write:
    from django.db import transaction
    from django.db.models import F

    from exchanges import demo
    from exchanges.models import ReportSession
    from orders.models import Execution, Order, OrderEvent, Position, Status

    token, dice = uuid4(), random.Random(1)  # noqa: S311
    now, price = datetime.now(UTC), Decimal("187.50")
    ReportSession.objects.create(venue_id=demo.VENUE, stream=STREAM, token=token, lease_expires_at=now)
    nothing = dict.fromkeys(("bought_quantity", "bought_value", "sold_quantity", "sold_value"), 0)

    def write(first: int) -> None:
        for sequence in range(first, first + batch):
            with transaction.atomic():
                order = Order.objects.select_for_update().get(pk=dice.choice(ids))
                Execution.objects.create(
                    venue_id=order.venue_id, execution_id=f"{STREAM}-{sequence}", kind=Execution.Kind.EXECUTED,
                    order=order, owner_id=order.owner_id, instrument=order.instrument, side=order.side, quantity=100,
                    price=price, venue_sequence=sequence, executed_at=now,
                )  # fmt: skip
                before = order.status
                filled, value = order.filled_quantity + 100, order.filled_value + 100 * price
                after = Status.FILLED if filled >= order.quantity else Status.PARTIALLY_FILLED
                Order.objects.filter(pk=order.pk).update(
                    filled_quantity=filled, filled_value=value, status=after, version=order.version + 1,
                    venue_sequence=sequence,
                )  # fmt: skip
                OrderEvent.objects.create(
                    order=order, sequence=order.version + 1, event="executed", from_status=before, to_status=after,
                    attempt=order.attempt, actor=f"venue:{order.venue_id}",
                    detail={"execution_id": f"{STREAM}-{sequence}", "quantity": 100, "price": "187.50"},
                )  # fmt: skip
                key = {"owner_id": order.owner_id, "venue_id": order.venue_id, "instrument": order.instrument}
                Position.objects.get_or_create(**key, defaults=nothing)
                Position.objects.filter(**key).update(
                    bought_quantity=F("bought_quantity") + 100, bought_value=F("bought_value") + 100 * price
                )
                session = ReportSession.objects.filter(venue_id=order.venue_id, stream=STREAM, token=token)
                if not session.update(next_sequence=sequence + 1):
                    raise RuntimeError("another session reads the stream")

    return write


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quiktrade.settings")
    django.setup()

    from django.db import connection
    from django.db.models import Sum

    from benchmarks.speed.processes import cpu_seconds
    from exchanges.models import ReportSession
    from orders.models import Order
    from quiktrade import memory

    writer, batch, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    ReportSession.objects.all().delete()
    ids = _work_at_the_venue(ORDERS)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
        cursor.execute("ANALYZE orders_order")
    core = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, core)
    os.sched_setaffinity(backend, core)
    write = (_session if writer == "session" else _orm)(ids, batch)
    memory.settle()  # as every process of the product that lives long
    write(1)
    first = written = 1 + batch
    cpu, begun_with, begun = time.process_time(), cpu_seconds(backend), time.perf_counter()
    while (taken := time.perf_counter() - begun) < seconds:
        write(written)
        written += batch
    cpu, served, count = time.process_time() - cpu, cpu_seconds(backend) - begun_with, written - first
    (filled,) = Order.objects.filter(pk__in=ids).aggregate(Sum("filled_quantity")).values()
    if filled != 100 * (written - 1):
        raise RuntimeError(f"{written - 1} reports were written, and {filled} shares were executed")
    each = {"rate": count / taken, "cpu_ms": 1000 * cpu / count, "backend_ms": 1000 * served / count}
    sys.stdout.write(json.dumps(each) + "\n")


if __name__ == "__main__":
    main()
