"""The simulated exchange as a venue. What it promises is written in `exchanges/simulator/__init__.py`."""

import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson
from yarl import URL

from exchanges.venue import (
    LONGEST_ID,
    Acknowledgement,
    CancelRequest,
    Capabilities,
    Done,
    ExecutionReport,
    NewOrder,
    News,
    NotSent,
    OrderRejected,
    OutcomeUnknown,
    ReplaceRequest,
    Report,
    ReportKind,
    ReportStatus,
    RequestRefused,
    RequestVenue,
    ResendSafety,
    StreamEnd,
    Taken,
    VenueError,
    VenueTrouble,
)
from quiktrade.decimals import decimal_text

if TYPE_CHECKING:
    from exchanges.adapters.http_calls import HttpCalls, HttpReply

TIMEOUT_SECONDS = 5.0
"""Ten times the slowest answer of a venue worth the name, and well below the lease of an attempt."""

SETTLE_SECONDS = 2.0
"""When we give up a call, our kernel drops what it has not delivered (`HttpCalls`). After that the request can exist
only in the network and in the exchange's buffers, for milliseconds; this is generous."""

IN_FLIGHT = 1024

DEFINITE_REFUSALS = frozenset(
    {
        "malformed_request",
        "invalid_field",
        "instrument_not_tradable",
        "quantity_above_maximum",
        "trading_halted",
    }
)
"""With these codes, by its documents, the exchange refuses the order for good. No other refusal is trusted."""

DEFINITE_REFUSALS_TO_AMEND = (DEFINITE_REFUSALS | {"no_market"}) - {"instrument_not_tradable"}
"""Likewise, a request to cancel or replace."""

BY_CONTENT = frozenset({"malformed_request", "invalid_field", "quantity_above_maximum"})
"""With these codes, by its documents, it refuses every copy of the order likewise."""

ORDER_TYPES = frozenset({"market", "limit", "stop", "stop_limit"})
TIMES_IN_FORCE = frozenset({"day", "gtc", "ioc", "fok", "gtd"})

STANDS = {"new": ReportStatus.WORKING} | {status.value: status for status in ReportStatus}

KINDS = {
    "new": ReportKind.ACKNOWLEDGED,
    "fill": ReportKind.EXECUTED,
    "bust": ReportKind.BUSTED,
    "correction": ReportKind.CORRECTED,
    "rejected": ReportKind.REJECTED,
    "canceled": ReportKind.CANCELED,
    "expired": ReportKind.EXPIRED,
    "done_for_day": ReportKind.DONE_FOR_DAY,
    "restated": ReportKind.RESTATED,
    "replaced": ReportKind.REPLACED,
    "cancel_refused": ReportKind.CANCEL_REFUSED,
    "replace_refused": ReportKind.REPLACE_REFUSED,
}
AMENDS = (ReportKind.REPLACED, ReportKind.RESTATED)

HEARTBEAT_SECONDS = 1.0
PAGE = 1_000
PAGE_BYTES = 4 * 1024 * 1024
LONGEST_PRICE = 40
LAST = 2**62
"""Numbers of reports are below it, so that the next one can be stored, too."""


