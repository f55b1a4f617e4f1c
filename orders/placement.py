"""Placement in the database: orders are claimed for an attempt, and its outcome is written.

The jobs use this module. Each function owns its transaction; the engine sends the orders.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from django.conf import settings
from django.db import transaction

from exchanges import circuit, directory
from exchanges.models import Venue
from exchanges.venue import Capabilities, ResendSafety, VenueError
from orders import deciding, lifecycle, metrics, requests, verdicts
from orders.lifecycle import MovedOrder, Step
from orders.recording import log_counted, log_recorded, record
from orders.request_verdicts import Verdict
from orders.requests import ClaimedRequest
from quiktrade.database.connection import is_gone
from quiktrade.tracing import spans

logger = logging.getLogger(__name__)

UNUSABLE_SETTLE_SECONDS = 60.0
"""For a request whose venue cannot be opened: long enough for any venue."""


KEPT_FOR_CANCELS = 8
"""One part in this many of what may be in flight at a venue is kept for cancels: the way out must not wait for slow
orders."""


def kept_for_cancels(in_flight: int) -> int:
    return in_flight // KEPT_FOR_CANCELS


@dataclass(frozen=True, slots=True)
class Claim:
    orders: list[MovedOrder]
    permit: circuit.Permit
    requests: Sequence[ClaimedRequest] = ()


NO_CLAIM = Claim([], circuit.NONE)


def claim_orders(code: str, *, wanted: int, actor: str, cancels: int = 0, reserve: bool = False) -> Claim:
    """Take up to `wanted` due orders for an attempt each, as many as the venue's circuit and limits admit.

    With `cancels` above 0, up to this many due cancels are taken before them, and then replaces, which count as orders.
    With `reserve`, orders and replaces leave room for cancels. A halted venue gets cancels alone. Claims for one venue
    follow one another, so that no other claim happens while the orders in flight are counted.
    """
    orders: list[MovedOrder] = []
    claimed: list[ClaimedRequest] = []
    lease, began = settings.PLACEMENT_LEASE_SECONDS, time.perf_counter()
    with transaction.atomic():
        permit = circuit.permit(code, max(wanted, cancels), cancels=cancels > 0)
        left = permit.sends
        in_flight = permit.in_flight - (kept_for_cancels(permit.in_flight) if reserve else 0)
        if left > 0 and cancels > 0:
            most = min(left, cancels)
            claimed = requests.claim(code, requests.CANCEL, limit=most, in_flight=permit.in_flight, lease=lease)
            left -= len(claimed)
            if not permit.halted and left > 0 and wanted > 0:
                most = min(left, wanted)
                replaces = requests.claim(code, requests.REPLACE, limit=most, in_flight=in_flight, lease=lease)
                left, wanted = left - len(replaces), wanted - len(replaces)
                claimed += replaces
        if not permit.halted and min(left, wanted) > 0:
            most = min(left, wanted)
            orders = lifecycle.claim(code, limit=most, in_flight=in_flight, lease=lease, actor=actor)
        if permit.rated and (sent := len(orders) + len(claimed)):
            circuit.spend(code, sent)
    if spans.recording():
        contexts = [request.traceparent for request in claimed] + [order.traceparent for order in orders]
        about: spans.Attributes = {"venue": code, "orders": len(orders), "requests": len(claimed)}
        spans.done("claim", contexts, time.perf_counter() - began, about)
    return Claim(orders, permit, claimed)


def shut_out(code: str, *, error: str) -> None:
    """Make the orders of a venue wait whose adapter cannot be opened. It is tried again from time to time."""
    logger.error(
        "Venue cannot be opened: its orders wait", extra={"event": "venue.shut_out", "venue": code, "error": error}
    )
    with transaction.atomic():
        circuit.permit(code, 0)
        circuit.record_silence(code, requests=circuit.SILENCES_TO_OPEN, probe=True, error=error)


class Outcome(Protocol):
    """What the outcome of an attempt says about its venue."""

    @property
    def venue(self) -> str: ...

    @property
    def answered(self) -> bool | None: ...

    @property
    def permit(self) -> circuit.Permit: ...

    @property
    def error(self) -> VenueError | None: ...


@dataclass(frozen=True, slots=True)
class RequestAttempt:
    """The outcome of one attempt of a request: what it means for the request, and what it says about the venue."""

    verdict: Verdict
    venue: str
    answered: bool | None
    permit: circuit.Permit
    error: VenueError | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one attempt: the step for its order, and what it says about the venue.

    `number` is the order's attempt, also where the step itself applies to any. `answered` None: it was not sent.
    `traceparent` is the context of the order.
    """

    step: Step
    venue: str
    answered: bool | None
    permit: circuit.Permit
    number: int | None = None
    error: VenueError | None = None
    traceparent: str | None = None


