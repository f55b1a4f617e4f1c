"""The exchange's listening socket, closed and opened at will: that is how it refuses connections.

Nothing listens while the gate is closed, so the kernel refuses connections. The port stays ours meanwhile: a socket is
always bound to it, and listens only when the gate is open.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

BACKLOG = 4096

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Gate:
    def __init__(self, host: str, port: int, handler: Handler) -> None:
        """Bind the port (0 takes a free one). Raises: OSError."""
        self._handler = handler
        self._address_info = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        self._socket = self._bind(self._address_info[4])
        self._address = self._socket.getsockname()
        self._listener: asyncio.Server | None = None
        self._connections: web.Server | None = None

    @property
    def host(self) -> str:
        return str(self._address[0])

    @property
    def port(self) -> int:
        return int(self._address[1])

    async def open(self) -> None:
        """Listen, unless it listens already. Raises: OSError."""
        if self._listener is not None:
            return
        loop = asyncio.get_running_loop()
        connections = web.Server(self._handler, access_log=None)
        self._listener = await loop.create_server(connections, sock=self._socket, backlog=BACKLOG)
        self._connections = connections

    async def close(self, *, grace_seconds: float) -> None:
        """Stop listening. Close idle connections now, and busy ones when answered or after the grace period."""
        if self._listener is None or self._connections is None:
            return
        listener, connections = self._listener, self._connections
        self._listener = self._connections = None
        listener.close()
        self._socket = self._bind(self._address)
        connections.pre_shutdown()
        await connections.shutdown(grace_seconds)

    def release(self) -> None:
        """Give the port up, after `close`."""
        self._socket.close()

    def _bind(self, address: Any) -> socket.socket:
        family, kind, protocol, _, _ = self._address_info
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
        return bound
