import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.utils import timezone

from exchanges import registry
from exchanges.registry import open_venue
from exchanges.tests.running import RunningExchange, running_exchange
from exchanges.venue import Capabilities, OutcomeUnknown, Report, ReportStatus, ResendSafety, VenueError
from orders import lifecycle, placement, reconciliation, selectors, services
from orders.lifecycle import Event, Step
from orders.models import Order, OrderEvent
from orders.reconciliation import mark_not_placed, mark_placed
from orders.tests.factories import OrderFactory, VenueFactory
from orders.tests.scripted_venue import Book, ScriptedVenue
from orders.verdicts import Doubt, Park, conclude

ID = UUID("019a1c2e-7b1f-7c3d-9a55-0242ac120002")
WORKING = Report(client_order_id=str(ID), status=ReportStatus.WORKING, venue_order_id="V1")
FILLED = Report(client_order_id=str(ID), status=ReportStatus.FILLED, venue_order_id="V1")
REJECTED = Report(client_order_id=str(ID), status=ReportStatus.REJECTED, code="no", text="No.")
SILENT = OutcomeUnknown("timeout")


def capabilities(safety: ResendSafety, **changes: Any) -> Capabilities:
    recent = safety is ResendSafety.REFUSES_RECENT_DUPLICATES
    return Capabilities(
        duplicate_window_seconds=60.0 if recent else None,
        resend_safety=safety,
        deadline_seconds=5,
        settle_seconds=2,
        finds=True,
        order_types=frozenset(),
        times_in_force=frozenset(),
        **changes,
    )


@pytest.mark.parametrize(
    ("answer", "safety", "expected"),
    [
        (WORKING, ResendSafety.REFUSES_DUPLICATES, Event.ACKNOWLEDGED),
        (WORKING, ResendSafety.NOTHING, Event.ACKNOWLEDGED),
        (FILLED, ResendSafety.NOTHING, Event.ACKNOWLEDGED),
        (REJECTED, ResendSafety.REFUSES_DUPLICATES, Event.REJECTED_BY_VENUE),
        (SILENT, ResendSafety.REFUSES_DUPLICATES, None),
        (None, ResendSafety.REFUSES_DUPLICATES, Event.NOT_FOUND),
        (None, ResendSafety.REFUSES_STALE_REQUESTS, Event.NOT_FOUND),
        (None, ResendSafety.REFUSES_RECENT_DUPLICATES, Event.NOT_FOUND),
        (None, ResendSafety.NOTHING, Park),
    ],
)
def test_the_answer_and_the_venues_class_decide(
    answer: Report | VenueError | None, safety: ResendSafety, expected: object
) -> None:
    conclusion = conclude(ID, 1, answer, capabilities(safety), Doubt(10.0, 0))

    if isinstance(conclusion, Step):
        assert conclusion.event == expected
        assert conclusion.attempt == (None if expected == Event.ACKNOWLEDGED else 1)
    elif conclusion is None:
        assert expected is None
    else:
        assert expected is Park


# A request of an earlier round may still arrive at a venue that takes again what it has rejected.
@pytest.mark.parametrize(
    ("remembers", "rounds", "safety", "by_content", "final"),
    [
        (False, 1, ResendSafety.REFUSES_DUPLICATES, False, False),
        (False, 1, ResendSafety.REFUSES_DUPLICATES, True, True),
        (True, 1, ResendSafety.REFUSES_DUPLICATES, False, True),
        (False, 0, ResendSafety.REFUSES_DUPLICATES, False, True),
        (False, 1, ResendSafety.REFUSES_STALE_REQUESTS, False, True),
    ],
)
def test_a_rejection_that_is_found_is_final_only_if_no_other_request_can_be_accepted(
    remembers: bool, rounds: int, safety: ResendSafety, by_content: bool, final: bool
) -> None:
    report = replace(REJECTED, by_content=by_content)
    able = capabilities(safety, remembers_rejections=remembers)
    conclusion = conclude(ID, 1, report, able, Doubt(10.0, rounds))
    assert isinstance(conclusion, Step if final else Park)


