"""The simulated exchange as a venue. What it promises is written in `exchanges/simulator/__init__.py`."""

import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from yarl import URL

from exchanges.adapters.http_calls import HttpCalls, HttpReply
from exchanges.venue import (
    Acknowledgement,
    Capabilities,
    NewOrder,
    NotSent,
    OrderRejected,
    OutcomeUnknown,
    Report,
    ReportStatus,
    RequestVenue,
    ResendSafety,
    VenueError,
    VenueTrouble,
)
from quiktrade.decimals import decimal_text

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

BY_CONTENT = frozenset({"malformed_request", "invalid_field", "quantity_above_maximum"})
"""With these codes, by its documents, it refuses every copy of the order likewise."""

ORDER_TYPES = frozenset({"market", "limit", "stop", "stop_limit"})
TIMES_IN_FORCE = frozenset({"day", "gtc", "ioc", "fok", "gtd"})

REPORTED = {"working": ReportStatus.WORKING, "rejected": ReportStatus.REJECTED}


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
        )
        self._calls = HttpCalls(
            _url(settings),
            timeout_seconds=timeout_seconds,
            in_flight=in_flight,
        )

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
        reply = await self._calls.send("GET", "/orders/" + quote(client_order_id, safe=""))
        if reply.status == 404 and reply.json_object().get("code") == "unknown_order":
            return None
        if reply.status != 200:
            raise _unanswered(reply)
        content = _about(client_order_id, reply)
        code = _text(content, "code")
        status = REPORTED.get(_text(content, "status"))
        if status is None:
            raise OutcomeUnknown("unreadable_reply", f"status {content.get('status')!r}"[:200])
        return Report(
            client_order_id=client_order_id,
            status=status,
            venue_order_id=_venue_order_id(content),
            code=code,
            text=_text(content, "text"),
            by_content=code in BY_CONTENT,
        )

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
            "limit_price": decimal_text(order.limit_price) if order.limit_price is not None else None,
            "stop_price": decimal_text(order.stop_price) if order.stop_price is not None else None,
            "time_in_force": order.time_in_force,
            "expires_at": order.expires_at.isoformat() if order.expires_at else None,
            "valid_until": order.valid_until.isoformat(),
        }
    ).encode()


def _place_error(reply: HttpReply) -> VenueError:
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


def _unanswered(reply: HttpReply) -> VenueError:
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


def _says(reply: HttpReply, code: str) -> bool:
    try:
        return reply.json_object().get("code") == code
    except OutcomeUnknown:
        return False


def _about(client_order_id: str, reply: HttpReply) -> dict[str, Any]:
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
