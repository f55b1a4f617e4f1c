"""Delivery to a real receiver: signatures, attempts, back-off, disabling, and what one receiver does to others."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone
from standardwebhooks import WebhookVerificationError

from orders.engine import DatabaseThread
from orders.models import Order, OrderEvent
from orders.tests.factories import OrderFactory, UserFactory
from orders.tests.receiver import OK, Answer, Receiver, after, answers, running_receiver
from orders.webhook_models import WebhookDelivery, WebhookEndpoint
from orders.webhooks import delivery, services
from orders.webhooks.delivery import Deliverer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def loopback_is_allowed(settings: Any) -> None:
    settings.WEBHOOK_ALLOW = [ip_network("127.0.0.0/8")]


@pytest.fixture
def receivers() -> Iterator["Receivers"]:
    with ExitStack() as stack:
        yield Receivers(stack)


class Receivers:
    """`receivers(OK)`: a running receiver that answers so."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, *script: Answer) -> Receiver:
        return self._stack.enter_context(running_receiver(*script))


def endpoint_at(receiver: Receiver, owner: Any = None, **given: Any) -> WebhookEndpoint:
    owner = owner or UserFactory()
    return services.create_endpoint(owner.pk, url=receiver.url, **given)


def deliver(until: Callable[[], bool] = lambda: False) -> None:
    """Deliver what is due now, as a job does, or until a condition is true."""

    async def run() -> None:
        claims, records = DatabaseThread("claims"), DatabaseThread("records")
        await Deliverer(claims, records).run(seconds=60, stopping=until)
        await claims.close()
        await records.close()

    asyncio.run(run())


def make_due() -> None:
    """Let the time to the next attempt pass."""
    WebhookDelivery.objects.filter(ended_at=None).update(due_at=Now())
    WebhookEndpoint.objects.update(paused_until=None)


def test_an_event_arrives_signed_with_what_the_stream_has(receivers: Receivers) -> None:
    receiver = receivers(OK)
    endpoint = endpoint_at(receiver)
    order = OrderFactory(owner=endpoint.owner, client_order_id="desk-7")
    event = OrderEvent.objects.get(order=order)

    deliver()

    (received,) = receiver.received
    content = received.verified(endpoint.secret)
    assert (content["type"], received.id) == ("order.accepted", f"evt_{event.pk}")
    assert content["data"]["order_id"] == str(order.pk)
    assert content["data"]["client_order_id"] == "desk-7"
    assert received.headers["Content-Type"] == "application/json"
    delivered = endpoint.deliveries.get()
    assert (delivered.status, delivered.attempt, delivered.last_code) == ("delivered", 1, 204)


def test_a_body_that_was_changed_on_the_way_is_not_verified(receivers: Receivers) -> None:
    receiver = receivers(OK)
    endpoint = endpoint_at(receiver)
    OrderFactory(owner=endpoint.owner)
    deliver()
    (received,) = receiver.received
    with pytest.raises(WebhookVerificationError):
        received._replace(body=received.body.replace(b"accepted", b"canceled")).verified(endpoint.secret)


def test_the_longest_event_is_less_than_20_kilobytes(receivers: Receivers) -> None:
    receiver = receivers(OK)
    endpoint = endpoint_at(receiver)
    OrderFactory(owner=endpoint.owner, status="rejected", error="\N{GRINNING FACE}\x01" * 250, client_order_id="x" * 64)
    deliver()
    assert "order.rejected_by_venue" in {json.loads(each.body)["type"] for each in receiver.received}
    assert max(len(each.body) for each in receiver.received) < 20_000


def test_every_attempt_has_the_same_id_and_body_and_a_signature_of_its_own_time(receivers: Receivers) -> None:
    receiver = receivers(answers(500), answers(500), OK)
    endpoint = endpoint_at(receiver)
    OrderFactory(owner=endpoint.owner)
    for _ in range(3):
        deliver()
        make_due()

    assert len(set(receiver.ids)) == 1
    assert len({each.body for each in receiver.received}) == 1
    assert len(receiver.received) == 3
    assert all(each.verified(endpoint.secret) for each in receiver.received)
    assert endpoint.deliveries.get().attempt == 3


