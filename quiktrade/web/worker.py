"""gunicorn's gevent worker, with bounds on how long and how much it waits for its clients.

Each connection is a greenlet, so a client that sends or reads slowly costs memory and no thread. What that adds up to
is bounded here: a request must arrive within a time, an answer must be read within one, and a process takes a limited
number of connections. HTTP itself is gunicorn's. Read for gunicorn 27 (workers/ggevent.py, base_async.py) and
gevent 26.
"""

import contextlib
import errno
import logging
import sys
import time
from typing import Any

import gevent
from gevent import socket
from gunicorn import util
from gunicorn.workers.ggevent import GeventWorker

from quiktrade.web.receiving import SMALL_BODY, NotReceived

logger = logging.getLogger("gunicorn.error")

STOPPING_SECONDS = 2.0
"""A process that stops keeps idle connections this long: on one of them the next request may be on its way."""
MOST_COLLECTED = 256 * 1024
"""Bytes of an answer that are sent in one piece."""
MOST_UNSENT = 64 * 1024 * 1024
"""Bytes of answers in one process that its clients have yet to read. Beyond that, who does not read is closed."""
MOST_DRAINED = 16 * 1024 * 1024
"""Bytes of a request refused unread that are received and dropped, so that its client gets to read why."""
TOO_SLOW = "Client too slow: connection closed"
SPARE = 16
"""Connections beyond those allowed: they are taken while a place is made for them."""


