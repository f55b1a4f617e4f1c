"""The console's webhooks: who sees and does what, with a reason that is kept, and never a secret."""

import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from orders.models import OrderEvent
from orders.tests.factories import OrderFactory, UserFactory
from orders.webhook_models import WebhookDelivery, WebhookEndpoint
from orders.webhooks import services

pytestmark = pytest.mark.django_db

ENDPOINTS, DELIVERIES = "/admin/orders/webhookendpoint/", "/admin/orders/webhookdelivery/"
Login = Callable[[str], Client]


@pytest.fixture
def login(db: None) -> Login:
    def login(group: str) -> Client:
        client = Client()
        client.force_login(UserFactory(username=f"{group.lower()}s", group=group))
        return client

    return login


@pytest.fixture
def endpoint() -> WebhookEndpoint:
    alice: User = UserFactory(username="alice")
    return services.create_endpoint(alice.pk, url="https://example.com/hook?key=S3CRET", description="desk 7")


@pytest.fixture
def dead(endpoint: WebhookEndpoint) -> WebhookDelivery:
    event = OrderEvent.objects.get(order=OrderFactory(owner=endpoint.owner))
    over: dict[str, Any] = {"status": "dead", "ended_at": timezone.now(), "attempt": 10, "failures": 10}
    return WebhookDelivery.objects.create(endpoint=endpoint, event=event, last_code=503, last_text="down", **over)


