"""The console's incidents in a real browser."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from orders.tests.test_console_in_browser import browser, give_reason, page  # noqa: F401  fixtures
from orders.tests.test_trading_in_browser import shoot
from quiktrade.models import Incident, Notice
from quiktrade.tests.test_console_incidents import SLACK, incident

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.exhaustive
def test_an_operator_acknowledges_an_incident_and_sends_a_test(page: Page, settings: Any) -> None:  # noqa: F811
    settings.ALERTS = [SLACK]
    open_one = incident()
    Notice.objects.create(incident=open_one, what="opened", channel=SLACK.name, tries=2, error="It answered 503.")
    page.goto("/admin/")
    page.locator("#nav-sidebar-apps").get_by_role("link", name="Incidents 1").click()
    shoot(page, "incidents")
    page.get_by_role("link", name="Venue in trouble").click()
    expect(page.get_by_text("Find out from the venue what is wrong.")).to_be_visible()
    expect(page.get_by_text("It answered 503.")).to_be_visible()
    page.get_by_role("link", name="Acknowledge").click()
    give_reason(page, "I have called them.", "Acknowledge incident")
    expect(page.get_by_text("Acknowledged 1 incident.")).to_be_visible()
    expect(page.locator("#history")).to_contain_text(re.compile(r"olga \(console\).*I have called them\.", re.DOTALL))
    shoot(page, "incident")
    page.goto("/admin/quiktrade/incident/")
    shoot(page, "incidents-acknowledged")
    page.get_by_role("link", name="Send a test").click()
    expect(page.get_by_text(SLACK.name)).to_be_visible()
    shoot(page, "send-test")
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_text("This is a test of alerts. operator:olga asked for it.").first).to_be_visible()
    assert Incident.objects.filter(kind="test").count() == 1
    shoot(page, "test")
