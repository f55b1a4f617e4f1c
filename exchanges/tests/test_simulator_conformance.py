"""The simulator's adapter under the conformance suite."""

import json
from typing import Any
from urllib.parse import unquote

from exchanges.adapters.simulator import SimulatorVenue
from exchanges.tests.conformance import VenueConformance
from exchanges.tests.peer import Request, reply
from exchanges.venue import CancelRequest, NewOrder, ReplaceRequest, ReportStatus


class TestSimulatorVenue(VenueConformance):
    definite_code = content_code = "quantity_above_maximum"
    moment_code = "trading_halted"

    def make(self, url: str, **changes: Any) -> SimulatorVenue:
        return SimulatorVenue({"url": url} | changes)

    def accepted(self, order: NewOrder, venue_order_id: str = "V-1") -> bytes:
        return reply(
            201,
            {
                "client_order_id": order.client_order_id,
                "venue_order_id": venue_order_id,
                "status": "working",
            },
        )

    def refused(self, code: str, text: str) -> bytes:
        return reply(422, {"code": code, "text": text})

    def duplicate(self) -> bytes:
        return reply(409, {"code": "duplicate_client_order_id", "text": "received before, as V-1"})

    def limited(self, retry_after: str) -> bytes:
        return reply(429, {"code": "rate_limited", "text": "discarded"}, retry_after=retry_after)

    def not_let_in(self) -> list[bytes]:
        return [reply(401, {"code": "not_authorized"}), reply(401, body=b"", content_type="text/html"), reply(403, {})]

    def reported(self, order: NewOrder, status: ReportStatus, code: str = "", text: str = "") -> bytes:
        stands = "new" if status is ReportStatus.WORKING else status.value
        content = {"client_order_id": order.client_order_id, "venue_order_id": "V-1", "status": stands}
        return reply(200, content | {"code": code, "text": text})

    def unknown(self) -> bytes:
        return reply(404, {"code": "unknown_order", "text": "no order by this client_order_id"})

    def sent(self, request: Request) -> dict[str, Any]:
        assert (request.method, request.path) == ("POST", "/orders")
        order: dict[str, Any] = json.loads(request.body)
        return order

    def amended(self, request: CancelRequest | ReplaceRequest) -> bytes:
        content: dict[str, Any] = {
            "request_id": request.client_order_id,
            "client_order_id": request.order_id,
            "venue_order_id": request.venue_order_id,
            "status": "canceled",
            "order_quantity": 100,
            "cumulative_quantity": 40,
            "leaves_quantity": 0,
        }
        if isinstance(request, ReplaceRequest):
            content |= {"status": "partially_filled", "order_quantity": request.quantity, "leaves_quantity": 40}
        return reply(200, content)

    def amendment_taken(self, request: CancelRequest | ReplaceRequest) -> bytes:
        return reply(202, {"request_id": request.client_order_id, "client_order_id": request.order_id})

    def amendment_refused(self, by_end: bool) -> bytes:
        if by_end:
            return reply(409, {"code": "too_late", "text": "the order works no more"})
        return reply(422, {"code": "trading_halted", "text": "not now"})

    def amendment_stale(self) -> bytes:
        return reply(422, {"code": "stale_request", "text": "was valid until then"})

    def amendment_in_doubt(self) -> list[bytes]:
        return [
            reply(404, {"code": "unknown_order", "text": "no order by this client_order_id"}),
            reply(404, {"code": "no_such_path", "text": ""}),
            reply(409, {"code": "duplicate_request_id", "text": "received before, for something else"}),
            reply(422, {"code": "never_documented", "text": ""}),
        ]

    def amendment(self, request: Request) -> dict[str, Any]:
        assert request.method == "POST"
        order, _, kind = request.path.removeprefix("/orders/").rpartition("/")
        content: dict[str, Any] = json.loads(request.body)
        return content | {"kind": kind, "order_id": unquote(order), "client_order_id": content.pop("request_id")}

    def asked_for(self, request: Request) -> str:
        assert request.method == "GET"
        return unquote(request.path.removeprefix("/orders/").removesuffix("/state"), errors="strict")