class SimulatorVenue(RequestVenue):
    """Settings: `url` (required), `timeout_seconds`, `settle_seconds`, `in_flight`, `resend_safety` (a value
    of ResendSafety: how the exchange was told to behave) and, for `refuses_recent_duplicates`,
    `duplicate_window_seconds`. Raises: ValueError, naming the key that is wrong.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        unknown = settings.keys() - _SETTINGS
        if unknown:
            raise ValueError(f"unknown setting {sorted(unknown)[0]!r}; known: {', '.join(sorted(_SETTINGS))}")
        timeout_seconds = _seconds(settings, "timeout_seconds", TIMEOUT_SECONDS)
        resend_safety = _resend_safety(settings)
        in_flight = _whole(settings, "in_flight", IN_FLIGHT)
        self._capabilities = Capabilities(
            resend_safety=resend_safety,
            deadline_seconds=timeout_seconds,
            settle_seconds=_seconds(settings, "settle_seconds", SETTLE_SECONDS),
            finds=True,
            order_types=ORDER_TYPES,
            times_in_force=TIMES_IN_FORCE,
            in_flight=in_flight,
            duplicate_window_seconds=_duplicate_window(settings, resend_safety),
            cancels=True,
            replaces=True,
            reports=True,
            heartbeat_seconds=HEARTBEAT_SECONDS,
        )
        self._url = _url(settings)

    @cached_property
    def _calls(self) -> "HttpCalls":
        # A web process asks only for the capabilities. It saves the 9 MB and 0.3 s that aiohttp takes.
        from exchanges.adapters.http_calls import HttpCalls

        known = self._capabilities
        return HttpCalls(self._url, timeout_seconds=known.deadline_seconds, in_flight=known.in_flight)

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def place(self, order: NewOrder) -> Acknowledgement:
        reply = await self._calls.send("POST", "/orders", _encode(order))
        if reply.status != 201:
            raise _place_error(reply)
        content = _about(order.client_order_id, reply)
        if content.get("status") != "working":
            raise OutcomeUnknown("unreadable_reply", "accepted, but not working")
        return Acknowledgement(venue_order_id=_venue_order_id(content))

    async def find(self, client_order_id: str) -> Report | None:
        reply = await self._calls.send("GET", f"/orders/{quote(client_order_id, safe='')}/state")
        if reply.status == 404 and reply.json_object().get("code") == "unknown_order":
            return None
        if reply.status != 200:
            raise _unanswered(reply)
        return _report(_about(client_order_id, reply))

    async def cancel(self, request: CancelRequest) -> Done | Taken:
        return await self._amend("cancel", request, {})

    async def replace(self, request: ReplaceRequest) -> Done | Taken:
        terms = {
            "quantity": request.quantity,
            "limit_price": _price_text(request.limit_price),
            "stop_price": _price_text(request.stop_price),
            "time_in_force": request.time_in_force,
            "expires_at": request.expires_at.isoformat() if request.expires_at else None,
        }
        return await self._amend("replace", request, terms)

    async def _amend(
        self, kind: str, request: CancelRequest | ReplaceRequest, terms: Mapping[str, Any]
    ) -> Done | Taken:
        content = {"request_id": request.client_order_id, "valid_until": request.valid_until.isoformat(), **terms}
        path = f"/orders/{quote(request.order_id, safe='')}/{kind}"
        reply = await self._calls.send("POST", path, json.dumps(content).encode())
        if reply.status not in (200, 202):
            raise _amend_error(reply)
        content = _about(request.order_id, reply)
        if content.get("request_id") != request.client_order_id:
            raise OutcomeUnknown("unreadable_reply", "it speaks of another request, or of none")
        if reply.status == 202:
            return Taken()
        if kind == "cancel" and content.get("status") != "canceled":
            raise OutcomeUnknown("unreadable_reply", "done, but not canceled")
        try:
            quantity, filled = (_number(content.get(name)) for name in ("order_quantity", "cumulative_quantity"))
        except ValueError as error:
            raise OutcomeUnknown("unreadable_reply", str(error)) from None
        if kind == "replace" and (quantity is None or quantity < 1):
            raise OutcomeUnknown("unreadable_reply", "done, but without a quantity")
        return Done(venue_order_id=_venue_order_id(content), quantity=quantity, cumulative_quantity=filled)

    async def stream_end(self) -> StreamEnd:
        return _stream_end(await self._page("/reports?limit=1"), "last")

    async def reports(self, stream: str, after: int) -> AsyncIterator[News]:
        async for text in self._calls.listen(f"/reports?stream={quote(stream, safe='')}&after={after}"):
            yield _news(text)

    async def executions(self, stream: str, after: int) -> AsyncIterator[Sequence[ExecutionReport]]:
        at: int | None = after
        while at is not None:
            content = await self._page(f"/executions?after={at}&limit={PAGE}")
            end = _stream_end(content, "last")
            if end.stream != stream:  # numbers of another stream say nothing of this one
                stream, at = end.stream, 0
                continue
            at = _next(content, at)
            yield _execution_reports(content.get("reports"))

    async def open_orders(self) -> AsyncIterator[Sequence[Report]]:
        at: int | None = 0
        while at is not None:
            content = await self._page(f"/orders?open=1&after={at}&limit={PAGE}")
            orders = content.get("orders")
            if not isinstance(orders, list) or not all(isinstance(order, dict) for order in orders):
                raise OutcomeUnknown("unreadable_reply", "no list of orders")
            at = _next(content, at)
            yield [_report(order) for order in orders]

    async def _page(self, path: str) -> dict[str, Any]:
        reply = await self._calls.send("GET", path, largest=PAGE_BYTES)
        if reply.status != 200:
            raise _unanswered(reply)
        return reply.json_object()

    async def close(self) -> None:
        await self._calls.close()


def _encode(order: NewOrder) -> bytes:
    return json.dumps(
        {
            "client_order_id": order.client_order_id,
            "instrument": order.instrument,
            "side": order.side,
            "type": order.type,
            "quantity": order.quantity,
            "limit_price": _price_text(order.limit_price),
            "stop_price": _price_text(order.stop_price),
            "time_in_force": order.time_in_force,
            "expires_at": order.expires_at.isoformat() if order.expires_at else None,
            "valid_until": order.valid_until.isoformat(),
        }
    ).encode()


def _place_error(reply: "HttpReply") -> VenueError:
    if reply.status in (400, 409, 422):
        content = reply.json_object()
        code, text = _text(content, "code"), _text(content, "text")
        if reply.status == 409 and code == "duplicate_client_order_id":
            # an earlier attempt arrived: find() tells what became of it
            return OutcomeUnknown(code, text, answered=True)
        if reply.status == 422 and code == "stale_request":
            return NotSent(code, text, answered=True)
        if reply.status != 409 and code in DEFINITE_REFUSALS:
            return OrderRejected(code, text, by_content=code in BY_CONTENT)
    return _unanswered(reply)


def _price_text(price: Decimal | None) -> str | None:
    return None if price is None else decimal_text(price)


def _amend_error(reply: "HttpReply") -> VenueError:
    if reply.status in (400, 404, 409, 422):
        content = reply.json_object()
        code, text = _text(content, "code"), _text(content, "text")
        if reply.status == 422 and code == "stale_request":
            return NotSent(code, text, answered=True)
        if reply.status == 409 and code == "too_late":
            return RequestRefused(code, text, by_end=True)
        if reply.status in (400, 422) and code in DEFINITE_REFUSALS_TO_AMEND:
            return RequestRefused(code, text)
        # It has no such order, or knows the id of the request for something else: find() tells how the order stands.
        if code in ("unknown_order", "duplicate_request_id"):
            return OutcomeUnknown(code, text, answered=True)
    return _unanswered(reply)


def _unanswered(reply: "HttpReply") -> VenueError:
    """The error of a reply that does not answer the call."""
    if reply.status in (401, 403):
        return NotSent("not_authorized", f"HTTP {reply.status}", answered=True, trouble=VenueTrouble.LOCKED_OUT)
    if reply.asks_for_a_pause:
        pause: dict[str, Any] = {"trouble": VenueTrouble.PAUSED, "retry_after": reply.retry_after()}
        if reply.status == 429 and _says(reply, "rate_limited"):
            return NotSent("rate_limited", answered=True, **pause)
        # A proxy may have sent this. The pause is respected, but proves nothing about this request.
        return OutcomeUnknown(f"http_{reply.status}", **pause)
    return OutcomeUnknown(f"http_{reply.status}")


def _says(reply: "HttpReply", code: str) -> bool:
    try:
        return reply.json_object().get("code") == code
    except OutcomeUnknown:
        return False


def _about(client_order_id: str, reply: "HttpReply") -> dict[str, Any]:
    """The reply's content, if it is about this order. Raises: OutcomeUnknown."""
    content = reply.json_object()
    if content.get("client_order_id") != client_order_id:
        raise OutcomeUnknown("unreadable_reply", "it speaks of another order, or of none")
    return content


