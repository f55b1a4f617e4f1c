"""Answers of the simulated exchange, whole and broken."""

import socket
import struct
from typing import Any

import orjson
from aiohttp import web

from exchanges.simulator.validation import Refusal

_LINGER_AND_RESET = struct.pack("ii", 1, 0)


def answer(status: int, content: Any, headers: dict[str, str] | None = None) -> web.Response:
    headers = {"Content-Type": "application/json"} | (headers or {})
    return web.Response(status=status, body=orjson.dumps(content), headers=headers)


def refuse(refusal: Refusal) -> web.Response:
    return answer(refusal.status, {"code": refusal.code, "text": refusal.text})


def cut(request: web.BaseRequest, *, reset: bool = False) -> web.Response:
    """End the connection now, with a FIN or an RST. The response returned goes nowhere."""
    transport = request.transport
    if transport is not None:
        if reset:
            connection: socket.socket = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_AND_RESET)
        transport.abort()
    return web.Response()


def cut_short(request: web.BaseRequest, response: web.Response) -> web.Response:
    """Send the head and half the body of the response, then end the connection."""
    transport = request.transport
    if transport is not None and isinstance(response.body, bytes):
        head = f"HTTP/1.1 {response.status} {response.reason}\r\nContent-Length: {len(response.body)}\r\n"
        head += f"Content-Type: {response.content_type}\r\n\r\n"
        transport.write(head.encode() + response.body[: len(response.body) // 2])
        transport.close()
    return web.Response()
