"""A client's receiver of webhooks: a real server on a real socket, which verifies with the standard's own library."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from aiohttp import web
from standardwebhooks import Webhook

from benchmarks.faults.proxy import accept_no_more, turns
from quiktrade.processes import wait_for


class Received(NamedTuple):
    headers: dict[str, str]
    body: bytes
    path: str
    peer_port: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The body's content. Raises: standardwebhooks.WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)


Answer = Callable[[Received], Awaitable[web.StreamResponse]]


def answers(status: int, text: str = "", **headers: str) -> Answer:
    async def answer(received: Received) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def after(seconds: float, answer: Answer) -> Answer:
    async def wait(received: Received) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await answer(received)

    return wait


OK = answers(204)


class Receiver:
    """`script` has the answers to the next requests; the last one is for all that follow."""

    def __init__(self, *script: Answer) -> None:
        self.script = list(script or [OK])
        self.received: list[Received] = []
        self.most_at_once = 0
        self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.received]

    def wait_for(self, count: int) -> None:
        assert wait_for(lambda: len(self.received) >= count, 30), f"{len(self.received)} of {count} came"

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = listening.getsockname()[1]
        await web.SockSite(runner, listening).start()
        self._ready.set()
        await self._stop.wait()
        await accept_no_more(listening)
        await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await turns()  # a transport that was closed lets go of its socket in the next one

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")[1]
        received = Received(dict(request.headers), await request.read(), request.path, peer)
        self.received.append(received)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await (self.script.pop(0) if len(self.script) > 1 else self.script[0])(received)
        finally:
            self._at_once -= 1


@contextmanager
def running_receiver(*script: Answer) -> Iterator[Receiver]:
    receiver = Receiver(*script)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()
