"""A worker node whose processes die or freeze: orders are placed all the same."""

import signal
from datetime import timedelta
from typing import Any

import psutil
import pytest
from django.utils import timezone

from exchanges.models import Venue
from orders.models import Order
from orders.tests.factories import OrderFactory, VenueFactory
from quiktrade.jobs import heartbeat
from quiktrade.models import WorkerNode
from quiktrade.tests.parameters import mostly_exhaustive
from quiktrade.tests.processes import Process, Processes, wait_until


class Node:
    """A worker node and its exchange."""

    def __init__(self, processes: Processes) -> None:
        self.exchange = processes.exchange()
        VenueFactory(settings={"url": self.exchange.url})
        self.worker: Process = processes.worker(QUIKTRADE_STALE_SECONDS="5")

    @property
    def tree(self) -> dict[str, psutil.Process]:
        """The cluster's processes by role, in the order in which django-q2 makes them."""
        (sentinel,) = psutil.Process(self.worker.pid).children()
        children = sorted(sentinel.children(), key=lambda child: child.pid)
        return {
            "sentinel": sentinel,
            "worker": children[0],
            "monitor": children[4],
            "pusher": children[5],
        }

    @property
    def workers(self) -> list[psutil.Process]:
        return sorted(self.tree["sentinel"].children(), key=lambda child: child.pid)[:4]

    @property
    def whole_tree(self) -> dict[str, psutil.Process] | None:
        """The processes by role, once all of them are there."""
        try:
            return self.tree
        except (psutil.NoSuchProcess, ValueError, IndexError):
            return None

    def place(self) -> None:
        order = OrderFactory()
        wait_until(lambda: Order.objects.get(pk=order.pk).status == "placed", self.worker)


@pytest.fixture
def node(processes: Processes) -> Node:
    return Node(processes)


@pytest.mark.exhaustive
@pytest.mark.parametrize("role", mostly_exhaustive(["worker", "monitor", "pusher", "sentinel"], "worker"))
def test_orders_are_placed_after_any_process_of_the_cluster_was_killed(node: Node, role: str) -> None:
    node.tree[role].kill()
    node.place()
    wait_until(lambda: node.whole_tree, node.worker)
    node.place()


@pytest.mark.parametrize("role", ["workers", "monitor", "pusher"])
@pytest.mark.exhaustive
def test_a_cluster_that_looks_alive_and_does_nothing_is_replaced(node: Node, role: str) -> None:
    tree = node.tree
    before = tree["sentinel"].pid
    for process in node.workers if role == "workers" else [tree[role]]:
        process.send_signal(signal.SIGSTOP)
    wait_until(lambda: (tree := node.whole_tree) and tree["sentinel"].pid != before, node.worker)
    node.place()
    assert "Job cluster stopped working" in node.worker.output


@pytest.mark.exhaustive
def test_a_worker_that_is_asked_to_end_finishes_what_it_has_sent(node: Node, processes: Processes) -> None:
    slow = processes.exchange("--latency", "2")
    VenueFactory(code="XSLO", settings={"url": slow.url})
    order = OrderFactory(venue=VenueFactory(code="XSLO"))
    wait_until(lambda: Order.objects.get(pk=order.pk).status == "submitting", node.worker)

    assert node.worker.stop() == 0

    assert Order.objects.get(pk=order.pk).status == "placed"


@pytest.mark.exhaustive
def test_nothing_is_left_of_a_node_whose_watchdog_was_killed(node: Node) -> None:
    left = list(node.tree.values())
    node.worker.kill()
    _, alive = psutil.wait_procs(left, timeout=30)
    assert alive == []


@pytest.mark.exhaustive
def test_a_process_that_had_very_many_requests_in_flight_is_replaced(node: Node, processes: Processes) -> None:
    slow = processes.exchange("--latency", "3")  # until all are under way
    halt = {"halted_at": timezone.now(), "halted_by": "operator:olga", "halt_reason": "All are to go at once."}
    venue = VenueFactory(code="XSLO", settings={"url": slow.url}, max_in_flight=1024, **halt)
    before = node.tree
    workers = node.workers

    orders = OrderFactory.create_batch(1_024, venue=venue)
    Venue.objects.filter(code=venue.code).update(halted_at=None, halted_by="", halt_reason="")
    wait_until(lambda: not Order.objects.exclude(status="placed").exists(), node.worker)

    wait_until(lambda: not all(worker.is_running() for worker in workers), node.worker)
    wait_until(lambda: node.whole_tree, node.worker)
    assert node.tree["sentinel"] == before["sentinel"]
    assert any(worker.is_running() for worker in workers)  # those that had little to do
    node.place()
    assert Order.objects.filter(status="placed").count() == len(orders) + 1


@pytest.mark.django_db(transaction=True)
def test_a_node_that_starts_forgets_those_that_have_been_silent_for_a_day(settings: Any) -> None:
    for name, hours in (("gone", 25), ("silent", 23)):
        at = timezone.now() - timedelta(hours=hours)
        WorkerNode.objects.create(name=name, started_at=at, heartbeat_at=at)
    settings.NODE_NAME = "new"
    heartbeat.record()
    assert set(WorkerNode.objects.values_list("name", flat=True)) == {"silent", "new"}
