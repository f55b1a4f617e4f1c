"""What the simulated exchange shows of itself: GET /orders, /reports, /executions, /stats and /health.

No fault touches these.
"""

import re
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from exchanges.simulator.exchange import Exchange
from exchanges.simulator.faults import CANCEL, FIND, PLACE, REPLACE, Faults
from exchanges.simulator.replies import answer, refuse
from exchanges.simulator.validation import Refusal

PAGE = 1_000
MAX_PAGE = 10_000

_WHOLE = re.compile(r"[0-9]{1,12}", re.ASCII)


class Reads:
    def __init__(self, exchange: Exchange, faults: Faults) -> None:
        self._exchange = exchange
        self._faults = faults
        self._started_at = datetime.now(UTC)
        self._requests = {PLACE: 0, FIND: 0, CANCEL: 0, REPLACE: 0}
        self._under_way = self._most_under_way = 0

    def begin(self, call: str) -> None:
        """Count a request to place, find, cancel or replace, from its arrival to `end()`."""
        self._requests[call] += 1
        self._under_way += 1
        self._most_under_way = max(self._most_under_way, self._under_way)

    def end(self) -> None:
        self._under_way -= 1

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        views = {
            "/orders": self._orders,
            "/reports": self._reports,
            "/executions": self._executions,
            "/stats": self._stats,
            "/health": self._health,
        }
        view = views.get(request.path)
        if view is None:
            return refuse(Refusal(404, "no_such_path", f"there is nothing at {request.path}"))
        if request.method not in ("GET", "HEAD"):
            return refuse(Refusal(405, "method_not_allowed", f"{request.method} is not for {request.path}"))
        try:
            return answer(200, view(request))
        except Refusal as refusal:
            return refuse(refusal)

    def _orders(self, request: web.BaseRequest) -> dict[str, Any]:
        """Every order recorded, refused and double ones too, oldest first; go on with `after` = `next`.

        With open=1 those that work, as they stand.
        """
        after, limit = _page(request)
        if _whole(request, "open", 0):
            orders = self._exchange.open_orders(after, limit)
            return {"orders": orders, "next": orders[-1]["sequence"] if len(orders) == limit else None}
        page = self._exchange.ledger.page(after=after, limit=limit)
        more = after + len(page) < len(self._exchange.ledger)
        return {
            "orders": [order.as_json() for order in page],
            "next": page[-1].sequence if page and more else None,
        }

    def _reports(self, request: web.BaseRequest) -> dict[str, Any]:
        """The reports after a number, in their order; go on with `after` = `next`."""
        after, limit = _page(request)
        return self._after(after, self._exchange.ledger.reports.page(after=after, limit=limit), limit)

    def _executions(self, request: web.BaseRequest) -> dict[str, Any]:
        """The fills, busts and corrections among the next `limit` reports; go on with `after` = `next`."""
        after, limit = _page(request)
        return self._after(after, self._exchange.executions(after, limit), limit)

    def _after(self, after: int, reports: list[dict[str, Any]], limit: int) -> dict[str, Any]:
        exchange = self._exchange
        last = exchange.ledger.reports.last
        more = after + limit < last
        return {
            "stream": exchange.journal.prefix,
            "reports": reports,
            "last": last,
            "next": after + limit if more else None,
        }

    def _stats(self, request: web.BaseRequest) -> dict[str, Any]:
        ledger = self._exchange.ledger
        return {
            "orders": len(ledger),
            "working": ledger.working,
            "rejected": ledger.rejected,
            "doubles": ledger.doubles,
            "duplicates_refused": self._exchange.duplicates_refused,
            "reports": ledger.reports.last,
            "in_the_market": self._exchange.market.count() if self._exchange.market else None,
            "requests": self._requests,
            "most_under_way": self._most_under_way,
            "started_at": self._started_at.isoformat(),
            "journal": str(self._exchange.journal.path),
            **self._faults.as_json(),
        }

    def _health(self, request: web.BaseRequest) -> dict[str, Any]:
        return {"status": "ok", "orders": len(self._exchange.ledger)}


def after_of(request: web.BaseRequest) -> int:
    """The number in `after`. Raises: Refusal."""
    return _whole(request, "after", 0)


def _page(request: web.BaseRequest) -> tuple[int, int]:
    """`after` and `limit`. Raises: Refusal."""
    after, limit = after_of(request), _whole(request, "limit", PAGE)
    if not 0 < limit <= MAX_PAGE:
        raise Refusal(400, "invalid_field", f"limit: must be from 1 to {MAX_PAGE}")
    return after, limit


def _whole(request: web.BaseRequest, name: str, default: int) -> int:
    value = request.query.get(name, str(default))
    if not _WHOLE.fullmatch(value):
        raise Refusal(400, "invalid_field", f"{name}: must be a whole number")
    return int(value)
