"""What an order sent to the simulated exchange must look like."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

MAX_QUANTITY = 10**15

SIDES = frozenset({"buy", "sell"})
TYPES = frozenset({"market", "limit", "stop", "stop_limit"})
LIMIT_PRICED = frozenset({"limit", "stop_limit"})
STOP_PRICED = frozenset({"stop", "stop_limit"})
TIMES_IN_FORCE = frozenset({"day", "gtc", "ioc", "fok", "gtd"})
RESTING = frozenset({"day", "gtc", "gtd"})

_CLIENT_ORDER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", re.ASCII)
_INSTRUMENT = re.compile(r"[A-Z0-9]{12}", re.ASCII)
_PRICE = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?", re.ASCII)


class Refusal(Exception):
    """The exchange says no: an HTTP status, a short stable code, and a text for people."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.status = status
        self.code = code
        self.text = text


@dataclass(slots=True, kw_only=True)
class OrderRequest:
    """An order as its member sent it: prices and times stay the very strings that came."""

    client_order_id: str
    instrument: str
    side: str
    type: str
    quantity: int
    limit_price: str | None
    stop_price: str | None
    time_in_force: str
    expires_at: str | None
    valid_until: str | None


@dataclass(slots=True, kw_only=True)
class CancelRequest:
    """A request to cancel an order, by an id of the member's own."""

    request_id: str
    valid_until: str | None


@dataclass(slots=True, kw_only=True)
class ReplaceRequest:
    """A request to give an order other terms, by an id of the member's own; None leaves a term as it is."""

    request_id: str
    quantity: int | None
    limit_price: str | None
    stop_price: str | None
    time_in_force: str | None
    expires_at: str | None
    valid_until: str | None


def read_order(body: bytes) -> OrderRequest:
    """Read the body of POST /orders. Raises: Refusal, naming the field that is wrong."""
    content = _object(body, OrderRequest)
    type_ = _one_of(content, "type", TYPES)
    time_in_force = _one_of(content, "time_in_force", TIMES_IN_FORCE)
    return OrderRequest(
        client_order_id=_matching(content, "client_order_id", _CLIENT_ORDER_ID, "1 to 64 of A-Z a-z 0-9 . _ : -"),
        instrument=_matching(content, "instrument", _INSTRUMENT, "12 of A-Z 0-9"),
        side=_one_of(content, "side", SIDES),
        type=type_,
        quantity=_quantity(content),
        limit_price=_price(content, "limit_price", required=type_ in LIMIT_PRICED),
        stop_price=_price(content, "stop_price", required=type_ in STOP_PRICED),
        time_in_force=time_in_force,
        expires_at=_time(content, "expires_at", required=time_in_force == "gtd", allowed=time_in_force == "gtd"),
        valid_until=_time(content, "valid_until", required=False, allowed=True),
    )


def read_cancel(body: bytes) -> CancelRequest:
    """Read the body of POST /orders/{client_order_id}/cancel. Raises: Refusal, naming the field that is wrong."""
    content = _object(body, CancelRequest)
    return CancelRequest(
        request_id=_matching(content, "request_id", _CLIENT_ORDER_ID, "1 to 64 of A-Z a-z 0-9 . _ : -"),
        valid_until=_time(content, "valid_until", required=False, allowed=True),
    )


def read_replace(body: bytes) -> ReplaceRequest:
    """Read the body of POST /orders/{client_order_id}/replace. Raises: Refusal, naming the field that is wrong.

    What does not fit the order that is replaced is found by the exchange.
    """
    content = _object(body, ReplaceRequest)
    given = {name for name, value in content.items() if value is not None}
    lasts = _one_of(content, "time_in_force", RESTING) if "time_in_force" in given else None
    request = ReplaceRequest(
        request_id=_matching(content, "request_id", _CLIENT_ORDER_ID, "1 to 64 of A-Z a-z 0-9 . _ : -"),
        quantity=_quantity(content) if "quantity" in given else None,
        limit_price=_price(content, "limit_price", required="limit_price" in given),
        stop_price=_price(content, "stop_price", required="stop_price" in given),
        time_in_force=lasts,
        expires_at=_time(content, "expires_at", required=lasts == "gtd", allowed=lasts in (None, "gtd")),
        valid_until=_time(content, "valid_until", required=False, allowed=True),
    )
    if not given - {"request_id", "valid_until"}:
        raise Refusal(422, "invalid_field", "the request names no term to replace")
    return request


def read_execution(content: Mapping[str, Any]) -> tuple[int, str | None]:
    """The quantity and the price of a correction; without a price it stays. Raises: Refusal."""
    return _quantity(content), _price(content, "price", required=content.get("price") is not None)


def _object(body: bytes, form: type[OrderRequest] | type[CancelRequest] | type[ReplaceRequest]) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "malformed_request", "the body is not JSON") from error
    if type(content) is not dict:
        raise Refusal(400, "malformed_request", "the body is not a JSON object")
    if not content.keys() <= form.__dataclass_fields__.keys():
        unknown = ", ".join(sorted(content.keys() - form.__dataclass_fields__.keys()))
        raise Refusal(422, "invalid_field", f"unknown: {unknown}"[:200])
    return content


def _wrong(field: str, text: str) -> Refusal:
    return Refusal(422, "invalid_field", f"{field}: {text}")


def _one_of(content: Mapping[str, Any], field: str, allowed: frozenset[str]) -> str:
    value = content.get(field)
    if type(value) is not str or value not in allowed:
        raise _wrong(field, f"must be one of {', '.join(sorted(allowed))}")
    return value


def _matching(content: Mapping[str, Any], field: str, pattern: re.Pattern[str], form: str) -> str:
    value = content.get(field)
    if type(value) is not str or not pattern.fullmatch(value):
        raise _wrong(field, f"must be {form}")
    return value


def _quantity(content: Mapping[str, Any]) -> int:
    value = content.get("quantity")
    if type(value) is not int or not 0 < value <= MAX_QUANTITY:
        raise _wrong("quantity", f"must be a whole number from 1 to {MAX_QUANTITY}")
    return value


def _price(content: Mapping[str, Any], field: str, *, required: bool) -> str | None:
    value = content.get(field)
    if not required:
        if value is not None:
            raise _wrong(field, "does not belong to this type of order")
        return None
    # A JSON number would have passed through somebody's binary float.
    if type(value) is not str or not _PRICE.fullmatch(value) or not value.strip("0."):
        raise _wrong(field, 'must be a decimal string above zero, such as "187.25"')
    return value


def _time(content: Mapping[str, Any], field: str, *, required: bool, allowed: bool) -> str | None:
    value = content.get(field)
    if value is None:
        if required:
            raise _wrong(field, "is required for gtd")
        return None
    if not allowed:
        raise _wrong(field, "belongs to gtd only")
    try:
        if type(value) is str and datetime.fromisoformat(value).tzinfo is not None:
            return value
    except ValueError:
        pass
    raise _wrong(field, "must be an ISO 8601 time with an offset")
