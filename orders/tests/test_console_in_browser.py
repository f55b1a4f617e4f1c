"""The console in a real browser, as an operator uses it: no request leaves this host, and no script fails."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, Permission
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Response, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from exchanges.models import Venue
from orders import selectors
from orders.models import Order
from orders.services import cancel_orders, requeue_orders
from orders.tests.factories import (
    OrderFactory,
    UserFactory,
    VenueFactory,
    WorkerNodeFactory,
    console_group,
    silent_venue,
)
from quiktrade.tests.parameters import mostly_exhaustive

pytestmark = pytest.mark.django_db(transaction=True)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
PASSWORD = "night-shift-7"
PATIENCE = 40_000
"""Milliseconds: pages refresh themselves every few seconds, and a busy machine stands still for longer than that."""
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        message = "no Chromium on this machine: install the package chromium to run the browser tests"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    # Playwright runs an event loop in this thread, in which Django would refuse to use the database.
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=["light"])
def page(request: pytest.FixtureRequest, browser: Browser, live_server: LiveServer) -> Iterator[Page]:
    """A page that is logged in as the operator olga. The test fails if the page requested something from another host,
    did not find something, or wrote an error to the browser's console."""
    UserFactory(username="olga", group="Operator", password=PASSWORD)
    VenueFactory()
    context = browser.new_context(
        base_url=live_server.url, viewport={"width": 1440, "height": 1000}, color_scheme=request.param
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    wrong: list[str] = []

    def asked(request: Request) -> None:
        if not request.url.startswith((live_server.url, "data:", "blob:")):
            wrong.append(f"asked {request.url}")

    def answered(response: Response) -> None:
        if response.status >= 400:
            wrong.append(f"{response.status} {response.url}")

    def written(message: ConsoleMessage) -> None:
        if message.type == "error":
            wrong.append(f"console: {message.text}")

    page.on("request", asked)
    page.on("response", answered)
    page.on("console", written)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    log_in(page, "olga", PASSWORD)
    yield page
    context.close()
    assert wrong == []


def log_in(page: Page, name: str, password: str) -> None:
    page.context.clear_cookies()
    page.goto("/admin/login/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_title(re.compile("Overview"))


def row(page: Page, order: Order) -> Locator:
    return page.locator("#result_list tr.data-row").filter(has_text=order.client_order_id)


def give_reason(page: Page, reason: str, button: str) -> None:
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name=button).click()


@pytest.mark.exhaustive
def test_the_list_shows_where_orders_stand(page: Page) -> None:
    failed = OrderFactory(status="failed", attempts=3, error="connection_refused: nobody listens there")
    parked = OrderFactory(status="unconfirmed", parked=True)
    page.goto("/admin/")
    expect(page.locator("#console-headline")).to_contain_text("1 failed · 1 parked")
    page.get_by_role("link", name="All orders").click()
    expect(row(page, failed)).to_contain_text("connection_refused: nobody listens there")
    expect(row(page, failed)).to_contain_text(re.compile(r"Failed.*an operator.*3", re.DOTALL))
    expect(row(page, parked)).to_contain_text(re.compile(r"Parked.*an operator", re.DOTALL))
    page.locator("#nav-sidebar-apps").get_by_role("link", name="Parked").click()
    expect(page.locator("#result_list tr.data-row")).to_have_count(1)


@pytest.mark.exhaustive
def test_ticked_orders_are_requeued_with_a_reason_and_the_refused_one_is_explained(page: Page) -> None:
    failed, placed = OrderFactory(status="failed"), OrderFactory(status="placed")
    page.goto("/admin/orders/order/")
    for order in (failed, placed):
        row(page, order).locator("input.action-select").check()
    expect(page.get_by_role("button", name="Cancel 1 …")).to_be_enabled()
    expect(page.get_by_role("button", name="Reconcile 0 …")).to_be_disabled()
    page.get_by_role("button", name="Requeue 1 …").click()
    expect(page.get_by_role("heading", name="Requeue 2 orders")).to_be_visible()
    expect(page.get_by_text("will be refused")).to_have_count(1)
    give_reason(page, "venue is back", "Requeue 2 orders")
    expect(page.get_by_text("Requeued 1 order.")).to_be_visible()
    expect(page.get_by_text(f"{placed.pk}: It is at the venue.")).to_be_visible()
    expect(row(page, failed)).to_contain_text("Pending")


@pytest.mark.exhaustive
def test_all_that_match_are_chosen_by_a_link(page: Page) -> None:
    for _ in range(51):
        OrderFactory(status="failed")
    page.goto("/admin/orders/order/?status__exact=failed")
    page.locator("#action-toggle").check()
    expect(page.get_by_role("button", name="Requeue 50 …")).to_be_enabled()
    page.get_by_role("link", name="Choose all 51 that match").click()
    page.get_by_role("button", name="Requeue all that can be …").click()
    expect(page.get_by_role("heading", name="Requeue 51 orders")).to_be_visible()


def test_an_orders_page_shows_its_history_and_requeues_it(page: Page) -> None:
    order = OrderFactory(status="failed")
    page.goto("/admin/orders/order/?status__exact=failed")
    row(page, order).get_by_role("link").click()
    page.get_by_role("link", name="Requeue …").click()
    page.get_by_role("button", name="Requeue order").click()  # without a reason: the browser itself refuses
    expect(page.get_by_label("Reason")).to_be_focused()
    give_reason(page, "venue is back", "Requeue order")
    history = page.locator(".console-history")
    expect(history).to_contain_text(re.compile(r"requeued.*olga \(console\).*venue is back", re.DOTALL))
    expect(page.get_by_role("link", name="Requeue …")).to_have_count(0)
    event = selectors.history(order.pk).last()
    assert event is not None
    assert (event.actor, event.reason) == ("operator:olga", "venue is back")


@pytest.mark.exhaustive
def test_a_venue_is_halted_and_resumed_with_reasons(page: Page) -> None:
    page.goto("/admin/exchanges/venue/")
    page.get_by_role("link", name="XSIM").click()
    page.get_by_role("link", name="Halt …").click()
    give_reason(page, "wrong prices", "Halt venue")
    expect(page.get_by_text("by olga (console)")).to_be_visible()
    expect(page.get_by_text("Halted", exact=True).first).to_be_visible()
    assert Venue.objects.get().halt_reason == "wrong prices"
    page.get_by_role("link", name="Resume …").click()
    give_reason(page, "prices are right", "Resume venue")
    expect(page.get_by_role("link", name="Halt …")).to_be_visible()
    assert not Venue.objects.get().halted


@pytest.mark.exhaustive
def test_search_and_filters_narrow_the_list_down(page: Page) -> None:
    wanted, other = OrderFactory(client_order_id="mom-1"), OrderFactory(client_order_id="hedge-1", side="sell")
    page.goto("/admin/orders/order/")
    page.get_by_placeholder("Id, client's id").fill("mom-1")
    page.keyboard.press("Enter")
    expect(page.locator("#result_list tr.data-row")).to_have_count(1)
    expect(row(page, wanted)).to_be_visible()
    page.get_by_placeholder("Id, client's id").fill("nobody's")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Show all").click()
    page.locator("#changelist a").filter(has_text="Filters").click()
    page.get_by_label("Sell").check()
    page.get_by_role("button", name="Apply Filters").click()
    expect(page.locator("#result_list tr.data-row")).to_have_count(1)
    expect(row(page, other)).to_be_visible()


@pytest.mark.exhaustive
@pytest.mark.parametrize("page", mostly_exhaustive(["light", "dark"], "light"), indirect=True)
def test_every_page_works_without_another_host(page: Page, tmp_path: Path) -> None:
    order = OrderFactory(status="failed", attempts=2)
    silent_venue()
    paths = [f"orders/order/{order.pk}/change/", f"orders/order/cancel/?keys={order.pk}", "orders/order/"]
    paths += ["exchanges/venue/", "exchanges/venue/XSIM/change/", "quiktrade/workernode/", "django_q/schedule/"]
    paths += ["django_q/ormq/", "django_q/failure/", f"orders/order/{order.pk}/history/", "password_change/", ""]
    for number, path in enumerate(paths):
        page.goto(f"/admin/{path}")
        expect(page.locator("#site-name")).to_contain_text("QuikTrade")
        page.screenshot(path=tmp_path / f"{number}.png")


# ---- Accounts ----


def make_account(page: Page, name: str, access: str) -> str:
    """As a superuser does it. Returns the password that is shown."""
    log_in(page, "root", PASSWORD)
    page.locator("#nav-sidebar-apps").get_by_role("link", name="Users").click()
    page.get_by_role("link", name="Add user").click()
    page.get_by_label("Username").fill(name)
    page.get_by_label(access).check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", name=f"Account {name} is made")).to_be_visible()
    return page.locator("#password").inner_text()


@pytest.fixture
def root(page: Page) -> None:
    UserFactory(username="root", is_superuser=True, is_staff=True, password=PASSWORD)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("root")
def test_an_api_client_that_was_made_here_submits_an_order(page: Page) -> None:
    password = make_account(page, "alice", "API client")
    said = page.request.post("/api/v1/auth/token", data={"username": "alice", "password": password})
    order = {"instrument": "US0378331005", "side": "buy", "type": "market", "quantity": 1}
    token = {"Authorization": f"Bearer {said.json()['access']}"}
    assert page.request.post("/api/v1/orders", data=order, headers=token).status == 201
    assert Order.objects.get().owner.username == "alice"


@pytest.mark.exhaustive
@pytest.mark.usefixtures("root")
def test_an_operator_who_was_made_here_requeues_and_changes_the_password(page: Page) -> None:
    order = OrderFactory(status="failed")
    console_group("Operator")
    password = make_account(page, "oscar", "Operator")
    log_in(page, "oscar", password)
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    page.get_by_role("link", name="Requeue …").click()
    give_reason(page, "venue is back", "Requeue order")
    expect(page.get_by_text("Requeued 1 order.")).to_be_visible()
    event = selectors.history(order.pk).last()
    assert event is not None
    assert event.actor == "operator:oscar"

    page.goto("/admin/password_change/")
    page.get_by_label("Old password").fill(password)
    page.get_by_label("New password", exact=False).first.fill("day-shift-8")
    page.get_by_label("New password confirmation").fill("day-shift-8")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_text("Your password was changed.")).to_be_visible()
    log_in(page, "oscar", "day-shift-8")


