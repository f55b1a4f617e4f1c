"""A scripted venue at the other end of the wire. It reads whole HTTP requests and does with each what a test says."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Deals with one request that was read. It may close the connection, or leave it open for the next."""


class Peer:
    """`async with Peer(script) as peer`. Several scripts take one request each, and the last takes all that follow."""

    def __init__(self, *scripts: Script) -> None:
        self.requests: list[Request] = []
        self.connections: set[asyncio.Task[None]] = set()
        self._scripts = list(scripts)
        self._arrival = asyncio.Event()

    async def __aenter__(self) -> "Peer":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self.connections:
            task.cancel()
        await self.quiet()

    async def quiet(self) -> None:
        """Return when no connection is left."""
        while self.connections:
            await asyncio.wait(self.connections)

    async def arrived(self, count: int) -> None:
        """Return when this many requests have been read."""
        while len(self.requests) < count:
            self._arrival.clear()
            await self._arrival.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            # However a connection ends, by either side or with the test, is none of the peer's business.
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    self.requests.append(await _read(reader))
                    self._arrival.set()
                    script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                    await script(reader, writer)
        finally:
            writer.transport.abort()
            self.connections.discard(task)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, path, _ = first.split(" ")
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


def reply(status: int, content: Any = None, *, body: bytes | None = None, **headers: str) -> bytes:
    """One HTTP response: JSON content, or any body. Headers are named in snake case."""
    payload = json.dumps(content).encode() if body is None else body
    fields = {"content_type": "application/json", "content_length": str(len(payload))} | headers
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Some Reason\r\n{head}\r\n".encode() + payload


def send(data: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return script


def send_and_close(data: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()
        await writer.wait_closed()

    return script


def send_late(data: bytes, seconds: float) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        writer.write(data)
        await writer.drain()

    return script


def send_slowly(data: bytes) -> Script:
    """Sends a byte at a time, for minutes, if the other side stays."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for index in range(len(data)):
            writer.write(data[index : index + 1])
            await writer.drain()
            await asyncio.sleep(0.05)

    return script


def send_far_too_much(head: bytes, piece: bytes, read_to_its_end: list[bool]) -> Script:
    """Sends 64 MB, unless the other side leaves before; if it does not, that is noted in `read_to_its_end`."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for _ in range(64 * 2**20 // len(piece)):
            writer.write(piece)
            await writer.drain()
        read_to_its_end.append(True)
        await stall(reader, writer)

    return script


async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends nothing until the other side leaves."""
    await reader.read()
    writer.close()


async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def refusing_url() -> Iterator[str]:
    """A port that is taken and on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def unreachable_url() -> Iterator[str]:
    """A port whose backlog is full, so that the kernel ignores new connections."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for knocking in waiting:
                knocking.setblocking(False)
                knocking.connect_ex(listening.getsockname())
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            for knocking in waiting:
                knocking.close()