def _venue_order_id(content: Mapping[str, Any]) -> str:
    value = content.get("venue_order_id")
    if not isinstance(value, str) or not value:
        raise OutcomeUnknown("unreadable_reply", "no venue_order_id")
    return value


def _report(content: Mapping[str, Any]) -> Report:
    """How an order stands. Raises: OutcomeUnknown."""
    code = _text(content, "code")
    status = STANDS.get(_text(content, "status"))
    if status is None:
        raise OutcomeUnknown("unreadable_reply", f"status {content.get('status')!r}"[:200])
    try:
        return Report(
            client_order_id=_text(content, "client_order_id"),
            status=status,
            venue_order_id=_venue_order_id(content),
            code=code,
            text=_text(content, "text"),
            by_content=code in BY_CONTENT,
            quantity=_number(content.get("order_quantity")),
            limit_price=_price(content.get("limit_price")),
            stop_price=_price(content.get("stop_price")),
            time_in_force=_text(content, "time_in_force"),
            expires_at=_time(content.get("expires_at")),
            cumulative_quantity=_number(content.get("cumulative_quantity")),
            leaves_quantity=_number(content.get("leaves_quantity")),
        )
    except (TypeError, ValueError) as error:
        raise OutcomeUnknown("unreadable_reply", str(error)) from None


