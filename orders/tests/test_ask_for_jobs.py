"""What the pusher of a job cluster is told to start."""

import threading
import time

import pytest

from orders import tasks
from orders.tests.factories import OrderFactory
from quiktrade.jobs import slots


@pytest.mark.django_db(transaction=True)
def test_an_order_that_came_as_a_placement_job_ended_is_seen_when_that_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "PLACING_WAIT_SECONDS", 60.0)
    monkeypatch.setattr(tasks, "_asked_at", time.monotonic())
    OrderFactory()
    with slots.take("place") as slot:
        assert slot is not None
        ending = threading.Timer(0.1, slot.release)
        ending.start()
        assert tasks.PLACE in tasks.demand().jobs
        ending.join()


@pytest.mark.django_db(transaction=True)
def test_a_placement_job_that_goes_on_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    OrderFactory()
    with slots.take("place"):
        assert tasks.PLACE not in tasks.demand().jobs
        monkeypatch.setattr(tasks, "_asked_at", time.monotonic())
        assert tasks.demand().jobs == []
