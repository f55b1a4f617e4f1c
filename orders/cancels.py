"""Cancels of named orders, here or at their venues, answered order by order as people are told."""

from collections.abc import Sequence
from uuid import UUID

from orders import archive
from orders.amendments import Selection, request_cancels, why_not_canceled
from quiktrade.outcomes import Outcome


def cancel_anywhere(order_ids: Sequence[UUID], *, actor: str, reason: str) -> list[Outcome]:
    """Cancel these orders, or have their venues cancel them. Returns one result for each, in order.

    Raises: ValueError, if there is no reason.
    """
    result = request_cancels(Selection(order_ids=list(order_ids)), actor=actor, reason=reason)
    done = dict.fromkeys(result.canceled, "canceled")
    done |= dict.fromkeys(result.requested, "its venue is asked to cancel it")
    already = set(result.already)
    left = archive.orders_anywhere([order_id for order_id in order_ids if order_id not in done])

    def outcome(order_id: UUID) -> Outcome:
        if order_id in done:
            return Outcome(order_id, True, done[order_id])
        if (order := left.get(order_id)) is None:
            return Outcome(order_id, False, "There is no such order.")
        open_before = order_id in already
        why = "A cancel of it was asked for and is not decided." if open_before else why_not_canceled(order)
        return Outcome(order_id, False, why, order.status)

    return [outcome(order_id) for order_id in order_ids]
