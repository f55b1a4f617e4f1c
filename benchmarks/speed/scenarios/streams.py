"""11: how soon clients hear of their orders on streams, what that takes, and what it takes from other requests.

1,000 clients follow their orders, and 1,000 events a second are written for them by the product's own statements. The
time of an event is that of its statement, so the figure is from before it is stored to its arrival.
"""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import connections

from benchmarks.speed.load import Answers
from benchmarks.speed.processes import CpuMeter, memory_bytes
from benchmarks.speed.session import SINGLE, Session
from benchmarks.speed.stage import Server
from exchanges import demo
from quiktrade.local.venv import ROOT

CLIENTS = 1_000
EVENTS_A_SECOND = 1_000
TOGETHER = 10
"""Events in one statement."""
CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Heard:
    """Latencies in milliseconds, memory in MB, processor time of the web processes in milliseconds per event.

    `added` is the memory that came with the streams.
    """

    events: int
    p50: float
    p99: float
    memory: float
    added: float
    cpu: float


def measure(session: Session) -> None:
    clients = 100 if session.options.quick else CLIENTS
    tokens, orders = _prepare(clients)
    stage = session.stage
    with stage.web() as web:
        headers = stage.headers(web)

        def posts(seconds: float) -> Answers:
            return session.load(web, SINGLE, headers=headers, connections=CONNECTIONS, seconds=seconds)

        def streams(seconds: float) -> Heard:
            before = _memory(web)
            with _followers(web, tokens) as followers, _written(orders):
                return followers.hear(web, seconds, before)

        def posts_beside_streams(seconds: float) -> Answers:
            with _followers(web, tokens), _written(orders):
                return posts(seconds)

        def posts_beside_the_writer(seconds: float) -> Answers:
            with _written(orders):
                return posts(seconds)

        found: dict[str, list[Any]] = session.interleave(
            {
                "streams": streams,
                "posts beside the writer": posts_beside_the_writer,
                "posts beside the streams": posts_beside_streams,
            },
            warm_up=False,
        )
    heard: list[Heard] = found["streams"]
    session.measure(
        f"an event on one of {clients} streams, {EVENTS_A_SECOND} a second, p99", "ms",
        [each.p99 for each in heard], target=100.0, at_most=True,
    )  # fmt: skip
    session.measure(
        f"memory of the web processes with {clients} streams", "MB",
        [each.memory for each in heard], target=200.0, at_most=True,
    )  # fmt: skip
    session.measure(
        "single POSTs beside the streams", "requests/s",
        [answers.rate for answers in found["posts beside the streams"]],
        against="beside the writer alone",
        reference=[answers.rate for answers in found["posts beside the writer"]],
        target=0.9,
    )  # fmt: skip
    last = heard[-1]
    session.note(
        f"{last.events} events, p50 {last.p50:g} ms, {last.cpu:g} ms of the web's processor time for each; "
        f"the streams added {heard[0].added:g} MB at first"
    )


def _prepare(clients: int) -> tuple[list[str], list[UUID]]:
    """Clients with an order each, and tokens for them."""
    from benchmarks.speed.seed import accept_orders
    from orders.models import Order
    from quiktrade.auth.tokens import AccessToken

    users = get_user_model().objects
    users.bulk_create([get_user_model()(username=f"follower-{n}") for n in range(clients)])
    followers = list(users.filter(username__startswith="follower-"))
    for user in followers:
        accept_orders(1, owner_id=user.pk, venue=demo.VENUE)
    orders = list(Order.objects.filter(owner__in=followers).values_list("pk", flat=True))
    tokens = []
    for user in followers:
        token = AccessToken.for_user(user)
        token["exp"] = int(time.time()) + 36_000
        tokens.append(str(token))
    connections.close_all()
    return tokens, orders


def _memory(web: Server) -> float:
    """In MB."""
    return round(sum(memory_bytes(web.pid)) / 1e6, 1)


class _Followers:
    def __init__(self, process: "subprocess.Popen[str]", expected: int) -> None:
        self._process = process
        self._expected = expected

    def hear(self, web: Server, seconds: float, memory_before: float) -> Heard:
        time.sleep(1.0)  # until the writer is under way
        self.report()
        meter = CpuMeter({"web": web.pid})
        time.sleep(seconds)
        found, cpu = self.report(), meter.read()["web"]
        if found["open"] != self._expected:
            raise RuntimeError(f"{found['open']} of {self._expected} streams are open")
        memory = _memory(web)
        each = 1000 * cpu / max(1, found["events"])
        added = round(memory - memory_before, 1)
        return Heard(found["events"], found["p50"], found["p99"], memory, added, round(each, 3))

    def report(self) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


@contextmanager
def _followers(web: Server, tokens: list[str]) -> Iterator[_Followers]:
    command = [sys.executable, "-m", "benchmarks.speed.followers"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(json.dumps({"port": web.port, "tokens": tokens}) + "\n")
            process.stdin.flush()
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the streams did not open")
            yield _Followers(process, len(tokens))
        finally:
            process.kill()


@contextmanager
def _written(orders: list[UUID]) -> Iterator[None]:
    """Have events written, as the engine writes them, until this ends."""
    stop = threading.Event()
    writer = threading.Thread(target=_write, args=(orders, stop))
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def _write(orders: list[UUID], stop: threading.Event) -> None:
    """Claim some orders, and have them not sent, in turns."""
    from orders import lifecycle
    from orders.lifecycle import Event, Step

    dice = random.Random(1)  # noqa: S311  the same orders in every run
    due, claimed = time.monotonic(), True
    some: list[UUID] = []
    try:
        while not stop.wait(max(0.0, due - time.monotonic())):
            claimed = not claimed
            if not claimed:
                some = dice.sample(orders, TOGETHER)
            event = Event.NOT_SENT if claimed else Event.CLAIMED
            lifecycle.advance([Step(order_id=id_, event=event, delay=3600.0) for id_ in some], actor="system:benchmark")
            due += TOGETHER / EVENTS_A_SECOND
    finally:
        connections.close_all()
