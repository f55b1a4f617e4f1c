"""The background jobs, and which of them the order rows need.

A job carries no order: it finds its work in the rows. The job cluster calls `demand()` to learn which jobs to start;
the schedules also start them once a minute.
"""

import asyncio
import logging
import time
from datetime import timedelta
from functools import cache

import uvloop
from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone
from django_q.models import Schedule

from orders import placement, reconciliation, retention, selectors
from orders.engine import Engine
from orders.models import new_order_id
from orders.webhooks import rows as webhooks
from orders.webhooks.delivery import Deliverer
from quiktrade.jobs import slots, work
from quiktrade.jobs.work import Demand

logger = logging.getLogger(__name__)

PLACE, SWEEP, RECONCILE = (f"orders.tasks.{job}" for job in ("place_due_orders", "sweep_orders", "reconcile_orders"))
DELIVER = "orders.tasks.deliver_webhooks"
MOVE = "orders.tasks.move_old_orders"

PLACING_ASKS_SECONDS = 0.5
"""While a placement job runs, the rows are asked this often for the other jobs."""

PLACING_WAIT_SECONDS = 0.05
"""Meanwhile it is waited this long at a time for that job to end."""

SWEEP_SECONDS = 60.0
"""The sweep runs this often by this process's own clock. It also corrects times, including those of the schedules, that
a clock wrote before it was set back."""

WEBHOOKS_ASK_SECONDS = 0.25
"""The rows are asked at most this often whether there is something for webhooks. A run that goes on asks itself."""

WEBHOOKS_WITHOUT_SECONDS = 60.0
"""They are not asked for this long after that has failed: it must not hold up what orders need."""

_webhooks_asked_at = 0.0
_asked_at = 0.0
_swept_at = 0.0
_moved_up_to = retention.BEGINNING


def demand() -> Demand:
    """The work that the order rows need from this machine now. It is safe to ask at any time and to act twice."""
    global _asked_at, _swept_at
    asked_lately = time.monotonic() - _asked_at < PLACING_ASKS_SECONDS
    placing = not slots.freed("place", within=PLACING_WAIT_SECONDS if asked_lately else 0.0)
    if placing and asked_lately:
        # The running placement job listens to the doorbell itself. Asking the database at every notification would
        # cost as much as placing the orders.
        return Demand([], 0.0, listen=False)
    _asked_at = time.monotonic()
    due = selectors.work_due()
    jobs, wait = [], 1.0
    sweep = due.sweep
    if time.monotonic() - _swept_at >= SWEEP_SECONDS:
        _swept_at, sweep = time.monotonic(), 0.0
    for job, slot, seconds in (
        (PLACE, "place", due.place),
        (SWEEP, "sweep", sweep),
        (RECONCILE, "reconcile", due.reconcile),
    ):
        if seconds is None:
            continue
        if seconds > 0:
            wait = min(wait, seconds)
        elif not slots.taken(slot):
            jobs.append(job)
    if PLACE not in jobs and (seconds := _webhooks_due()) is not None:
        if seconds > 0:
            wait = min(wait, seconds)
        else:
            jobs.append(DELIVER)
    if placing:
        return Demand(jobs, 0.0, listen=False)
    return Demand(jobs, max(wait, 0.001), listen=True)


def _webhooks_due() -> float | None:
    """Seconds until webhooks have something to deliver, or are worth asking for again; None for nothing."""
    global _webhooks_asked_at
    if slots.taken("webhooks"):
        return None
    now = time.monotonic()
    if (early := WEBHOOKS_ASK_SECONDS - (now - _webhooks_asked_at)) > 0:
        return early
    _webhooks_asked_at = now
    try:
        return webhooks.seconds_until_due()
    except DatabaseError as error:
        _webhooks_asked_at = now + WEBHOOKS_WITHOUT_SECONDS
        logger.error(
            "Webhooks cannot be asked for", extra={"event": "webhook.demand_unknown", "error": str(error).strip()}
        )
        connection.close()
        return None


@cache
def _engine() -> tuple[asyncio.AbstractEventLoop, Engine]:
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop, Engine()


@cache
def _deliverer() -> Deliverer:
    engine = _engine()[1]
    return Deliverer(engine.claims, engine.records)  # a process runs one job at a time, so they share connections


def preload() -> None:
    """Load now what jobs would load on first use, so that processes forked afterwards share it.

    It saves each of them 2 MB (measured). Raises: django.db.DatabaseError.
    """
    "localhost".encode("idna")  # its tables
    demand()
    sweep_orders()
    selectors.doubts([new_order_id()])


def warm_up() -> None:
    """Do what the first job of a new worker process would otherwise wait for (250 ms, measured)."""
    loop, engine = _engine()
    loop.run_until_complete(engine.connect())


def place_due_orders() -> None:
    """Place the due orders of all venues, until none is left or the job's time is up."""
    with slots.take("place") as slot:
        if slot is None:
            return
        loop, engine = _engine()
        loop.run_until_complete(
            engine.run(
                seconds=settings.PLACEMENT_DRAIN_SECONDS,
                linger=settings.PLACEMENT_LINGER_SECONDS,
                stopping=work.stop_requested,
                hand_over=slot.release,
            )
        )


def sweep_orders() -> None:
    """Make orders unconfirmed whose attempt died, and correct times that a clock set ahead has written."""
    with slots.take("sweep") as slot:
        if slot is not None:
            placement.sweep_orders()
            _recall_schedules()


def _recall_schedules() -> None:
    """A job that runs every minute and is due in more than two was planned by a clock that was ahead: it is due now."""
    now = timezone.now()  # django-q2 goes by the application's clock
    ours = Schedule.objects.filter(
        func__in=(PLACE, SWEEP, RECONCILE, DELIVER, MOVE), schedule_type=Schedule.MINUTES, minutes=1
    )
    ours.filter(next_run__gt=now + timedelta(minutes=2)).update(next_run=now)


def reconcile_orders() -> None:
    """Look up the unconfirmed orders that are due for it."""
    with slots.take("reconcile") as slot:
        if slot is not None:
            reconciliation.reconcile_due_orders(stopping=work.stop_requested)


def deliver_webhooks() -> None:
    """Deliver what is due to webhooks, until nothing is or the job's time is up.

    A node runs one such job at a time, whatever its receivers do: one process of its cluster, and not those that
    place.
    """
    with slots.take("webhooks") as slot:
        if slot is not None:
            webhooks.remove_old(seconds=1.0)
            loop, _ = _engine()
            loop.run_until_complete(
                _deliverer().run(
                    seconds=settings.WEBHOOK_RUN_SECONDS,
                    linger=settings.WEBHOOK_LINGER_SECONDS,
                    stopping=work.stop_requested,
                )
            )


def move_old_orders() -> None:
    """Move orders that ended long ago to the archive, for as long as one run may take.

    It continues where this process's last run ended, so orders that must stay do not keep it from those behind them.
    """
    global _moved_up_to
    with slots.take("move") as slot:
        if slot is not None and (before := retention.ended_before()):
            run = retention.move_orders(
                before,
                seconds=settings.MOVE_RUN_SECONDS,
                rate=settings.MOVE_RATE,
                after=_moved_up_to,
                stopping=work.stop_requested,
            )
            _moved_up_to = run.after
