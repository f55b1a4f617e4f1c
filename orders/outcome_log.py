"""Logs attempts and look-ups. The history of an order has every one of them.

A line for each failed attempt would bury everything else: a venue that turns its orders away makes ten of them for
each order. So the first line says that a venue is in trouble, and further failures are counted. The count is logged
after a minute, then less and less often, and once orders have been placed there without a failure for a while.

Each process counts what it has recorded itself.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from uuid import UUID

from orders.lifecycle import Event, MovedOrder, Step
from quiktrade.tracing.traceparent import trace_of

logger = logging.getLogger(__name__)

FAILED = frozenset((Event.NOT_SENT, Event.VENUE_UNREACHABLE, Event.TURNED_AWAY, Event.OUTCOME_UNKNOWN, Event.NOT_FOUND))
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
QUIET_SECONDS = 10.0
"""After this long without a failure, a venue's trouble is over with the next order that is placed there. If it were
shorter, a venue that fails now and then would begin and end its trouble all the time."""

LATE_SECONDS = 1.0
"""An order is late if it waited longer than this from its acceptance to the call that placed it. The wait is a few
milliseconds normally, and 20 to 100 under load: a late order was retried, looked up or held back. The venue's own time
does not count: one that takes two seconds for every order is slow, and no order late."""

MOST_LINES = 10
WINDOW_SECONDS = 60.0
"""After an outage thousands of orders are late at once. In this time `MOST_LINES` have a line each, the rest one."""


@dataclass
class _Trouble:
    began: float
    heard: float
    told: float
    pause: float = FIRST_PAUSE_SECONDS
    failures: Counter[str] = field(default_factory=Counter)


@dataclass
class _Window:
    began: float
    lines: int = 0
    more: int = 0


class OutcomeLog:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._troubles: dict[str, _Trouble] = {}
        self._windows: dict[tuple[str, str, int], _Window] = {}

    def tell(self, moved: Iterable[MovedOrder], steps: Mapping[UUID, Step]) -> None:
        """Log the outcomes of orders. The steps are those that had to be recorded."""
        with self._lock:
            now = self._clock()
            self._close_windows(now)
            for order in moved:
                step = steps[order.id]
                if order.event == Event.ACKNOWLEDGED:
                    self._placed(order, step, now)
                elif order.event in FAILED:
                    self._failed(order, step, now)
                else:  # the venue's refusal, or an operator's word
                    self._one_of_few(logging.INFO, "Order moved", order, now, reason=step.reason)

    def _placed(self, order: MovedOrder, step: Step, now: float) -> None:
        trouble = self._troubles.get(order.venue_id)
        if trouble and now - trouble.heard >= QUIET_SECONDS:
            del self._troubles[order.venue_id]
            fields = _trouble_fields(order.venue_id, trouble)
            logger.info("Venue's trouble is over", extra={"event": "venue.trouble_over", **fields})
        waited = order.age_seconds - step.detail.get("latency_ms", 0.0) / 1000
        if waited >= LATE_SECONDS:
            self._one_of_few(logging.INFO, "Order placed late", order, now, waited_seconds=round(waited, 3))
        elif logger.isEnabledFor(logging.DEBUG):
            logger.debug("Order moved", extra=_order_fields(order))

    def _failed(self, order: MovedOrder, step: Step, now: float) -> None:
        trouble = self._troubles.get(order.venue_id)
        if trouble is None:
            trouble = self._troubles[order.venue_id] = _Trouble(began=now, heard=now, told=float("-inf"))
        trouble.heard = now
        trouble.failures[order.event] += 1
        if now - trouble.told < trouble.pause:
            return
        if trouble.told > float("-inf"):
            trouble.pause = min(2 * trouble.pause, LONGEST_PAUSE_SECONDS)
        trouble.told = now
        latest = {"latest": order.client_order_id, "order_id": order.id, "reason": step.reason}
        fields = _trouble_fields(order.venue_id, trouble)
        logger.warning("Attempts to place orders fail", extra={"event": "venue.trouble", **fields, **latest})

    def _one_of_few(self, level: int, text: str, order: MovedOrder, now: float, **fields: Any) -> None:
        window = self._windows.setdefault((text, order.venue_id, level), _Window(now))
        window.lines += 1
        if window.lines > MOST_LINES:
            window.more += 1
        else:
            logger.log(level, text, extra={**_order_fields(order), **fields})

    def _close_windows(self, now: float) -> None:
        for key, window in list(self._windows.items()):
            if now - window.began >= WINDOW_SECONDS:
                del self._windows[key]
                text, venue, level = key
                if window.more:
                    logger.log(
                        level,
                        "%s: more of them",
                        text,
                        extra={"event": "order.more_alike", "venue": venue, "orders": window.more},
                    )


def _order_fields(order: MovedOrder) -> dict[str, Any]:
    trace_id = trace_of(order.traceparent)
    return {
        "event": f"order.{order.event}",
        "order_id": order.id,
        "client_order_id": order.client_order_id,
        "venue": order.venue_id,
        "attempt": order.attempt,
        "status": order.status,
        **({"trace_id": trace_id} if trace_id else {}),
    }


def _trouble_fields(venue: str, trouble: _Trouble) -> dict[str, Any]:
    """Failures since the trouble began."""
    seconds = round(trouble.heard - trouble.began)
    return {"venue": venue, "failures": trouble.failures.total(), **trouble.failures, "seconds": seconds}