def test_attempts_follow_each_other_at_the_given_distances_and_end_as_a_dead_letter(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.webhooks.verdicts.JITTER", 0.0)
    endpoint = endpoint_at(receivers(answers(500, "down")))
    OrderFactory(owner=endpoint.owner)
    distances = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]
    for distance, next_one in pairwise([*distances, 2 * 86_400]):
        before = timezone.now()
        deliver()
        delivery = endpoint.deliveries.get()
        assert delivery.status == "pending"
        assert distance <= (delivery.due_at - before).total_seconds() < next_one
        make_due()
    deliver()
    delivery = endpoint.deliveries.get()
    assert (delivery.status, delivery.attempt, delivery.failures) == ("dead", 10, 10)
    assert (delivery.last_code, delivery.last_text) == (500, "down")


@pytest.mark.parametrize("status", [200, 202, 299])
def test_any_2xx_is_success(receivers: Receivers, status: int) -> None:
    endpoint = endpoint_at(receivers(answers(status)))
    OrderFactory(owner=endpoint.owner)
    deliver()
    assert endpoint.deliveries.get().status == "delivered"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_failure_and_is_not_followed(receivers: Receivers, status: int) -> None:
    elsewhere = receivers(OK)
    endpoint = endpoint_at(receivers(answers(status, Location=elsewhere.url)))
    OrderFactory(owner=endpoint.owner)
    deliver()
    assert elsewhere.received == []
    assert (endpoint.deliveries.get().status, endpoint.deliveries.get().last_code) == ("pending", status)


def test_410_disables_at_once_and_keeps_what_waits(receivers: Receivers, caplog: pytest.LogCaptureFixture) -> None:
    receiver = receivers(answers(410), OK)
    endpoint = endpoint_at(receiver)
    OrderFactory(owner=endpoint.owner)
    deliver()

    endpoint.refresh_from_db()
    assert (endpoint.disabled_by, endpoint.disabled_reason) == ("system:webhooks", "The receiver answered 410 Gone.")
    assert "Webhook disabled" in caplog.text
    make_due()
    deliver()
    assert len(receiver.received) == 1
    services.enable_endpoint(endpoint)
    deliver()
    assert endpoint.deliveries.get().status == "delivered"


@pytest.mark.parametrize(("days", "disabled"), [(4.9, False), (5.1, True)])
def test_an_endpoint_is_disabled_after_five_days_without_success(
    receivers: Receivers, days: float, disabled: bool
) -> None:
    endpoint = endpoint_at(receivers(answers(500)))
    since = timezone.now() - timedelta(days=days)
    WebhookEndpoint.objects.update(failing_since=since, failures=2)
    OrderFactory(owner=endpoint.owner)
    deliver()
    endpoint.refresh_from_db()
    assert (endpoint.disabled_at is not None) == disabled
    assert endpoint.disabled_reason == ("Nothing was delivered for 5 days." if disabled else "")


def test_a_success_ends_the_count_of_failures(receivers: Receivers) -> None:
    endpoint = endpoint_at(receivers(OK))
    WebhookEndpoint.objects.update(failing_since=timezone.now() - timedelta(days=9), failures=2)
    OrderFactory(owner=endpoint.owner)
    deliver()
    endpoint.refresh_from_db()
    assert (endpoint.failing_since, endpoint.failures, endpoint.disabled_at) == (None, 0, None)
    assert endpoint.last_success_at is not None


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (answers(429, Retry_After="120"), 120),
        (answers(503, Retry_After="3600"), 3600),
        (answers(429), 60),
        (answers(502), 60),
        (answers(504), 60),
    ],
)
def test_a_receiver_that_asks_for_it_is_left_alone_for_a_time(
    receivers: Receivers, answer: Answer, seconds: int
) -> None:
    receiver = receivers(answer)
    endpoint = endpoint_at(receiver)
    OrderFactory(owner=endpoint.owner)
    before = timezone.now()
    deliver()

    endpoint.refresh_from_db()
    assert endpoint.paused_until is not None
    assert seconds <= (endpoint.paused_until - before).total_seconds() < seconds + 30
    assert endpoint.deliveries.get().due_at >= endpoint.paused_until - timedelta(seconds=1)
    OrderFactory(owner=endpoint.owner)
    deliver()
    assert len(receiver.received) == 1


def test_an_endpoint_that_fails_again_and_again_is_sent_one_at_a_time_with_pauses(receivers: Receivers) -> None:
    receiver = receivers(after(0.2, answers(500)))
    endpoint = endpoint_at(receiver)
    OrderFactory.create_batch(9, owner=endpoint.owner)
    deliver()
    assert receiver.most_at_once == 4
    endpoint.refresh_from_db()
    assert endpoint.failures == len(receiver.received) < 9  # the first failures make room before the third pauses it
    assert endpoint.paused_until is not None

    WebhookEndpoint.objects.update(paused_until=None)
    before, receiver.most_at_once = len(receiver.received), 0
    deliver()
    assert (receiver.most_at_once, len(receiver.received)) == (1, before + 1)