# The window is 60 s. An attempt may take its lease of 30 s and linger for 2 s, and must be there before it closes.
@pytest.mark.parametrize(("age", "resend_within"), [(10.0, 18.0), (27.0, 1.0), (28.0, None), (600.0, None)])
def test_where_duplicates_are_refused_for_a_while_a_resend_is_safe_as_long(
    age: float, resend_within: float | None
) -> None:
    safety = ResendSafety.REFUSES_RECENT_DUPLICATES
    conclusion = conclude(ID, 1, None, capabilities(safety), Doubt(age, 0))
    if resend_within is None:
        assert isinstance(conclusion, Park)
    else:
        assert isinstance(conclusion, Step)
        assert conclusion.resend_within == pytest.approx(resend_within)


@pytest.mark.django_db
def test_the_first_attempt_that_may_have_arrived_counts() -> None:
    order = OrderFactory(status="unconfirmed", attempts=3)  # two attempts before it are proved not sent
    events = OrderEvent.objects.filter(order=order, event="claimed").order_by("sequence")
    third = events[2].at

    age = selectors.doubts([order.pk])[order.pk].age

    assert age == pytest.approx((timezone.now() - third).total_seconds(), abs=1.0)


@pytest.mark.django_db
def test_an_order_that_the_venue_has_becomes_placed(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url})
        order = OrderFactory(status="unconfirmed", delay=0.0)
        exchange.place(client_order_id=str(order.pk))

        assert reconciliation.reconcile_due_orders() == 1

        placed = Order.objects.get(pk=order.pk)
        (record,) = exchange.orders()
        assert (placed.status, placed.venue_order_id) == ("placed", record["venue_order_id"])


@pytest.mark.django_db
def test_an_order_that_the_venue_does_not_know_goes_back_to_pending(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url})
        order = OrderFactory(status="unconfirmed", delay=0.0)

        reconciliation.reconcile_due_orders()

        assert Order.objects.get(pk=order.pk).status == "pending"


@pytest.mark.django_db
def test_an_order_of_a_venue_that_is_down_stays_unconfirmed_and_is_asked_about_again() -> None:
    order = OrderFactory(status="unconfirmed", delay=0.0)

    assert reconciliation.reconcile_due_orders() == 0

    waiting = Order.objects.get(pk=order.pk)
    assert waiting.status == "unconfirmed"
    assert waiting.next_attempt_at is not None
    assert waiting.last_error.startswith("Look-up failed")


@pytest.mark.django_db
def test_where_a_resend_is_not_safe_an_unknown_order_is_parked(tmp_path: Path) -> None:
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url, "resend_safety": "nothing"})
        order = OrderFactory(status="unconfirmed", delay=0.0)

        reconciliation.reconcile_due_orders()

        parked = Order.objects.get(pk=order.pk)
        assert (parked.status, parked.parked) == ("unconfirmed", True)
        assert reconciliation.reconcile_due_orders() == 0


@pytest.mark.django_db
def test_an_operators_look_up_waits_until_no_request_can_be_on_its_way() -> None:
    order = OrderFactory(status="unconfirmed")

    (result,) = reconciliation.reconcile_orders([order.pk], actor="operator:olga")

    assert not result.done
    assert "may still be on its way" in result.explanation


# ---- An operator's word on a parked order ----


@pytest.fixture
def parked(tmp_path: Path) -> Iterator[tuple[Order, RunningExchange]]:
    with running_exchange(tmp_path) as exchange:
        VenueFactory(settings={"url": exchange.url, "resend_safety": "nothing", "settle_seconds": 0.000_001})
        order = OrderFactory(status="unconfirmed", parked=True)
        Order.objects.update(updated_at="2020-01-01T00:00:00Z")
        yield order, exchange


@pytest.mark.django_db
def test_an_order_that_is_not_at_the_venue_can_be_marked_so_and_requeued(
    parked: tuple[Order, RunningExchange],
) -> None:
    order, _ = parked

    result = mark_not_placed(order.pk, actor="operator:olga", reason="Not on the venue's screen.")

    assert (result.done, result.explanation) == (True, "failed")
    event = selectors.history(order.pk).last()
    assert event is not None
    assert (event.event, event.actor, event.reason) == (
        "marked_not_placed",
        "operator:olga",
        "Not on the venue's screen.",
    )
    (requeued,) = services.requeue_orders([order.pk], actor="operator:olga", reason="Again.")
    assert requeued.done