@pytest.mark.exhaustive
@pytest.mark.usefixtures("root")
def test_a_lost_password_is_replaced(page: Page) -> None:
    log_in(page, "root", PASSWORD)
    page.goto("/admin/auth/user/")
    page.get_by_role("link", name="olga").click()
    page.get_by_role("link", name="New password …").click()
    page.get_by_role("button", name="Make a new password").click()
    log_in(page, "olga", page.locator("#password").inner_text())


# ---- What a page says stays true while it is looked at ----


@pytest.mark.exhaustive
def test_the_overview_tells_of_a_failure_while_it_is_looked_at(page: Page) -> None:
    WorkerNodeFactory()
    page.goto("/admin/")
    expect(page.get_by_text("Nothing needs you:")).to_be_visible()
    OrderFactory(status="failed")
    expect(page.get_by_text("1 order has failed at XSIM: connection_refused")).to_be_visible()
    expect(page.locator("#console-headline")).to_have_text("1 failed")
    expect(page.locator('#nav-sidebar-apps a[href$="status__exact=failed"]')).to_contain_text("1")


@pytest.mark.exhaustive
def test_an_orders_page_follows_it_to_its_end(page: Page) -> None:
    order = OrderFactory()
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    page.evaluate("window.notLoadedAnew = true")
    expect(page.get_by_role("link", name="Cancel …")).to_be_visible()
    cancel_orders([order.pk], actor="client:alice", reason="not wanted")
    expect(page.locator(".console-history")).to_contain_text("not wanted")
    expect(page.get_by_role("link", name="Cancel …")).to_have_count(0)
    assert page.evaluate("window.notLoadedAnew")


