"""The OpenAPI document as a source of generated clients: whatever such a client cannot do is a fault."""

import importlib
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.tests.processes import Process, Processes, wait_until

pytestmark = pytest.mark.timeout(300)  # starts everything

PACKAGE = "generated_client"
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Imports the modules of a Python client that was generated from the document without a warning."""
    place = tmp_path_factory.mktemp("client")
    (place / "schema.json").write_bytes(APIClient().get("/api/v1/schema").content)
    (place / "config.yml").write_text("post_hooks: []")  # nobody reads it
    options = ["--path", "schema.json", "--config", "config.yml", "--meta", "none", "--output-path", PACKAGE]
    command = [sys.executable, "-m", "openapi_python_client", "generate", *options, "--fail-on-warning"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def web(processes: Processes) -> Process:
    """The API with an account, a venue that places orders and one that is halted."""
    exchange = processes.exchange()
    VenueFactory(settings={"url": exchange.url})
    VenueFactory(code="XHLT", halted_at="2026-01-01T00:00:00Z", halted_by="operator:olga", halt_reason="drill")
    alice = UserFactory(username="alice")
    alice.password = PBKDF2PasswordHasher().encode(PASSWORD, "salt")  # what the web process takes
    alice.save()
    processes.worker()
    return processes.web()


@pytest.fixture
def client(web: Process, generated: Callable[[str], Any]) -> Iterator[Any]:
    """The generated client, logged in."""
    module, models = generated("client"), generated("models")
    body = models.TokenObtainPairRequest(username="alice", password=PASSWORD)
    with module.Client(base_url=web.url) as nobody:
        tokens = generated("api.auth.auth_token_create").sync(client=nobody, body=body)
    with module.AuthenticatedClient(web.url, tokens.access, raise_on_unexpected_status=True) as client:
        yield client
        body = models.TokenBlacklistRequest(refresh=tokens.refresh)
        assert generated("api.auth.auth_logout_create").sync_detailed(client=client, body=body).status_code == 204


@pytest.mark.exhaustive
def test_a_generated_client_does_a_days_work(client: Any, generated: Callable[[str], Any]) -> None:
    models = generated("models")

    def call(name: str, *path: Any, **arguments: Any) -> Any:
        return generated(f"api.{name}").sync(*path, client=client, **arguments)

    limit = models.NewOrderRequest(
        type_=models.OrderType.LIMIT,
        side=models.Side.BUY,
        instrument="US0378331005",
        quantity=100,
        limit_price="187.50",
        client_order_id="desk-1",
    )
    submit = generated("api.orders.orders_create").sync_detailed
    first, again = submit(client=client, body=limit), submit(client=client, body=limit)
    assert (first.status_code, again.status_code) == (201, 200)
    order = first.parsed
    assert (order.status, order.limit_price, order.quantity) == (models.Status.PENDING, "187.5", 100)
    wait_until(lambda: call("orders.orders_retrieve", order.id).status == models.Status.PLACED)
    history = call("orders.orders_events_list", order.id)
    assert [(step.event, step.by) for step in history][:2] == [("accepted", "client"), ("claimed", "system")]

    halted = models.NewOrderRequest.from_dict(
        limit.to_dict() | {"venue": "XHLT", "client_order_id": "desk-2", "time_in_force": None}
    )
    gtd = models.NewOrderRequest.from_dict(limit.to_dict() | {"venue": "XHLT", "client_order_id": "desk-3"})
    gtd.time_in_force, gtd.expires_at = models.TimeInForce.GTD, datetime(2100, 1, 31, 21, tzinfo=UTC)
    wrong = models.NewOrderRequest.from_dict(limit.to_dict() | {"quantity": 0})
    batch = models.NewOrderBatchRequest(orders=[halted, gtd, wrong])
    kept, dated, refused = call("orders.orders_batch_create", body=batch).results
    assert (kept.status, dated.status, refused.status) == (201, 201, 400)
    assert dated.order.expires_at == gtd.expires_at
    assert refused.problem.errors[0].pointer == "#/orders/2/quantity"

    both = [models.Status.PENDING, models.Status.PLACED]
    pages = [call("orders.orders_list", status=both, limit=2, created_from=datetime(2020, 1, 1, tzinfo=UTC))]
    pages += [call("orders.orders_list", status=both, limit=2, cursor=pages[0].next_cursor)]
    assert [each.client_order_id for page in pages for each in page.results] == ["desk-3", "desk-2", "desk-1"]
    assert pages[1].next_ is pages[1].next_cursor is None
    (found,) = call(
        "orders.orders_list", client_order_id="desk-2", ordering=models.OrdersListOrdering.OLDEST_FIRST
    ).results
    assert found.id == kept.order.id

    for body in (models.CancelRequest(reason="Fat finger."), models.CancelRequest()):
        canceled = call("orders.orders_cancel_create", kept.order.id, body=body)
        assert (canceled.id, canceled.status) == (kept.order.id, models.Status.CANCELED)
    asked = call("orders.orders_cancel_create", order.id, body=models.CancelRequest())
    assert (asked.id, asked.cancel_requested_at is not None) == (order.id, True)
    problem = call("orders.orders_replace_create", order.id, body=models.ReplaceRequest(quantity=9))
    assert (problem.status, problem.type_) == (409, "urn:quiktrade:problem:cannot-replace")
    many = call("orders.orders_cancel_many", body=models.CancelManyRequest(instrument="US0378331005"))
    assert (many.canceled, many.more) == (1, False)
    missing = call("orders.orders_retrieve", uuid.uuid4())
    assert (missing.status, missing.type_) == (404, "urn:quiktrade:problem:not-found")
    assert {venue.code for venue in call("venues.venues_list")} == {"XSIM", "XHLT"}
