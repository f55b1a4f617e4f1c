"""What people are told of orders and venues: the same troubles that the console shows, once they have lasted."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from exchanges.models import ReportSession, VenueHealth
from orders import alerts, amendments, attention
from orders.attention import TroubleKind
from orders.models import Order, OrderRequest
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory, WorkerNodeFactory, silent_venue
from orders.webhooks import services
from quiktrade.models import WorkerNode

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def worker(db: None) -> None:
    WorkerNodeFactory()


def found() -> list[tuple[str, str]]:
    return [(finding.kind.name, finding.subject) for judge in alerts.JUDGES for finding in judge.look()]


def ago(seconds: float) -> Any:
    return timezone.now() - timedelta(seconds=seconds)


def test_nothing_is_told_while_orders_move() -> None:
    OrderFactory()
    OrderFactory(status="unconfirmed")
    assert found() == []


def test_single_orders_are_told_by_what_they_need() -> None:
    OrderFactory(status="failed"), OrderFactory(status="failed")
    OrderFactory(status="unconfirmed", parked=True)
    doubtful = OrderFactory(status="unconfirmed")
    Order.objects.filter(pk=doubtful.pk).update(updated_at=ago(61))
    assert found() == [("orders_failed", "XSIM"), ("orders_in_doubt", "XSIM"), ("orders_parked", "XSIM")]
    sentences = [finding.sentence for finding in alerts.JUDGES[0].look()]
    assert sentences == ["2 orders have failed at XSIM.", "1 order is in doubt at XSIM.", "1 order is parked at XSIM."]


def test_somebody_who_looks_after_the_orders_of_one_venue_hides_none_of_another() -> None:
    for code in ("XSIM", "XPAR"):
        venue = VenueFactory(code=code)
        OrderFactory(venue=venue, status="failed")
        OrderFactory(venue=venue, status="unconfirmed", parked=True)
        OrderFactory(venue=venue, status="unconfirmed")
        order = OrderFactory(venue=venue, status="placed")
        amendments.request_cancel(order.pk, actor="client:alice", reason="Not wanted any more.")
    Order.objects.filter(status="unconfirmed").update(updated_at=ago(61))
    OrderRequest.objects.update(created_at=ago(301))
    kinds = ("orders_failed", "orders_in_doubt", "orders_parked", "requests_unanswered")
    assert found() == [(kind, venue) for kind in kinds for venue in ("XPAR", "XSIM")]
    assert {finding.value for finding in alerts.JUDGES[0].look()} == {1}


def test_overdue_orders_are_told_by_venue_but_not_of_a_halted_one() -> None:
    for code in ("XSIM", "XPAR", "XLON"):
        OrderFactory(venue=VenueFactory(code=code), delay=-31.0)
    halted = VenueFactory(code="XLON")
    halted.halted_at, halted.halted_by, halted.halt_reason = timezone.now(), "operator:olga", "wrong prices"
    halted.save()
    assert sorted(found()) == [("orders_overdue", "XPAR"), ("orders_overdue", "XSIM")]


@pytest.mark.parametrize(("seconds", "told"), [(3599, []), (3601, [("venue_halted", "XSIM")])])
def test_a_halt_is_told_after_an_hour(seconds: float, told: list[tuple[str, str]]) -> None:
    VenueFactory(halted_at=ago(seconds), halted_by="operator:olga", halt_reason="wrong prices")
    assert found() == told


@pytest.mark.parametrize(("seconds", "told"), [(59, []), (61, [("venue_in_trouble", "XSIM")])])
def test_an_open_circuit_is_told_after_a_minute(seconds: float, told: list[tuple[str, str]]) -> None:
    silent_venue()
    VenueHealth.objects.update(opened_at=ago(seconds))
    assert found() == told


def test_a_missing_worker_is_told() -> None:
    WorkerNode.objects.update(heartbeat_at=ago(16))
    assert found() == [("no_worker", "")]


def test_a_cancel_without_an_answer_is_told() -> None:
    order = OrderFactory(status="placed")
    amendments.request_cancel(order.pk, actor="client:alice", reason="Not wanted any more.")
    OrderRequest.objects.update(created_at=ago(301))
    assert found() == [("requests_unanswered", "XSIM")]
    (told,) = alerts.JUDGES[0].look()
    assert told.sentence == "1 cancel or replace at XSIM is open for more than 5 minutes."


def test_unread_reports_are_told_by_venue() -> None:
    for code, seconds in (("XSIM", 31), ("XPAR", 29)):
        VenueFactory(code=code)
        for stream, at in (("old", ago(9999)), ("new", ago(seconds))):
            token = "0b7e0000-0000-4000-8000-000000000000"
            ReportSession.objects.create(venue_id=code, stream=stream, token=token, lease_expires_at=at)
    assert found() == [("reports_unread", "XSIM")]


def test_webhooks_that_were_disabled_by_themselves_are_told() -> None:
    alice = UserFactory(username="alice")
    by_us, by_her = (services.create_endpoint(alice.pk, url=f"https://example.com/{n}") for n in "ab")
    services.disable_endpoint(by_her, actor="client:alice", reason="not now")
    assert found() == []
    services.disable_endpoint(by_us, actor="system:webhooks", reason="gone")
    assert found() == [("webhooks_disabled", "alice")]
    bob = UserFactory(username="bob")
    for n in "cd":
        endpoint = services.create_endpoint(bob.pk, url=f"https://example.com/{n}")
        services.disable_endpoint(endpoint, actor="system:webhooks", reason="gone")
    sentences = [finding.sentence for judge in alerts.JUDGES for finding in judge.look()]
    assert sentences == [
        "1 webhook of alice is disabled, because the receiver is gone or failed for days.",
        "2 webhooks of bob are disabled, because the receiver is gone or failed for days.",
    ]


def test_every_trouble_of_the_console_is_of_a_kind_that_people_are_told_of() -> None:
    assert set(alerts.ATTENTION) == set(TroubleKind)
    assert attention.state().heads() == []