@pytest.mark.exhaustive
def test_a_list_takes_rows_in_and_keeps_what_is_ticked_typed_and_focused(page: Page) -> None:
    first = OrderFactory(status="failed")
    page.goto("/admin/orders/order/?status__exact=failed")
    second = OrderFactory(status="failed")
    expect(row(page, second)).to_be_visible()

    search = page.get_by_placeholder("Id, client's id")
    search.fill("half a wo")
    row(page, second).locator("input.action-select").check()
    expect(page.locator(".action-counter")).to_have_text("1 of 2 selected")
    cancel_orders([first.pk], actor="client:alice", reason="not wanted")
    expect(row(page, first)).to_have_count(1)
    expect(page.locator("tbody.console-gone")).to_contain_text(first.client_order_id)
    expect(row(page, second).locator("input.action-select")).to_be_checked()
    expect(search).to_have_value("half a wo")

    row(page, second).locator("input.action-select").uncheck()
    expect(row(page, first)).to_have_count(0)
    search.focus()
    OrderFactory(status="failed")
    expect(page.locator("#result_list tr.data-row")).to_have_count(2)
    expect(search).to_be_focused()


@pytest.mark.exhaustive
def test_the_buttons_count_anew_when_a_ticked_order_moves(page: Page) -> None:
    order = OrderFactory(status="failed")
    page.goto("/admin/orders/order/")
    row(page, order).locator("input.action-select").check()
    expect(page.get_by_role("button", name="Requeue 1 …")).to_be_enabled()
    requeue_orders([order.pk], actor="operator:adam", reason="meanwhile")
    expect(page.get_by_role("button", name="Requeue 0 …")).to_be_disabled()
    expect(page.get_by_role("button", name="Cancel 1 …")).to_be_enabled()


