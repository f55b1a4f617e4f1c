"""The load generator: HTTP/1.1 over connections kept alive, written for little processor time per request.

It is a separate process in the references' environment. It reads a job (see `Job`) as JSON from standard input, and
writes the result as JSON to standard output. Nothing is sent twice: an answer that never came is counted.

Closed loop: every connection sends its next request when it has the answer to the last. Open loop (`rate`):
requests fall due at random times at that rate, however long the answers take; one that finds no free connection
waits for it, and the wait counts as part of its latency.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, cast

_CONNECT_SECONDS = 10.0
_BETWEEN_CONNECTIONS_SECONDS = 0.004
_TICK_SECONDS = 0.001
_ID = re.compile(rb'"id": ?"([^"]+)"')


@dataclass(kw_only=True)
class Job:
    port: int
    path: str = ""
    paths: list[str] = field(default_factory=list)
    """GET these, in turn. Empty: POST orders to `path`."""
    headers: dict[str, str] = field(default_factory=dict)
    prefix: str = "order"
    """The beginning of every `client_order_id`; a number follows."""
    batch: int = 0
    """How many orders each request has, as {"orders": [...]}. With 0 it is one order by itself."""
    connections: int = 32
    rate: float | None = None
    seconds: float = 5.0
    warm_up: float = 0.0
    """Additional seconds at the beginning, whose requests count neither for the rate nor for the latency."""
    patience: float = 30.0
    """Seconds to wait for answers after the last request was sent."""
    seed: int = 1
    record: str | None = None
    """A file for one line per answer: number, status, sent, answered (both Unix time), the `id` in the answer."""
    host: str = "127.0.0.1"


class Requests:
    """Makes the bytes of each request."""

    def __init__(self, job: Job) -> None:
        self._job = job
        head = f"Host: {job.host}:{job.port}\r\nAccept: application/json\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in job.headers.items())
        self._gets = [f"GET {path} HTTP/1.1\r\n{head}\r\n".encode() for path in job.paths]
        self._post = f"POST {job.path} HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: ".encode()
        self._order = f'{{"client_order_id":"{job.prefix}-'.encode()
        self._rest = (
            b'","type":"limit","side":"buy","instrument":"US0378331005","limit_price":"187.50","quantity":100,'
            b'"time_in_force":"day"}'
        )
        self.made = 0

    def make(self) -> bytes:
        number = self.made
        self.made += 1
        if self._gets:
            return self._gets[number % len(self._gets)]
        if self._job.batch:
            first, last = number * self._job.batch, (number + 1) * self._job.batch
            body = b'{"orders":[' + b",".join(self._one(order) for order in range(first, last)) + b"]}"
        else:
            body = self._one(number)
        return self._post + str(len(body)).encode() + b"\r\n\r\n" + body

    def _one(self, number: int) -> bytes:
        return self._order + str(number).encode() + self._rest


class Connection(asyncio.Protocol):
    """Sends one request at a time, and reads its answer."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""
        self._expected = 0
        self._status = 0
        self._head_length = 0
        self._closes = False
        self.number = -1
        """The number of the request in flight; -1 if there is none."""
        self.due_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is one in all but its class
        self._load.free(self)

    def send(self, number: int, request: bytes, due_at: float) -> None:
        assert self._transport is not None
        self.number, self.due_at = number, due_at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._expected and not self._read_head():
            return
        if len(self._buffer) < self._expected:
            return
        body = self._buffer[self._head_length : self._expected]
        number, self.number = self.number, -1
        self._buffer, self._expected = b"", 0
        self._load.answered(number, self._status, self.due_at, body)
        if not self._closes:
            self._load.free(self)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._buffer[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            raise ValueError("an answer without Content-Length: this client does not read those")
        line_end = head.find(b"\r\n", at + 2)
        length = int(head[at + 17 : line_end if line_end > 0 else None])
        self._closes = b"\r\nconnection: close" in head
        self._status = int(head[9:12])
        self._head_length = end + 4
        self._expected = end + 4 + length
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self)