class Client(socket.socket):
    """A client's connection.

    Between requests it waits for the next one as long as an idle connection is kept. Once the first byte has come,
    the whole of the request has a deadline.
    """

    seconds = 30.0
    """From the first byte of a request to its last, and for reading what is sent in one piece: `WEB_CLIENT_SECONDS`."""
    unsent = 0
    """Bytes, of all clients."""

    def __init__(self, sock: Any, idle_seconds: float) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self._raw: Any = self._sock  # type: ignore[attr-defined]  # gevent's own, which does not wait
        self._idle_seconds = idle_seconds
        self._answer: list[bytes] | None = None
        self._collected = 0
        self._closing = self._dismissed = self._hung_up = False
        self._live = self._waiting = False
        self._rest = b""
        """What a part that was pushed has left to send; it goes before all else."""
        self.deadline: float | None = None
        """Of the request that has begun to arrive."""
        self.request: Any = None
        """gunicorn's, from its head to its answer."""
        self.served = False
        """Its request is being served, or its answer is being sent."""
        self.since = time.monotonic()
        """When it began to wait for its next request, or for the rest of this one."""

    def recv(self, size: int, *flags: int) -> bytes:
        """Raises: NotReceived, where a request that has begun does not arrive in time."""
        if self._closing:
            return super().recv(size, *flags)
        if self.deadline is None:
            self.settimeout(self._idle_seconds)
        else:
            self.settimeout(max(0.001, self.deadline - time.monotonic()))
        try:
            data: bytes = super().recv(size, *flags)
        except OSError as error:
            if isinstance(error, TimeoutError) and self.deadline is not None:
                raise NotReceived(408) from None
            if not isinstance(error, TimeoutError) and not self._dismissed:
                raise
            data = b""
        if not data:
            self._hung_up = True
        elif self.deadline is None:
            self.since = time.monotonic()
            self.deadline = self.since + self.seconds
        return data

    def begin_answer(self) -> None:
        """Collect what is sent from now on: the head of an answer and its body leave in one piece."""
        self.served, self._answer, self._collected = True, [], 0

    def end_answer(self) -> None:
        """Send what was collected, and wait for the next request."""
        answer, self._answer = self._answer, None
        self.deadline, self._live = None, False
        if answer and not self._closing:
            self._send(b"".join(answer))
        self.served, self.since = False, time.monotonic()

    def go_live(self) -> None:
        """Send what comes from now on at once: the answer goes on (see live.py)."""
        self._answer, self._live = None, True

    def push(self, part: bytes) -> int | None:
        """Send a part of an answer that goes on, without a wait and without its greenlet.

        Returns how many bytes are left, which go with whatever the greenlet sends next; None if nothing was sent.
        """
        if not self._live or self._waiting or self._rest:
            return None
        data = b"%X\r\n%b\r\n" % (len(part), part) if self.request.version > (1, 0) else part
        try:
            sent = self._raw.send(data)
        except OSError:  # its greenlet finds out why
            return None
        self._rest = data[sent:]
        return len(self._rest)

    def cut(self) -> None:
        """End it at once. Whatever waits for its client to read fails."""
        logger.warning(TOO_SLOW, extra={"event": "web.stream_cut"})
        self._hung_up = True
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def hung_up(self) -> bool:
        try:
            return not self._raw.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Raises: OSError, where the client is gone or does not read."""
        if self._answer is None:
            self._send(data)
            return
        self._answer.append(data)
        self._collected += len(data)
        if self._collected >= MOST_COLLECTED:
            answer, self._answer, self._collected = self._answer, [], 0
            self._send(b"".join(answer))

    def _send(self, data: bytes) -> None:
        if self._rest:
            data, self._rest = self._rest + data, b""
        self.settimeout(0.0)
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        Client.unsent += len(rest)
        self._waiting = True
        try:
            if Client.unsent > MOST_UNSENT:
                raise TimeoutError
            self.settimeout(self.seconds)
            super().sendall(rest)
        except TimeoutError:
            logger.warning(TOO_SLOW, extra={"event": "web.answer_unread"})
            self._hung_up = True  # it is not waited for again
            raise BrokenPipeError(errno.EPIPE, "too slow") from None
        finally:
            Client.unsent -= len(rest)
            self._waiting = False

    def dismiss(self) -> None:
        """Have it read as if the client had hung up."""
        self._dismissed = True
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """The client gets to read the end of its answer, though there may be more of its request to come."""
        if self._hung_up or self._closing:
            super().close()
        else:
            self._closing = True
            util.close_graceful(self, timeout=self.seconds, max_drain=MOST_DRAINED)


class Worker(GeventWorker):  # type: ignore[misc]
    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        if cfg.certfile:
            sys.exit(f"gunicorn's certfile is {cfg.certfile!r}; QuikTrade's worker does no TLS: a proxy does")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.worker_connections += SPARE
        self._clients: set[Client] = set()

    def init_process(self) -> None:
        # gunicorn asks for some twenty settings in every request, and looks up each in a table of its own.
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        super().init_process()

    def notify(self) -> None:
        super().notify()  # every second
        self.wsgi.sample()

    def timeout_ctx(self) -> Any:
        return contextlib.nullcontext()  # each client has its own

    def handle(self, listener: Any, sock: Any, addr: Any) -> None:
        client = Client(sock, self.cfg.keepalive)
        if len(self._clients) >= self.cfg.worker_connections:
            self._make_place()
        self._clients.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._clients.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Client, addr: Any) -> Any:
        if self._declared_length(req) > self._most_body:
            raise NotReceived(413)
        sock.request = req
        sock.begin_answer()
        try:
            if self._is_too_much(req):
                return self._refuse(req, sock)
            return super().handle_request(listener_name, req, sock, addr)
        except StopIteration:  # it was answered, and the connection is closed next
            raise
        except BaseException:
            sock.begin_answer()  # what was collected is no answer
            raise
        finally:
            sock.request = None
            sock.end_answer()

    def _is_too_much(self, req: Any) -> bool:
        """Whether to refuse it at once, for half of what it costs by way of an environ.

        What is not so plain goes that way: the last request of a connection, one whose client waits for a 100 before
        it sends the body, one whose answer has no body, and all of them where an access log is to have them.
        """
        plain = not (req.should_close() or req._expected_100_continue or req.method == "HEAD")
        return plain and self.alive and not self.cfg.accesslog and self.wsgi.refuses(req.method, req.path)

    def _refuse(self, req: Any, sock: Client) -> bool:
        """Receive it in full, and drop it: a client may read nothing until all is sent. Raises: NotReceived."""
        dropped = 0
        while part := req.body.read(SMALL_BODY):
            dropped += len(part)
            if dropped > self._most_body:
                raise NotReceived(413)
        sock.sendall(self._overloaded)
        return True

    @staticmethod
    def _declared_length(req: Any) -> int:
        return next((int(value) for name, value in req.headers if name == "CONTENT-LENGTH"), 0)

    def handle_error(self, req: Any, client: Client, addr: Any, exc: BaseException) -> None:
        """Answer with a problem document what did not arrive, or is no request. The connection is closed next."""
        from quiktrade.web import refusals  # gunicorn's own process does without

        if isinstance(exc, NotReceived):
            status = exc.status
            sentence = TOO_SLOW if status == 408 else "Request refused"
            self.log.warning(sentence, extra={"event": "web.refused", "why": exc.why})
        else:
            said = _Said()
            super().handle_error(req, said, addr, exc)  # gunicorn logs it, and says what its status is
            status = said.status
        with contextlib.suppress(OSError):
            client.sendall(refusals.closing(status))

    def _make_place(self) -> None:
        """Close the connection that has been idle longest; if none is, the one whose request is the slowest."""
        waiting = [client for client in self._clients if not client.served]
        if waiting:
            min(waiting, key=lambda client: (client.deadline is not None, client.since)).dismiss()

    def run(self) -> None:
        from django.conf import settings  # gunicorn's own process does without these

        from quiktrade.web import refusals

        self._overloaded = refusals.OVERLOADED
        self._most_body = settings.API_MAX_BATCH_BYTES
        Client.seconds = settings.WEB_CLIENT_SECONDS
        super().run()

    def handle_exit(self, sig: Any, frame: Any) -> None:
        super().handle_exit(sig, frame)
        for client in self._clients:
            if client.request is not None:
                client.request.force_close()  # the answer says that no other request is read on this connection
        from quiktrade.web import live

        gevent.spawn(live.stop)
        gevent.spawn_later(STOPPING_SECONDS, self._dismiss_idle)

    def _dismiss_idle(self) -> None:
        for client in list(self._clients):
            if client.deadline is None and not client.served:
                client.dismiss()


class _Said:
    """Takes gunicorn's own answer to what is no request, of which only the status is wanted."""

    status = 400

    def gettimeout(self) -> float:
        return 0.0

    def sendall(self, data: bytes) -> None:
        self.status = int(data.split(b" ", 2)[1])
