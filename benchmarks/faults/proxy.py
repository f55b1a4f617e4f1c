"""A TCP proxy between the workers and the exchange, which understands just enough HTTP to do harm.

It reads a request to its end before it passes it on. So it can hold a request back and deliver it long after its
sender has given up: such a late original is what leads to a double placement.

A request for a WebSocket is passed on like any other; then everything passes in both directions until one side ends.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_LINGER_AND_RESET = struct.pack("ii", 1, 0)
_TRICKLE_SECONDS = 0.05
_STALL_SECONDS = 30.0
_MOST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Harm:
    """What happens to a request, with this probability. `seconds` is how long "hold" keeps it.

    mode: reset_before, reset_after, stall, trickle, drop_reply, hold.
    """

    mode: str
    probability: float = 1.0
    seconds: tuple[float, float] = (0.0, 0.0)


class FaultProxy:
    """Listens on `port` in its own thread. Several harms may be set at once; a request gets the first that strikes."""

    def __init__(self, port: int, upstream_port: int) -> None:
        self.port = port
        self.struck = 0
        self._upstream_port = upstream_port
        self._harms: dict[str, Harm] = {}
        self._dice = random.Random()  # noqa: S311 - which request it hits is chance in any case
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._bound: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> None:
        """Raises: OSError."""
        self._bound = self._bind()
        self._thread.start()
        self._do(self._open())

    def stop(self) -> None:
        """End every connection. Harmless if it was not started."""
        if not self._thread.is_alive():
            return
        self._do(self._close())
        if self._bound is not None:
            self._bound.close()
        self._do(self._cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, name: str, harm: Harm | None) -> None:
        """Begin this harm under a name that the caller chooses; with None, end the harm of that name."""

        async def change() -> None:
            if harm is None:
                self._harms.pop(name, None)
            else:
                self._harms[name] = harm

        self._do(change())

    def refuse(self, refuse: bool) -> None:
        """Refuse connections and end the open ones, or listen again."""
        self._do(self._close() if refuse else self._open())

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def _bind(self) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self.port))
        return bound

    async def _open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, sock=self._bound, backlog=1024)
            self._bound = None

    async def _close(self) -> None:
        if self._server is None:
            return
        await accept_no_more(*self._server.sockets)
        self._server.close()
        self._server = None
        self._bound = self._bind()  # bound without listening, so that nobody else takes the port
        for connection in list(self._connections):
            _reset(connection)

    async def _cancel(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await turns()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections.add(writer)
        upstream = _Upstream(self._upstream_port)
        try:
            while (request := await _read_message(reader)) is not None:
                if _opens_websocket(request):
                    await self._tunnel(request, reader, writer)
                    break
                if not await self._pass_on(request, upstream, writer):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            upstream.close()
            writer.close()
            self._connections.discard(writer)
            self._tasks.discard(task)

    async def _pass_on(self, request: bytes, upstream: "_Upstream", writer: asyncio.StreamWriter) -> bool:
        """Handle one request. Returns whether the connection stays open."""
        harm = self._strikes()
        mode = harm.mode if harm else "pass"
        if mode == "reset_before":
            _reset(writer)
            return False
        if mode == "stall":
            await asyncio.sleep(_STALL_SECONDS)
            return False
        if harm and mode == "hold":
            await asyncio.sleep(self._dice.uniform(*harm.seconds))
        reply, whole = await upstream.ask(request)
        if mode == "reset_after":
            _reset(writer)
            return False
        if mode == "drop_reply":
            return False
        if mode == "trickle":
            for number in range(len(reply)):
                writer.write(reply[number : number + 1])
                await writer.drain()
                await asyncio.sleep(_TRICKLE_SECONDS)
            return True
        writer.write(reply)
        await writer.drain()
        return whole

    async def _tunnel(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        harm = self._strikes()
        mode = harm.mode if harm else "pass"
        if harm and mode == "hold":
            await asyncio.sleep(self._dice.uniform(*harm.seconds))
        if mode == "stall":
            await asyncio.sleep(_STALL_SECONDS)
        if mode in ("reset_before", "stall"):
            _reset(writer)
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        try:
            far_writer.write(request)
            if mode in ("reset_after", "drop_reply"):
                await far_reader.readuntil(b"\r\n\r\n")
                _reset(writer)
                return
            ways = [asyncio.ensure_future(_pipe(*ends)) for ends in ((reader, far_writer), (far_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            far_writer.close()

    def _strikes(self) -> Harm | None:
        for harm in list(self._harms.values()):
            if self._dice.random() < harm.probability:
                self.struck += 1
                return harm
        return None


class _Upstream:
    """The connection to the exchange for one client connection. It is made again when it is broken."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[bytes, bool]:
        """Send a request. Returns as much of the reply as there is, and whether that is all of it."""
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        try:
            reply = await _read_message(reader)
        except asyncio.IncompleteReadError as error:
            return error.partial, False
        return reply or b"", reply is not None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def accept_no_more(*listening: Any) -> None:
    """Before an asyncio server is closed: a connection that it has accepted, and not begun, would be left open."""
    for one in listening:
        asyncio.get_running_loop().remove_reader(one)
    await turns()


async def turns() -> None:
    """Have the running loop do what it is to do next. What was closed lets go of its socket then."""
    for _ in range(10):
        await asyncio.sleep(0)


async def _read_message(reader: asyncio.StreamReader) -> bytes | None:
    """Read one HTTP message with a Content-Length or no body; None at the end of the connection. Raises: OSError,
    IncompleteReadError, LimitOverrunError, ValueError."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if not 0 <= length <= _MOST_BYTES:
        raise ValueError("too long")
    try:
        return head + await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise asyncio.IncompleteReadError(head + error.partial, len(head) + length) from None


def _opens_websocket(request: bytes) -> bool:
    return b"\r\nupgrade: websocket\r\n" in request.lower()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until the end of it."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_AND_RESET)
    writer.transport.abort()