def record_attempts(attempts: Sequence[Attempt], *, actor: str) -> list[MovedOrder]:
    """Write the outcomes of attempts for their orders and for the circuits of their venues: either all or none."""
    steps = [attempt.step for attempt in attempts]
    began = time.perf_counter()
    with transaction.atomic():
        recorded = record(steps, actor=actor)
        for code in sorted({attempt.venue for attempt in attempts}):
            _record_health(code, [attempt for attempt in attempts if attempt.venue == code])
    contexts = (attempt.traceparent for attempt in attempts)
    spans.done("record", contexts, time.perf_counter() - began, {"orders": len(attempts)})
    log_recorded(recorded, steps)
    for attempt in attempts:
        metrics.ATTEMPTS(attempt.venue, attempt.step.event).inc()
    return recorded.moved


def record_requests(attempts: Sequence[RequestAttempt], *, actor: str) -> None:
    """Write the outcomes of attempts of requests, and for the circuits of their venues: either all or none."""
    with transaction.atomic():
        for code in sorted({attempt.venue for attempt in attempts}):
            of_venue = [attempt for attempt in attempts if attempt.venue == code]
            deciding.record(code, [attempt.verdict for attempt in of_venue], actor=actor)
            _record_health(code, of_venue)


def _record_health(code: str, attempts: Sequence[Outcome]) -> None:
    """The venue's own statement that it takes nothing comes first. Otherwise one answer proves that it is alive."""
    sent = [attempt for attempt in attempts if attempt.answered is not None]
    answered = [attempt for attempt in sent if attempt.answered]
    probe = any(attempt.permit.probe for attempt in sent)
    if errors := [attempt.error for attempt in sent if attempt.error and attempt.error.trouble]:
        circuit.record_trouble(code, errors, probe=probe)
    elif sent and not answered:
        circuit.record_silence(code, requests=len(sent), probe=probe, error=str(sent[-1].error))
    elif len(answered) < len(sent) or any(attempt.permit.troubled for attempt in sent):
        circuit.record_answer(code, probe=any(attempt.permit.probe for attempt in answered))


def sweep_orders(*, limit: int = 1000) -> int:
    """Make orders unconfirmed whose attempt died or hung, and take orders whose time is over out of the queue.

    Correct the times that a clock set ahead has written. Returns how many orders were moved.
    """
    overtaken = lifecycle.overtake(limit=limit, actor="system:sweep")
    log_counted(logging.WARNING, "Orders overtaken by time", overtaken)
    count = len(overtaken)
    requests.follow(None)
    for venue in Venue.objects.all():
        try:
            count += _sweep(venue, limit)
        except Exception as error:
            if is_gone(error):
                raise
            logger.exception("Sweep of a venue failed", extra={"event": "placement.sweep_failed", "venue": venue.code})
    return count


def _sweep(venue: Venue, limit: int) -> int:
    capabilities = directory.capabilities_if_usable(venue)
    delay = capabilities.settle_seconds if capabilities and capabilities.finds else None
    settle = capabilities.settle_seconds if capabilities else UNUSABLE_SETTLE_SECONDS
    with transaction.atomic():
        deciding.sweep(venue.code, settle=settle, limit=limit, actor="system:sweep")
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
    settle, furthest = capabilities.settle_seconds, verdicts.furthest_seconds(capabilities)
    lease = settings.PLACEMENT_LEASE_SECONDS
    orders += requests.pull_back(code, furthest=furthest, settle=settle, lease=lease, limit=limit)
    if orders or circuit.pull_back(code):
        logger.error(
            "Times far in the future put right: was the database's clock set back?",
            extra={"event": "clock.set_back", "orders": orders},
        )
