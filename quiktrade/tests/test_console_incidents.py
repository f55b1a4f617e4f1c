"""The console's incidents: who sees them, who acknowledges them and why, and a test of the channels."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from orders.tests.factories import UserFactory, WorkerNodeFactory
from quiktrade.alerts.channels import Channel
from quiktrade.models import Incident, IncidentEvent, Notice

pytestmark = pytest.mark.django_db

LIST = "/admin/quiktrade/incident/"
SLACK = Channel("slack", "slack:hooks.slack.com#0b7e1c2d", "https://hooks.slack.com/S3CRET")
Login = Callable[[str], Client]


@pytest.fixture
def login(db: None) -> Login:
    def login(group: str) -> Client:
        client = Client()
        client.force_login(UserFactory(username=group.lower(), group=group))
        return client

    return login


def incident(kind: str = "venue_in_trouble", **given: Any) -> Incident:
    row: dict[str, Any] = {"subject": "XSIM", "severity": "page", "sentence": "XSIM does not answer: no answer in 5 s."}
    row |= {"advice": "Find out from the venue what is wrong.", "value": 3, "worst": 7, "opened_at": timezone.now()}
    return Incident.objects.create(kind=kind, **(row | given))


def text(content: bytes) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", content.decode()))


def page(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200
    return text(answer.content)


def test_a_viewer_sees_incidents_and_can_do_nothing(login: Login) -> None:
    shown, hidden = incident(), incident("no_worker", sentence="Seen once.", opened_at=None)
    viewer = login("Viewer")
    listed = page(viewer, LIST)
    assert "Venue in trouble" in listed
    assert "Seen once." not in listed
    assert "Acknowledge …" not in listed
    assert "Send a test" not in listed
    assert "XSIM does not answer: no answer in 5 s." in page(viewer, f"{LIST}{shown.pk}/change/")
    assert viewer.get(f"{LIST}{hidden.pk}/change/").status_code == 302
    for url in (f"{LIST}acknowledge/?keys={shown.pk}", f"{LIST}test/"):
        assert viewer.get(url).status_code == viewer.post(url).status_code == 403
    assert viewer.get(f"{LIST}add/").status_code == viewer.get(f"{LIST}{shown.pk}/delete/").status_code == 403


def test_an_operator_acknowledges_with_a_reason_that_is_kept(login: Login) -> None:
    row = incident()
    operator = login("Operator")
    assert "Acknowledge" in page(operator, f"{LIST}{row.pk}/change/")
    without = operator.post(f"{LIST}acknowledge/", {"keys": str(row.pk), "reason": " "})
    assert "Say why: the reason is kept in the history." in text(without.content)
    operator.post(f"{LIST}acknowledge/", {"keys": str(row.pk), "reason": "I have called <them>."})
    row.refresh_from_db()
    assert (row.acknowledged_by, row.acknowledged_for) == ("operator:operator", "I have called <them>.")
    event = IncidentEvent.objects.get()
    assert (event.event, event.actor, event.reason) == ("acknowledged", "operator:operator", "I have called <them>.")
    assert LogEntry.objects.get().change_message == "Acknowledged: I have called <them>."
    shown = page(operator, f"{LIST}{row.pk}/change/")
    assert "Acknowledged operator (console) I have called &lt;them&gt;." in shown
    again = operator.post(f"{LIST}acknowledge/", {"keys": str(row.pk), "reason": "Me, too."}, follow=True)
    assert "It was acknowledged by operator:operator: I have called &lt;them&gt;." in text(again.content)


def test_the_history_of_an_incident_cannot_be_changed() -> None:
    from django.db import IntegrityError, transaction

    event = IncidentEvent.objects.create(incident=incident(), event="opened", actor="system:alerts", reason="x")
    for change in (lambda: IncidentEvent.objects.update(reason="y"), event.delete):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            change()


def test_the_sidebar_counts_what_nobody_looks_after(login: Login) -> None:
    WorkerNodeFactory()
    incident(), incident("no_worker"), incident("orders_failed", opened_at=None)
    incident("orders_parked", resolved_at=timezone.now())
    incident("overloaded", acknowledged_at=timezone.now(), acknowledged_by="operator:olga", acknowledged_for="Mine.")
    assert re.search(r"Incidents\s+2\s", page(login("Viewer"), "/admin/"))


@pytest.mark.parametrize(("state", "shown"), [("open", "Open"), ("acknowledged", "Mine."), ("over", "Over")])
def test_the_list_is_filtered_by_state(login: Login, state: str, shown: str) -> None:
    incident(sentence="Open.")
    by = {"acknowledged_at": timezone.now(), "acknowledged_by": "operator:olga", "acknowledged_for": "Mine."}
    incident("no_worker", sentence="Looked after.", **by)
    incident("orders_failed", sentence="Gone.", resolved_at=timezone.now())
    found = page(login("Viewer"), f"{LIST}?state={state}")
    sentences = {"open": "Open.", "acknowledged": "Looked after.", "over": "Gone."}
    assert {name for name, sentence in sentences.items() if sentence in found} == {state}
    assert shown in found


def test_a_test_is_asked_for_and_tells_every_channel(login: Login, settings: Any) -> None:
    settings.ALERTS = [SLACK]
    operator = login("Operator")
    assert "Send a test …" in page(operator, LIST)
    asked = page(operator, f"{LIST}test/")
    assert SLACK.name in asked
    assert "S3CRET" not in asked
    assert not Notice.objects.exists()
    answer = operator.post(f"{LIST}test/", follow=True)
    row = Incident.objects.get()
    assert answer.redirect_chain == [(f"{LIST}{row.pk}/change/", 302)]
    assert "This is a test of alerts. operator:operator asked for it." in text(answer.content)
    notices = Notice.objects.order_by("id").values_list("what", "channel", "sent_at")
    assert list(notices) == [(what, SLACK.name, None) for what in ("opened", "resolved")]


def test_without_a_channel_the_page_says_what_to_set(login: Login, settings: Any) -> None:
    settings.ALERTS = []
    operator = login("Operator")
    assert "QUIKTRADE_ALERTS" in page(operator, f"{LIST}test/")
    assert operator.post(f"{LIST}test/").status_code == 200
    assert not Incident.objects.exists()


def test_an_incident_shows_how_each_channel_was_reached(login: Login) -> None:
    row = incident()
    notice: dict[str, Any] = {"incident": row, "what": "opened", "tries": 1}
    Notice.objects.create(channel="mailto:ops@example.com", sent_at=timezone.now(), **notice)
    Notice.objects.create(channel="slack:x", error="It answered 404.", **notice)
    Notice.objects.create(channel="teams:y", given_up_at=timezone.now(), error="No connection", **notice)
    Notice.objects.create(channel="https:z", **notice)
    shown = page(login("Viewer"), f"{LIST}{row.pk}/change/")
    for line in ("mailto:ops@example.com opened Sent 1", "slack:x opened Failing 1", "teams:y opened Given up 1"):
        assert line in shown
    assert "It answered 404." in shown
    assert "https:z opened Waits 1" in shown
