"""What is counted of orders, and what Prometheus is told of how they stand."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from prometheus_client import Metric
from rest_framework.test import APIClient

from exchanges.models import UnmatchedReport, Venue
from orders import gauges
from orders.models import Status
from orders.tests.factories import OrderFactory, UserFactory
from orders.webhook_models import WebhookDelivery, WebhookEndpoint
from orders.webhooks import services
from quiktrade.jobs import doorbell
from quiktrade.metrics.counting import REGISTRY
from quiktrade.metrics.gauges import FromRows

Counted = Callable[..., float]


@pytest.fixture
def counted() -> Counted:
    """What a metric has gone up by since the test began."""
    before = {(s.name, frozenset(s.labels.items())): s.value for m in REGISTRY.collect() for s in m.samples}

    def since(name: str, **labels: str) -> float:
        now = REGISTRY.get_sample_value(f"quiktrade_{name}", labels) or 0.0
        return now - before.get((f"quiktrade_{name}", frozenset(labels.items())), 0.0)

    return since


def values(metrics: list[Metric]) -> dict[str, float]:
    """Of metrics with one value each, without their prefix."""
    return {s.name.removeprefix("quiktrade_"): s.value for m in metrics for s in m.samples}


def new_order(**changed: object) -> dict[str, object]:
    terms = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1, "client_order_id": "mine"}
    return {**terms, **changed}


def test_orders_are_counted_as_stored_replayed_or_refused(alice: APIClient, counted: Counted) -> None:
    assert alice.post("/api/v1/orders", new_order()).status_code == 201
    assert alice.post("/api/v1/orders", new_order()).status_code == 200
    assert alice.post("/api/v1/orders", new_order(quantity=2)).status_code == 409
    assert alice.post("/api/v1/orders", new_order(venue="NONE", client_order_id="other")).status_code == 400
    assert counted("orders_accepted_total", venue="XSIM", how="stored") == 1
    assert counted("orders_accepted_total", venue="XSIM", how="replayed") == 1
    assert counted("orders_refused_total", code="client-order-id-taken") == 1
    assert counted("orders_refused_total", code="unknown_venue") == 1


def test_orders_and_replaces_beyond_a_limit_are_counted(alice: APIClient, counted: Counted, settings: Any) -> None:
    order = OrderFactory(owner=User.objects.get(username="alice"), status="placed")
    settings.ORDER_RATE = 1
    batch = {"orders": [new_order(client_order_id=f"{number}") for number in range(60)]}
    assert alice.post("/api/v1/orders/batch", batch).status_code == 200  # nothing is left for a minute
    assert alice.post("/api/v1/orders", new_order()).status_code == 429
    assert alice.post(f"/api/v1/orders/{order.pk}/replace", {"quantity": 80}).status_code == 429
    assert counted("orders_refused_total", code="rate-limited") == 2


def test_requests_are_counted_by_names_of_ours_alone(alice: APIClient, counted: Counted) -> None:
    alice.get("/api/v1/orders/019a0000-0000-7000-8000-000000000001")
    alice.get("/no/such/address")
    alice.generic("BREW", "/api/v1/orders")
    count = "http_request_seconds_count"
    assert counted(count, route="order-detail", method="GET", outcome="4xx") == 1
    assert counted(count, route="none", method="GET", outcome="4xx") == 1
    assert counted(count, route="order-list", method="other", outcome="4xx") == 1


def test_gauges_say_how_orders_stand_at_their_venue(venue: Venue) -> None:
    OrderFactory.create_batch(3)
    read = values(gauges.venues())
    assert read["orders_pending"] == 3
    assert 0 <= read["orders_oldest_due_seconds"] < 60
    assert (read["orders_submitting"], read["venue_halted"], read["venue_circuit_open"]) == (0, 0, 0)
    assert "reports_unread_seconds" not in read


def test_a_halted_venue_says_so(venue: Venue) -> None:
    Venue.objects.update(halted_at=timezone.now() - timedelta(hours=1), halted_by="operator:o", halt_reason="why")
    assert values(gauges.venues())["venue_halted"] == 1


def test_gauges_count_what_needs_an_operator(venue: Venue) -> None:
    OrderFactory(status=Status.FAILED)
    OrderFactory(status=Status.UNCONFIRMED)
    read = values(gauges.attention())
    assert (read["orders_failed"], read["orders_unconfirmed"], read["orders_parked"]) == (1, 1, 0)
    assert 0 <= read["unconfirmed_oldest_seconds"] < 60


@pytest.mark.django_db
def test_all_gauges_are_read_and_kept_for_a_while(venue: Venue) -> None:
    reader = FromRows()
    first = values(reader.collect())
    assert first["database_up"] == 1
    assert first["database_connections"] >= 1
    assert first["job_queue_depth"] == 0
    assert "replica_lag_bytes" not in first
    OrderFactory()
    assert values(reader.collect())["orders_pending"] == 0


@pytest.mark.django_db
def test_gauges_that_cannot_be_read_say_that_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiktrade.metrics.gauges._DATABASE", "SELECT no_such_column")
    assert values(FromRows().collect()) == {"database_up": 0}


def test_gauges_say_how_late_clients_are_told(venue: Venue) -> None:
    alice = UserFactory()
    urls = [f"https://example.com/{n}" for n in range(3)]
    working, failing, disabled = (services.create_endpoint(alice.pk, url=url) for url in urls)
    WebhookEndpoint.objects.filter(pk=failing.pk).update(failures=1)
    services.disable_endpoint(disabled, actor="client:x", reason="pause")
    WebhookDelivery.objects.create(endpoint=working, due_at=timezone.now() - timedelta(minutes=2))
    WebhookDelivery.objects.create(endpoint=failing, due_at=timezone.now() - timedelta(hours=2))
    read = values(gauges.told())
    assert read["webhook_deliveries_open"] == 2
    assert 120 <= read["webhook_oldest_due_seconds"] < 3600
    (of_webhooks,) = (metric for metric in gauges.told() if metric.name == "quiktrade_webhooks")
    assert {s.labels["state"]: s.value for s in of_webhooks.samples} == {"delivering": 1, "failing": 1, "disabled": 1}


def test_the_horizon_is_as_old_as_the_oldest_transaction_that_has_written(venue: Venue) -> None:
    with psycopg.connect(**doorbell.connection_parameters()) as other:
        other.execute("CREATE TEMPORARY TABLE written (n int)")
        row = other.execute("SELECT extract(epoch FROM clock_timestamp() - now())::float8").fetchone()
        assert row is not None
        assert values(gauges.told())["stream_horizon_age_seconds"] > row[0]


def test_reports_that_were_kept_are_counted(venue: Venue) -> None:
    UnmatchedReport.objects.create(venue=venue, stream="s", sequence=1, reason="why", report={})
    assert values(gauges.venues())["reports_unmatched"] == 1