def test_both_secrets_sign_while_one_replaces_the_other(receivers: Receivers) -> None:
    receiver = receivers(OK)
    endpoint = endpoint_at(receiver)
    old = endpoint.secret
    services.rotate_secret(endpoint)
    OrderFactory(owner=endpoint.owner)
    deliver()
    WebhookEndpoint.objects.update(old_secret_until=timezone.now() - timedelta(seconds=1))
    OrderFactory(owner=endpoint.owner)
    deliver()

    during, afterwards = receiver.received
    assert endpoint.secret != old
    assert during.verified(endpoint.secret) == during.verified(old)
    assert afterwards.verified(endpoint.secret)
    with pytest.raises(WebhookVerificationError):
        afterwards.verified(old)


def test_only_the_wanted_types_are_sent_and_only_to_their_owner(receivers: Receivers) -> None:
    receiver, other = receivers(OK), receivers(OK)
    endpoint = endpoint_at(receiver, event_types=["order.acknowledged"])
    endpoint_at(other)
    OrderFactory(owner=endpoint.owner, status="placed")
    deliver()
    assert [json.loads(each.body)["type"] for each in receiver.received] == ["order.acknowledged"]
    assert other.received == []


@pytest.mark.exhaustive
def test_a_dead_receiver_holds_up_no_other(receivers: Receivers) -> None:
    dead, well = receivers(after(60, OK)), receivers(OK)
    for _ in range(3):  # twelve deliveries that nobody answers
        OrderFactory.create_batch(4, owner=endpoint_at(dead).owner)
    waits = endpoint_at(dead)
    OrderFactory.create_batch(4, owner=waits.owner)
    deliver(until=lambda: len(dead.received) >= 16)
    assert set(WebhookEndpoint.objects.values_list("slow", flat=True)) == {True}

    endpoint = endpoint_at(well)
    OrderFactory.create_batch(40, owner=endpoint.owner)
    deliver(until=lambda: len(well.received) >= 40)

    assert endpoint.deliveries.filter(status="delivered").count() == 40
    assert len(well.received) == 40


def test_receivers_that_do_well_have_64_places_beside_those_kept_for_others(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "GIVE_UP_SECONDS", 0.1)
    receiver = receivers(after(60, OK))
    for _ in range(17):
        OrderFactory.create_batch(4, owner=endpoint_at(receiver).owner)
    deliver(until=lambda: receiver.most_at_once >= 64)
    assert receiver.most_at_once == 64


def test_what_is_not_answered_at_the_end_of_a_run_is_sent_again_and_is_no_failure(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "GIVE_UP_SECONDS", 0.1)
    receiver = receivers(after(60, OK), OK)
    endpoint = endpoint_at(receiver)
    OrderFactory(owner=endpoint.owner)
    deliver(until=lambda: bool(receiver.received))

    waiting = endpoint.deliveries.get()
    assert (waiting.status, waiting.attempt, waiting.failures) == ("pending", 1, 0)
    endpoint.refresh_from_db()
    assert (endpoint.slow, endpoint.failures) == (True, 0)
    deliver()
    assert receiver.ids == [receiver.ids[0]] * 2
    assert endpoint.deliveries.get().status == "delivered"


def test_a_receiver_that_does_not_answer_in_time_has_failed(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 0.3)
    endpoint = endpoint_at(receivers(after(60, OK)))
    OrderFactory(owner=endpoint.owner)
    deliver()
    failed = endpoint.deliveries.get()
    assert (failed.status, failed.failures, failed.last_text) == ("pending", 1, "No answer within 0.3 s.")


def test_a_receiver_that_is_not_there_has_failed() -> None:
    endpoint = services.create_endpoint(UserFactory().pk, url="http://127.0.0.1:9/")
    OrderFactory(owner=endpoint.owner)
    deliver()
    assert endpoint.deliveries.get().last_text == "No connection: Connection refused"


def test_of_an_answer_only_the_beginning_is_read(receivers: Receivers) -> None:
    endpoint = endpoint_at(receivers(answers(500, "x" * 1_000_000)))
    OrderFactory(owner=endpoint.owner)
    deliver()
    assert endpoint.deliveries.get().last_text == "x" * 499 + "…"


