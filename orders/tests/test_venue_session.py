"""Sessions with venues, as real processes: what the exchange reports gets into the rows, whatever dies or is lost."""

import random
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from rest_framework.test import APIClient

from exchanges.models import ReportSession, UnmatchedReport, Venue
from exchanges.tests.running import RunningExchange, call, running_exchange
from orders import lifecycle
from orders.models import Execution, Order, OrderEvent, Position, new_order_id
from orders.reports import NO_ORDER
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from orders.tests.scripted_venue import run_engine
from orders.tests.test_reports import check_sums
from quiktrade.processes import wait_for
from quiktrade.tests.processes import Process, Processes, nothing_is_written, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = "2"
LONG_LEASE = "60"


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[RunningExchange]:
    with running_exchange(tmp_path) as running:
        VenueFactory(settings={"url": running.url})
        yield running


def send(exchange: RunningExchange, order: Order) -> None:
    """Have the order reach the exchange as the placement sends it. Nobody records the answer."""
    terms = {"instrument": order.instrument, "side": order.side, "quantity": order.quantity, "limit_price": "10.25"}
    status, content = exchange.place(client_order_id=str(order.pk), **terms)
    assert status == 201, content


def ask(exchange: RunningExchange, order: Order, verb: str, **terms: Any) -> None:
    status, content = call(
        exchange.url, "POST", f"/orders/{order.pk}/{verb}", {"request_id": str(new_order_id()), **terms}
    )
    assert status == 200, content


def at_the_exchange(exchange: RunningExchange, **given: Any) -> Order:
    order = OrderFactory(status="submitting", **given)
    send(exchange, order)
    return order


def row(order: Order) -> Order:
    return Order.objects.get(pk=order.pk)


def stands(order: Order) -> tuple[str, int]:
    found = row(order)
    return found.status, found.filled_quantity


def events(order: Order) -> list[tuple[str, str]]:
    return list(OrderEvent.objects.filter(order=order).order_by("sequence").values_list("event", "actor"))


def last_report(exchange: RunningExchange) -> int:
    return int(exchange.stats()["reports"])


def freeze(session: Process) -> None:
    """Freeze it between two transactions. In one, it would keep its lease's row from the other session, too."""
    session.kill(signal.SIGSTOP)
    while not wait_for(nothing_is_written, 1.0):
        session.kill(signal.SIGCONT)
        time.sleep(0.05)
        session.kill(signal.SIGSTOP)


def read_to_the_end(exchange: RunningExchange) -> bool:
    return ReportSession.objects.filter(next_sequence=last_report(exchange) + 1).exists()


# ---- What the exchange reports ----


def test_what_happens_at_the_exchange_gets_into_the_rows(exchange: RunningExchange, processes: Processes) -> None:
    session = processes.session()
    buy, sell = at_the_exchange(exchange), at_the_exchange(exchange, side="sell", quantity=40)
    wait_until(lambda: stands(sell) == ("filled", 40), session)
    wait_until(lambda: stands(buy) == ("partially_filled", 40), session)
    ask(exchange, buy, "cancel")
    wait_until(lambda: stands(buy) == ("canceled", 40), session)
    assert [event for event, _ in events(buy)][-3:] == ["acknowledged", "executed", "canceled_at_venue"]
    assert Position.objects.count() == 2
    assert not UnmatchedReport.objects.exists()


@pytest.mark.exhaustive
def test_what_happened_before_the_session_is_read_too(exchange: RunningExchange, processes: Processes) -> None:
    buy, sell = at_the_exchange(exchange), at_the_exchange(exchange, side="sell")
    processes.session()
    wait_until(lambda: (stands(buy), stands(sell)) == (("filled", 100), ("filled", 100)))


@pytest.mark.exhaustive
def test_a_session_ends_soon_and_gives_its_lease_back(exchange: RunningExchange, processes: Processes) -> None:
    session = processes.session(QUIKTRADE_SESSION_LEASE_SECONDS=LONG_LEASE)
    assert session.stop() == 0
    other = processes.session(QUIKTRADE_SESSION_LEASE_SECONDS=LONG_LEASE)
    assert "event=session.began" in other.output


