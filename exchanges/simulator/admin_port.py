"""The exchange's own admin endpoint, on a port of its own so that it answers whatever is made to go wrong.

    GET    /admin/faults          what is set, how often each has struck, and what could be set
    PUT    /admin/faults          {"latency": {"seconds": [0.1, 0.5]}, "refuse": true}: these, and no others
    DELETE /admin/faults          none
    PUT    /admin/faults/{name}   true, or an object of parameters: this one, the others as they were
    DELETE /admin/faults/{name}
    POST   /admin/bust            {"execution_id"}: that execution never was
    POST   /admin/correct         {"execution_id", "quantity", "price"}: it was of this quantity, not more than it said
    POST   /admin/close           end the day; {"reports": N}, how many reports it made
    GET    /orders /stats /health the same as on the order port

A bust or a correction is answered with its reports. A change is in force when it is answered. It is JSON whatever
Content-Type says, so that curl -d will do.
"""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aiohttp import web

from exchanges.simulator.exchange import Exchange
from exchanges.simulator.faults import KINDS, FaultError, Faults
from exchanges.simulator.journal import JournalError
from exchanges.simulator.reads import Reads
from exchanges.simulator.replies import answer, cut, refuse
from exchanges.simulator.validation import Refusal, read_execution


class AdminPort:
    """`apply` is awaited after every change, to open or close the gate. `lost_memory` as of `OrderPort`."""

    def __init__(
        self,
        exchange: Exchange,
        faults: Faults,
        reads: Reads,
        apply: Callable[[], Awaitable[None]],
        lost_memory: Callable[[JournalError], None],
    ) -> None:
        self._exchange = exchange
        self._lost_memory = lost_memory
        self._faults = faults
        self._apply = apply
        self.application = web.Application()
        self.application.add_routes(
            [
                web.get("/admin/faults", self._show),
                web.put("/admin/faults", self._replace),
                web.delete("/admin/faults", self._clear),
                web.put("/admin/faults/{name}", self._put),
                web.delete("/admin/faults/{name}", self._remove),
                web.post("/admin/bust", partial(self._act, self._bust)),
                web.post("/admin/correct", partial(self._act, self._correct)),
                web.post("/admin/close", partial(self._act, self._close)),
                web.route("*", "/{path:.*}", reads.handle),
            ]
        )

    async def _show(self, request: web.Request) -> web.Response:
        available = {name: {"help": kind.help, "parameters": kind.parameters} for name, kind in KINDS.items()}
        return answer(200, self._faults.as_json() | {"available": available})

    async def _replace(self, request: web.Request) -> web.Response:
        content = await _json(request)
        if not isinstance(content, dict):
            return _bad("the body must be an object: {fault: parameters}")
        return await self._change(lambda: self._faults.replace(content))

    async def _clear(self, request: web.Request) -> web.Response:
        return await self._change(lambda: self._faults.replace({}))

    async def _put(self, request: web.Request) -> web.Response:
        content = await _json(request)
        return await self._change(lambda: self._faults.put(request.match_info["name"], content))

    async def _remove(self, request: web.Request) -> web.Response:
        return await self._change(lambda: self._faults.remove(request.match_info["name"]))

    async def _act(self, act: Callable[[Any], Any], request: web.Request) -> web.Response:
        content = await _json(request)
        try:
            result = act(content if isinstance(content, dict) else {})
            await self._exchange.journal.settle()
            return answer(200, result)
        except Refusal as refusal:
            return refuse(refusal)
        except JournalError as error:
            self._lost_memory(error)
            return cut(request)

    def _bust(self, content: dict[str, Any]) -> Any:
        return {"reports": self._exchange.bust(str(content.get("execution_id")), datetime.now(UTC))}

    def _correct(self, content: dict[str, Any]) -> Any:
        quantity, price = read_execution(content)
        return {"reports": self._exchange.correct(str(content.get("execution_id")), quantity, price, datetime.now(UTC))}

    def _close(self, content: dict[str, Any]) -> Any:
        return {"reports": self._exchange.close(datetime.now(UTC))}

    async def _change(self, change: Callable[[], None]) -> web.Response:
        try:
            change()
        except FaultError as error:
            return _bad(str(error))
        await self._apply()
        return answer(200, self._faults.as_json())


async def _json(request: web.Request) -> Any:
    """The body; None, which no fault accepts, if it is not JSON."""
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError):
        return None


def _bad(text: str) -> web.Response:
    return refuse(Refusal(400, "bad_fault", text))
