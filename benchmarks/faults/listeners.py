"""The clients who are told: readers of the order stream, and receivers of webhooks.

Each records the events in the order in which they came. A reader breaks its connection off now and then, and continues
behind the last event that it has; so it does when the connection is broken for it.
"""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from zlib import crc32

from standardwebhooks import Webhook, WebhookVerificationError

from benchmarks.faults.records import Heard, Listener
from benchmarks.faults.system import System

SILENT_SECONDS = 40.0
"""A stream that says nothing for so long is dead: it has a heartbeat every 15 s."""
FLAKY_EVERY = 10
_STAYS_SECONDS = (3.0, 20.0)
_PAUSE_SECONDS = 0.3


class Frame(NamedTuple):
    """An event of the stream, with the fields of Server-Sent Events."""

    event: str
    data: str
    id: str


def frames(lines: Iterator[bytes]) -> Iterator[Frame]:
    """Whole events only: one that is broken off is not an event."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line.endswith(b"\n"):
            return
        text = line.decode().rstrip("\r\n")
        name, _, value = text.partition(":")
        if name:  # a comment has none
            fields[name] = value.removeprefix(" ")
        elif not text and fields:
            yield Frame(fields.get("event", "message"), fields.get("data", ""), fields.get("id", ""))
            fields = {}


class StreamReader:
    """Reads the stream of one client from `start()` until `stop()`."""

    def __init__(self, port: int, token: str, listener: Listener, count: Callable[[str], None], seed: str) -> None:
        self.listener = listener
        self.resumed = 0
        self._port = port
        self._token = token
        self._count = count
        self._dice = random.Random(seed)  # noqa: S311 - only says when it breaks off
        self._last_id = ""
        self._stopping = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._run, name=f"stream-{listener.name}", daemon=True)

    def start(self) -> None:
        """Note the present end of the events, and read on from there. Raises: OSError, HTTPException, ValueError."""
        self._last_id = _ask(self._port, self._token, "GET", "/api/v1/orders/events")["next_cursor"]
        self._thread.start()

    def stop(self) -> None:
        """Record no more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._count(f"stream: {type(error).__name__}")
            self.resumed += 1
            self._stopping.wait(_PAUSE_SECONDS)

    def _read(self) -> None:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "text/event-stream"}
        headers["Last-Event-ID"] = self._last_id
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SILENT_SECONDS)
        breaks_off_at = time.monotonic() + self._dice.uniform(*_STAYS_SECONDS)
        try:
            connection.request("GET", "/api/v1/orders/stream", headers=headers)
            response = connection.getresponse()
            self._count(f"stream: {response.status}")
            if response.status != http.HTTPStatus.OK:
                response.read()
                return
            for frame in frames(iter(response.readline, b"")):
                if self._stopping.is_set():
                    return
                self._take(frame)
                if time.monotonic() > breaks_off_at:
                    return
        finally:
            connection.close()

    def _take(self, frame: Frame) -> None:
        if frame.id:
            self._last_id = frame.id
        if frame.event == "order":
            content = json.loads(frame.data)
            self.listener.heard.append(Heard(content["order_id"], content["sequence"]))
        elif frame.event == "reset":
            self._count("stream: reset")


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a sender that is killed resets its connection."""


class Receiver:
    """Receives the webhooks of one client. One that is `flaky` fails some messages once."""

    def __init__(self, port: int, listener: Listener, count: Callable[[str], None], *, flaky: bool) -> None:
        self.listener = listener
        self.url = f"http://127.0.0.1:{port}/{listener.name}"
        self.webhook: Webhook | None = None
        self._count = count
        self._flaky = flaky
        self._failed: set[str] = set()
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receiver.take(body, dict(self.headers.items())))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name=f"hook-{listener.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        """Record one message; returns the HTTP status of the answer."""
        assert self.webhook is not None
        try:
            content: Any = self.webhook.verify(body, headers)
        except WebhookVerificationError:
            self._count("webhook: wrong signature")
            return 400
        with self._lock:
            name = {key.lower(): value for key, value in headers.items()}["webhook-id"]
            if self._flaky and crc32(name.encode()) % FLAKY_EVERY == 0 and name not in self._failed:
                self._failed.add(name)
                self._count("webhook: answered 503")
                return 503
            self._count("webhook: answered 204")
            data = content["data"]
            self.listener.heard.append(Heard(data["order_id"], data["sequence"]))
        return 204


class Listeners:
    """All of them: for each client two readers of the stream, and one webhook; the first client's is flaky."""

    def __init__(self, system: System, tokens: dict[str, str], seed: int) -> None:
        self.answers: Counter[str] = Counter()
        self.readers: list[StreamReader] = []
        self.receivers: list[Receiver] = []
        self._web = system.ports.web
        self._tokens = tokens
        self._lock = threading.Lock()
        for number, (owner, token) in enumerate(sorted(tokens.items())):
            for name in (f"{owner}-1", f"{owner}-2"):
                listener = Listener(name=name, owner=owner)
                self.readers.append(StreamReader(self._web, token, listener, self._count, f"{seed}/{name}"))
            listener = Listener(name=f"{owner}-webhook", owner=owner)
            port = system.ports.receivers + number
            self.receivers.append(Receiver(port, listener, self._count, flaky=number == 0))

    @property
    def streams(self) -> list[Listener]:
        return [reader.listener for reader in self.readers]

    @property
    def webhooks(self) -> list[Listener]:
        return [receiver.listener for receiver in self.receivers]

    def start(self) -> None:
        """Have everybody listen, before the first order. Raises: OSError, HTTPException, ValueError."""
        for reader in self.readers:
            reader.start()
        for receiver in self.receivers:
            receiver.start()
            content = {"url": receiver.url}
            answer = _ask(self._web, self._tokens[receiver.listener.owner], "POST", "/api/v1/webhooks", content)
            receiver.webhook = Webhook(answer["secret"])

    def stop(self) -> None:
        for reader in self.readers:
            reader.stop()
        for receiver in self.receivers:
            receiver.stop()

    def behind(self, events: Mapping[str, int]) -> int:
        """How many events they have not been told of, if each owner has so many."""
        return sum(
            max(0, events.get(listener.owner, 0) - len(set(listener.heard)))
            for listener in [*self.streams, *self.webhooks]
        )

    def _count(self, kind: str) -> None:
        with self._lock:
            self.answers[kind] += 1


def _ask(port: int, token: str, method: str, path: str, content: Any = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request(method, path, None if content is None else json.dumps(content), headers)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if response.status not in (200, 201):
        raise ValueError(f"{method} {path}: {response.status} {text[:300]!r}")
    return json.loads(text)