def test_an_order_of_a_client_is_filled(
    exchange: RunningExchange, processes: Processes, alice: APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    session = processes.session()
    order = {"client_order_id": "first", "type": "limit", "side": "buy", "instrument": "US0378331005"}
    answer = alice.post("/api/v1/orders", {**order, "limit_price": "10.25", "quantity": 100}, format="json")
    run_engine(seconds=10)
    at_the_exchange(exchange, side="sell", quantity=60)
    at_the_exchange(exchange, side="sell", quantity=40)
    placed = Order.objects.get(client_order_id="first")
    wait_until(lambda: stands(placed) == ("filled", 100), session)
    assert alice.get(answer["Location"]).json()["status"] == "filled"
    assert [event for event, _ in events(placed)] == ["accepted", "claimed", "acknowledged", "executed", "executed"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# ---- A stream in trouble ----


def wide_awake(exchange: RunningExchange, processes: Processes, **faults: Any) -> tuple[Process, Order]:
    """A session that has read everything, and then an order whose report meets these faults."""
    session = processes.session()
    wait_until(lambda: read_to_the_end(exchange), session)
    exchange.set_faults(**faults)
    return session, at_the_exchange(exchange)


@pytest.mark.exhaustive
def test_a_lost_report_is_noticed_at_the_next_heartbeat_and_read_again(
    exchange: RunningExchange, processes: Processes
) -> None:
    session, order = wide_awake(exchange, processes, drop_reports={"count": 1})
    wait_until(lambda: row(order).status == "placed", session)
    assert "event=session.gap" in session.output


@pytest.mark.exhaustive
def test_a_silent_stream_is_given_up(exchange: RunningExchange, processes: Processes) -> None:
    session, order = wide_awake(exchange, processes, silent_stream={"seconds": 600, "count": 1})
    wait_until(lambda: row(order).status == "placed", session)
    assert "silent_stream" in session.output


@pytest.mark.exhaustive
def test_a_stream_that_is_cut_is_opened_again(exchange: RunningExchange, processes: Processes) -> None:
    session, order = wide_awake(exchange, processes, cut_stream={"count": 3})
    wait_until(lambda: row(order).status == "placed", session)


@pytest.mark.exhaustive
def test_an_exchange_that_was_away_is_found_again(exchange: RunningExchange, processes: Processes) -> None:
    session = processes.session()
    order = at_the_exchange(exchange)
    wait_until(lambda: row(order).status == "placed", session)
    exchange.kill()
    wait_until(lambda: "event=session.trouble" in session.output, session)
    exchange.start()
    later = at_the_exchange(exchange)
    wait_until(lambda: row(later).status == "placed", session)


def test_a_venue_in_trouble_leaves_the_session_of_another_alone(
    exchange: RunningExchange, processes: Processes
) -> None:
    VenueFactory(code="XDED", settings={"url": "http://127.0.0.1:9"})
    session, order = wide_awake(exchange, processes)
    wait_until(lambda: row(order).status == "placed", session)
    assert session.output.count("event=session.trouble") == 1


@pytest.mark.exhaustive
def test_a_venue_that_is_mended_while_sessions_run_is_read(processes: Processes, exchange: RunningExchange) -> None:
    broken = VenueFactory(code="XBAD", settings={"url": 7})
    session = processes.session()
    order = at_the_exchange(exchange, venue=broken)
    Venue.objects.filter(code="XBAD").update(settings={"url": exchange.url})
    wait_until(lambda: row(order).status == "placed", session)
    assert session.output.count("Venue cannot be opened") == 1


# ---- One active session ----


@pytest.mark.exhaustive
def test_a_restart_on_the_same_node_need_not_wait_for_the_lease(
    exchange: RunningExchange, processes: Processes
) -> None:
    names = {"QUIKTRADE_SESSION_LEASE_SECONDS": LONG_LEASE, "QUIKTRADE_NODE": "one-node"}
    processes.session(**names).kill()
    assert "event=session.began" in processes.session(**names).output


@pytest.mark.exhaustive
def test_a_second_session_waits_and_takes_over_from_a_dead_one(exchange: RunningExchange, processes: Processes) -> None:
    first, second = (processes.session(QUIKTRADE_SESSION_LEASE_SECONDS=LEASE) for _ in range(2))
    assert "event=session.began" in first.output
    assert "event=session.began" not in second.output
    first.kill()
    order = at_the_exchange(exchange)
    wait_until(lambda: row(order).status == "placed", second)


@pytest.mark.exhaustive
def test_a_session_that_was_frozen_writes_nothing_any_more(exchange: RunningExchange, processes: Processes) -> None:
    first, second = (processes.session(QUIKTRADE_SESSION_LEASE_SECONDS=LEASE) for _ in range(2))
    freeze(first)
    buy = at_the_exchange(exchange)
    wait_until(lambda: row(buy).status == "placed", second)
    taken_over = ReportSession.objects.get()
    first.kill(signal.SIGCONT)
    at_the_exchange(exchange, side="sell")
    wait_until(lambda: "event=session.lost" in first.output, first, second)
    wait_until(lambda: stands(buy) == ("filled", 100), second)
    assert ReportSession.objects.get().token == taken_over.token
    assert first.output.count("event=session.began") == 1


# ---- Everything at once ----

DISTURBED: dict[str, Any] = {
    "drop_reports": {"probability": 0.05},
    "repeat_reports": {"probability": 0.1},
    "shuffle_reports": {"probability": 0.3},
    "delay_reports": {"probability": 0.05, "seconds": [0.01, 0.2]},
    "cut_stream": {"probability": 0.02},
    "silent_stream": {"probability": 0.01, "seconds": 5},
    "bust": {"probability": 0.05, "seconds": [0, 0.5]},
    "correction": {"probability": 0.05, "seconds": [0, 0.5]},
    "late_fill": {"probability": 0.2, "seconds": [0, 0.5]},
}
STANDS = {"new": "placed"}


def make_orders(count: int, chance: random.Random) -> list[UUID]:
    """Orders that are being placed, all at once."""
    owners = [UserFactory().pk for _ in range(3)]
    rows = [
        lifecycle.NewRow(
            actor="client:trial",
            id=new_order_id(),
            owner_id=chance.choice(owners),
            client_order_id=f"trial-{number}",
            venue_id="XSIM",
            place_by=None,
            instrument=chance.choice(("US0378331005", "US5949181045")),
            side=chance.choice(("buy", "sell")),
            type="limit",
            quantity=chance.randint(1, 300),
            limit_price=Decimal("10.25"),
            stop_price=None,
            time_in_force=chance.choice(("day", "gtc")),
            expires_at=None,
        )
        for number in range(count)
    ]
    lifecycle.accept(rows)
    claimed = lifecycle.claim("XSIM", limit=count, in_flight=count, lease=3600, actor="system:test")
    assert len(claimed) == count
    return [order.id for order in claimed]


def trade(exchange: RunningExchange, orders: Sequence[Order], seed: int, until: float) -> list[str]:
    """Send the orders, some canceled or replaced soon after, and now and then one that is not ours."""
    chance, strangers = random.Random(seed), []
    pause = max(until - time.monotonic(), 0.0) / len(orders)
    for number, order in enumerate(orders):
        terms = {"instrument": order.instrument, "side": order.side, "quantity": order.quantity}
        terms |= {"limit_price": "10.25", "time_in_force": order.time_in_force}
        exchange.place(client_order_id=str(order.pk), **terms)
        if chance.random() < 0.05:
            strangers.append(str(new_order_id()))
            exchange.place(client_order_id=strangers[-1], **terms)
        asked = {"request_id": str(new_order_id())}
        earlier = orders[chance.randint(0, number)]
        if chance.random() < 0.2:
            call(exchange.url, "POST", f"/orders/{earlier.pk}/cancel", asked)
        elif chance.random() < 0.2:
            call(exchange.url, "POST", f"/orders/{earlier.pk}/replace", asked | {"quantity": chance.randint(1, 300)})
        time.sleep(pause)
    return strangers


def truth(exchange: RunningExchange) -> list[dict[str, Any]]:
    """Every report that the exchange has ever made."""
    found: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        _, page = exchange.admin("GET", f"/reports?limit=10000&after={after}")
        found += page["reports"]
        after = page["next"]
    return found


KINDS = {"fill": "executed", "bust": "busted", "correction": "corrected"}


def check_against_the_exchange(exchange: RunningExchange, strangers: Sequence[str]) -> None:
    """What is stored is what the exchange did: nothing lost, nothing twice, nothing with another order."""
    ours = [report for report in truth(exchange) if report["client_order_id"] not in strangers]
    expected = {
        (
            report["execution_id"],
            report["client_order_id"],
            KINDS[report["kind"]],
            report.get("refers_to", ""),
            report.get("quantity", 0),
            None if report["kind"] == "bust" else Decimal(report["price"]),
        )
        for report in ours
        if report["kind"] in KINDS
    }
    columns = ("execution_id", "order_id", "kind", "refers_to", "quantity", "price")
    stored = [(id_, str(order), *rest) for id_, order, *rest in Execution.objects.values_list(*columns)]
    assert len(stored) == len(expected)
    assert set(stored) == expected
    known = {str(order.pk): order for order in Order.objects.all()}
    for client_order_id, order in known.items():
        state = call(exchange.url, "GET", f"/orders/{client_order_id}/state")[1]
        status = STANDS.get(state["status"], state["status"])
        assert (order.status, order.filled_quantity) == (status, state["cumulative_quantity"]), state
    kept = {(row.sequence, row.reason) for row in UnmatchedReport.objects.all()}
    about_strangers = [report["sequence"] for report in truth(exchange) if report["client_order_id"] in strangers]
    assert kept == {(sequence, NO_ORDER) for sequence in about_strangers}
    check_sums()


def active(sessions: Sequence[Process]) -> Process:
    holder = ReportSession.objects.latest("lease_expires_at").holder
    return next(session for session in sessions if session.node == holder)


def freeze_until_replaced(session: Process, sessions: Sequence[Process]) -> None:
    freeze(session)
    wait_until(lambda: active(sessions) is not session, *sessions)
    session.kill(signal.SIGCONT)
    wait_until(lambda: "event=session.lost" in session.output, *sessions)


def run_trial(exchange: RunningExchange, processes: Processes, *, seed: int, orders: int, seconds: float) -> None:
    chance = random.Random(seed)
    ids = make_orders(orders, chance)
    rows = sorted(Order.objects.filter(pk__in=ids), key=lambda order: order.client_order_id)
    sessions = [processes.session(QUIKTRADE_SESSION_LEASE_SECONDS=LEASE) for _ in range(2)]
    exchange.set_faults(**DISTURBED)
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(1) as thread:
        trading = thread.submit(trade, exchange, rows, seed, until)
        harms = 0
        while time.monotonic() < until:
            time.sleep(chance.uniform(0.1, 1.5))
            session = active(sessions) if harms < 2 or chance.random() < 0.7 else chance.choice(sessions)
            if harms == 0:
                freeze_until_replaced(session, sessions)
            elif harms == 1 or chance.random() < 0.3:
                session.kill()
                time.sleep(chance.uniform(0.0, 0.5))
                session.start()
            else:
                session.kill(signal.SIGSTOP)
                time.sleep(chance.uniform(0.1, 4.0))
                session.kill(signal.SIGCONT)
            harms += 1
        strangers = trading.result()
    exchange.set_faults()
    time.sleep(0.6)  # for what was to be busted, corrected or filled late
    wait_until(lambda: read_to_the_end(exchange), *sessions)
    output = "".join(session.output for session in sessions)
    assert "event=session.lost" in output  # the first to be frozen was replaced meanwhile
    assert "event=session.gap" in output
    assert "Traceback" not in output
    check_against_the_exchange(exchange, strangers)
    assert UnmatchedReport.objects.filter(reason=NO_ORDER).exists() or not strangers


@pytest.mark.exhaustive
def test_no_execution_is_lost_or_doubled_by_dead_and_frozen_sessions(
    exchange: RunningExchange, processes: Processes
) -> None:
    run_trial(exchange, processes, seed=1, orders=120, seconds=8)


@pytest.mark.exhaustive
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(10, 13))
def test_no_execution_is_lost_or_doubled_in_a_longer_trial(
    exchange: RunningExchange, processes: Processes, seed: int
) -> None:
    run_trial(exchange, processes, seed=seed, orders=500, seconds=20)