def _news(text: str) -> News:
    """Raises: OutcomeUnknown for a message that is neither reports nor a heartbeat."""
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise OutcomeUnknown("unreadable_message", str(error)) from None
    if not isinstance(content, dict):
        raise OutcomeUnknown("unreadable_message", text[:200])
    if "heartbeat" in content:
        return News(heartbeat=_stream_end(content, "heartbeat"))
    return News(reports=_execution_reports(content.get("reports")))


def _stream_end(content: Mapping[str, Any], name: str) -> StreamEnd:
    stream, last = content.get("stream"), content.get(name)
    if not isinstance(stream, str) or not stream.isprintable() or not 0 < len(stream) <= LONGEST_ID:
        raise OutcomeUnknown("unreadable_reply", "no usable name of a stream")
    if type(last) is not int or not 0 <= last < LAST:
        raise OutcomeUnknown("unreadable_reply", f"{name}: no number")
    return StreamEnd(stream, last)


def _next(content: Mapping[str, Any], after: int) -> int | None:
    """Where the next page begins. It is further on, so that reading by pages ends."""
    value = content.get("next")
    if value is not None and (type(value) is not int or value <= after):
        raise OutcomeUnknown("unreadable_reply", "next: no number further on")
    return value


def _execution_reports(records: Any) -> Sequence[ExecutionReport]:
    if not isinstance(records, list):
        raise OutcomeUnknown("unreadable_reply", "no list of reports")
    return [_execution_report(record) for record in records]


