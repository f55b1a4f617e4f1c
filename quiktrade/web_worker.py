"""gunicorn's worker: one thread reads and takes orders, a few do the rest, and there is a bound on what is taken on.

gunicorn's own threaded worker spends as long on passing a request from its poller to a thread and back as Django
does on a short answer (measured: 0.55 ms of processor time for /healthz, against 0.2 ms here). It gives a thread to
whoever connects, for five seconds, and its queue has no end: under more load than it can bear each client waits
longer than the one before, until all have given up on answers that are still being worked out.

Here a request is served when all of it has come, and one that finds too many before it is answered 503 at once.
Whoever is refused sends the order again, under the same id. A single order is taken, and read, by the thread that
read the request, by turns (quiktrade/turns.py): that takes 0.7 ms of processor time where passing it to another thread
took 1.0. Orders to be taken go first. Any other request gets a thread.

HTTP itself, its parsing and its answers, is gunicorn's. Read for gunicorn 27 (workers/gthread.py): raise with care.
"""

import contextlib
import io
import itertools
import os
import re
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Generic, TypeVar

from gunicorn import util
from gunicorn.http import RequestParser, wsgi
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.base import Worker as BaseWorker

from quiktrade.web.admission import Admission

RETRY_SECONDS = 1
SLOW_CLIENT_SECONDS = 5.0
"""For the rest of a request that has begun to come, and for any part of an answer to be read."""
MOST_UNSENT = 64 * 1024 * 1024
"""Bytes of answers that clients have yet to read, in one process. One that does not read is closed beyond that."""
LONG_REQUEST_SECONDS = 30.0
"""For one that the serving thread reads."""
STOPPING_SECONDS = 2.0
"""A stopping worker keeps idle connections for so long: on one of them the next request may be on its way."""

ACCEPT_PAUSE_SECONDS = 0.001
"""After a connection the next ones are left to other processes for so long: else the first to wake takes them all,
and half of the processes idle."""
MOST_ACCEPTED = 4
"""At a time, when the others have left some: hundreds that come at once would wait a second else."""

MOST_BUFFERED = 1024 * 1024 + 65_536
"""A request that is longer, or does not say how long it is, is read by the thread that serves it."""

_BY_TURNS = re.compile(rb"(POST /api/v1/orders|GET /api/v1/orders/[0-9a-fA-F-]{36}) ")
"""What is done with a single look-up or statement, that may be of many orders: no client can make it last."""
READS_SECONDS = 0.002
"""Then it is the turn of the orders that have come meanwhile."""
MOST_BY_TURNS = 16 * 1024
"""A longer request is not an ordinary order, and would keep the others from their turns."""

_LIVENESS = b"GET /healthz "
_PROBES = (_LIVENESS, b"GET /readyz")
"""An orchestrator takes a process that does not answer these for dead, and would end one that is merely busy."""
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
_CHUNK = 256 * 1024
_END_OF_HEAD = b"\r\n\r\n"
_LONGEST_HEAD = 64 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*(?=\r\n)", re.IGNORECASE)
_ANY_LENGTH = re.compile(rb"\r\ncontent-length", re.IGNORECASE)
_LENGTH_NOT_KNOWN = re.compile(rb"\r\n(transfer-encoding|expect):", re.IGNORECASE)


class Connection:
    """`request` is what the thread that has it in hand serves; `received` is what came after that."""

    def __init__(self, sock: socket.socket, client: Any, server: Any) -> None:
        self.sock = sock
        self.client = client
        self.server = server
        self.received = bytearray()
        self.request = b""
        self.in_full = True
        self.busy = False
        self.by_turns = False
        """Its request in hand is served by the reading thread."""
        self.ended = False
        """Its last answer is there; what comes after that is not read as a request."""
        self.unsent = memoryview(b"")
        """What the client has yet to read of its answer. It is busy until then."""
        self.no_more_comes = False
        """The client has said all that it had to say. What it has sent ahead is answered."""
        self.watched = 0
        """What the selector is to tell of it."""
        self.counted = False
        """Its request in hand has a place of those that there are."""
        self.since = time.monotonic()
        """Of what it waits for: its next request, or the rest of this one."""

    def take_request(self) -> bool:
        """Move a whole request from `received` to `request`, if one is there."""
        end = self.received.find(_END_OF_HEAD)
        if end < 0:
            length, known = len(self.received), False
            if length <= _LONGEST_HEAD:
                return False
        else:
            head = bytes(self.received[: end + 2])
            lengths = _LENGTH.findall(head)
            body = int(lengths[0]) if lengths else 0
            # Anything unusual is for gunicorn's parser to judge: it must not see another end of the request than we.
            usual = len(_ANY_LENGTH.findall(head)) == len(lengths) < 2
            known = usual and body <= MOST_BUFFERED and not _LENGTH_NOT_KNOWN.search(head)
            length = end + len(_END_OF_HEAD) + body if known else len(self.received)
            if length > len(self.received):
                return False
        self.request = bytes(self.received[:length])
        self.in_full = known
        del self.received[:length]
        return True


