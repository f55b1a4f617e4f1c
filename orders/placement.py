"""Placement in the database: orders are claimed for an attempt, and its outcome is written.

The jobs use this module. Each function owns its transaction; the engine sends the orders.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from exchanges import circuit, directory
from exchanges.models import Venue
from exchanges.venue import Capabilities, ResendSafety, VenueError
from orders import lifecycle, verdicts
from orders.lifecycle import MovedOrder, Step
from orders.recording import log_counted, log_recorded, record
from quiktrade.database.connection import is_gone

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    orders: list[MovedOrder]
    permit: circuit.Permit


NO_CLAIM = Claim([], circuit.NONE)


def claim_orders(code: str, *, wanted: int, actor: str) -> Claim:
    """Take up to `wanted` due orders for an attempt each, as many as the venue's circuit and limits admit.

    Claims for one venue follow one another, so that no other claim happens while the orders in flight are counted.
    """
    orders: list[MovedOrder] = []
    with transaction.atomic():
        permit = circuit.permit(code, wanted)
        if permit.sends > 0:
            limits = {"limit": permit.sends, "in_flight": permit.in_flight}
            orders = lifecycle.claim(code, **limits, lease=settings.PLACEMENT_LEASE_SECONDS, actor=actor)
            if permit.rated and orders:
                circuit.spend(code, len(orders))
    return Claim(orders, permit)


def shut_out(code: str, *, error: str) -> None:
    """Make the orders of a venue wait whose adapter cannot be opened. It is tried again from time to time."""
    logger.error("Venue cannot be opened: its orders wait", extra={"venue": code, "error": error})
    with transaction.atomic():
        circuit.permit(code, 0)
        circuit.record_silence(code, requests=circuit.SILENCES_TO_OPEN, probe=True, error=error)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one attempt: the step for its order, and what it says about the venue.

    `number` is the order's attempt, also where the step itself applies to any. `answered` None: it was not sent.
    """

    step: Step
    venue: str
    answered: bool | None
    permit: circuit.Permit
    number: int | None = None
    error: VenueError | None = None


def record_attempts(attempts: Sequence[Attempt], *, actor: str) -> list[MovedOrder]:
    """Write the outcomes of attempts for their orders and for the circuits of their venues: either all or none."""
    steps = [attempt.step for attempt in attempts]
    with transaction.atomic():
        recorded = record(steps, actor=actor)
        for code in sorted({attempt.venue for attempt in attempts}):
            _record_health(code, [attempt for attempt in attempts if attempt.venue == code])
    log_recorded(recorded, steps)
    return recorded.moved


def _record_health(code: str, attempts: Sequence[Attempt]) -> None:
    """The venue's own statement that it takes nothing comes first. Otherwise one answer proves that it is alive."""
    sent = [attempt for attempt in attempts if attempt.answered is not None]
    answered = [attempt for attempt in sent if attempt.answered]
    probe = any(attempt.permit.probe for attempt in sent)
    if errors := [attempt.error for attempt in sent if attempt.error and attempt.error.trouble]:
        circuit.record_trouble(code, errors, probe=probe)
    elif sent and not answered:
        circuit.record_silence(code, requests=len(sent), probe=probe, error=sent[-1].step.reason)
    elif len(answered) < len(sent) or any(attempt.permit.troubled for attempt in sent):
        circuit.record_answer(code, probe=any(attempt.permit.probe for attempt in answered))


def sweep_orders(*, limit: int = 1000) -> int:
    """Make orders unconfirmed whose attempt died or hung, and take orders whose time is over out of the queue.

    Correct the times that a clock set ahead has written. Returns how many orders were moved.
    """
    overtaken = lifecycle.overtake(limit=limit, actor="system:sweep")
    log_counted(logging.WARNING, "Orders overtaken by time", overtaken)
    count = len(overtaken)
    for venue in Venue.objects.all():
        try:
            count += _sweep(venue, limit)
        except Exception as error:
            if is_gone(error):
                raise
            logger.exception("Sweep of a venue failed", extra={"venue": venue.code})
    return count


def _sweep(venue: Venue, limit: int) -> int:
    capabilities = directory.capabilities_if_usable(venue)
    delay = capabilities.settle_seconds if capabilities and capabilities.finds else None
    swept = lifecycle.sweep(venue.code, delay=delay, limit=limit, actor="system:sweep")
    log_counted(logging.WARNING, "Attempts ended without a result: their leases ran out", swept)
    if capabilities:
        _pull_back(venue.code, capabilities, limit)
    return len(swept)


def _pull_back(code: str, capabilities: Capabilities, limit: int) -> None:
    orders = lifecycle.pull_back(
        code,
        furthest=verdicts.furthest_seconds(capabilities),
        settle=capabilities.settle_seconds,
        lease=settings.PLACEMENT_LEASE_SECONDS,
        stamped=capabilities.resend_safety is ResendSafety.REFUSES_STALE_REQUESTS,
        limit=limit,
    )
    if orders or circuit.pull_back(code):
        logger.error("Times far in the future put right: was the database's clock set back?", extra={"orders": orders})
