"""A venue that answers anything at all, beside a healthy one in the same engine: through adapter, engine, database
and API. Nothing dies, the healthy one's orders are all placed, and every row stays readable."""

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from exchanges.models import Venue, VenueHealth
from exchanges.tests.peer import Peer, Request
from exchanges.tests.running import running_exchange
from orders import reconciliation
from orders.models import Order
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from orders.tests.scripted_venue import run_engine
from quiktrade.auth.tokens import AccessToken

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS, STRANGE, HEALTHY = 5, 40, 5

STATUSES = (
    200,
    200,
    201,
    201,
    201,
    204,
    301,
    400,
    401,
    403,
    404,
    404,
    409,
    413,
    422,
    422,
    429,
    429,
    500,
    502,
    503,
    503,
)
RETRY_AFTER = (
    *("0", "1", "8", "1.5", "-1", "1e15", "300000000000", "9" * 400, "inf", "nan", "soon", "", "\x7f", "0x10", "1_000"),
    *("Wed, 21 Oct 2099 07:28:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2300", "Thu, 01 Jan 0001 00:00:00 +2359", "\xff"),
)
VALUES: tuple[Any, ...] = (
    *("working", "rejected", "V-1", "", "a\0b", "\ud800", "x" * 30_000, "\x1b[2J", "\u202egro", "数量", " ", "\n"),
    *(None, True, 0, -1, 10**400, float("inf"), float("nan"), [], {}, [[[]]], {"a": "\0"}),
)
CODES = (
    "rate_limited",
    "trading_halted",
    "stale_request",
    "duplicate_client_order_id",
    "unknown_order",
    "invalid_field",
)
BODIES = (b"", b"null", b"[]", b"\xff\xfe", b"<html>busy</html>", b"[" * 20_000, b'{"a":', b"\0", b'{"status": 1e999}')


def strange_reply(dice: random.Random, request: Request) -> bytes:
    """Mostly an answer about the very order, with something wrong in it; now and then no answer at all."""
    if request.method == "POST":
        client_order_id = json.loads(request.body)["client_order_id"]
    else:
        client_order_id = request.path.rpartition("/")[2]
    content: dict[str, Any] = {"client_order_id": client_order_id, "venue_order_id": "V-1", "status": "working"}
    content |= {"code": dice.choice(CODES), "text": "said the venue"}
    for _ in range(dice.choice((0, 1, 1, 2))):
        content[dice.choice(list(content))] = dice.choice(VALUES)
    body = json.dumps(content).encode() if dice.random() < 0.8 else dice.choice(BODIES)
    if dice.random() < 0.1:
        body = body.replace(b'"status"', b'"status": "rejected", "status"', 1)
    headers = [b"Content-Type: " + dice.choice((b"application/json", b"application/json", b"text/html"))]
    headers.append(b"Content-Length: %d" % (len(body) + dice.choice((0, 0, 0, 0, 0, 7))))
    for _ in range(dice.choice((0, 1, 1, 2))):
        headers.append(b"Retry-After: " + dice.choice(RETRY_AFTER).encode("latin-1"))
    head = b"HTTP/1.1 %d Whatever\r\n" % dice.choice(STATUSES) + b"\r\n".join(headers) + b"\r\n\r\n"
    return head + body if dice.random() < 0.95 else (head + body)[: dice.randrange(len(head))]


@contextmanager
def strange_venue(seed: int) -> Iterator[str]:
    """The venue's address. Its own thread serves it, because the engine and the look-ups have their own loops."""
    dice, ready, loop = random.Random(seed), threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()
    addresses: list[str] = []

    async def serve() -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(strange_reply(dice, peer.requests[-1]))
            if dice.random() < 0.2:
                writer.close()
            await writer.drain()

        async with Peer(script) as peer:
            addresses.append(peer.url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def forget_trouble() -> None:
    """As if the venue's pauses, of up to a day, were over."""
    VenueHealth.objects.update(trouble="", silences=0, retry_at=None, paused_until=None)


def check_readable(client: Client, owner: User) -> int:
    """Every order, its history and the client's lists are answered 200. Returns how many orders there are."""
    headers = {"Authorization": f"Bearer {AccessToken.for_user(owner)}"}
    count, url = 0, "/api/v1/orders?limit=100"
    while url:
        page = client.get(url, headers=headers)
        assert page.status_code == 200
        for order in page.json()["results"]:
            count += 1
            for path in ("", "/events"):
                assert client.get(f"/api/v1/orders/{order['id']}{path}", headers=headers).status_code == 200
        url = page.json()["next"]
    return count


@pytest.mark.exhaustive
def test_a_venue_that_answers_anything_harms_neither_another_nor_what_can_be_read(
    tmp_path: Path, client: Client
) -> None:
    owner = UserFactory()
    with running_exchange(tmp_path) as exchange, strange_venue(seed=11) as url:
        VenueFactory(settings={"url": exchange.url})
        strange = VenueFactory(code="XODD", settings={"url": url, "timeout_seconds": 0.5, "settle_seconds": 0.01})
        for _ in range(ROUNDS):
            for _ in range(STRANGE):
                OrderFactory(owner=owner, venue=strange)
            healthy = [OrderFactory(owner=owner).pk for _ in range(HEALTHY)]
            forget_trouble()
            run_engine()
            assert set(Order.objects.filter(pk__in=healthy).values_list("status", flat=True)) == {"placed"}
            forget_trouble()
            Order.objects.filter(status="unconfirmed").update(next_attempt_at="2020-01-01T00:00:00Z")
            reconciliation.reconcile_due_orders()
        assert check_readable(client, owner) == ROUNDS * (STRANGE + HEALTHY)
        assert len(exchange.orders()) == ROUNDS * HEALTHY

    assert Venue.objects.get(code="XSIM").open_circuit is None
    seen = set(Order.objects.filter(venue=strange).values_list("status", flat=True))
    assert {"pending", "placed", "rejected", "unconfirmed"} <= seen  # it met every kind of answer
    assert not Order.objects.filter(status="submitting").exists()
