"""What a member sends to the exchange and asks of it over HTTP, with the faults that strike it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from urllib.parse import unquote

from aiohttp import web

from exchanges.simulator.exchange import PROPER, Conduct, Exchange
from exchanges.simulator.faults import CANCEL, FIND, PLACE, REPLACE, Fault, Faults
from exchanges.simulator.journal import JournalError
from exchanges.simulator.reads import Reads
from exchanges.simulator.replies import answer, cut, cut_short, refuse
from exchanges.simulator.stream import Streams
from exchanges.simulator.validation import Refusal, read_cancel, read_order, read_replace

ORDERS = "/orders"
ORDER = "/orders/"
STATE = "/state"
REPORTS = "/reports"

Act = Callable[[web.BaseRequest, Conduct], Awaitable[web.Response]]


class OrderPort:
    """`lost_memory` is called when the journal fails; the process must then end without answering."""

    def __init__(
        self,
        exchange: Exchange,
        faults: Faults,
        reads: Reads,
        streams: Streams,
        lost_memory: Callable[[JournalError], None],
    ) -> None:
        self._exchange = exchange
        self._faults = faults
        self._reads = reads
        self._streams = streams
        self._lost_memory = lost_memory

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call: str
        act: Act
        if request.method == "POST" and request.path == ORDERS:
            call, act = PLACE, self._place
        elif request.method == "GET" and request.path.startswith(ORDER):
            call, act = FIND, self._state if request.path.endswith(STATE) else self._find
        elif request.method == "POST" and request.path.startswith(ORDER) and request.path.endswith(f"/{CANCEL}"):
            call, act = CANCEL, partial(self._amend, CANCEL)
        elif request.method == "POST" and request.path.startswith(ORDER) and request.path.endswith(f"/{REPLACE}"):
            call, act = REPLACE, partial(self._amend, REPLACE)
        elif request.path == REPORTS and request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._stream(request)
        else:
            return await self._reads.handle(request)
        self._reads.begin(call)
        try:
            struck = self._faults.draw(call)
            if struck:
                return await _troubled(request, act, struck)
            return await act(request, PROPER)
        except JournalError as error:
            self._lost_memory(error)
            return cut(request)
        finally:
            self._reads.end()

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._streams.serve(request)
        except JournalError as error:
            self._lost_memory(error)
            return cut(request)

    async def _place(self, request: web.BaseRequest, conduct: Conduct) -> web.Response:
        try:
            order = await self._exchange.accept(read_order(await _body(request)), conduct)
        except Refusal as refusal:
            return refuse(refusal)
        return answer(
            201,
            {
                "client_order_id": order.request.client_order_id,
                "venue_order_id": order.venue_order_id,
                "status": order.status,
            },
        )

    async def _amend(self, kind: str, request: web.BaseRequest, conduct: Conduct) -> web.Response:
        client_order_id = _named(request, f"/{kind}")
        try:
            body = await _body(request)
            if kind == CANCEL:
                result = await self._exchange.cancel(client_order_id, read_cancel(body), conduct)
            else:
                result = await self._exchange.replace(client_order_id, read_replace(body), conduct)
        except Refusal as refusal:
            return refuse(refusal)
        return answer(result.status, result.content)

    async def _state(self, request: web.BaseRequest, conduct: Conduct) -> web.Response:
        try:
            return answer(200, await self._exchange.state(_named(request, STATE)))
        except Refusal as refusal:
            return refuse(refusal)

    async def _find(self, request: web.BaseRequest, conduct: Conduct) -> web.Response:
        try:
            order = await self._exchange.find(_named(request))
        except Refusal as refusal:
            return refuse(refusal)
        return answer(
            200,
            {
                "client_order_id": order.request.client_order_id,
                "venue_order_id": order.venue_order_id,
                "status": order.status,
                "code": order.code,
                "text": order.text,
            },
        )


def _named(request: web.BaseRequest, ending: str = "") -> str:
    """The client_order_id in the path."""
    return unquote(request.rel_url.raw_path.removeprefix(ORDER).removesuffix(ending))


async def _body(request: web.BaseRequest) -> bytes:
    """Raises: Refusal."""
    if request.content_type != "application/json":
        raise Refusal(415, "unsupported_media_type", "the body must be application/json")
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refusal(413, "request_too_large", "the body is too large") from None


async def _troubled(request: web.BaseRequest, act: Act, struck: Mapping[str, Fault]) -> web.Response:
    if hold := struck.get("hold"):
        with suppress(web.HTTPRequestEntityTooLarge):
            await request.read()  # read it now: once the sender has gone it cannot be read
        await asyncio.sleep(hold.duration())
    if stall := struck.get("stall"):
        await asyncio.sleep(stall.duration())
        return cut(request)
    if "reset" in struck:
        return cut(request, reset=True)
    if limit := struck.get("rate_limit"):
        text = "too many requests: this one was discarded"
        return answer(429, {"code": "rate_limited", "text": text}, _retry_after(limit))
    if "lock_out" in struck:
        return answer(401, {"code": "not_authorized", "text": "the credentials are not valid here"})
    failure = struck.get("http_5xx")
    if failure and not failure.recorded:
        return _failed(failure)
    response = await act(request, _conduct(struck))
    if latency := struck.get("latency"):
        await asyncio.sleep(latency.duration())
    if failure:
        return _failed(failure)
    if "accept_then_drop" in struck:
        return cut(request)
    if "truncate" in struck:
        return cut_short(request, response)
    return response


def _failed(failure: Fault) -> web.Response:
    text = "the exchange is in trouble"
    return answer(failure.status, {"code": "internal_error", "text": text}, _retry_after(failure))


def _retry_after(fault: Fault) -> dict[str, str]:
    seconds = fault.retry_after
    if seconds is None:
        return {}
    return {"Retry-After": formatdate(time.time() + seconds, usegmt=True) if fault.date else f"{seconds:g}"}


def _conduct(struck: Mapping[str, Fault]) -> Conduct:
    window, fence = struck.get("duplicate_window"), struck.get("enforce_valid_until")
    return Conduct(
        halted="reject" in struck,
        forget_duplicates="forget_duplicates" in struck,
        duplicate_window_seconds=window.duration() if window else None,
        forget_rejections="forget_rejections" in struck,
        enforce_valid_until=fence is not None,
        clock_ahead=fence.clock_ahead if fence else 0.0,
        ignore_cancel="ignore_cancel" in struck,
    )
