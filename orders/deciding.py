"""Recording of what attempts and look-ups of requests have shown, and what that means for their orders.

What a venue said is folded into the order like a report of its stream. The rest moves the request alone. Unless it says
otherwise, a function needs a transaction of its caller, in which nothing is locked before.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from django.db import transaction

from exchanges.venue import Capabilities, Report, VenueError
from orders import lifecycle, request_verdicts, requests
from orders.lifecycle import Event, Step
from orders.models import RequestStatus
from orders.reports import apply_found
from orders.request_verdicts import Said, Unknown, Verdict
from orders.requests import CANCEL, REPLACE, Followed, Move, RequestLookUp
from quiktrade.jobs import doorbell
from quiktrade.outcomes import Outcome

logger = logging.getLogger(__name__)


def record(venue: str, verdicts: Sequence[Verdict], *, actor: str) -> None:
    """Write what attempts or look-ups mean. An answer that is late for its request changes nothing, unless it is the
    venue's word, which counts whenever it comes."""
    words = [verdict for verdict in verdicts if isinstance(verdict, Said)]
    moves = [verdict for verdict in verdicts if isinstance(verdict, Move)]
    lifecycle.lock_orders([UUID(word.report.client_order_id) for word in words] + [each.id for each in moves])
    heard = [word.refusal for word in words if word.refusal]
    doubted = requests.doubt(heard) if heard else set()
    if said := [word.report for word in words if not (word.refusal and word.refusal.id in doubted)]:
        apply_found([replace(report, sequence=n - len(said)) for n, report in enumerate(said)], venue, actor=actor)
    if moves:
        # Where a cancel's answer waits for what came of a replace, both are asked about at once.
        if at_once := [each.id for each in moves if each.status is RequestStatus.SENT and each.look_up == 0.0]:
            requests.look_up_with_others(at_once)
        _go_on(requests.move(moves), {each.id: each.error for each in moves}, actor=actor)


def record_look_ups(
    venue: str,
    due: Sequence[RequestLookUp],
    answers: Mapping[UUID, Report | VenueError | None],
    capabilities: Capabilities,
    *,
    actor: str,
) -> list[Outcome]:
    """Write what a venue said of the orders of requests. Those of which it decided nothing are looked up again later.

    Not in a transaction.
    """
    verdicts: list[Verdict] = []
    undecided: dict[UUID, str] = {}
    for request in due:
        answer = answers[request.order_id]
        verdict = request_verdicts.after_look_up(request, answer, capabilities) if capabilities.finds else None
        if isinstance(verdict, Said | Move):
            verdicts.append(verdict)
            continue
        undecided[request.id] = f"Look-up failed: {answer}" if isinstance(answer, VenueError) else UNDECIDED
        if isinstance(verdict, Unknown):
            fields = {"event": "request.order_unknown", "venue": venue, "order_id": request.order_id}
            logger.error("A venue does not know an order that it acknowledged", extra=fields)
    with transaction.atomic():
        record(venue, verdicts, actor=actor)
        requests.postpone(undecided)
    return [Outcome(request.id, request.id not in undecided, undecided.get(request.id, "decided")) for request in due]


UNDECIDED = "The venue has not shown what came of it."


def sweep(venue: str, *, settle: float, limit: int, actor: str) -> int:
    """Take back the requests of a venue whose leases ran out. Returns how many there were."""
    swept = requests.sweep(venue, settle=settle, limit=limit)
    if swept:
        logger.warning(
            "Attempts of requests ended without a result",
            extra={"event": "request.leases_ran_out", "venue": venue, "requests": len(swept)},
        )
        _go_on(swept, {}, actor=actor)
    return len(swept)


def _go_on(moved: Sequence[Followed], errors: Mapping[UUID, str], *, actor: str) -> None:
    """What follows for the orders of requests that have moved."""
    steps = []
    for request in moved:
        if request.status == RequestStatus.FAILED:
            event = Event.CANCEL_WITHDRAWN if request.kind == CANCEL else Event.REPLACE_WITHDRAWN
            reason = errors.get(request.id, "")
            steps.append(Step(order_id=request.order_id, event=event, reason=reason, request_id=request.id))
    replaced = [request.order_id for request in moved if request.kind == REPLACE]
    for given_up in requests.supersede(replaced) if replaced else []:
        reason = "A cancel was asked for."
        steps.append(
            Step(
                order_id=given_up.order_id,
                event=Event.REPLACE_WITHDRAWN,
                reason=reason,
                request_id=given_up.request_id,
            )
        )
    if steps:
        lifecycle.advance(steps, actor=actor)
    # A cancel that waited for a replace on the wire can be sent now.
    if replaced and requests.follow(replaced):
        doorbell.ring()
