"""One trace leads from a client's request to the call of the venue, and links lead to all that happens later."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from benchmarks.faults.proxy import FaultProxy, Harm
from benchmarks.stage.ports import free_ports
from exchanges.venue import Acknowledgement, NewOrder, NotSent, OutcomeUnknown, Report, ReportKind, ReportStatus
from orders import placement, reconciliation, together
from orders.models import Order
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory, report
from orders.tests.receiver import OK, running_receiver
from orders.tests.scripted_venue import answering, run_engine
from orders.tests.test_deliver_webhooks import deliver, endpoint_at
from orders.tests.test_store_together import first_one_waits_for, row, submit_all
from quiktrade.auth.tokens import AccessToken
from quiktrade.tests.processes import Process, Processes, wait_until
from quiktrade.tests.taps import CLIENT, SAMPLED, TRACE, UNSAMPLED, Memory, Tap, recorded

ORDER: dict[str, Any] = {
    "type": "limit",
    "side": "buy",
    "instrument": "US0378331005",
    "limit_price": "187.50",
    "quantity": 1,
}
OTHER = f"00-{'1' * 32}-{CLIENT}-01"


@pytest.fixture
def tap(tmp_path: Path) -> Iterator[Tap]:
    with Tap(tmp_path) as tap:
        yield tap


@pytest.fixture
def memory() -> Iterator[Memory]:
    with recorded() as memory:
        yield memory


class Wire(FaultProxy):
    """What stands between the workers and the exchange, and keeps what passes."""

    def __init__(self, exchange: Process) -> None:
        super().__init__(free_ports(1)[0], exchange.port)
        self.requests: list[tuple[str, str | None]] = []
        """The first line of each request but those of the session, and the header traceparent."""

    async def _pass_on(self, request: bytes, *rest: Any) -> bool:
        line, *headers = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        named = dict(header.lower().split(": ", 1) for header in headers)
        if "/orders" in line and "?" not in line:
            self.requests.append((line.removesuffix(" HTTP/1.1"), named.get("traceparent")))
        return await super()._pass_on(request, *rest)


@contextmanager
def wire_to(exchange: Process) -> Iterator[Wire]:
    wire = Wire(exchange)
    wire.start()
    try:
        yield wire
    finally:
        wire.stop()


def post(web: Process, user: User, traceparent: str | None, path: str = "/orders", **order: Any) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=30)
    headers = {"Authorization": f"Bearer {AccessToken.for_user(user)}", "Content-Type": "application/json"}
    if traceparent is not None:
        headers["traceparent"] = traceparent
    try:
        connection.request("POST", f"/api/v1{path}", json.dumps(order).encode(), headers)
        response = connection.getresponse()
        content = json.loads(response.read())
        assert response.status < 300, content
        return content
    finally:
        connection.close()


def status_of(order: dict[str, Any]) -> str:
    return str(Order.objects.get(pk=order["id"]).status)


def test_one_trace_leads_from_the_client_to_the_venue_and_links_to_what_comes_later(
    processes: Processes, tap: Tap
) -> None:
    exchange = processes.exchange()
    alice = UserFactory()
    with wire_to(exchange) as wire:
        VenueFactory(settings={"url": f"http://127.0.0.1:{wire.port}"})
        web, worker = processes.web(**tap.environment), processes.worker(**tap.environment)
        session = processes.session(**tap.environment)
        order = post(web, alice, SAMPLED, **ORDER)
        wait_until(lambda: status_of(order) == "placed", web, worker, session)

        request, store = tap.one("POST /api/v1/orders"), tap.one("store")
        place = tap.one("place at venue")
        assert (request.trace, request.parent) == (TRACE, CLIENT)
        assert [(span.trace, span.parent) for span in (store, place)] == [(TRACE, request.id)] * 2
        assert wire.requests == [("POST /orders", place.context)]
        assert Order.objects.get(pk=order["id"]).traceparent == request.context
        of_venue = {"order.id": order["id"], "venue": "XSIM", "attempt": "1", "event": "acknowledged"}
        assert place.attributes == of_venue
        for batch in (tap.one("claim"), tap.one("record")):
            assert batch.links == [(TRACE, request.id)]
            assert (batch.trace == TRACE, batch.parent) == (False, "")

        assert post(web, alice, None, **{**ORDER, "side": "sell"})
        reports = tap.one("reports")
        assert reports.links == [(TRACE, request.id)]  # of the two orders that traded, the other one is not sampled
        assert reports.trace != TRACE

        second = post(web, alice, OTHER, **ORDER)
        wait_until(lambda: status_of(second) == "placed", web, worker, session)
        post(web, alice, UNSAMPLED, f"/orders/{second['id']}/cancel")
        cancel = tap.one("cancel at venue")
        assert [trace for trace, _ in cancel.links] == ["1" * 32]
        assert (f"POST /orders/{second['id']}/cancel", cancel.context) in wire.requests


@pytest.mark.exhaustive
def test_what_is_not_sampled_stores_no_context_and_sends_no_header(processes: Processes, tap: Tap) -> None:
    exchange = processes.exchange()
    alice = UserFactory()
    given = [None, UNSAMPLED, "zz", f"00-{'0' * 32}-{CLIENT}-01", f"00-{TRACE}-{CLIENT}-01-more"]
    with wire_to(exchange) as wire:
        VenueFactory(settings={"url": f"http://127.0.0.1:{wire.port}"})
        web, worker = processes.web(**tap.environment), processes.worker(**tap.environment)
        for traceparent in given:
            post(web, alice, traceparent, **ORDER)
        wait_until(lambda: Order.objects.filter(status="placed").count() == len(given), web, worker)
        assert wire.requests == [("POST /orders", None)] * len(given)
    assert set(Order.objects.values_list("traceparent", flat=True)) == {None}
    assert (web.stop(), worker.stop()) == (0, 0)
    assert tap.spans() == []


@pytest.mark.exhaustive
def test_a_retry_and_a_look_up_are_in_the_orders_trace(processes: Processes, tap: Tap) -> None:
    exchange = processes.exchange()
    with wire_to(exchange) as wire:
        VenueFactory(settings={"url": f"http://127.0.0.1:{wire.port}", "settle_seconds": 0.5})
        wire.refuse(True)
        web, worker = processes.web(**tap.environment), processes.worker(**tap.environment)
        order = post(web, UserFactory(), SAMPLED, **ORDER)
        tap.wait_for("place at venue")
        wire.set("reply", Harm("drop_reply"))
        wire.refuse(False)
        wait_until(lambda: wire.struck, worker)
        wire.set("reply", None)
        wait_until(lambda: status_of(order) == "placed", worker)
        request, attempts, look_ups = (
            tap.one("POST /api/v1/orders"),
            tap.spans("place at venue"),
            tap.wait_for("look up"),
        )
        assert {(span.trace, span.parent) for span in attempts + look_ups} == {(TRACE, request.id)}
        assert attempts[-1].attributes["event"] == "outcome_unknown"
        assert all(span.failed for span in attempts)
        assert len(attempts) > 1
        headers = [traceparent for line, traceparent in wire.requests if line.startswith("GET")]
        assert set(headers) == {span.context for span in look_ups}


@pytest.mark.exhaustive
def test_the_last_spans_of_a_process_that_ends_are_sent(processes: Processes, tap: Tap) -> None:
    exchange = processes.exchange()
    VenueFactory(settings={"url": exchange.url})
    environment = {**tap.environment, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    web, worker = processes.web(**environment), processes.worker(**environment)
    session = processes.session(**environment)
    alice = UserFactory()
    order = post(web, alice, SAMPLED, **ORDER)
    wait_until(lambda: status_of(order) == "placed", web, worker, session)
    post(web, alice, None, **{**ORDER, "side": "sell"})
    wait_until(lambda: status_of(order) == "filled", web, worker, session)
    assert tap.spans() == []
    assert [web.stop(), worker.stop(), session.stop()] == [0, 0, 0]
    names = {span.name for span in tap.spans()}
    assert names == {"POST /api/v1/orders", "store", "claim", "place at venue", "record", "reports"}


# ---- In this process ----


@pytest.mark.django_db(transaction=True)
def test_attempts_in_process_fail_their_spans_by_the_kind_of_error(memory: Memory) -> None:
    answers: list[Exception] = [NotSent("refused", "zzSECRETzz", answered=True), OutcomeUnknown("timeout", "none")]

    async def place(order: NewOrder) -> Acknowledgement:
        raise answers.pop(0)

    async def find(client_order_id: str) -> Report:
        return Report(client_order_id=client_order_id, status=ReportStatus.WORKING, venue_order_id="V1")

    with answering(place, find) as venue:
        order = OrderFactory(venue=venue, traceparent=SAMPLED)
        run_engine(linger=1.0)
        Order.objects.filter(pk=order.pk).update(next_attempt_at="2020-01-01T00:00:00Z")
        reconciliation.reconcile_due_orders()
    assert Order.objects.get(pk=order.pk).status == "placed"
    attempts = memory.spans("place at venue")
    assert [span.attributes["event"] for span in attempts] == ["not_sent", "outcome_unknown"]
    assert [span.attributes["attempt"] for span in attempts] == ["1", "2"]
    assert {(span.trace, span.parent) for span in [*attempts, memory.one("look up")]} == {(TRACE, CLIENT)}
    assert "SECRET" not in str(memory.spans())


@pytest.mark.django_db
def test_a_claim_links_to_each_request_whose_orders_it_takes(memory: Memory) -> None:
    venue, owner = VenueFactory(), UserFactory()
    for traceparent in (SAMPLED, SAMPLED, OTHER, None):
        OrderFactory(venue=venue, owner=owner, traceparent=traceparent)
    placement.claim_orders(venue.code, wanted=10, actor="system:placement")
    claim = memory.one("claim")
    assert set(claim.links) == {(TRACE, CLIENT), ("1" * 32, CLIENT)}
    assert claim.attributes == {"venue": "XSIM", "orders": "4", "requests": "0"}


@pytest.mark.django_db
def test_a_claim_of_nothing_that_is_sampled_is_not_recorded(memory: Memory) -> None:
    order = OrderFactory()
    placement.claim_orders(order.venue_id, wanted=10, actor="system:placement")
    assert memory.spans() == []


@pytest.mark.django_db(transaction=True)
def test_requests_that_are_stored_together_are_linked(memory: Memory) -> None:
    VenueFactory()
    alice = UserFactory()
    rows = [row(alice.pk) for _ in range(4)]
    rows[0].traceparent, rows[1].traceparent, rows[2].traceparent = SAMPLED, SAMPLED, OTHER
    with first_one_waits_for(3):
        submit_all(rows)
    together_span = memory.one("store together")
    assert set(together_span.links) == {(TRACE, CLIENT), ("1" * 32, CLIENT)}
    assert together_span.attributes == {"requests": "3"}
    assert together.batch.idle


@pytest.mark.django_db
def test_each_order_of_a_batch_has_the_context_of_its_request(memory: Memory) -> None:
    VenueFactory()
    headers = {"Authorization": f"Bearer {AccessToken.for_user(UserFactory())}", "traceparent": SAMPLED}
    body = {"orders": [{**ORDER, "client_order_id": name} for name in ("a", "b")]}
    assert Client(headers=headers).post("/api/v1/orders/batch", body, "application/json").status_code == 200
    request = memory.one("POST /api/v1/orders/batch")
    assert list(Order.objects.values_list("traceparent", flat=True)) == [request.context] * 2
    assert memory.one("store").parent == request.id


@pytest.mark.django_db
def test_a_report_is_a_trace_of_its_own_with_a_link_to_its_orders(memory: Memory) -> None:
    order = OrderFactory(status="placed", traceparent=SAMPLED)
    report(order.pk, order.venue_id, ReportKind.EXECUTED, quantity=1, price=order.limit_price)
    span = memory.one("reports")
    assert span.links == [(TRACE, CLIENT)]
    assert (span.trace == TRACE, span.attributes["order.id"]) == (False, str(order.pk))


@pytest.mark.django_db(transaction=True)
def test_a_webhook_is_a_trace_of_its_own_with_a_link_to_its_order(memory: Memory, settings: Any) -> None:
    settings.WEBHOOK_ALLOW = [ip_network("127.0.0.0/8")]
    with running_receiver(OK) as receiver:
        endpoint = endpoint_at(receiver)
        order = OrderFactory(owner=endpoint.owner, traceparent=SAMPLED)
        OrderFactory(owner=endpoint.owner, venue=order.venue)
        deliver()
    span = memory.one("webhook")
    assert span.links == [(TRACE, CLIENT)]
    assert (span.trace == TRACE, span.attributes["order.id"]) == (False, str(order.pk))
    headers = [received.headers.get("traceparent") for received in receiver.received]
    assert set(headers) == {span.context, None}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", f">{TRACE}<"),
        ("https://traces.example.com/t/{trace_id}?x=1", f'href="https://traces.example.com/t/{TRACE}?x=1"'),
    ],
)
def test_the_console_shows_the_trace_of_an_order(settings: Any, url: str, shown: str) -> None:
    settings.TRACE_URL = url
    console = Client()
    console.force_login(UserFactory(group="Viewer"))
    traced = OrderFactory(traceparent=SAMPLED)
    page = console.get(f"/admin/orders/order/{traced.pk}/change/").content.decode()
    assert shown in page
    plain = OrderFactory(venue=traced.venue, owner=traced.owner)
    assert "<dt>Trace</dt>" not in console.get(f"/admin/orders/order/{plain.pk}/change/").content.decode()
