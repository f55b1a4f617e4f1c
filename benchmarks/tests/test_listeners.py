"""The laboratory's listeners: what they take for an event of the stream, and what of a webhook they record."""

import http.client
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from benchmarks.faults.listeners import Frame, Receiver, frames
from benchmarks.faults.records import Heard, Listener
from benchmarks.stage.ports import free_ports

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_events_are_read_without_comments_and_only_whole() -> None:
    text = b"retry: 1000\n\n: still here\n\nid: 1.2\nevent: order\ndata: {}\n\nid: 1.3\nevent: order\ndata: {"
    lines = text.splitlines(keepends=True)
    assert list(frames(iter(lines)))[1:] == [Frame("order", "{}", "1.2")]
    whole = [*lines[:-1], lines[-1] + b"}\n", b"\n"]
    assert list(frames(iter(whole)))[2:] == [Frame("order", "{}", "1.3")]


@pytest.fixture
def answers() -> Counter[str]:
    return Counter()


@pytest.fixture
def receiver(answers: Counter[str]) -> Iterator[Receiver]:
    def count(kind: str) -> None:
        answers[kind] += 1

    receiver = Receiver(free_ports(1)[0], Listener(name="alice-webhook", owner="alice"), count, flaky=True)
    receiver.webhook = Webhook(SECRET)
    receiver.start()
    yield receiver
    receiver.stop()


def _post(receiver: Receiver, number: int, *, secret: str = SECRET) -> int:
    body = json.dumps({"type": "order.executed", "data": {"order_id": "o-1", "sequence": number}})
    now = datetime.now(UTC)
    headers = {"webhook-id": f"evt_{number}", "webhook-timestamp": str(int(now.timestamp()))}
    headers["webhook-signature"] = Webhook(secret).sign(f"evt_{number}", now, body)
    connection = http.client.HTTPConnection(receiver.url.split("/")[2], timeout=30)
    try:
        connection.request("POST", "/alice-webhook", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_flaky_receiver_takes_every_message_in_the_end(receiver: Receiver) -> None:
    first = [_post(receiver, number) for number in range(1, 31)]
    assert set(first) == {204, 503}
    failed = [number for number, status in enumerate(first, start=1) if status == 503]
    assert [_post(receiver, number) for number in failed] == [204] * len(failed)
    assert sorted(receiver.listener.heard) == [Heard("o-1", number) for number in range(1, 31)]


def test_a_receiver_records_no_message_with_a_wrong_signature(receiver: Receiver, answers: Counter[str]) -> None:
    assert _post(receiver, 1, secret="whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD") == 400
    assert receiver.listener.heard == []
    assert answers["webhook: wrong signature"] == 1