class Rest:
    """The rest of a request, to be read from the socket by the thread that serves it; not for ever."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._end = time.monotonic() + LONG_REQUEST_SECONDS

    def recv(self, size: int) -> bytes:
        self._sock.settimeout(max(0.001, self._end - time.monotonic()))
        try:
            return self._sock.recv(size)
        finally:
            self._sock.settimeout(SLOW_CLIENT_SECONDS)


class Outbox:
    """Stands for the socket while an answer is made, so that it leaves in one piece."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.parts.append(data)


Job = TypeVar("Job")


class Crew(Generic[Job]):
    """Threads that serve. What is to go first does, but every eighth time something else has its turn.

    The thread that was idle last is woken first: its database connection is the warmest.
    """

    def __init__(self, threads: int, serve: Callable[[Job], None]) -> None:
        self._serve = serve
        self._lock = threading.Lock()
        self._idle: list[threading.Lock] = []  # each released to wake the thread that waits for it
        self._first: deque[Job] = deque()
        self._others: deque[Job] = deque()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"serving-{number}", daemon=True).start()

    def submit(self, job: Job, *, first: bool = True) -> None:
        with self._lock:
            (self._first if first else self._others).append(job)
            if self._idle:
                self._idle.pop().release()

    def _work(self) -> None:
        alarm = threading.Lock()
        alarm.acquire()
        for turn in itertools.count(1):
            one, other = (self._first, self._others) if turn % 8 else (self._others, self._first)
            while True:
                with self._lock:
                    if waiting := one or other:
                        job = waiting.popleft()
                        break
                    self._idle.append(alarm)
                alarm.acquire()
            self._serve(job)


