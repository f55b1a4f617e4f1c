"""What is sent: the type of the event, its time, and its data, which is what the stream of events has."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson

from orders import feed
from orders.lifecycle import Event

EVENT_TYPES = [f"order.{event}" for event in Event]
TEST = "webhook.test"

_cluster = cache(lambda: feed.horizon().cluster)


def of_events(event_ids: Sequence[int]) -> dict[int, str]:
    """The bodies of events, by their ids. An event's body is the same at every attempt."""
    if not event_ids:
        return {}
    return {
        event.id: _body(f"order.{event.event}", event.at, feed.for_client(event, _cluster()))
        for event in feed.events(event_ids)
    }


def of_test(at: datetime) -> str:
    return _body(TEST, at, {"text": "A test. It is about no order."})


def _body(kind: str, at: datetime, data: dict[str, Any]) -> str:
    return orjson.dumps({"type": kind, "timestamp": at.astimezone(UTC), "data": data}, option=orjson.OPT_UTC_Z).decode()
