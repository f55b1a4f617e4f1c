"""A venue that costs little processor time. It speaks as much of the simulated exchange's protocol as placing needs.

It is one process in the references' environment. It reads each order, remembers its id, refuses a second one under
the same id with 409, and answers 201 after `--latency` seconds. It has no journal, no rules and no faults, so that
the placing is measured and not the exchange.
"""

import argparse
import asyncio
import json
from typing import Any, cast

import uvloop

from quiktrade import processes

_BACKLOG = 4096


class Venue:
    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.known: set[str] = set()
        self.under_way = self.most_under_way = self.duplicates = 0

    def place(self, body: bytes) -> bytes:
        order = json.loads(body)["client_order_id"]
        if order in self.known:
            self.duplicates += 1
            return _answer(409, {"code": "duplicate_client_order_id", "text": "received before"})
        self.known.add(order)
        return _answer(
            201, {"client_order_id": order, "venue_order_id": f"L-{len(self.known)}", "status": "working"}
        )  # fmt: skip

    def stats(self) -> bytes:
        return _answer(
            200,
            {"orders": len(self.known), "most_under_way": self.most_under_way, "duplicates_refused": self.duplicates},
        )


class Member(asyncio.Protocol):
    """One connection, which is kept open and takes one request after the other."""

    def __init__(self, venue: Venue, loop: asyncio.AbstractEventLoop) -> None:
        self._venue = venue
        self._loop = loop
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is one in all but its class

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = 0
            if (at := head.find(b"content-length:")) >= 0:
                length = int(head[at + 15 :].partition(b"\r\n")[0])
            whole = end + 4 + length
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            self._act(head, body)

    def _act(self, head: bytes, body: bytes) -> None:
        venue = self._venue
        if not head.startswith(b"post /orders "):
            self._answer(venue.stats())
            return
        venue.under_way += 1
        venue.most_under_way = max(venue.most_under_way, venue.under_way)
        self._loop.call_later(venue.latency, self._placed, venue.place(body))

    def _placed(self, answer: bytes) -> None:
        self._venue.under_way -= 1
        self._answer(answer)

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


def _answer(status: int, content: dict[str, Any]) -> bytes:
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _serve(port: int, latency: float) -> None:
    loop = asyncio.get_running_loop()
    venue = Venue(latency)
    server = await loop.create_server(lambda: Member(venue, loop), "127.0.0.1", port, backlog=_BACKLOG)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency", type=float, required=True)
    arguments = parser.parse_args()
    processes.end_with_parent()
    uvloop.run(_serve(arguments.port, arguments.latency))


if __name__ == "__main__":
    main()
