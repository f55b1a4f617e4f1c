"""The whole system as processes: what a client sees, and what happens after a crash at every named point."""

import http.client
import json
import socket
from itertools import product
from typing import Any

import pytest
from django.contrib.auth.models import User

from exchanges.tests.running import call
from orders import amendments
from orders.models import Order, OrderRequest
from orders.requests import Changes
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from orders.tests.scripted_venue import run_engine
from quiktrade import crash
from quiktrade.auth.tokens import AccessToken
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


@pytest.mark.exhaustive
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


@pytest.mark.exhaustive
def test_five_megabytes_are_refused_and_the_client_gets_to_read_why(processes: Processes) -> None:
    VenueFactory()
    status, problem = post(processes.web(), UserFactory(), b" " * 5_000_000)
    assert (status, problem["type"]) == (413, "urn:quiktrade:problem:payload-too-large")


@pytest.mark.exhaustive
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


# ---- Crashes of what cancels and replaces ----


def ask(exchange: Process, kind: str) -> OrderRequest:
    """A request, made by the service, to cancel or replace an order that works at the exchange."""
    VenueFactory(settings={"url": exchange.url, "timeout_seconds": 1.0, "settle_seconds": 0.5})
    by: dict[str, Any] = {"actor": "client:alice", "reason": "Not wanted so any more."}
    order = OrderFactory(quantity=100)
    run_engine()
    if kind == "cancel":
        amendments.request_cancel(order.pk, **by)
    else:
        amendments.request_replace(order.pk, Changes(quantity=80), **by)
    return OrderRequest.objects.get()


def is_accepted(request: OrderRequest) -> bool:
    return OrderRequest.objects.get(pk=request.pk).status == "accepted"


def check_it_was_done_once(request: OrderRequest, exchange: Process) -> None:
    """The exchange's journal has it once in effect, under the request's own id; and so has the order."""
    _, content = call(f"http://127.0.0.1:{exchange.port + 1}", "GET", "/reports?after=0&limit=1000")
    done, quantity = ("canceled", 100) if request.kind == "cancel" else ("replaced", 80)
    about = [report for report in content["reports"] if report["client_order_id"] == str(request.order_id)]
    told = [(report["kind"], report.get("request_id", ""), report["order_quantity"]) for report in about]
    assert told == [("new", "", 100), (done, str(request.pk), quantity)]
    order = Order.objects.get(pk=request.order_id)
    assert (order.status, order.quantity) == ("canceled" if request.kind == "cancel" else "placed", quantity)
    assert OrderRequest.objects.get().pk == request.pk


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "case",
    mostly_exhaustive(product(("cancel", "replace"), crash.POINTS), ("replace", "after_send")),
    ids="-".join,
)
def test_a_crash_at_any_point_does_a_request_once(processes: Processes, case: tuple[str, str]) -> None:
    kind, point = case
    exchange = processes.exchange()
    request = ask(exchange, kind)
    worker = processes.worker(QUIKTRADE_CRASH_AT=point, QUIKTRADE_LEASE_SECONDS="3")
    wait_until(lambda: OrderRequest.objects.get().in_doubt, worker)  # the lease of an attempt has run out
    worker.stop()

    worker.start(QUIKTRADE_CRASH_AT="")

    wait_until(lambda: is_accepted(request), worker)
    check_it_was_done_once(request, exchange)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["cancel", "replace"])
def test_a_request_that_is_recorded_is_not_sent_again_after_a_crash(processes: Processes, kind: str) -> None:
    exchange = processes.exchange()
    request = ask(exchange, kind)
    worker = processes.worker(QUIKTRADE_CRASH_AT=crash.AFTER_RECORD)
    wait_until(lambda: is_accepted(request) and "after death" in worker.output, worker)
    worker.stop()
    another = OrderFactory()

    worker.start(QUIKTRADE_CRASH_AT="")

    wait_until(lambda: Order.objects.get(pk=another.pk).status == "placed", worker)
    assert OrderRequest.objects.get().attempt == 1
    check_it_was_done_once(request, exchange)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("kind", "fault"), [("cancel", "ignore_cancel"), ("replace", "accept_then_drop")])
def test_a_crash_between_a_look_up_and_its_record_does_a_request_once(
    processes: Processes, kind: str, fault: str
) -> None:
    exchange = processes.exchange()
    request = ask(exchange, kind)
    faults = {fault: {"count": 1}}
    assert call(f"http://127.0.0.1:{exchange.port + 1}", "PUT", "/admin/faults", faults)[0] == 200
    worker = processes.worker(QUIKTRADE_CRASH_AT=crash.AFTER_LOOK_UP)
    wait_until(lambda: "after death" in worker.output, worker)
    assert not is_accepted(request)
    worker.stop()

    worker.start(QUIKTRADE_CRASH_AT="")

    wait_until(lambda: is_accepted(request), worker)
    check_it_was_done_once(request, exchange)


@pytest.mark.exhaustive
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
