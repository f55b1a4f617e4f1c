"""4: how soon a cancel is at its venue when there is little to do, and how soon an order is.

One client does one thing at a time. It submits an order, waits until that works at the exchange, cancels it, and waits
until the order is canceled, with a random pause before each of the two requests. While the pauses are short, a
placement job waits for more to do. After a rest one must be started, which takes its time. As in trickle.py, the time
is from the last byte of the answer to the client until the exchange has recorded the request, and below zero if the
exchange was quicker.
"""

import http.client
import json
import random
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import psycopg

from benchmarks.speed.client import percentiles
from benchmarks.speed.seed import INSTRUMENT
from benchmarks.speed.session import SINGLE, Session
from benchmarks.speed.stage import Server
from quiktrade.asking import ask

PAUSE_SECONDS = (0.0, 0.1)
"""On average as long as between the orders of trickle.py."""
REST_SECONDS = (0.5, 0.9)
"""After this long no placement job waits for more to do any more."""
PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.004

_STATUS = "SELECT status FROM orders_order WHERE id = %s"
_ORDER = {
    "type": "limit", "side": "buy", "instrument": INSTRUMENT, "limit_price": "187.50", "quantity": 100,
    "time_in_force": "day",
}  # fmt: skip


class NotSeen(Exception):
    """An order or a cancel was answered, and did not become what it should."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Milliseconds."""

    orders: int
    placed: dict[str, float]
    canceled: dict[str, float]
    answer: dict[str, float]
    """How long the answers to the requests to cancel took."""


def measure(session: Session) -> None:
    stage, quick = session.stage, session.options.quick
    stage.forget_orders()
    with stage.exchange() as exchange, stage.web() as web:
        stage.point_venue_at(exchange)
        headers = stage.headers(web) | {"Content-Type": "application/json"}
        with stage.worker(), stage.venue_session(), stage.connect() as database:

            def trial(pause: tuple[float, float], seconds: float) -> Delays:
                return _delays(database, session.prefix(), web, exchange, headers, pause, seconds)

            trial(PAUSE_SECONDS, 2.0)
            found = session.interleave(
                {"one at a time": partial(trial, PAUSE_SECONDS), "after a rest": partial(trial, REST_SECONDS)},
                seconds=6.0 if quick else 20.0,
                warm_up=False,
            )
    for name, most in (("p50", 5.0), ("p99", 50.0)):
        what = f"cancel answered → at the venue, {name}"
        ours, placed = ([getattr(each, of)[name] for each in found["one at a time"]] for of in ("canceled", "placed"))
        session.measure(what, "ms", ours, target=most, at_most=True)
        session.measure(what, "ms", ours, against="order answered → at the venue", reference=placed)
    for name in ("p50", "p99"):
        rested = [each.canceled[name] for each in found["after a rest"]]
        what = f"cancel answered → at the venue after a rest, {name}"
        session.measure(what, "ms", rested, target=50.0, at_most=True)
    for contestant, trials in found.items():
        last = trials[-1]
        session.note(
            f"{contestant}: {last.orders} orders; cancels: {last.canceled}; orders: {last.placed}; "
            f"answers: {last.answer}"
        )


def _delays(
    database: psycopg.Connection[Any], prefix: str, web: Server, exchange: Server, headers: dict[str, str],
    pause: tuple[float, float], seconds: float,
) -> Delays:  # fmt: skip
    """Raises: NotSeen."""
    dice = random.Random(1)  # noqa: S311  the same pauses in every run
    before = ask(exchange.admin_port, "/stats")["reports"]
    client = http.client.HTTPConnection("127.0.0.1", web.port, timeout=PATIENCE_SECONDS)
    placed_at: dict[str, float] = {}
    canceled_at: dict[str, float] = {}
    taken: list[float] = []

    def post(path: str, content: dict[str, Any], status: int) -> tuple[dict[str, Any], float]:
        time.sleep(dice.uniform(*pause))
        begun = time.time()
        client.request("POST", path, json.dumps(content), headers)
        response = client.getresponse()
        body = response.read()
        at = time.time()
        taken.append(at - begun)
        if response.status != status:
            raise NotSeen(f"{path}: {response.status} {body[:300]!r}")
        answer: dict[str, Any] = json.loads(body)
        return answer, at

    def wait_for(order_id: str, status: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := database.execute(_STATUS, [order_id]).fetchone()) != (status,):
            if time.monotonic() > deadline:
                raise NotSeen(f"order {order_id} is {found}, and not {status}, after {PATIENCE_SECONDS:g} s")
            time.sleep(_LOOK_SECONDS)

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        order, at = post(SINGLE, _ORDER | {"client_order_id": f"{prefix}-{len(placed_at)}"}, http.client.CREATED)
        placed_at[order["id"]] = at
        wait_for(order["id"], "placed")
        _, canceled_at[order["id"]] = post(f"{SINGLE}/{order['id']}/cancel", {}, http.client.ACCEPTED)
        wait_for(order["id"], "canceled")
    client.close()
    reported: dict[str, dict[str, float]] = {"new": {}, "canceled": {}}
    for report in ask(exchange.admin_port, f"/reports?limit=10000&after={before}")["reports"]:
        at = datetime.fromisoformat(report["at"]).timestamp()
        reported[report["kind"]][report["client_order_id"]] = at
    return Delays(
        orders=len(placed_at),
        placed=percentiles([reported["new"][order_id] - at for order_id, at in placed_at.items()]),
        canceled=percentiles([reported["canceled"][order_id] - at for order_id, at in canceled_at.items()]),
        answer=percentiles(taken[1::2]),
    )