def page(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200
    return answer.content.decode()


def text(content: bytes) -> str:
    return re.sub(r"<[^>]*>", "", content.decode())


def test_a_viewer_sees_webhooks_and_deliveries_and_can_do_nothing(
    login: Login, endpoint: WebhookEndpoint, dead: WebhookDelivery
) -> None:
    viewer = login("Viewer")
    for url, said in (
        (ENDPOINTS, "https://example.com/hook"),
        (f"{ENDPOINTS}{endpoint.pk}/change/", "desk 7"),
        (DELIVERIES, dead.message_id),
        (f"{DELIVERIES}{dead.pk}/change/", "HTTP 503: down"),
    ):
        shown = page(viewer, url)
        assert said in shown
        assert "Send again …" not in shown
        assert "Disable …" not in shown
    for url in (f"{ENDPOINTS}disable/", f"{ENDPOINTS}enable/", f"{DELIVERIES}resend/"):
        assert viewer.post(url, {"keys": "1", "reason": "x"}).status_code == 403


def test_no_page_shows_a_secret(login: Login, endpoint: WebhookEndpoint, dead: WebhookDelivery) -> None:
    services.rotate_secret(endpoint)
    operator = login("Operator")
    for url in (
        ENDPOINTS,
        f"{ENDPOINTS}{endpoint.pk}/change/",
        f"{ENDPOINTS}disable/?keys={endpoint.pk}",
        DELIVERIES,
        f"{DELIVERIES}{dead.pk}/change/",
        f"{DELIVERIES}resend/?keys={dead.pk}",
    ):
        shown = page(operator, url)
        assert "whsec_" not in shown
        assert "S3CRET" not in shown


def test_an_operator_disables_and_enables_with_a_reason(login: Login, endpoint: WebhookEndpoint) -> None:
    operator = login("Operator")
    sent = {"keys": str(endpoint.pk), "reason": "it floods us"}
    assert "Disabled 1 webhook." in text(operator.post(f"{ENDPOINTS}disable/", sent, follow=True).content)
    endpoint.refresh_from_db()
    assert (endpoint.disabled_by, endpoint.disabled_reason) == ("operator:operators", "it floods us")
    again = text(operator.post(f"{ENDPOINTS}disable/", sent, follow=True).content)
    assert "It has been disabled by operator:operators: it floods us" in again

    sent["reason"] = "it is mended"
    operator.post(f"{ENDPOINTS}enable/", sent)
    endpoint.refresh_from_db()
    assert endpoint.disabled_at is None
    said = set(LogEntry.objects.values_list("change_message", flat=True))
    assert said == {"Disabled: it floods us", "Enabled: it is mended"}
    assert "Enabled: it is mended" in page(operator, f"{ENDPOINTS}{endpoint.pk}/change/")


def test_an_operator_has_dead_letters_sent_again_and_others_are_refused(
    login: Login, endpoint: WebhookEndpoint, dead: WebhookDelivery
) -> None:
    waits = WebhookDelivery.objects.create(endpoint=endpoint)
    sent = {"keys": f"{dead.pk},{waits.pk}", "reason": "receiver is back"}
    answer = text(login("Operator").post(f"{DELIVERIES}resend/", sent, follow=True).content)
    assert "Sent again 1 webhook delivery." in answer
    assert "It is pending; only dead letters are sent again here." in answer
    dead.refresh_from_db()
    assert (dead.status, dead.failures, dead.attempt) == ("pending", 0, 10)


def test_a_dead_letter_of_a_disabled_webhook_is_not_sent_again(login: Login, dead: WebhookDelivery) -> None:
    services.disable_endpoint(dead.endpoint, actor="client:alice", reason="pause")
    sent = {"keys": f"{dead.pk}", "reason": "x"}
    answer = text(login("Operator").post(f"{DELIVERIES}resend/", sent, follow=True).content)
    assert "Its webhook is disabled or deleted." in answer
    dead.refresh_from_db()
    assert dead.status == "dead"


def test_a_webhook_that_was_disabled_by_itself_is_counted_in_the_sidebar(
    login: Login, endpoint: WebhookEndpoint
) -> None:
    services.disable_endpoint(endpoint, actor="system:webhooks", reason="The receiver answered 410 Gone.")
    assert services.disabled_by_itself() == 1
    listed = page(login("Viewer"), f"{ENDPOINTS}?state=disabled")
    assert "The receiver answered 410 Gone." in listed
    assert "example.com" not in page(login("Operator"), f"{ENDPOINTS}?state=active")


def test_deliveries_are_found_by_webhook_and_by_event(
    login: Login, endpoint: WebhookEndpoint, dead: WebhookDelivery
) -> None:
    viewer = login("Viewer")
    for term, found in ((str(endpoint.pk), True), (dead.message_id, True), ("evt_999999", False), ("nonsense", False)):
        rows = viewer.get(DELIVERIES, {"q": term}).context["cl"].result_list
        assert [each.pk for each in rows] == ([dead.pk] if found else [])


def test_a_deleted_webhook_is_not_shown(login: Login, endpoint: WebhookEndpoint, dead: WebhookDelivery) -> None:
    services.delete_endpoint(endpoint)
    viewer = login("Viewer")
    assert "example.com" not in page(viewer, ENDPOINTS)
    assert dead.message_id not in page(viewer, DELIVERIES)


def test_a_webhooks_page_leads_to_its_dead_letters(
    login: Login, endpoint: WebhookEndpoint, dead: WebhookDelivery
) -> None:
    WebhookDelivery.objects.create(endpoint=endpoint)
    viewer = login("Viewer")
    shown = page(viewer, f"{ENDPOINTS}{endpoint.pk}/change/")
    (link,) = re.findall(r'<a href="([^"]*status__exact=dead)" [^>]*>1</a>', shown)
    assert list(viewer.get(html.unescape(link)).context["cl"].result_list) == [dead]


def test_a_webhook_that_is_well_again_shows_no_trouble_and_no_pause_that_is_over(
    login: Login, endpoint: WebhookEndpoint
) -> None:
    over = timezone.now() - timedelta(hours=1)
    trouble: dict[str, Any] = {"last_error": "HTTP 503: down", "paused_until": over}
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(**trouble, failing_since=over, failures=3)
    viewer, url = login("Viewer"), f"{ENDPOINTS}{endpoint.pk}/change/"
    assert '<p class="console-error">HTTP 503: down</p>' in page(viewer, url)
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(failing_since=None, failures=0)
    shown = page(viewer, url)
    assert "console-error" not in shown
    assert "<dt>Pause ends</dt><dd>–</dd>" in shown
    assert "<dt>Last error</dt><dd>HTTP 503: down</dd>" in shown
