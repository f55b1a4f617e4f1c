"""What the log says of attempts: few lines, each with what an operator or a client looks for."""

import logging
from typing import Any
from uuid import uuid4

import pytest

from orders import placement, recording
from orders.lifecycle import Event, MovedOrder, Step
from orders.models import Order
from orders.outcome_log import OutcomeLog
from orders.tests.factories import LEASE_SECONDS, OrderFactory


class Told:
    """A log with its own clock, and what it has written: the level, the sentence and the fields of each line."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.now = 1000.0
        self._log = OutcomeLog(lambda: self.now)
        self._caplog = caplog

    def of(
        self, *orders: MovedOrder, latency_ms: float = 2.0, reason: str = ""
    ) -> list[tuple[str, str, dict[str, Any]]]:
        before = len(self._caplog.records)
        detail = {"latency_ms": latency_ms}
        steps = [Step(order_id=order.id, event=Event(order.event), detail=detail, reason=reason) for order in orders]
        self._log.tell(orders, {step.order_id: step for step in steps})
        return [(record.levelname, record.getMessage(), vars(record)) for record in self._caplog.records[before:]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    caplog.set_level(logging.INFO)
    return Told(caplog)


def order(
    event: Event,
    *,
    age: float = 0.01,
    venue: str = "XSIM",
    client_order_id: str = "mom-1",
    traceparent: str | None = None,
) -> MovedOrder:
    given: dict[str, Any] = {
        "id": uuid4(),
        "event": event.value,
        "age_seconds": age,
        "venue_id": venue,
        "status": "pending",
    }
    others: dict[str, Any] = dict.fromkeys(MovedOrder.__match_args__, 1) | {"traceparent": traceparent}
    return MovedOrder(**{**others, **given, "client_order_id": client_order_id})


def test_a_line_about_an_order_has_its_trace(told: Told) -> None:
    traced = f"00-{'a' * 32}-{'b' * 16}-01"
    (line, other) = told.of(*(order(Event.ACKNOWLEDGED, age=9.0, traceparent=each) for each in (traced, None)))
    assert line[2]["trace_id"] == "a" * 32
    assert "trace_id" not in other[2]


def test_an_order_placed_as_usual_is_not_told(told: Told) -> None:
    assert told.of(order(Event.ACKNOWLEDGED, age=0.9)) == []
    assert told.of(order(Event.ACKNOWLEDGED, age=4.9), latency_ms=4000.0) == []  # the venue took the time


def test_an_order_placed_late_is_told_with_its_clients_id(told: Told) -> None:
    late = order(Event.ACKNOWLEDGED, age=61.5, client_order_id="mom-7")
    ((level, sentence, fields),) = told.of(late, latency_ms=500.0)
    assert (level, sentence) == ("INFO", "Order placed late")
    assert (fields["client_order_id"], fields["order_id"], fields["waited_seconds"]) == ("mom-7", late.id, 61.0)


def test_of_many_late_orders_ten_have_a_line_and_the_rest_are_counted(told: Told) -> None:
    assert len(told.of(*(order(Event.ACKNOWLEDGED, age=90.0) for _ in range(250)))) == 10
    told.now += 60.0
    ((level, sentence, fields),) = told.of(order(Event.ACKNOWLEDGED))
    assert (level, sentence, fields["orders"]) == ("INFO", "Order placed late: more of them", 240)


def test_a_venues_trouble_is_one_line_and_then_a_count(told: Told) -> None:
    ((level, sentence, fields),) = told.of(order(Event.NOT_SENT, client_order_id="mom-1"), reason="busy: later")
    assert (level, sentence) == ("WARNING", "Attempts to place orders fail")
    assert (fields["venue"], fields["failures"], fields["latest"]) == ("XSIM", 1, "mom-1")
    assert fields["reason"] == "busy: later"
    for _ in range(59):
        told.now += 1.0
        assert told.of(order(Event.NOT_SENT), order(Event.OUTCOME_UNKNOWN)) == []
    told.now += 1.0
    ((_, _, fields),) = told.of(order(Event.VENUE_UNREACHABLE))
    counts = {event: fields[event] for event in ("not_sent", "outcome_unknown", "venue_unreachable")}
    assert counts == {"not_sent": 60, "outcome_unknown": 59, "venue_unreachable": 1}
    assert (fields["failures"], fields["seconds"]) == (120, 60)


def test_a_long_trouble_is_told_ever_more_rarely(told: Told) -> None:
    lines = 0
    for _ in range(24 * 60):
        lines += len(told.of(order(Event.VENUE_UNREACHABLE)))
        told.now += 60.0
    assert lines == 29  # at once; after 1, 3, 7, 15, 31 and 63 minutes; then 22 times an hour apart


def test_a_trouble_is_over_when_orders_are_placed_and_none_has_failed_for_a_while(told: Told) -> None:
    told.of(order(Event.NOT_SENT), order(Event.NOT_SENT))
    told.now += 9.0
    assert told.of(order(Event.ACKNOWLEDGED)) == []
    told.now += 1.0
    ((level, sentence, fields),) = told.of(order(Event.ACKNOWLEDGED))
    assert (level, sentence, fields["failures"]) == ("INFO", "Venue's trouble is over", 2)
    assert len(told.of(order(Event.NOT_SENT))) == 1


def test_each_venue_has_its_own_trouble(told: Told) -> None:
    lines = told.of(order(Event.NOT_SENT), order(Event.NOT_SENT, venue="XPAR"), order(Event.NOT_SENT))
    assert [fields["venue"] for _, _, fields in lines] == ["XSIM", "XPAR"]


# ---- What is recorded ----


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(recording, "_outcome_log", OutcomeLog())
    caplog.set_level(logging.INFO)
    return caplog


def acknowledged(order: Order, venue_order_id: str = "V-1") -> Step:
    detail = {"latency_ms": 12.34}
    return Step(order_id=order.pk, event=Event.ACKNOWLEDGED, detail=detail, venue_order_id=venue_order_id)


@pytest.mark.django_db
def test_what_a_commit_without_an_answer_has_recorded_is_no_news(lines: pytest.LogCaptureFixture) -> None:
    placed, turned_away = OrderFactory(status="submitting"), OrderFactory(status="submitting")
    detail = {"code": "busy", "latency_ms": 7.01, "retry_in_seconds": 0.5}
    refused = Step(order_id=turned_away.pk, event=Event.NOT_SENT, attempt=1, reason="busy", detail=detail, delay=0.5)
    steps = [acknowledged(placed), refused]
    assert len(recording.record_outcomes(steps, actor="system:test")) == 2
    lines.clear()
    assert recording.record_outcomes(steps, actor="system:test") == []
    assert lines.records == []


@pytest.mark.django_db
@pytest.mark.parametrize("venue_order_id", ["V-2", "V-1"])
def test_another_acknowledgement_than_the_one_recorded_is_an_error(
    lines: pytest.LogCaptureFixture, venue_order_id: str
) -> None:
    placed = OrderFactory(status="placed", venue_order_id="V-1")  # as a look-up found it: no latency in its history
    recording.record_outcomes([acknowledged(placed, venue_order_id)], actor="system:test")
    assert [record.levelname for record in lines.records] == ["ERROR"]


@pytest.mark.django_db
def test_orders_that_need_an_operator_are_one_line_for_a_venue(lines: pytest.LogCaptureFixture, settings: Any) -> None:
    settings.PLACEMENT_MAX_ATTEMPTS = 1
    orders = [OrderFactory(status="submitting") for _ in range(30)]
    steps = [Step(order_id=order.pk, event=Event.NOT_SENT, attempt=1, reason="busy") for order in orders]
    recording.record_outcomes(steps, actor="system:test")
    trouble, needs = lines.records
    assert (trouble.levelname, needs.levelname) == ("WARNING", "ERROR")
    fields = vars(needs)
    assert (needs.getMessage(), fields["orders"], fields["status"]) == ("Orders need an operator", 30, "failed")
    assert fields["client_order_id"] in {order.client_order_id for order in orders}


@pytest.mark.django_db
def test_an_order_is_told_with_its_clients_id_and_its_age(lines: pytest.LogCaptureFixture) -> None:
    late = OrderFactory(status="submitting", client_order_id="mom-7")
    Order.objects.update(created_at="2020-01-01T00:00:00Z")
    recording.record_outcomes([acknowledged(late)], actor="system:test")
    (record,) = lines.records
    assert vars(record)["client_order_id"] == "mom-7"
    assert vars(record)["waited_seconds"] > 365 * 86_400


@pytest.mark.django_db
def test_nothing_is_told_of_what_is_not_committed(
    lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = OrderFactory(status="submitting")
    step = Step(order_id=order.pk, event=Event.NOT_SENT, attempt=1, reason="busy", delay=LEASE_SECONDS)

    def fails(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(placement, "_record_health", fails)
    attempt = placement.Attempt(step, "XSIM", True, placement.NO_CLAIM.permit)
    with pytest.raises(RuntimeError):
        placement.record_attempts([attempt], actor="system:test")
    assert lines.records == []
