"""The statements of webhooks: no event is missed whatever commits late, and no delivery is sent twice at a time."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from exchanges.models import Venue
from orders import lifecycle
from orders.models import OrderEvent
from orders.tests.factories import OrderFactory, UserFactory
from orders.tests.test_clock_and_locks import locked
from orders.tests.test_store_together import row
from orders.tests.test_tail_orders import Slow
from orders.tests.threads import in_threads
from orders.webhook_models import WebhookDelivery, WebhookEndpoint
from orders.webhooks import rows, services
from orders.webhooks.rows import Claimed, Result
from orders.webhooks.verdicts import Answer, Verdict

pytestmark = pytest.mark.django_db(transaction=True)

WELL = Verdict(True, None)


def made_endpoint(owner: Any = None, **given: Any) -> WebhookEndpoint:
    return services.create_endpoint((owner or UserFactory()).pk, url="https://example.com/", **given)


def fan_out() -> None:
    while rows.fan_out().events:
        pass


def told(endpoint: WebhookEndpoint) -> set[int | None]:
    return set(endpoint.deliveries.values_list("event_id", flat=True))


def claim(places: int = 64, troubled: int = 16) -> list[Claimed]:
    return rows.claim(places=places, troubled=troubled)


def results(claimed: list[Claimed], verdict: Verdict = WELL, code: int | None = 200) -> list[Result]:
    return [Result(each, Answer(code, "said so", 0.1), verdict) for each in claimed]


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.end()


# ---- The cursor ----


def test_what_a_slow_transaction_adds_is_delivered_after_it_ends(venue: Venue, slow: Slow) -> None:
    alice = UserFactory()
    endpoint = made_endpoint(alice)
    slow.store(alice, "slow").result()
    lifecycle.accept([row(alice.pk, "fast")])

    fan_out()
    assert told(endpoint) == set()  # nothing is known to be complete yet
    slow.commit()
    fan_out()
    assert told(endpoint) == set(OrderEvent.objects.values_list("pk", flat=True))


def test_no_event_is_missed_or_doubled_while_many_write_and_two_fan_out(venue: Venue) -> None:
    alice = UserFactory()
    endpoint, other = made_endpoint(alice), made_endpoint()

    def work(n: int) -> int:
        if n < 2:
            made = 0
            for _ in range(60):
                made += rows.fan_out().deliveries
                time.sleep(0.005)
            return made
        spread = random.Random(n)
        for number in range(15):
            with transaction.atomic():
                lifecycle.accept([row(alice.pk, f"{n}-{number}")])
                time.sleep(spread.random() * 0.03)  # so that later ids are committed first
        return 0

    made = sum(in_threads(8, work))
    while more := rows.fan_out().deliveries:
        made += more
    assert made == endpoint.deliveries.count() == OrderEvent.objects.count() == 90
    assert told(endpoint) == set(OrderEvent.objects.values_list("pk", flat=True))
    assert told(other) == set()


def test_the_cursor_moves_over_what_is_not_wanted_and_stands_still_while_disabled(venue: Venue) -> None:
    endpoint = made_endpoint(event_types=["order.filled"])
    OrderFactory(owner=endpoint.owner)
    assert rows.fan_out() == (1, 0)
    assert rows.fan_out() == (0, 0)
    services.disable_endpoint(endpoint, actor="client:x", reason="pause")
    OrderFactory(owner=endpoint.owner)
    assert rows.fan_out() == (0, 0)


def test_a_long_backlog_is_taken_in_parts(venue: Venue) -> None:
    endpoint = made_endpoint()
    lifecycle.accept([row(endpoint.owner_id) for _ in range(rows.EVENTS_AT_ONCE + 1)])
    assert rows.fan_out() == (200, 200)
    assert rows.fan_out() == (1, 1)


def test_webhooks_are_due_when_there_is_an_event_or_a_delivery(venue: Venue) -> None:
    endpoint = made_endpoint()
    assert rows.seconds_until_due() is None
    OrderFactory(owner=endpoint.owner)
    assert due() == "now"
    fan_out()
    assert due() == "now"
    claimed = claim()
    assert due() == "later"  # when its lease runs out
    rows.record(results(claimed, Verdict(False, 300), 500))
    assert due() == "later"
    services.disable_endpoint(endpoint, actor="client:x", reason="pause")
    assert rows.seconds_until_due() is None


def due() -> str:
    seconds = rows.seconds_until_due()
    assert seconds is not None
    return "now" if seconds <= 0 else "later"


# ---- The claim ----


def pending(endpoint: WebhookEndpoint, count: int) -> None:
    WebhookDelivery.objects.bulk_create(WebhookDelivery(endpoint=endpoint, event_id=n) for n in range(count))


def test_one_delivery_is_claimed_by_one(venue: Venue) -> None:
    for _ in range(4):
        pending(made_endpoint(), 4)
    claimed = [each.id for part in in_threads(8, lambda n: claim()) for each in part]
    assert len(claimed) == len(set(claimed))
    claimed += [each.id for each in claim()]
    assert sorted(claimed) == sorted(WebhookDelivery.objects.values_list("pk", flat=True))


def test_a_claim_passes_by_what_another_holds(venue: Venue) -> None:
    pending(made_endpoint(), 2)
    held, free = WebhookDelivery.objects.order_by("pk")
    with locked(held):
        assert [each.id for each in claim()] == [free.pk]


def test_four_are_under_way_to_one_endpoint_and_one_where_it_fails(venue: Venue) -> None:
    endpoint, failing = made_endpoint(), made_endpoint()
    pending(endpoint, 9)
    pending(failing, 9)
    WebhookEndpoint.objects.filter(pk=failing.pk).update(failures=3)
    counted = Counter(each.endpoint_id for each in claim())
    assert counted == {endpoint.pk: 4, failing.pk: 1}
    assert claim() == []


def test_those_that_fail_or_are_slow_share_a_few_places(venue: Venue) -> None:
    well = made_endpoint()
    pending(well, 4)
    for number in range(6):
        troubled = made_endpoint()
        pending(troubled, 4)
        WebhookEndpoint.objects.filter(pk=troubled.pk).update(slow=number % 2 == 0, failures=number % 2)
    claimed = claim(places=40, troubled=5)
    assert Counter(each.troubled for each in claimed) == {False: 4, True: 5}
    assert {each.endpoint_id for each in claimed if not each.troubled} == {well.pk}


@pytest.mark.parametrize("change", [{"disabled_at": Now(), "disabled_reason": "x"}, {"deleted_at": Now()}])
def test_nothing_is_claimed_for_an_endpoint_that_is_not_active(venue: Venue, change: dict[str, Any]) -> None:
    endpoint = made_endpoint()
    pending(endpoint, 1)
    WebhookEndpoint.objects.update(**change)
    assert claim() == []


def test_a_delivery_whose_process_died_is_claimed_again_when_its_lease_runs_out(venue: Venue) -> None:
    endpoint = made_endpoint()
    pending(endpoint, 1)
    (first,) = claim()
    assert claim() == []
    WebhookDelivery.objects.update(due_at=Now())  # the lease runs out
    (second,) = claim()
    assert (first.attempt, second.attempt) == (1, 2)
    assert rows.record(results([first])).kept == 0  # too late
    assert rows.record(results([second])).kept == 1
    assert endpoint.deliveries.get().status == "delivered"


def test_what_is_claimed_shows_no_secret(venue: Venue) -> None:
    endpoint = made_endpoint()
    pending(endpoint, 1)
    (claimed,) = claim()
    assert endpoint.secret not in f"{claimed} {claimed!r}"


def test_a_replay_leaves_what_is_under_way_alone(venue: Venue) -> None:
    endpoint = made_endpoint()
    OrderFactory(owner=endpoint.owner)
    fan_out()
    (claimed,) = claim()
    now = timezone.now()
    services.replay(endpoint, from_=now - timedelta(hours=1), to=now + timedelta(hours=1))
    assert claim() == []
    assert rows.record(results([claimed])).kept == 1
    services.replay(endpoint, from_=now - timedelta(hours=1), to=now + timedelta(hours=1))
    assert [each.id for each in claim()] == [claimed.id]


# ---- What is kept ----


def test_old_deliveries_are_removed_and_those_of_deleted_endpoints_with_them(venue: Venue) -> None:
    endpoint, deleted = made_endpoint(), made_endpoint()
    now = timezone.now()
    for number, (status, days) in enumerate([("delivered", 6), ("delivered", 8), ("dead", 29), ("dead", 31)]):
        ended = now - timedelta(days=days)
        WebhookDelivery.objects.create(endpoint=endpoint, event_id=number, status=status, ended_at=ended)
    pending(deleted, 3)
    services.delete_endpoint(deleted)

    assert rows.remove_old(seconds=5.0) == 5
    assert set(WebhookDelivery.objects.values_list("event_id", flat=True)) == {0, 2}
    assert list(WebhookEndpoint.objects.all()) == [endpoint]


def test_what_waits_for_a_webhook_that_was_disabled_for_long_is_dead(venue: Venue) -> None:
    for days in (29, 31):
        endpoint = made_endpoint()
        pending(endpoint, 2)
        disabled: dict[str, Any] = {"disabled_by": "client:x", "disabled_reason": "not wanted"}
        at = timezone.now() - timedelta(days=days)
        WebhookEndpoint.objects.filter(pk=endpoint.pk).update(disabled_at=at, **disabled)
    rows.remove_old(seconds=5.0)
    found = WebhookDelivery.objects.order_by("pk").values_list("status", "last_text")
    dead = ("dead", "The webhook was disabled for 30 days.")
    assert list(found) == [("pending", ""), ("pending", ""), dead, dead]