def _execution_report(record: Any) -> ExecutionReport:
    """Raises: OutcomeUnknown for a report without a number: nobody could tell whether it was read."""
    sequence = record.get("sequence") if isinstance(record, dict) else None
    if type(sequence) is not int or not 0 < sequence < LAST:
        raise OutcomeUnknown("unreadable_reply", "a report without a number")
    try:
        kind = KINDS[record["kind"]]
        own, request = record["client_order_id"], record.get("request_id", "")
        amends = kind in AMENDS
        code, text = record.get("code", ""), record.get("text", "")
        ids = record["venue_order_id"], record.get("execution_id", ""), record.get("refers_to", "")
        texts = own, request, *ids, code, text
        if not all(isinstance(each, str) for each in texts):
            raise TypeError("no text")
        return ExecutionReport(
            sequence=sequence,
            kind=kind,
            client_order_id=request or own,
            original_client_order_id=own if request else "",
            venue_order_id=ids[0],
            execution_id=ids[1],
            refers_to=ids[2],
            quantity=_number(record["order_quantity"] if amends else record.get("quantity", 0)) or 0,
            price=_price(record.get("price")),
            at=_time(record.get("at")),
            text=f"{code}: {text}" if code and text else code or text,
            limit_price=_price(record.get("limit_price")) if amends else None,
            stop_price=_price(record.get("stop_price")) if amends else None,
            time_in_force=str(record.get("time_in_force", "")) if amends else "",
            expires_at=_time(record.get("expires_at")) if amends else None,
            cumulative_quantity=_number(record.get("cumulative_quantity")),
            leaves_quantity=_number(record.get("leaves_quantity")),
        )
    except (KeyError, TypeError, ValueError):
        return ExecutionReport(
            sequence=sequence,
            kind=ReportKind.UNREADABLE,
            client_order_id="",
            text=orjson.dumps(record).decode(),
        )


def _number(value: Any) -> int | None:
    """Raises: ValueError."""
    if value is not None and type(value) is not int:
        raise ValueError("no whole number where one belongs")
    return value


@lru_cache(maxsize=4096)
def _price(value: str | None) -> Decimal | None:
    """Raises: ValueError."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > LONGEST_PRICE:
        raise ValueError("no price where one belongs")
    try:
        return Decimal(value)
    except InvalidOperation:
        raise ValueError("no price where one belongs") from None


def _time(value: str | None) -> datetime | None:
    """Raises: ValueError, TypeError."""
    return None if value is None else datetime.fromisoformat(value)


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    return value if isinstance(value, str) else ""


_SETTINGS = frozenset(
    {"url", "timeout_seconds", "settle_seconds", "in_flight", "resend_safety", "duplicate_window_seconds"}
)


def _url(settings: Mapping[str, Any]) -> URL:
    value = settings.get("url")
    try:
        url = URL(value) if isinstance(value, str) else URL()
    except ValueError:
        url = URL()
    plain = not (url.raw_query_string or url.raw_fragment or url.user or url.password)
    if url.scheme not in ("http", "https") or not url.host or not plain:
        # The value is not repeated: it may contain a password, which would be logged.
        raise ValueError("url: must be http(s)://host[:port][/path], without a password or a query")
    return url


def _seconds(settings: Mapping[str, Any], name: str, default: float) -> float:
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: must be a number of seconds")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name}: must be above zero")
    return float(value)


def _whole(settings: Mapping[str, Any], name: str, default: int) -> int:
    value = settings.get(name, default)
    if type(value) is not int or value < 1:
        raise ValueError(f"{name}: must be a whole number above zero")
    return value


def _resend_safety(settings: Mapping[str, Any]) -> ResendSafety:
    value = settings.get("resend_safety", ResendSafety.REFUSES_DUPLICATES.value)
    try:
        return ResendSafety(value)
    except ValueError:
        known = ", ".join(kind.value for kind in ResendSafety)
        raise ValueError(f"resend_safety: must be one of {known}") from None


def _duplicate_window(settings: Mapping[str, Any], resend_safety: ResendSafety) -> float | None:
    name = "duplicate_window_seconds"
    if resend_safety is ResendSafety.REFUSES_RECENT_DUPLICATES:
        if name not in settings:
            raise ValueError(f"{name}: is required where resend_safety is {resend_safety.value}")
        return _seconds(settings, name, 0)
    if settings.get(name) is not None:
        raise ValueError(f"{name}: has no meaning where resend_safety is {resend_safety.value}")
    return None
