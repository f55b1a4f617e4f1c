"""Recording: writes the outcomes of attempts and look-ups for their orders, and logs them."""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.db import InterfaceError, OperationalError, transaction

from orders import archive, lifecycle, metrics, requests
from orders.lifecycle import Event, MovedOrder, Step
from orders.models import Order, OrderEvent
from orders.outcome_log import OutcomeLog
from orders.verdicts import canceling_step, spent_step

logger = logging.getLogger(__name__)


def record_outcomes(steps: Sequence[Step], *, actor: str) -> list[MovedOrder]:
    """Write the results of look-ups, or an operator's statement.

    An answer that came too late for its order changes nothing and is logged. So is one that cannot be written:
    its order stays as it is, and the others are written.
    """
    try:
        with transaction.atomic():
            recorded = record(steps, actor=actor)
    except (OperationalError, InterfaceError):
        raise  # the database is at fault, and not one outcome
    except Exception as error:
        if len(steps) > 1:
            half = len(steps) // 2
            return record_outcomes(steps[:half], actor=actor) + record_outcomes(steps[half:], actor=actor)
        for step in steps:
            fields = {"event": f"order.unwritable_{step.event}", "order_id": step.order_id, "error": str(error).strip()}
            logger.error("An outcome cannot be written: its order stays as it is", extra=fields)
        return []
    log_recorded(recorded, steps)
    return recorded.moved


class Recorded(NamedTuple):
    """The steps that were written, and those that were not."""

    moved: list[MovedOrder]
    given_up: list[MovedOrder]
    stale: list[Step]


def record(steps: Sequence[Step], *, actor: str) -> Recorded:
    """Move orders, fail those whose attempts are used up, and cancel those that wait for it and are not at the venue.

    The caller must have opened a transaction. Nothing is logged here: its commit may fail, and then all of this
    is done again.
    """
    moved, stale = lifecycle.advance(steps, actor=actor)
    if stale and (archived := archive.known([step.order_id for step in stale])):
        archive.bring_back(list(archived))  # a late answer is evidence, however late
        again = lifecycle.advance([step for step in stale if step.order_id in archived], actor=actor)
        moved += again.moved
        stale = [step for step in stale if step.order_id not in archived] + again.stale
    # A rejection closes the requests of its order; any other step says whether a cancel is open.
    if asked := [order.id for order in moved if order.open_cancel or order.event == Event.REJECTED_BY_VENUE]:
        canceling = [step for order in moved if (step := canceling_step(order))]
        lifecycle.advance(canceling, actor=actor)
        requests.follow(asked)
    spent = [step for order in moved if (step := spent_step(order))]
    given_up = lifecycle.advance(spent, actor=actor).moved
    return Recorded(moved, given_up, _not_recorded_before(stale) if stale else [])


def _not_recorded_before(stale: Sequence[Step]) -> list[Step]:
    """Leave out steps that the history already has: the answer to their commit was lost, and the work is repeated.

    Left out, too, is an acknowledgement if a report of the venue came before it, under the same id.
    """
    order_ids = [step.order_id for step in stale]
    orders = Order.objects.filter(pk__in=order_ids).values_list("pk", "venue_order_id", "venue_sequence", "ended")
    placed_as = {pk: venue_order_id for pk, venue_order_id, _, _ in orders}
    reported_as = {pk: venue_order_id for pk, venue_order_id, sequence, ended in orders if sequence or ended}
    written = OrderEvent.objects.filter(order_id__in=order_ids, event__in={step.event for step in stale})
    history = list(written.values_list("order_id", "event", "attempt", "detail"))

    def recorded(step: Step) -> bool:
        if step.event == Event.ACKNOWLEDGED and step.venue_order_id == reported_as.get(step.order_id):
            return True
        return (not step.venue_order_id or step.venue_order_id == placed_as.get(step.order_id)) and any(
            (order_id, event, detail) == (step.order_id, step.event, step.detail) and step.attempt in (None, attempt)
            for order_id, event, attempt, detail in history
        )

    return [step for step in stale if not recorded(step)]


_outcome_log = OutcomeLog()


def log_recorded(recorded: Recorded, steps: Sequence[Step]) -> None:
    _outcome_log.tell(recorded.moved, {step.order_id: step for step in steps})
    log_counted(logging.ERROR, "Orders need an operator", recorded.given_up)
    for step in recorded.stale:
        metrics.LATE_ANSWERS(step.event).inc()
        fields = {"event": f"order.stale_{step.event}", "order_id": step.order_id, "attempt": step.attempt}
        if step.event == Event.ACKNOWLEDGED:
            # The order is at the venue already, so somebody must see this.
            text = "The venue acknowledged an order again: two may be live there"
            logger.error(text, extra={**fields, "venue_order_id": step.venue_order_id})
        else:
            logger.warning("Answer came too late for its order", extra=fields)


def log_counted(level: int, text: str, orders: Iterable[MovedOrder]) -> None:
    """One line for all orders of a venue to which the same happened, with the ids of one of them."""
    alike: dict[tuple[str, str], list[MovedOrder]] = {}
    for order in orders:
        alike.setdefault((order.venue_id, order.event), []).append(order)
    for (venue, event), same in alike.items():
        fields = {"event": f"order.{event}", "venue": venue, "orders": len(same), "status": same[0].status}
        first = {"order_id": same[0].id, "client_order_id": same[0].client_order_id}
        logger.log(level, text, extra={**fields, **first})
