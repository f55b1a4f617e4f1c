"""Clients that follow their orders on streams, written for little processor time per event.

It is a separate process. It reads `{"port": …, "tokens": […]}` from the first line of standard input, opens a stream
with each token, and writes "ready". On every further line of input it writes, as JSON, how many events came since the
last one, their latencies in milliseconds from the time in the event to their arrival, and how many streams are open.
"""

import asyncio
import json
import sys
import time
from datetime import datetime
from typing import Any, cast

_AT_ONCE = 16


class Follower(asyncio.Protocol):
    def __init__(self, found: "Found", request: bytes) -> None:
        self._found = found
        self._request = request
        self._rest = b""
        self.begun = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.time()
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        for each in whole:
            if not self.begun.done():
                self.begun.set_result(b"event: start" in each)
                self._found.open += 1
            begin = each.find(b'"at":"')
            if begin >= 0:
                end = each.index(b'"', begin + 6)
                at = datetime.fromisoformat(each[begin + 6 : end].decode()).timestamp()
                self._found.latencies.append((now - at) * 1000)

    def connection_lost(self, exc: Exception | None) -> None:
        self._found.open -= 1


class Found:
    def __init__(self) -> None:
        self.open = 0
        self.latencies: list[float] = []

    def report(self) -> dict[str, Any]:
        latencies, self.latencies = sorted(self.latencies), []

        def at(part: float) -> float:
            return round(latencies[int(len(latencies) * part)], 2) if latencies else 0.0

        figures = {"p50": at(0.5), "p99": at(0.99), "max": round(latencies[-1], 2) if latencies else 0.0}
        return {"events": len(latencies), "open": self.open, **figures}


async def follow(port: int, tokens: list[str], lines: asyncio.StreamReader) -> None:
    loop, found = asyncio.get_running_loop(), Found()
    for first in range(0, len(tokens), _AT_ONCE):
        opened = [
            await loop.create_connection(lambda token=token: Follower(found, _request(port, token)), "127.0.0.1", port)  # type: ignore[misc]
            for token in tokens[first : first + _AT_ONCE]
        ]
        await asyncio.wait_for(asyncio.gather(*(follower.begun for _, follower in opened)), 60)
    _say("ready")
    while await lines.readline():
        _say(json.dumps(found.report()))


def _request(port: int, token: str) -> bytes:
    head = f"GET /api/v1/orders/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
    return head.encode()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main() -> None:
    lines = asyncio.StreamReader(limit=16 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    job = json.loads(await lines.readline())
    await follow(job["port"], job["tokens"], lines)


if __name__ == "__main__":
    asyncio.run(main())