@pytest.mark.django_db
@pytest.mark.parametrize("verb", ["placed", "not placed"])
def test_the_venues_word_goes_before_the_operators(parked: tuple[Order, RunningExchange], verb: str) -> None:
    order, exchange = parked
    exchange.place(client_order_id=str(order.pk))

    if verb == "placed":
        result = mark_placed(order.pk, venue_order_id="wrong", actor="operator:olga", reason="On the screen.")
    else:
        result = mark_not_placed(order.pk, actor="operator:olga", reason="Not on the screen.")

    assert not result.done
    assert "recorded instead" in result.explanation
    placed = Order.objects.get(pk=order.pk)
    assert (placed.status, placed.venue_order_id) == ("placed", exchange.orders()[0]["venue_order_id"])


@pytest.mark.django_db
def test_an_order_can_be_marked_placed_under_the_id_that_the_venue_confirms(
    parked: tuple[Order, RunningExchange],
) -> None:
    order, exchange = parked
    exchange.place(client_order_id=str(order.pk))
    venue_order_id = exchange.orders()[0]["venue_order_id"]

    result = mark_placed(order.pk, venue_order_id=venue_order_id, actor="operator:olga", reason="On the screen.")

    assert result.done
    assert Order.objects.get(pk=order.pk).status == "placed"


@pytest.mark.django_db
@pytest.mark.parametrize(("age", "done"), [(20, False), (40, True)])
def test_an_operators_word_waits_until_no_request_can_be_on_its_way(
    parked: tuple[Order, RunningExchange], age: int, done: bool
) -> None:
    """A lease is 30 s: a request of the last attempt may leave as late as its end."""
    order, _ = parked
    Order.objects.update(updated_at=timezone.now() - timedelta(seconds=age))
    assert mark_not_placed(order.pk, actor="operator:olga", reason="Not on the screen.").done is done


@pytest.mark.django_db
@pytest.mark.parametrize("reason", ["", " ", "\t\n"])
def test_whoever_decides_says_why(parked: tuple[Order, RunningExchange], reason: str) -> None:
    order, _ = parked
    olga = {"actor": "operator:olga", "reason": reason}
    with pytest.raises(ValueError, match="reason"):
        mark_placed(order.pk, venue_order_id="V1", **olga)
    with pytest.raises(ValueError, match="reason"):
        mark_not_placed(order.pk, **olga)
    with pytest.raises(ValueError, match="reason"):
        services.requeue_orders([OrderFactory(status="failed").pk], **olga)
    with pytest.raises(ValueError, match="reason"):
        services.cancel_orders([OrderFactory().pk], **olga)
    statuses = Order.objects.values_list("status", flat=True)
    assert sorted(statuses) == ["failed", "pending", "unconfirmed"]


@pytest.mark.django_db
def test_a_swept_order_is_looked_up_only_after_the_settle_time() -> None:
    VenueFactory(settings={"url": "http://127.0.0.1:9", "settle_seconds": 12})
    order = OrderFactory(status="submitting")
    Order.objects.update(lease_expires_at="2020-01-01T00:00:00Z")

    assert placement.sweep_orders() == 1

    swept = Order.objects.get(pk=order.pk)
    assert swept.next_attempt_at is not None
    assert swept.next_attempt_at - swept.updated_at == timedelta(seconds=12)


@pytest.mark.django_db
def test_an_order_that_the_venue_denies_is_not_marked_placed(parked: tuple[Order, RunningExchange]) -> None:
    order, _ = parked
    result = mark_placed(order.pk, venue_order_id="V1", actor="operator:olga", reason="On the screen.")
    assert not result.done
    assert "does not know" in result.explanation
    assert Order.objects.get(pk=order.pk).status == "unconfirmed"


@pytest.mark.django_db
@pytest.mark.parametrize("status", ["pending", "submitting", "failed", "placed", "unconfirmed"])
def test_only_a_parked_order_can_be_marked(status: str) -> None:
    order = OrderFactory(status=status)
    result = mark_not_placed(order.pk, actor="operator:olga", reason="x")
    assert not result.done
    assert Order.objects.get(pk=order.pk).status == status


@pytest.mark.django_db
def test_an_order_that_is_still_being_looked_up_cannot_be_marked_however_old(
    parked: tuple[Order, RunningExchange],
) -> None:
    order = OrderFactory(status="unconfirmed")
    Order.objects.update(updated_at="2020-01-01T00:00:00Z")
    result = mark_not_placed(order.pk, actor="operator:olga", reason="x")
    assert (result.done, "not parked" in result.explanation) == (False, True)


