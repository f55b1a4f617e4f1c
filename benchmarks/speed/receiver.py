"""A receiver of webhooks that answers 204 at once and counts what it has had. It is a process of its own.

It does not verify signatures: that is work of the client's machine, and this receiver shares the measured one.
"""

import argparse
import asyncio

import uvloop
from aiohttp import web

from quiktrade import processes

_BACKLOG = 1024


class Receiver:
    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._requests = 0
        self._peers: set[int] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            content = {"ids": len(self._ids), "requests": self._requests, "connections": len(self._peers)}
            return web.json_response(content)
        await request.read()
        assert request.transport is not None
        self._peers.add(request.transport.get_extra_info("peername")[1])
        self._ids.add(request.headers["webhook-id"])
        self._requests += 1
        return web.Response(status=204)


async def _serve(port: int) -> None:
    server = web.Server(Receiver().handle, access_log=None)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, backlog=_BACKLOG)
    await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    processes.end_with_parent()
    uvloop.run(_serve(arguments.port))


if __name__ == "__main__":
    main()
