"""gunicorn's threaded worker, with a bound on what it takes on and an order in which it serves.

The stock worker puts every request that arrives into a queue without end: under more load than it can bear each
client waits longer than the one before, until all of them have given up on answers that are still being worked
out. Here a request that finds too many before it is answered 503 at once, and orders are served ahead of
everything else. A client that is refused sends its order again, under the same id.

Written for gunicorn 27 (workers/gthread.py): raise with care.
"""

import queue
import selectors
import socket
import threading
from collections import deque
from functools import partial
from typing import Any

from gunicorn import util
from gunicorn.workers import gthread

RETRY_SECONDS = 1
PROBES = ("/healthz", "/readyz")
"""An orchestrator takes a process that does not answer these for dead, and would end one that is merely busy."""


class Result:
    """What gunicorn reads of a future."""

    def __init__(self, value: object) -> None:
        self._value = value

    def cancelled(self) -> bool:
        return False

    def result(self) -> object:
        return self._value


class Crew:
    """The threads that serve, in place of gunicorn's executor."""

    def __init__(self, worker: "Worker", threads: int) -> None:
        self._worker = worker
        self._tokens: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._first: deque[Any] = deque()
        self._others: deque[Any] = deque()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, connection: Any, *, first: bool) -> None:
        (self._first if first else self._others).append(connection)
        self._tokens.put(True)

    def shutdown(self, wait: bool = True) -> None:
        for _ in self._threads:
            self._tokens.put(False)

    def _serve(self) -> None:
        while self._tokens.get():
            try:
                connection = self._first.popleft()
            except IndexError:
                connection = self._others.popleft()
            self._worker.served(connection, self._worker.handle(connection))


class Worker(gthread.ThreadWorker):  # type: ignore[misc]
    most_in_hand = 32
    """Requests that are being served or wait for it, in one process. With more, the last one of them would wait
    longer than all of those before it take."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_hand = 0  # of the main thread alone
        self._refusal = b""

    def get_thread_pool(self) -> Crew:
        return Crew(self, self.cfg.threads)

    def accept(self, listener: Any) -> None:
        """Take a connection on. It gets a thread when it has something to say: the stock worker waits in one."""
        try:
            sock, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self.nr_conns += 1
        conn = gthread.TConn(self.cfg, sock, client, listener.getsockname())
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def enqueue_req(self, conn: Any) -> None:
        """A connection has something to read."""
        conn.refused = self._in_hand >= self.most_in_hand
        self._in_hand += 1
        # A refusal takes no time: it goes first as well.
        self.tpool.submit(conn, first=conn.refused or _begins_with_post(conn.sock))

    def served(self, conn: Any, result: object) -> None:
        """In the thread that served it."""
        self.method_queue.defer(self._put_back, conn, result)

    def _put_back(self, conn: Any, result: object) -> None:
        self._in_hand -= 1
        self.finish_request(conn, Result(result))

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle_request(self, req: Any, conn: Any) -> Any:
        if conn.refused and req.path not in PROBES:
            return self._refuse(req, conn)
        return super().handle_request(req, conn)

    def _refuse(self, req: Any, conn: Any) -> bool:
        if not self._refusal:
            self._refusal = _refusal()
        closes = req.should_close() or not self.alive
        util.write(conn.sock, self._refusal % (b"close" if closes else b"keep-alive"))
        return not closes


def _begins_with_post(sock: socket.socket) -> bool:
    try:
        return sock.recv(4, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"POST"
    except OSError:  # nothing has come yet
        return False


def _refusal() -> bytes:
    """A problem document like any other; Django need not be asked for it every time."""
    from quiktrade.problems import MEDIA_TYPE, problem
    from quiktrade.renderers import FastJSONRenderer

    body = FastJSONRenderer().render(
        problem(
            503,
            "overloaded",
            "More requests are under way than can be answered in good time, and nothing was stored. Send the same "
            "request again after Retry-After, with the same client_order_id.",
        )
    )
    head = (
        f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {MEDIA_TYPE}\r\nRetry-After: {RETRY_SECONDS}\r\n"
        f"Content-Length: {len(body)}\r\n"
    )
    return head.encode() + b"Connection: %b\r\n\r\n" + body.replace(b"%", b"%%")