@pytest.mark.django_db
def test_a_venue_that_gives_no_answer_keeps_an_order_from_being_marked() -> None:
    order = OrderFactory(status="unconfirmed", parked=True)
    Order.objects.update(updated_at="2020-01-01T00:00:00Z")
    result = mark_not_placed(order.pk, actor="operator:olga", reason="x")
    assert not result.done
    assert "no answer" in result.explanation


@pytest.mark.django_db
def test_a_venue_that_cannot_be_opened_does_not_keep_others_from_being_served() -> None:
    VenueFactory(code="XBRK", settings={})
    VenueFactory()
    stuck = [OrderFactory(status="submitting", venue=VenueFactory(code=code)) for code in ("XBRK", "XSIM")]
    Order.objects.update(lease_expires_at="2020-01-01T00:00:00Z")

    assert placement.sweep_orders() == 2
    assert {order.status for order in Order.objects.filter(pk__in=[order.pk for order in stuck])} == {"unconfirmed"}
    assert reconciliation.reconcile_due_orders() == 0


# ---- Several venues: each has its own time and its own failure ----


@contextmanager
def stalling_url() -> Iterator[tuple[str, threading.Event]]:
    """A venue that takes connections and requests and answers none. Once the event is set it hangs up instead."""
    given_up, held = threading.Event(), []
    with socket.create_server(("127.0.0.1", 0), backlog=500) as server:

        def serve() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        def hang_up() -> None:
            given_up.wait()
            for connection in held:
                connection.close()

        threads = [threading.Thread(target=target) for target in (serve, hang_up)]
        for thread in threads:
            thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", given_up
        finally:
            given_up.set()
            server.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


