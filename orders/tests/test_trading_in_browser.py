"""What was executed and is held, in a real browser: the picture of an order's life, and the lists."""

import os
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone
from playwright.sync_api import Page, ViewportSize, expect

from exchanges.models import UnmatchedReport
from exchanges.venue import ReportKind
from orders.models import Order
from orders.reports import ingest
from orders.tests import test_positions as positions
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory, report
from orders.tests.test_console_in_browser import browser, page  # noqa: F401  fixtures
from quiktrade.tests.parameters import mostly_exhaustive

pytestmark = pytest.mark.django_db(transaction=True)

SHOTS = os.environ.get("QUIKTRADE_TEST_SHOTS")
"""A folder for pictures of the pages, where a person wants to look at them."""
TELEPHONE: ViewportSize = {"width": 390, "height": 844}
DESK: ViewportSize = {"width": 1440, "height": 1000}


def shoot(page: Page, name: str, *, full: bool = True) -> None:  # noqa: F811
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=full)


def fill(order: Order, quantity: int, price: str = "10.25", **more: Any) -> None:
    given = {"execution_id": f"X-{uuid4().hex[:8]}", "quantity": quantity, "price": Decimal(price), **more}
    report(order.pk, order.venue_id, ReportKind.EXECUTED, at=timezone.now(), **given)


def bust(order: Order, refers_to: str) -> None:
    report(order.pk, order.venue_id, ReportKind.BUSTED, refers_to=refers_to, at=timezone.now())


def filled_in_parts() -> Order:
    order = OrderFactory(status="placed", attempts=3, client_order_id="desk-7-000123")
    for quantity, price in ((20, "10.25"), (35, "10.2"), (5, "10.15"), (40, "10.25")):
        fill(order, quantity, price)
    return order


def with_a_bust() -> Order:
    order = OrderFactory(status="placed")
    fill(order, 60, execution_id="X-1")
    fill(order, 40, "10.2", execution_id="X-2")
    bust(order, "X-1")
    more = {"execution_id": "X-3", "refers_to": "X-2", "quantity": 30, "price": Decimal("10.1")}
    report(order.pk, order.venue_id, ReportKind.CORRECTED, **more)
    return order


def canceled_after_a_part() -> Order:
    order = OrderFactory(status="placed", side="sell", quantity=1_000_000)
    fill(order, 350_000)
    fill(order, 1)
    report(order.pk, order.venue_id, ReportKind.CANCELED, text="Canceled by the floor")
    return order


def open_page(page: Page, order: Order) -> str:  # noqa: F811
    page.goto(f"/admin/orders/order/{order.pk}/change/")
    picture = page.get_by_role("img", name="Timeline of the order")
    expect(picture).to_be_visible()
    return picture.text_content() or ""


LIVES = {
    "filled": (filled_in_parts, "Executed 35 at 10.2"),
    "bust": (with_a_bust, "X-1 taken back"),
    "canceled": (canceled_after_a_part, "Canceled at the venue"),
}


@pytest.mark.parametrize("life", mostly_exhaustive(list(LIVES), "bust"))
@pytest.mark.parametrize("page", mostly_exhaustive(["light", "dark"], "light"), indirect=True)
def test_an_orders_life_is_a_picture(page: Page, life: str, request: pytest.FixtureRequest) -> None:  # noqa: F811
    name = f"{life}-{'dark' if 'dark' in request.node.name else 'light'}"
    make, said = LIVES[life]
    order = make()
    assert said in open_page(page, order)
    shoot(page, name)
    page.set_viewport_size(TELEPHONE)
    assert said in open_page(page, order)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, f"{name}-phone")


@pytest.mark.exhaustive
def test_no_bar_of_the_picture_leaves_the_page(page: Page) -> None:  # noqa: F811
    order = with_a_bust()
    fill(order, 500)  # more than the order's quantity
    for size in (DESK, TELEPHONE):
        page.set_viewport_size(size)
        open_page(page, order)
        edges = page.eval_on_selector_all(
            ".console-timeline :is(rect, text, circle)",
            "all => all.map(each => [each.getBoundingClientRect().left, each.getBoundingClientRect().right])",
        )
        assert min(left for left, _ in edges) >= 0
        assert max(right for _, right in edges) <= size["width"]


@pytest.mark.exhaustive
def test_the_picture_follows_the_order(page: Page) -> None:  # noqa: F811
    order = OrderFactory(status="placed")
    open_page(page, order)
    fill(order, 100)
    expect(page.locator(".console-timeline")).to_contain_text("Filled")


@pytest.mark.exhaustive
@pytest.mark.parametrize("page", mostly_exhaustive(["light", "dark"], "light"), indirect=True)
def test_the_lists_of_trading_are_there(page: Page, request: pytest.FixtureRequest) -> None:  # noqa: F811
    theme = "dark" if "dark" in request.node.name else "light"
    alice = UserFactory(username="alice")
    for side, price in (("buy", "10.25"), ("sell", "11")):
        order = OrderFactory(owner=alice, status="placed", side=side)
        fill(order, 60, price, execution_id=f"{side}-1")
        fill(order, 30, price, execution_id=f"{side}-2")
    bust(order, "sell-2")
    fill(OrderFactory(status="placed", instrument="DE0007164600"), 7, "187.45")
    UnmatchedReport.objects.create(
        venue=VenueFactory(),
        stream="journal-1",
        sequence=7,
        reason="It is about no order of ours.",
        report={"kind": "executed", "client_order_id": str(uuid4()), "quantity": "40", "price": "10.25"},
    )
    page.goto("/admin/")
    for name, said in (
        ("Executions", "Taken back"),
        ("Positions", "US0378331005"),
        ("Unmatched reports", "It is about no order of ours."),
        ("Requests", "requests"),
    ):
        page.set_viewport_size(DESK)
        page.locator("#nav-sidebar-apps").get_by_role("link", name=name).click()
        expect(page.get_by_role("main")).to_contain_text(said)
        shoot(page, f"list-{name.replace(' ', '-').lower()}-{theme}")
        page.set_viewport_size(TELEPHONE)
        page.reload()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        shoot(page, f"list-{name.replace(' ', '-').lower()}-{theme}-phone")
    page.set_viewport_size(DESK)
    page.goto("/admin/orders/execution/positions/")
    page.get_by_label("Client").fill("alice")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("main")).to_contain_text("30")
    expect(page.get_by_role("main")).not_to_contain_text("DE0007164600")
    page.get_by_role("main").get_by_role("link").last.click()
    expect(page.locator("#result_list tr.data-row")).to_have_count(4)
    page.goto(f"/admin/exchanges/unmatchedreport/{UnmatchedReport.objects.get().pk}/change/")
    expect(page.locator(".console-report")).to_contain_text('"quantity": "40"')
    shoot(page, f"unmatched-{theme}")


@pytest.mark.exhaustive
def test_an_order_with_hundreds_of_steps_has_a_picture_of_some_rows(page: Page) -> None:  # noqa: F811
    order = OrderFactory(status="placed", quantity=1000, place_by=timezone.now() + timedelta(days=1))
    ingest(
        [positions.fill(order, number, 1 + number % 3, "10.25") for number in range(1, 301)],
        positions.session(),
        lease=30,
    )
    said = open_page(page, order)
    assert "executions" in said
    assert page.locator(".console-timeline g").count() <= 25
    shoot(page, "hundreds", full=False)
