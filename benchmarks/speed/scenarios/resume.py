"""11: how soon a client has the 10,000 events that it missed, on a stream and by asking for pages.

The time is from the connecting to the last of the events, which this process reads and does not parse, but for the
cursor of each page.
"""

import http.client
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from django.contrib.auth import get_user_model
from django.db import connections

from benchmarks.speed.processes import CpuMeter
from benchmarks.speed.seed import accept_orders
from benchmarks.speed.session import Session
from benchmarks.speed.stage import CLIENT, Server
from exchanges import demo
from orders import feed, lifecycle
from orders.lifecycle import Event, Step

MISSED = 10_000
ORDERS = 1_000
PAGE = feed.MOST_ON_A_PAGE
PATIENCE_SECONDS = 30.0
_EVENT = b"\nevent: order\n"


class NotAll(Exception):
    """Some of the events did not come."""


@dataclass(frozen=True, slots=True)
class Caught:
    """Seconds, the median and the most; processor time of the web processes in milliseconds."""

    seconds: float
    most: float
    times: int
    cpu: float


def measure(session: Session) -> None:
    stage = session.stage
    stage.forget_orders()
    cursor = _write()
    with stage.web() as web:
        token = stage.headers(web)["Authorization"]

        def many(read: Callable[[], None], seconds: float) -> Caught:
            taken: list[float] = []
            meter, end = CpuMeter({"web": web.pid}), time.monotonic() + seconds
            while not taken or time.monotonic() < end:
                begun = time.monotonic()
                read()
                taken.append(time.monotonic() - begun)
            cpu = 1000 * meter.read()["web"] / len(taken)
            return Caught(round(median(taken), 4), round(max(taken), 4), len(taken), round(cpu, 1))

        found = session.interleave(
            {
                "on a stream": lambda seconds: many(lambda: _read_stream(web, token, cursor), seconds),
                "by pages": lambda seconds: many(lambda: _read_pages(web, token, cursor), seconds),
            }
        )
    ours, pages = found["on a stream"], found["by pages"]
    what = f"{MISSED:,} events that were missed"
    session.measure(what, "s", [each.seconds for each in ours], target=1.0, at_most=True)
    session.measure(
        what, "s", [each.seconds for each in ours],
        against=f"by pages of {PAGE:,}", reference=[each.seconds for each in pages],
    )  # fmt: skip
    for name, last in (("on a stream", ours[-1]), ("by pages", pages[-1])):
        session.note(f"{name}: at most {last.most:g} s in {last.times} times; {last.cpu:g} ms of the web processes")


def _write() -> str:
    """Have these events happen to the client's orders. Returns the cursor before them."""
    owner = get_user_model().objects.get(username=CLIENT).pk
    cursor = feed.horizon().cursor
    orders = accept_orders(ORDERS, owner_id=owner, venue=demo.VENUE)
    for turn in range(MISSED // ORDERS - 1):
        event = Event.NOT_SENT if turn % 2 else Event.CLAIMED
        steps = [Step(order_id=order_id, event=event, delay=3600.0) for order_id in orders]
        lifecycle.advance(steps, actor="system:benchmark")
    connections.close_all()
    return str(cursor)


def _read_stream(web: Server, token: str, cursor: str) -> None:
    """Raises: NotAll."""
    count, rest = 0, b""
    head = f"GET /api/v1/orders/stream HTTP/1.1\r\nHost: 127.0.0.1:{web.port}\r\nAuthorization: {token}\r\n"
    with socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE_SECONDS) as line:
        line.sendall(f"{head}Last-Event-ID: {cursor}\r\n\r\n".encode())
        while count < MISSED:
            data = line.recv(1 << 18)
            if not data:
                raise NotAll(f"the stream ended after {count} of {MISSED} events: {rest!r}")
            rest += data
            count += rest.count(_EVENT)
            rest = rest[1 - len(_EVENT) :]
    if count > MISSED:
        raise NotAll(f"{count} events came instead of {MISSED}")


def _read_pages(web: Server, token: str, cursor: str) -> None:
    """Raises: NotAll."""
    count, full = 0, True
    client = http.client.HTTPConnection("127.0.0.1", web.port, timeout=PATIENCE_SECONDS)
    while full:
        client.request("GET", f"/api/v1/orders/events?limit={PAGE}&after={cursor}", headers={"Authorization": token})
        page = json.loads(client.getresponse().read())
        count, cursor, full = count + len(page["results"]), page["next_cursor"], len(page["results"]) == PAGE
    client.close()
    if count != MISSED:
        raise NotAll(f"{count} events came instead of {MISSED}")