class Answering(ScriptedVenue):
    """A venue made by the test; only its `find` matters."""

    def __init__(self, find: Any) -> None:
        super().__init__(Book(ResendSafety.REFUSES_DUPLICATES), {})
        self._find = find

    async def find(self, client_order_id: str) -> Report | None:
        report: Report | None = await self._find(client_order_id)
        return report


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`scripted(code, find)`: a venue that answers as the coroutine says; `make` is its adapter instead."""

    def venue(code: str, find: Any = None, *, make: Any = None) -> Any:
        monkeypatch.setitem(registry.ADAPTERS, f"scripted-{code}", make or (lambda settings: Answering(find)))
        return VenueFactory(code=code, adapter=f"scripted-{code}")

    return venue


def due_order(venue: Any, **fields: Any) -> Order:
    return OrderFactory(status="unconfirmed", venue=venue, **{"delay": 0.0, **fields})


async def working(client_order_id: str) -> Report:
    return Report(client_order_id=client_order_id, status=ReportStatus.WORKING, venue_order_id=f"V-{client_order_id}")


@pytest.mark.django_db
def test_a_silent_venue_holds_up_no_look_up_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "BATCH", 2)
    recorded: list[str] = []
    record = reconciliation._record

    def noted(row: Any, due: Any, *args: Any, **kwargs: Any) -> Any:
        results = record(row, due, *args, **kwargs)
        recorded.extend([row.code] * len(due))
        if recorded.count("XSIM") == 5:
            given_up.set()
        return results

    monkeypatch.setattr(reconciliation, "_record", noted)
    with running_exchange(tmp_path) as exchange, stalling_url() as (url, given_up):
        silent = VenueFactory(code="ABCD", settings={"url": url, "timeout_seconds": 25})
        waiting = due_order(silent)
        healthy = VenueFactory(settings={"url": exchange.url})
        orders = [due_order(healthy, delay=delay) for delay in (0.0, 0.0, 0.0, 0.0, 0.4)]
        for order in orders:
            exchange.place(client_order_id=str(order.pk))

        assert reconciliation.reconcile_due_orders() == 5

    assert recorded == ["XSIM"] * 5 + ["ABCD"]
    assert Order.objects.filter(status="placed").count() == 5
    assert Order.objects.get(pk=waiting.pk).last_error.startswith("Look-up failed: connection_lost")


@pytest.mark.django_db
def test_an_operators_look_up_of_one_venues_orders_does_not_wait_for_another(scripted: Any) -> None:
    healthy_is_asked = threading.Event()

    async def silent_until_then(client_order_id: str) -> Report | None:
        assert await asyncio.to_thread(healthy_is_asked.wait, 20)
        return await working(client_order_id)

    async def healthy(client_order_id: str) -> Report | None:
        healthy_is_asked.set()
        return await working(client_order_id)

    orders = [due_order(scripted("ABCD", silent_until_then)), due_order(scripted("XBRK", healthy))]
    Order.objects.update(updated_at="2020-01-01T00:00:00Z")
    results = reconciliation.reconcile_orders([order.pk for order in orders], actor="operator:olga")
    assert [result.explanation for result in results] == ["placed", "placed"]


async def raises(client_order_id: str) -> Report:
    raise RuntimeError("a fault of the adapter")


def cannot_be_made(settings: Any) -> Any:
    raise TypeError("settings are null")


@pytest.mark.django_db
def test_a_fault_in_one_venues_adapter_keeps_no_other_venue_from_being_looked_up(scripted: Any) -> None:
    faulty = due_order(scripted("ABCD", raises))
    unopened = due_order(scripted("BCDE", make=cannot_be_made))
    healthy = due_order(scripted("XBRK", working))

    assert reconciliation.reconcile_due_orders() == 1

    found = {order.pk: order for order in Order.objects.all()}
    assert found[healthy.pk].status == "placed"
    assert found[faulty.pk].last_error == "Look-up failed: adapter_error: RuntimeError('a fault of the adapter')"
    assert found[unopened.pk].status == "unconfirmed"


@pytest.mark.django_db
def test_operators_are_told_which_venue_cannot_be_opened_and_get_the_others_answers(scripted: Any) -> None:
    orders = [due_order(scripted("BCDE", make=cannot_be_made)), due_order(scripted("XBRK", working))]
    Order.objects.update(updated_at="2020-01-01T00:00:00Z")
    refused, placed = reconciliation.reconcile_orders([order.pk for order in orders], actor="operator:olga")
    assert "cannot be opened" in refused.explanation
    assert (placed.done, placed.explanation) == (True, "placed")


@pytest.mark.django_db
def test_an_answer_that_cannot_be_written_keeps_no_other_from_being_recorded(
    scripted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def find(client_order_id: str) -> Report:
        report = await working(client_order_id)
        if client_order_id == str(spoilt.pk):
            object.__setattr__(report, "venue_order_id", "V" * 65)
        return report

    venue = scripted("ABCD", find)
    good, spoilt, other = due_order(venue), due_order(venue), due_order(scripted("XBRK", working))

    assert reconciliation.reconcile_due_orders() == 2

    found = {order.pk: order for order in Order.objects.all()}
    assert (found[good.pk].status, found[other.pk].status) == ("placed", "placed")
    assert found[spoilt.pk].status == "unconfirmed"
    assert "An outcome cannot be written: its order stays as it is" in caplog.messages


@pytest.mark.django_db
def test_look_ups_that_never_end_are_given_up(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def for_ever(client_order_id: str) -> Report | None:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(reconciliation, "BATCH_SECONDS", 0.1)
    monkeypatch.setattr(reconciliation, "JOB_SECONDS", 0.05)
    order = due_order(scripted("ABCD", for_ever))
    assert reconciliation.reconcile_due_orders() == 0
    assert Order.objects.get(pk=order.pk).last_error == "Look-up failed: timeout: no answer in time"


@pytest.mark.django_db
def test_a_job_whose_time_is_up_leaves_the_rest_to_the_next(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order = due_order(scripted("ABCD", working))
    with monkeypatch.context() as patch:
        patch.setattr(reconciliation, "JOB_SECONDS", 0.0)
        assert reconciliation.reconcile_due_orders() == 0
    assert Order.objects.get(pk=order.pk).next_attempt_at == order.next_attempt_at
    assert reconciliation.reconcile_due_orders() == 1


def test_a_job_ends_well_before_its_time_out() -> None:
    timeout: Any = settings.Q_CLUSTER["timeout"]
    longest = reconciliation.JOB_SECONDS + reconciliation.BATCH_SECONDS
    assert longest <= timeout * 0.8


@pytest.mark.django_db
def test_a_venue_whose_sweep_fails_keeps_no_other_from_being_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    venues = [VenueFactory(code=code) for code in ("ABCD", "XSIM")]
    dead = [OrderFactory(status="submitting", venue=venue) for venue in venues]
    Order.objects.update(lease_expires_at="2020-01-01T00:00:00Z")
    sweep = lifecycle.sweep

    def fails_for_one(code: str, **kwargs: Any) -> Any:
        if code == "ABCD":
            raise ValueError("a row that cannot be read")
        return sweep(code, **kwargs)

    monkeypatch.setattr(lifecycle, "sweep", fails_for_one)
    assert placement.sweep_orders() == 1
    assert Order.objects.get(pk=dead[1].pk).status == "unconfirmed"


@pytest.mark.parametrize("values", [None, [], {"url": 5}, {"url": "http://x", "in_flight": None}])
def test_settings_that_an_adapter_cannot_use_are_always_the_same_error(values: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        open_venue("simulator", values)


# ---- A parked order is asked about on, on evidence alone ----


@pytest.fixture
def parked_of(scripted: Any) -> Any:
    """`parked_of(find, **fields)`: a parked order that is due to be asked about."""

    def make(find: Any, **fields: Any) -> Order:
        order = OrderFactory(status="unconfirmed", parked=True, venue=scripted("ABCD", find), **fields)
        return Order.objects.get(pk=order.pk)

    return make


async def absent(client_order_id: str) -> Report | None:
    return None


async def rejected(client_order_id: str) -> Report | None:
    return Report(client_order_id=client_order_id, status=ReportStatus.REJECTED, code="no", text="Not today.")


async def silent(client_order_id: str) -> Report | None:
    raise OutcomeUnknown("timeout")


@pytest.mark.django_db
@pytest.mark.parametrize(("find", "status"), [(working, "placed"), (rejected, "rejected")])
def test_what_the_venue_says_of_a_parked_order_is_recorded(parked_of: Any, find: Any, status: str) -> None:
    order = parked_of(find)

    assert reconciliation.reconcile_due_orders() == 1

    after = Order.objects.get(pk=order.pk)
    assert (after.status, after.parked) == (status, False)
    event = selectors.history(order.pk).last()
    assert event is not None
    assert event.actor == "system:reconciliation"


@pytest.mark.django_db
@pytest.mark.parametrize("find", [absent, silent])
def test_a_parked_order_of_which_the_venue_says_nothing_stays_parked_as_it_was(parked_of: Any, find: Any) -> None:
    order = parked_of(find, error="It was sent 11 times.")

    assert reconciliation.reconcile_due_orders() == 0

    after = Order.objects.get(pk=order.pk)
    assert (after.status, after.parked_at, after.last_error) == ("unconfirmed", order.parked_at, order.last_error)
    assert after.version == order.version


# Asked when it has been parked for as long again: twice as long each time, from a minute up to an hour.
@pytest.mark.django_db
@pytest.mark.parametrize(("parked_for", "wait"), [(0, 60), (50, 60), (120, 120), (1000, 1000), (90_000, 3600)])
def test_a_parked_order_is_asked_about_ever_more_rarely(parked_of: Any, parked_for: int, wait: int) -> None:
    order = parked_of(absent)
    now = timezone.now()
    Order.objects.update(parked_at=now - timedelta(seconds=parked_for), next_attempt_at=now - timedelta(seconds=1))

    reconciliation.reconcile_due_orders()

    next_attempt_at = Order.objects.get(pk=order.pk).next_attempt_at
    assert next_attempt_at is not None
    assert (next_attempt_at - now).total_seconds() == pytest.approx(wait, abs=10)


@pytest.mark.django_db
def test_an_order_whose_place_by_passed_in_doubt_is_found_working(scripted: Any) -> None:
    order = due_order(scripted("ABCD", absent), place_by=timezone.now() + timedelta(seconds=1))
    reconciliation.reconcile_due_orders()  # not known there: to be sent again, in doubt
    Order.objects.update(place_by="2020-01-01T00:00:00Z")
    placement.sweep_orders()
    scripted("ABCD", working)  # the first request arrived after all

    assert reconciliation.reconcile_due_orders() == 1

    assert Order.objects.get(pk=order.pk).status == "placed"


@pytest.mark.django_db
def test_due_look_ups_of_other_orders_go_before_those_of_parked_ones(parked_of: Any, scripted: Any) -> None:
    parked = parked_of(absent)
    fresh = due_order(scripted("ABCD", absent))
    (first,) = lifecycle.claim_lookups("ABCD", limit=1, seconds=11)
    (second,) = lifecycle.claim_lookups("ABCD", limit=1, seconds=11)
    assert [(first.order_id, first.parked), (second.order_id, second.parked)] == [(fresh.pk, False), (parked.pk, True)]