class Worker(BaseWorker):  # type: ignore[misc]
    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse what this worker would pass over in silence."""
        for name, unset in (("certfile", None), ("proxy_protocol", "off"), ("max_requests", 0)):
            if (value := getattr(cfg, name, unset)) != unset:
                sys.exit(f"gunicorn's {name} is {value!r}; QuikTrade's worker does not know it, and a proxy does TLS")

    most_in_hand = 32
    """Requests that are being served or wait for it, in one process."""

    def init_process(self) -> None:
        self._connections: set[Connection] = set()
        self._selector = selectors.DefaultSelector()
        self._accepting = False
        self._accept_at = self._look_at = 0.0
        self._accept_most = 1
        self._admission = Admission(self.most_in_hand)
        self._lock = threading.Lock()  # of _admission, and of each connection's `busy` and `received`
        self._bell, self._rope = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._rope, False)
        self._left_over: deque[Connection] = deque()
        self._crew = Crew(self.cfg.threads, self._serve)
        self._porter = Crew(1, self._serve)  # who never waits for the database
        # For the requests served by turns: one stores orders, one confirms what was stored before, one reads orders,
        # one reads what little else there is to know.
        self._waiters = Crew(4, _wait_for)
        self._reads: deque[Connection] = deque()
        """To be served by turns, when the orders that have come are under way."""
        self._unsent = 0
        """Bytes, of all connections."""
        self._places = 0
        """Of requests served by turns, free again at the end of the turn: a turn takes no more than there are."""
        # gunicorn asks for some twenty settings in every request, and looks up each in a table of its own.
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        super().init_process()

    # ---- The thread that reads ----

    def run(self) -> None:
        from quiktrade.turns import Turns  # here, for gunicorn's own process is to load as little as it can

        self._refusal = _refusal()
        self._turns = Turns(self._waiters.submit, self._ring)
        self._selector.register(self._bell, selectors.EVENT_READ, self._woken)
        for listener in self.sockets:
            listener.setblocking(False)
        while self.alive and self.ppid == os.getppid():
            pause = self._accept_at - time.monotonic()
            self._accept_if(pause <= 0 and self._has_place())
            self._turn(min(1.0, pause) if pause > 0 else 1.0)
            self._close_idle(self.cfg.keepalive)
        self._accept_if(False)
        self._finish()

    def _finish(self) -> None:
        """Serve what is in hand, and what comes on connections kept alive until they are closed."""
        began = time.monotonic()
        while self._connections and (waited := time.monotonic() - began) < self.cfg.graceful_timeout:
            self._turn(0.1)
            self._close_idle(self.cfg.keepalive if waited < STOPPING_SECONDS else 0.0)

    def _turn(self, seconds: float) -> None:
        self.notify()
        for key, _ in self._selector.select(0.0 if self._reads else seconds):
            key.data(key.fileobj)
        self._turns.send_off()
        began = time.monotonic()
        while self._reads and time.monotonic() - began < READS_SECONDS:
            self._turns.start(partial(self._serve, self._reads.popleft()))
        self._turns.send_off()
        with self._lock:
            for _ in range(self._places):
                self._admission.done()
        self._places = 0

    def _accept_if(self, wanted: bool) -> None:
        if wanted == self._accepting:
            return
        self._accepting = wanted
        for listener in self.sockets:
            if wanted:
                self._selector.register(listener, selectors.EVENT_READ, self._accept)
            else:
                self._selector.unregister(listener)

    def _has_place(self) -> bool:
        """Whether another connection can be taken, if need be in the place of those that have been idle longest."""
        if len(self._connections) >= self.cfg.worker_connections:
            self._make_place()
        return bool(len(self._connections) < self.cfg.worker_connections)

    def _make_place(self) -> None:
        idle = [c for c in self._connections if not (c.busy or c.received)]
        for connection in sorted(idle, key=lambda c: c.since)[:MOST_ACCEPTED]:
            self._close(connection)

    def _accept(self, listener: Any) -> None:
        pause, taken = 0.0, 0
        try:
            while taken < self._accept_most and self._has_place():
                self._welcome(listener, *listener.accept())
                pause, taken = ACCEPT_PAUSE_SECONDS, taken + 1
        except (BlockingIOError, ConnectionAbortedError):
            pass
        except OSError as error:  # no file descriptor is left, for one
            self.log.error("Connection not accepted: %s", error)
            self._make_place()
            pause = 0.1
        self._accept_most = min(taken + 1, MOST_ACCEPTED)
        self._accept_at = max(self._accept_at, time.monotonic() + pause)

    def _welcome(self, listener: Any, sock: socket.socket, client: Any) -> None:
        # With a timeout, Python would poll before every call: each time it lets go of its lock, a thread queues for it.
        sock.setblocking(False)
        connection = Connection(sock, client, listener.getsockname())
        self._connections.add(connection)
        self._watch(connection, selectors.EVENT_READ)

    def _watch(self, connection: Connection, events: int) -> None:
        """Be told from now on when there is something to read, when there is room to write, or of nothing (0)."""
        if events == connection.watched:
            return
        if connection.watched:
            self._selector.unregister(connection.sock)
        if events:
            call = self._read if events == selectors.EVENT_READ else self._write
            self._selector.register(connection.sock, events, lambda _: call(connection))
        connection.watched = events

    def _read(self, connection: Connection) -> None:
        if connection not in self._connections:  # closed by what came before it in this turn
            return
        try:
            data = connection.sock.recv(_CHUNK)
        except (BlockingIOError, TimeoutError):
            return
        except OSError:
            data = b""
        if not data:
            self._watch(connection, 0)
            connection.no_more_comes = True
            self._close_if_done(connection)
            return
        with self._lock:
            if not connection.received:
                connection.since = time.monotonic()
            connection.received += data
            too_much = len(connection.received) > MOST_BUFFERED + _LONGEST_HEAD + _CHUNK
        if too_much:  # it sends on and on while it is being served
            self._close(connection)
        else:
            self._hand_over(connection)

    def _write(self, connection: Connection) -> None:
        """Go on with an answer that the client did not read at once."""
        try:
            sent = connection.sock.send(connection.unsent)
        except (BlockingIOError, TimeoutError):
            return
        except OSError:
            self._close(connection)
            return
        connection.since = time.monotonic()
        with self._lock:
            self._unsent -= sent
            connection.unsent = connection.unsent[sent:]
            connection.busy = bool(connection.unsent)
        if connection.busy:
            return
        if connection.ended:
            self._finish_sending(connection)
        self._watch(connection, 0 if connection.no_more_comes else selectors.EVENT_READ)
        self._hand_over(connection)
        self._close_if_done(connection)

    def _close_if_done(self, connection: Connection) -> None:
        if connection.no_more_comes and not connection.busy and connection in self._connections:
            self._close(connection)

    @staticmethod
    def _finish_sending(connection: Connection) -> None:
        """The client reads to the end of it, and hangs up in turn; the reading thread sees that."""
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_WR)

    def _hand_over(self, connection: Connection) -> None:
        """Have a request served, if one has come in full; or refuse it, and look at the next."""
        while self._take(connection):
            if connection.busy:
                if not connection.in_full:
                    self._watch(connection, 0)  # the serving thread reads on
                    connection.sock.settimeout(SLOW_CLIENT_SECONDS)
                request = connection.request
                short = connection.in_full and len(request) < MOST_BY_TURNS
                connection.by_turns = short and bool(_BY_TURNS.match(request))
                if connection.by_turns and request.startswith(b"POST"):
                    self._turns.start(partial(self._serve, connection))
                elif connection.by_turns:
                    self._reads.append(connection)
                elif request.startswith(_LIVENESS):
                    self._porter.submit(connection)
                else:
                    self._crew.submit(connection, first=request.startswith((b"POST", *_PROBES)))
                return
            if not self._refuse(connection):
                return

    def _take(self, connection: Connection) -> bool:
        """Take the next request of a connection that has none in hand. It is then busy, unless there is no room."""
        with self._lock:
            if connection.busy or connection.ended or not connection.take_request():
                return False
            whatever = not connection.in_full or connection.request.startswith(_PROBES)
            connection.counted = not whatever and self._admission.take()
            connection.busy = whatever or connection.counted
            return True

    def _refuse(self, connection: Connection) -> bool:
        """Answer 503, here and without looking at the request: it must cost next to nothing, or it would be load.

        Says whether the connection stays open.
        """
        closes = not self.alive or connection.request.startswith(b"HEAD") or _CLOSES.search(connection.request)
        answer = self._refusal % (b"close" if closes else b"keep-alive")
        connection.since = time.monotonic()
        try:
            written = os.write(connection.sock.fileno(), answer)
        except OSError:
            written = 0  # the client is gone, or does not read
        if closes or written < len(answer):
            self._close(connection)
            return False
        return True

    def _woken(self, bell: Any) -> None:
        """A thread has done what some wait for, or finished with a connection on which there is something to do."""
        with contextlib.suppress(BlockingIOError):
            os.read(bell, 4096)
        self._turns.resume()
        for _ in range(len(self._left_over)):  # what they leave over in turn is for the next
            connection = self._left_over.popleft()
            if connection not in self._connections:
                continue
            if not connection.in_full:
                self._close(connection)
            elif connection.unsent:
                self._watch(connection, selectors.EVENT_WRITE)
            else:
                self._hand_over(connection)
                self._close_if_done(connection)

    def _close(self, connection: Connection) -> None:
        """Forget a connection. A thread that still answers on it closes its socket when that is done."""
        self._connections.discard(connection)
        self._watch(connection, 0)
        with self._lock:
            if connection.busy and not connection.unsent:
                return
            self._unsent -= len(connection.unsent)
            connection.unsent = memoryview(b"")
        connection.sock.close()

    def _close_idle(self, seconds: float) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + 0.25
        for connection in [c for c in self._connections if c.unsent or not c.busy]:
            slow = bool(connection.received or connection.unsent)
            limit = SLOW_CLIENT_SECONDS if slow else min(seconds, SLOW_CLIENT_SECONDS) if connection.ended else seconds
            if now - connection.since >= limit:
                if slow:
                    self.log.warning("Client too slow: connection closed")
                self._close(connection)

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wake-up calls
            os.write(self._rope, b"!")

    # ---- The threads that serve ----

    def _serve(self, connection: Connection) -> None:
        keep = False
        try:
            keep = self._answer(connection)
        except TimeoutError:
            self.log.warning("Client too slow: connection closed")
        except (NoMoreData, OSError):
            pass  # the client is gone
        except BaseException as error:
            if connection.by_turns and isinstance(error, SystemExit):
                raise  # of a signal's handler: this thread is the one that gets them
            self.log.exception("Request not answered")
        if not connection.in_full:
            util.close_graceful(connection.sock)  # there may be more to read: the answer is to arrive all the same
        with self._lock:
            if connection.by_turns:
                self._places += connection.counted
            elif connection.counted:
                self._admission.done()
            connection.since = time.monotonic()
            connection.busy = bool(connection.unsent)
            connection.ended = not keep
            connection.request = b""
            more = bool(connection.received) or not connection.in_full
        if connection not in self._connections:
            connection.sock.close()
            return
        if not keep and connection.in_full and not connection.busy:
            self._finish_sending(connection)
        if more or connection.busy or connection.no_more_comes:
            self._left_over.append(connection)
            self._ring()

    def _answer(self, connection: Connection) -> bool:
        """Serve the request in hand. Says whether the connection stays open."""
        if connection.in_full:
            parser = RequestParser(self.cfg, (connection.request,), connection.client)
        else:
            parser = RequestParser(self.cfg, Rest(connection.sock), connection.client)
            parser.unreader.unread(connection.request)
        request = None
        try:
            request = next(parser)
            return self._call(connection, request)
        except (OSError, NoMoreData):
            raise
        except StopIteration:
            return False
        except Exception as error:
            self.handle_error(request, connection.sock, connection.client, error)
            return False

    def _call(self, connection: Connection, request: Any) -> bool:
        began = time.monotonic()
        outbox = Outbox()
        response, environ = wsgi.create(
            request, outbox if connection.in_full else connection.sock, connection.client, connection.server, self.cfg
        )
        environ["wsgi.multithread"] = True
        if "HTTP_TRANSFER_ENCODING" in environ:  # Django takes a body that does not say its length for none
            content = request.body.read(MOST_BUFFERED + 1)  # one more than is allowed is refused above
            environ |= {"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))}
        if not (self.alive and self.cfg.keepalive and connection.in_full):
            response.force_close()
        body = self.wsgi(environ, response.start_response)
        try:
            for part in body:
                response.write(part)
            response.close()
            self._send(connection, b"".join(outbox.parts))
        finally:
            if hasattr(body, "close"):
                body.close()
        if self.cfg.accesslog:
            self.log.access(response, request, environ, timedelta(seconds=time.monotonic() - began))
        return not response.should_close()

    def _send(self, connection: Connection, answer: bytes) -> None:
        """At once, as a rule. What the client does not take is left to the reading thread: no place is held for it.

        Raises: TimeoutError, where too much waits for clients that do not read; OSError, where the client is gone.
        """
        try:
            sent = connection.sock.send(answer)
        except BlockingIOError:
            sent = 0
        if rest := answer[sent:]:
            with self._lock:
                if self._unsent + len(rest) > MOST_UNSENT:
                    raise TimeoutError
                self._unsent += len(rest)
                connection.unsent = memoryview(rest)


def _wait_for(call: Callable[[], None]) -> None:
    from django.db import close_old_connections

    with contextlib.suppress(Exception):  # the call will meet it itself, and can say so
        close_old_connections()  # as Django does before each request
    call()


def _refusal() -> bytes:
    """A problem document like any other; Django need not be asked for it every time."""
    from quiktrade.api.problems import MEDIA_TYPE, problem
    from quiktrade.api.renderers import FastJSONRenderer

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