@pytest.mark.exhaustive
def test_a_list_that_was_empty_can_be_ticked_when_orders_come(page: Page) -> None:
    page.goto("/admin/orders/order/?status__exact=failed")
    order = OrderFactory(status="failed")
    expect(row(page, order)).to_be_visible()
    row(page, order).locator("input.action-select").check()
    expect(page.locator(".action-counter")).to_have_text("1 of 1 selected")


@pytest.mark.exhaustive
def test_a_page_that_cannot_be_refreshed_says_how_old_it_is(page: Page) -> None:
    page.goto("/admin/")
    page.evaluate("void (window.fetch = () => Promise.reject(new TypeError('no answer')))")
    expect(page.get_by_role("status")).to_contain_text(re.compile(r"how it was at \d\d:\d\d:\d\d UTC, \d+ s ago"))


@pytest.mark.exhaustive
def test_a_page_whose_session_has_ended_says_so_and_asks_no_more(page: Page) -> None:
    page.goto("/admin/")
    page.context.clear_cookies()
    expect(page.get_by_role("status")).to_contain_text("your session has ended")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(9000)  # two refreshes long
    assert asked == []


@pytest.mark.exhaustive
def test_a_hidden_page_asks_for_nothing(page: Page) -> None:
    page.goto("/admin/")
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.wait_for_timeout(5000)  # one that was under way already
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(9000)
    assert asked == []
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(2000)
    assert asked


# ---- On a telephone ----


@pytest.mark.exhaustive
def test_on_a_telephone_rows_are_small_and_every_action_is_in_reach(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    Group.objects.get(name="Operator").permissions.add(Permission.objects.get(codename="settle_order"))
    order = OrderFactory(
        status="unconfirmed",
        parked=True,
        client_order_id="momentum-2026-11-25-0042",
        error="read_timeout: no answer within 5 s of waiting",
    )
    for path in ("", "exchanges/venue/", "orders/order/"):
        page.goto(f"/admin/{path}")
        expect(page.get_by_role("main")).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = row(page, order).bounding_box()
    assert box is not None
    assert box["height"] <= 120
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    for name in ("Reconcile …", "Mark placed …", "Mark not placed …"):
        button = page.get_by_role("link", name=name).bounding_box()
        assert button is not None
        assert button["x"] >= 0
        assert button["x"] + button["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