class Load:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.requests = Requests(job)
        self.statuses: Counter[int] = Counter()
        self.good: list[float] = []
        """Latencies of 2xx answers within the time measured; `bad` has those of the others."""
        self.bad: list[float] = []
        self.in_time = 0
        self.stored = 0
        self.unanswered = 0
        self.reconnects = 0
        self.records: list[str] = []
        self._idle: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self._under_way = 0
        self._open = 0
        self._from = self._end = 0.0
        self._started = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> dict[str, Any]:
        await self._connect_all()
        cpu = time.process_time()
        begun = time.perf_counter()
        self._from = begun + self.job.warm_up
        self._end = self._from + self.job.seconds
        self._started = True
        if self.job.rate:
            await self._open_loop(begun, self.job.rate)
        else:
            while self._idle:
                self._send(self._idle.popleft(), time.perf_counter())
            await asyncio.sleep(self.job.warm_up + self.job.seconds)
        cpu_in_time = time.process_time() - cpu
        deadline = time.perf_counter() + self.job.patience
        # This polls, because an event would cost every request a little.
        while (self._under_way or self._waiting) and time.perf_counter() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.unanswered += self._under_way + len(self._waiting)
        if self.job.record:
            with open(self.job.record, "w") as file:  # noqa: ASYNC230  nothing else is going on any more
                file.writelines(self.records)
        return self._report(time.process_time() - cpu, cpu_in_time)

    async def _connect_all(self) -> None:
        # One at a time: of many at once, one of the server's processes would accept all, and the others none.
        for _ in range(self.job.connections):
            self._connect()
            await asyncio.sleep(_BETWEEN_CONNECTIONS_SECONDS)
        deadline = time.perf_counter() + _CONNECT_SECONDS
        while self._open < self.job.connections:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{self._open} of {self.job.connections} connections after {_CONNECT_SECONDS} s")
            await asyncio.sleep(0.01)

    async def _open_loop(self, begun: float, rate: float) -> None:
        dice = random.Random(self.job.seed)  # noqa: S311  the same times in every run is the point
        due = begun + dice.expovariate(rate)
        while (now := time.perf_counter()) < self._end:
            while due <= now:
                if self._idle:
                    self._send(self._idle.popleft(), now)
                else:
                    self._waiting.append(now)
                due += dice.expovariate(rate)
            await asyncio.sleep(max(_TICK_SECONDS, min(due, self._end) - time.perf_counter()))

    def free(self, connection: Connection) -> None:
        """Use a connection that can take the next request."""
        if not self._started:
            self._open += 1
            self._idle.append(connection)
        elif self.job.rate:
            if self._waiting:
                self._send(connection, self._waiting.popleft())
            else:
                self._idle.append(connection)
        elif (now := time.perf_counter()) < self._end:
            self._send(connection, now)

    def _send(self, connection: Connection, due_at: float) -> None:
        self._under_way += 1
        number = self.requests.made
        connection.send(number, self.requests.make(), due_at)

    def answered(self, number: int, status: int, due_at: float, body: bytes) -> None:
        now = time.perf_counter()
        self._under_way -= 1
        self.statuses[status] += 1
        if self.job.batch:
            self.stored += body.count(b'"status":201') + body.count(b'"status": 201')
        if self._from <= due_at and now <= self._end:
            self.in_time += 1
            (self.good if 200 <= status < 300 else self.bad).append(now - due_at)
        if self.job.record:
            answered_at = time.time()
            self.records.append(f"{number} {status} {answered_at - now + due_at:.6f} {answered_at:.6f} {_id(body)}\n")

    def lost(self, connection: Connection) -> None:
        """The server closed the connection: as announced, while idle, or instead of answering."""
        if connection.number >= 0:
            self._under_way -= 1
            self.unanswered += 1
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._started:
            self._open -= 1
        if not self._started or time.perf_counter() < self._end or self._waiting:
            self.reconnects += 1
            self._connect()

    def _connect(self) -> None:
        task = self._loop.create_task(self._try_to_connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try_to_connect(self) -> None:
        while True:
            try:
                await self._loop.create_connection(lambda: Connection(self), self.job.host, self.job.port)
                return
            except OSError:
                await asyncio.sleep(0.05)

    def _report(self, cpu: float, cpu_in_time: float) -> dict[str, Any]:
        every = sum(self.statuses.values())
        return {
            "seconds": self.job.seconds,
            "sent": self.requests.made,
            "answered": every,
            "in_time": self.in_time,
            "rate": self.in_time / self.job.seconds,
            "good_rate": len(self.good) / self.job.seconds,
            "stored": self.stored,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "latency": percentiles(self.good),
            "refused_latency": percentiles(self.bad),
            "unanswered": self.unanswered,
            "reconnects": self.reconnects,
            "cpu_seconds": cpu,
            "cpu_share": cpu_in_time / (self.job.warm_up + self.job.seconds),
        }


def _id(body: bytes) -> str:
    found = _ID.search(body)
    return found[1].decode() if found else "-"


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The latencies in milliseconds; empty if there are none."""
    if not seconds:
        return {}
    seconds.sort()
    last = len(seconds) - 1
    picked = {f"p{share:g}": seconds[round(last * share / 100)] for share in (50, 90, 99, 99.9)}
    return {name: round(value * 1000, 3) for name, value in {**picked, "max": seconds[-1]}.items()}


async def _run(job: Job) -> dict[str, Any]:
    return await Load(job).run()


def main() -> None:
    import uvloop  # not above, because the product's environment imports this module, too

    job = Job(**json.load(sys.stdin))
    json.dump(uvloop.run(_run(job)), sys.stdout)


if __name__ == "__main__":
    main()
