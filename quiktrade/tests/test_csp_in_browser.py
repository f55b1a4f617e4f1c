"""The content security policy in a real browser: nothing that a page needs is kept from it.

The browser tests of the console fail at every violation, too: those are written to the browser's console.
"""

import base64
import re
from collections.abc import Iterator

import pytest
from django_otp.oath import totp
from playwright.sync_api import Browser, ConsoleMessage, Page, expect
from pytest_django.live_server_helper import LiveServer

from orders.tests.factories import UserFactory, VenueFactory
from orders.tests.test_console_in_browser import PASSWORD, browser, log_in  # noqa: F401  the first is a fixture
from quiktrade.auth import clients

pytestmark = pytest.mark.django_db(transaction=True)

LOGO = "https://cdn.redoc.ly/"
"""ReDoc wants to show its maker's logo from there, which the policy refuses."""


@pytest.fixture
def page(browser: Browser, live_server: LiveServer) -> Iterator[Page]:  # noqa: F811
    VenueFactory()
    context = browser.new_context(base_url=live_server.url)
    page = context.new_page()
    refused: list[str] = []

    def written(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text and LOGO not in message.text:
            refused.append(message.text)

    page.on("console", written)
    yield page
    context.close()
    assert refused == []


@pytest.mark.exhaustive
def test_the_documents_pages_work_under_their_policy(page: Page) -> None:
    page.goto("/api/v1/docs")
    expect(page.get_by_text("/api/v1/orders/batch")).to_be_visible()
    page.goto("/api/v1/redoc")
    expect(page.get_by_role("heading", name="Submit an order").first).to_be_visible(timeout=60_000)  # it is slow
    assert page.context.cookies() == []


def test_the_console_works_under_its_policy(page: Page) -> None:
    UserFactory(username="adam", group="Administrator", password=PASSWORD)
    bot = clients.create(user=UserFactory(), name="bot", scope="orders:read")
    log_in(page, "adam", PASSWORD)
    for path in ("orders/order/", "quiktrade/apiclient/add/", f"quiktrade/apiclient/{bot.pk}/change/"):
        page.goto(f"/admin/{path}")
        expect(page.locator("#content-main, #content").first).to_be_visible()
    page.get_by_role("link", name="Secrets").click()
    page.get_by_role("button", name="Make a new secret").click()
    expect(page.locator("#secret")).to_have_text(re.compile(r"^[\w-]{43}$"))


def test_a_second_factor_is_set_up_and_asked_for_under_the_policy(page: Page) -> None:
    UserFactory(username="olga", group="Operator", password=PASSWORD)
    log_in(page, "olga", PASSWORD)
    page.goto("/admin/second-factor/")
    expect(page.locator("#picture svg")).to_be_visible()
    key = base64.b32decode(page.locator("#key").inner_text())
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Code").fill(f"{totp(key):06}")
    page.get_by_role("button", name="Set it up").click()
    code = page.locator("#codes li").first.inner_text()
    page.get_by_role("link", name="I have kept them").click()
    expect(page).to_have_title(re.compile("Overview"))

    page.context.clear_cookies()
    page.goto("/admin/orders/order/")
    page.get_by_label("Username").fill("olga")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Code").fill(code)
    page.get_by_role("button", name="Go on").click()
    expect(page).to_have_url(re.compile("/admin/orders/order/$"))