def test_a_result_of_an_earlier_attempt_changes_nothing(receivers: Receivers) -> None:
    def overtake() -> None:
        WebhookDelivery.objects.update(attempt=7)
        connection.close()

    async def answer(received: Any) -> Any:
        await asyncio.to_thread(overtake)
        return await answers(500)(received)

    endpoint = endpoint_at(receivers(answer))
    OrderFactory(owner=endpoint.owner)
    deliver()
    left = endpoint.deliveries.get()
    assert (left.status, left.attempt, left.failures) == ("sending", 7, 0)


def test_no_secret_is_in_any_line_of_the_log(receivers: Receivers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    receiver = receivers(answers(500, "sorry"), answers(410))
    endpoint = services.create_endpoint(UserFactory().pk, url=f"{receiver.url}?key=S3CRET")
    secrets = [endpoint.secret, services.rotate_secret(endpoint).secret]
    OrderFactory.create_batch(2, owner=endpoint.owner)
    deliver()
    services.enable_endpoint(endpoint)
    services.replay(endpoint, from_=timezone.now() - timedelta(hours=1), to=timezone.now())
    services.delete_endpoint(endpoint)

    said = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "webhook.disabled" in said
    for secret in [*secrets, *(secret.removeprefix("whsec_") for secret in secrets), "S3CRET"]:
        assert secret not in said


def test_a_test_event_is_sent_once_however_often_it_is_asked_for(receivers: Receivers) -> None:
    receiver = receivers(OK)
    endpoint = endpoint_at(receiver)
    first = services.send_test(endpoint)
    assert services.send_test(endpoint).pk == first.pk
    deliver()
    (received,) = receiver.received
    assert received.verified(endpoint.secret)["type"] == "webhook.test"
    assert received.id == f"test_{first.pk}"


def test_a_replay_sends_what_was_delivered_and_what_was_missed(receivers: Receivers) -> None:
    receiver = receivers(OK)
    owner = UserFactory()
    OrderFactory(owner=owner)  # before there was a webhook
    endpoint = endpoint_at(receiver, owner)
    OrderFactory(owner=owner)
    deliver()
    services.disable_endpoint(endpoint, actor="client:x", reason="works on it")
    OrderFactory(owner=owner)
    services.enable_endpoint(endpoint)
    deliver()
    assert len(receiver.received) == 1

    now = timezone.now() + timedelta(minutes=1)
    assert services.replay(endpoint, from_=now - timedelta(hours=1), to=now) == (3, None, False)
    deliver()
    assert set(receiver.ids) == {f"evt_{pk}" for pk in OrderEvent.objects.values_list("pk", flat=True)}
    assert len(receiver.received) == 4
    assert services.replay(endpoint, from_=now, to=now + timedelta(hours=1)) == (0, None, False)


def test_a_long_replay_is_taken_in_parts(receivers: Receivers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MOST_REPLAYED", 2)
    receiver = receivers(OK)
    endpoint = endpoint_at(receiver, event_types=["order.accepted"])
    OrderFactory.create_batch(3, owner=endpoint.owner)
    deliver()
    to = timezone.now() + timedelta(minutes=1)
    part = services.replay(endpoint, from_=to - timedelta(hours=1), to=to)
    assert (part.deliveries, part.next_from) == (2, Order.objects.order_by("created_at")[1].created_at)


def test_a_dead_letter_is_sent_again_with_all_its_attempts(receivers: Receivers) -> None:
    receiver = receivers(OK)
    endpoint = endpoint_at(receiver)
    OrderFactory(owner=endpoint.owner)
    deliver()
    WebhookDelivery.objects.update(status="dead", failures=10)
    dead = endpoint.deliveries.get()
    services.resend(dead)
    deliver()
    assert receiver.ids == [dead.message_id] * 2
    assert (endpoint.deliveries.get().status, endpoint.deliveries.get().failures) == ("delivered", 0)


def test_the_command_delivers_and_says_what_did_not_arrive(
    receivers: Receivers, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = endpoint_at(receivers(OK, OK, answers(500)), event_types=["order.accepted"])
    OrderFactory.create_batch(2, owner=endpoint.owner)
    call_command("send_webhooks", "--json")
    assert json.loads(capsys.readouterr().out).items() >= {"delivered": 2, "not_delivered": 0}.items()
    OrderFactory(owner=endpoint.owner)
    with pytest.raises(CommandError, match="1 of 1 attempts") as refused:
        call_command("send_webhooks")
    assert refused.value.returncode == 1
