"""What the simulated exchange shows of itself: GET /orders, /stats and /health. No fault touches these."""

import re
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from exchanges.simulator.exchange import Exchange
from exchanges.simulator.faults import FIND, PLACE, Faults
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
        self._requests = {PLACE: 0, FIND: 0}
        self._under_way = self._most_under_way = 0

    def begin(self, call: str) -> None:
        """Count a request to place or find, from its arrival to `end()`."""
        self._requests[call] += 1
        self._under_way += 1
        self._most_under_way = max(self._most_under_way, self._under_way)

    def end(self) -> None:
        self._under_way -= 1

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        views = {"/orders": self._orders, "/stats": self._stats, "/health": self._health}
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
        """Every order recorded, refused and double ones too, oldest first; go on with `after` = `next`."""
        after = _whole(request, "after", 0)
        limit = _whole(request, "limit", PAGE)
        if not 0 < limit <= MAX_PAGE:
            raise Refusal(400, "invalid_field", f"limit: must be from 1 to {MAX_PAGE}")
        page = self._exchange.ledger.page(after=after, limit=limit)
        more = after + len(page) < len(self._exchange.ledger)
        return {
            "orders": [order.as_json() for order in page],
            "next": page[-1].sequence if page and more else None,
        }

    def _stats(self, request: web.BaseRequest) -> dict[str, Any]:
        ledger = self._exchange.ledger
        return {
            "orders": len(ledger),
            "working": ledger.working,
            "rejected": ledger.rejected,
            "doubles": ledger.doubles,
            "duplicates_refused": self._exchange.duplicates_refused,
            "requests": self._requests,
            "most_under_way": self._most_under_way,
            "started_at": self._started_at.isoformat(),
            "journal": str(self._exchange.journal.path),
            **self._faults.as_json(),
        }

    def _health(self, request: web.BaseRequest) -> dict[str, Any]:
        return {"status": "ok", "orders": len(self._exchange.ledger)}


def _whole(request: web.BaseRequest, name: str, default: int) -> int:
    value = request.query.get(name, str(default))
    if not _WHOLE.fullmatch(value):
        raise Refusal(400, "invalid_field", f"{name}: must be a whole number")
    return int(value)
