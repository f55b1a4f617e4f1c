"""What is counted of orders, venues, reports and webhooks. `quiktrade.metrics` says how, and how it is shown."""

from collections.abc import Sequence

from orders.lifecycle import Event
from quiktrade.metrics.counting import LONG_SECONDS, counter, histogram

ACCEPTED = counter(
    "orders_accepted",
    "Orders stored, and orders that an earlier request had stored (stored, replayed).",
    "venue",
    "how",
)
REFUSED = counter(
    "orders_refused", "Orders refused, by the code of the reason; of replaces, those beyond the client's limit.", "code"
)
STORE_SECONDS = histogram(
    "store_seconds", "Statements that store orders, each with the orders that arrived meanwhile, until their commit."
)
STORE_ROWS = histogram(
    "store_rows", "Orders in such a statement.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
)
CLAIMED = counter("orders_claimed", "Orders claimed to be sent.", "venue")
ATTEMPTS = counter("attempts", "Attempts to place orders whose outcomes were recorded.", "venue", "event")
VENUE_SECONDS = histogram(
    "venue_seconds", "Calls to venues, and whether they answered.", "venue", "answered", buckets=LONG_SECONDS
)
ORDER_WAIT_SECONDS = histogram(
    "order_wait_seconds",
    "From the acceptance of an order to the call that placed it.",
    "venue",
    buckets=LONG_SECONDS,
)
PLACEMENT_SECONDS = histogram(
    "placement_seconds",
    "From the acceptance of an order to its venue's acknowledgement.",
    "venue",
    buckets=LONG_SECONDS,
)
LATE_ANSWERS = counter("late_answers", "Outcomes that came too late for their orders.", "event")
LATE_ANSWERS(Event.ACKNOWLEDGED.value)  # 0 before it is 1: an alert does not see an increase from nothing to 1
LOOKUPS = counter("lookups", "Orders looked up at their venues, by what came of it.", "venue", "result")
REPORTS = counter("reports", "Reports of venues that were written.", "venue")
WEBHOOK_ATTEMPTS = counter("webhook_attempts", "Attempts to deliver webhooks (delivered, failed).", "result")


def count_placed(venue: str, *, waited: float, latency: float) -> None:
    """Count an order that its venue has just acknowledged, which was sent `waited` seconds after it was accepted."""
    ORDER_WAIT_SECONDS(venue).observe(max(0.0, waited))
    PLACEMENT_SECONDS(venue).observe(max(0.0, waited + latency))


def count_deliveries(delivered: Sequence[bool]) -> None:
    WEBHOOK_ATTEMPTS("delivered").inc(sum(delivered))
    WEBHOOK_ATTEMPTS("failed").inc(len(delivered) - sum(delivered))
