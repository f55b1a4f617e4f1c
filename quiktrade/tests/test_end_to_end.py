"""The whole system as processes: what a client sees, and what happens after a crash at every named point."""

import http.client
import json
import socket
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework_simplejwt.tokens import AccessToken

from exchanges.tests.running import call
from orders.models import Order
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from quiktrade import crash
from quiktrade.tests.parameters import mostly_exhaustive
from quiktrade.tests.processes import Process, Processes, wait_until

ORDER = {"type": "limit", "side": "buy", "instrument": "US0378331005", "limit_price": "187.50", "quantity": 1}


def post(web: Process, user: User, order: Any, *, path: str = "/api/v1/orders") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=30)
    body = order if isinstance(order, bytes) else json.dumps(order).encode()
    try:
        connection.request("POST", path, body, _headers(user))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def _headers(user: User) -> dict[str, str]:
    return {"Authorization": f"Bearer {AccessToken.for_user(user)}", "Content-Type": "application/json"}


def ledger(exchange: Process) -> list[dict[str, Any]]:
    return list(call(f"http://127.0.0.1:{exchange.port + 1}", "GET", "/orders")[1]["orders"])


def test_an_order_is_accepted_and_placed_once(processes: Processes) -> None:
    exchange = processes.exchange()
    VenueFactory(settings={"url": exchange.url})
    worker, web, alice = processes.worker(), processes.web(), UserFactory()

    status, order = post(web, alice, ORDER)

    assert status == 201
    wait_until(lambda: Order.objects.get(pk=order["id"]).status == "placed", worker)
    assert [entry["client_order_id"] for entry in ledger(exchange)] == [order["id"]]


def test_orders_are_accepted_while_nothing_else_is_there_and_placed_when_it_is(processes: Processes) -> None:
    exchange = processes.exchange()
    VenueFactory(settings={"url": exchange.url})
    web, alice = processes.web(), UserFactory()
    exchange.stop()

    answers = [post(web, alice, ORDER) for _ in range(5)]
    assert [status for status, _ in answers] == [201] * 5

    worker = processes.worker()
    wait_until(lambda: "circuit" in worker.output, worker)
    exchange.start()
    wait_until(lambda: Order.objects.filter(status="placed").count() == 5, worker)
    assert len(ledger(exchange)) == 5


def test_five_megabytes_are_refused_and_the_client_gets_to_read_why(processes: Processes) -> None:
    VenueFactory()
    status, problem = post(processes.web(), UserFactory(), b" " * 5_000_000)
    assert (status, problem["type"]) == (413, "urn:quiktrade:problem:payload-too-large")


def test_a_client_that_goes_away_in_the_middle_loses_nothing(processes: Processes) -> None:
    VenueFactory()
    web, alice = processes.web(), UserFactory()
    order = {**ORDER, "client_order_id": "a"}
    body = json.dumps(order).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in _headers(alice).items())
    request = f"POST /api/v1/orders HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()

    for sent in (request[:50], request, request + body[:20], request + body):
        with socket.create_connection(("127.0.0.1", web.port)) as client:
            client.sendall(sent)

    wait_until(lambda: Order.objects.filter(client_order_id="a").count() == 1, web)
    assert post(web, alice, order)[0] == 200
    assert Order.objects.count() == 1


@pytest.mark.parametrize("point", mostly_exhaustive(crash.POINTS, "after_send"))
def test_a_crash_at_any_point_places_the_order_once(processes: Processes, point: str) -> None:
    exchange = processes.exchange()
    VenueFactory(settings={"url": exchange.url, "timeout_seconds": 1.0, "settle_seconds": 0.5})
    order = OrderFactory()
    worker = processes.worker(QUIKTRADE_CRASH_AT=point, QUIKTRADE_LEASE_SECONDS="3")
    wait_until(lambda: Order.objects.get(pk=order.pk).status == "unconfirmed", worker)
    worker.stop()

    worker.start(QUIKTRADE_CRASH_AT="")

    wait_until(lambda: Order.objects.get(pk=order.pk).status == "placed", worker)
    assert [entry["client_order_id"] for entry in ledger(exchange)] == [str(order.pk)]
    assert Order.objects.get(pk=order.pk).venue_order_id == ledger(exchange)[0]["venue_order_id"]


def test_a_fast_a_slow_and_a_dead_venue_do_not_wait_for_one_another(processes: Processes) -> None:
    fast, slow = processes.exchange(), processes.exchange("--latency", "3")
    VenueFactory(settings={"url": fast.url})
    VenueFactory(code="XSLO", settings={"url": slow.url})
    VenueFactory(code="XDED", settings={"url": "http://127.0.0.1:9"})
    orders = {
        code: [OrderFactory(venue=VenueFactory(code=code)).pk for _ in range(20)] for code in ("XDED", "XSLO", "XSIM")
    }
    worker = processes.worker()

    wait_until(lambda: Order.objects.filter(status="placed").count() == 40, worker)

    assert set(Order.objects.filter(pk__in=orders["XDED"]).values_list("status", "failures")) == {("pending", 0)}
    by_time = Order.objects.filter(status="placed").order_by("placed_at").values_list("venue_id", flat=True)
    assert list(by_time) == ["XSIM"] * 20 + ["XSLO"] * 20
