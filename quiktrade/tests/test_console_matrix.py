"""Who may open and send which page of the console. The pages come from the table of URLs, what is expected of them from
the tables below, and a page that is not expected is a failure."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.template.response import SimpleTemplateResponse
from django.test import Client
from django.utils import timezone
from django_q.models import Failure, OrmQ, Schedule

from exchanges.models import UnmatchedReport
from orders import amendments
from orders.models import Execution, OrderRequest
from orders.tests.factories import OrderFactory, UserFactory, VenueFactory, WorkerNodeFactory
from orders.webhooks import services
from quiktrade.auth import clients
from quiktrade.models import Incident
from quiktrade.tests.test_authorization_matrix import rows, url_table

pytestmark = pytest.mark.django_db

# y: it is shown, or leads on to another page of the console. n: 403. -: 404. x: 405, the page does not take the method.
# l: it leads to the log-in. In each word the first letter is a Viewer's, the second an Operator's, the third an
# Administrator's. Whoever is not logged in, or is a client of the API, is led to the log-in, but from three pages.

MODELS = """
  rows                    list     add      change   delete   history
                          GET POST GET POST GET POST GET POST GET POST
  orders/order            yyy yyy  nnn nnn  yyy nnn  nnn nnn  yyy yyy
  orders/execution        yyy yyy  nnn nnn  nnn nnn  nnn nnn  yyy yyy
  orders/orderrequest     yyy yyy  nnn nnn  nnn nnn  nnn nnn  yyy yyy
  orders/webhookendpoint  yyy yyy  nnn nnn  yyy nnn  nnn nnn  yyy yyy
  orders/webhookdelivery  yyy yyy  nnn nnn  yyy nnn  nnn nnn  yyy yyy
  exchanges/venue         yyy yyy  nny nny  yyy nny  nnn nnn  yyy yyy
  exchanges/unmatchedreport yyy yyy nnn nnn yyy nnn  nnn nnn  yyy yyy
  quiktrade/workernode    yyy yyy  nnn nnn  yyy nnn  nnn nnn  yyy yyy
  quiktrade/incident      yyy yyy  nnn nnn  yyy nnn  nnn nnn  yyy yyy
  quiktrade/apiclient     nny nny  nny nny  nny nny  nnn nnn  nny nny
  django_q/schedule       yyy yyy  nnn nnn  yyy nnn  nnn nnn  yyy yyy
  django_q/failure        yyy yyy  nnn nnn  yyy nnn  nnn nnn  yyy yyy
  django_q/ormq           yyy yyy  nnn nnn  yyy nnn  nnn nnn  yyy yyy
  auth/user               nny nny  nny nny  nny nny  nnn nnn  nny nny
  auth/group              nny nny  nnn nnn  nny nnn  nnn nnn  nny nny
"""
"""A list takes a POST for the actions that are chosen there; these pages have none, and show the list again."""

PAGES = """
  page                                GET POST
  (first)                             yyy yyy
  search/                             yyy yyy
  second-factor/                      yyy yyy
  password_change/                    yyy yyy
  password_change/done/               yyy xxx
  login/                              yyy yyy
  logout/                             xxx yyy
  jsi18n/                             yyy xxx
  autocomplete/                       nnn xxx
  r/<id>                              --- ---
  <app>/                              yyy yyy
  (else)                              --- ---
  orders/order/requeue/               nyy nyy
  orders/order/reconcile/             nyy nyy
  orders/order/mark-placed/           nyy nyy
  orders/order/mark-not-placed/       nyy nyy
  orders/order/replace/               nyy nyy
  orders/order/cancel-at-venue/       nyy nyy
  orders/order/cancel/                nyy nyy
  orders/execution/positions/         yyy yyy
  orders/webhookendpoint/disable/     nyy nyy
  orders/webhookendpoint/enable/      nyy nyy
  orders/webhookdelivery/resend/      nyy nyy
  exchanges/venue/halt/               nyy nyy
  exchanges/venue/resume/             nyy nyy
  auth/user/<id>/password/            nny nny
  auth/user/<id>/second-factor/       nny nny
  quiktrade/apiclient/<id>/secrets/   nny nny
  quiktrade/incident/acknowledge/     nyy nyy
  quiktrade/incident/test/            nyy nyy
"""
WITHOUT_STAFF = {"login/": "yy", "logout/": "yy", "r/<id>": "--"}
"""Whoever is not logged in, and a client: for GET and for POST alike."""

ROLES = ("Viewer", "Operator", "Administrator")
METHODS = ("GET", "POST")
LETTERS = {200: "y", 302: "y", 403: "n", 404: "-", 405: "x"}


def expected() -> dict[str, tuple[str, str]]:
    """For each page the letters of GET and of POST, in the order: not logged in, a client, and the three roles."""
    staff = {page: (get, post) for page, get, post in rows(PAGES)}
    for model, *letters in list(rows(MODELS))[1:]:
        names = ("", "add/", "<id>/change/", "<id>/delete/", "<id>/history/")
        for name, get, post in zip(names, letters[::2], letters[1::2], strict=True):
            staff[f"{model}/{name}"] = (get, post)
        staff[f"{model}/<id>/"] = ("yyy", "yyy")  # leads to `change/`, which asks
    return {
        page: (WITHOUT_STAFF.get(page, "ll") + get, WITHOUT_STAFF.get(page, "ll") + post)
        for page, (get, post) in staff.items()
    }


def pages() -> Iterator[str]:
    """The pages of the table of URLs, as the tables here call them."""
    for route, _ in url_table():
        if route.startswith("admin/"):
            page = re.sub(r"<(path:)?\w+>", "<id>", route.removeprefix("admin/"))
            page = re.sub(r"^\^\(\?P<\w+>[\w|]+\)/\$$", "<app>/", page)
            page = page.replace("(?P<id>.*)$", "(else)") or "(first)"
            if page != "r/<id>/<id>/":  # not reached: the one before it takes all that it would
                yield page


@pytest.fixture
def keys() -> dict[str, Any]:
    """A row of each kind, whose pages there are."""
    venue, alice = VenueFactory(), UserFactory(username="alice")
    order = OrderFactory(owner=alice, status="filled")
    placed = OrderFactory(owner=alice, status="placed")
    amendments.request_cancel(placed.pk, actor="client:alice", reason="Not wanted")
    webhook = services.create_endpoint(alice.pk, url="https://example.com/hook")
    now = timezone.now()
    made: dict[str, Any] = {
        "order": order,
        "execution": Execution.objects.get(order=order),
        "orderrequest": OrderRequest.objects.get(order=placed),
        "webhookendpoint": webhook,
        "webhookdelivery": services.send_test(webhook),
        "venue": venue,
        "unmatchedreport": UnmatchedReport.objects.create(venue=venue, stream="s", sequence=1, reason="r", report={}),
        "workernode": WorkerNodeFactory(),
        "incident": Incident.objects.create(
            kind="x", severity="ticket", sentence="s", advice="a", value=1, worst=1, opened_at=now
        ),
        "apiclient": clients.create(user=alice, name="bot", scope="stream"),
        "schedule": Schedule.objects.create(func="a.b", name="s"),
        "failure": Failure.objects.create(id="f" * 32, name="f", func="a.b", started=now, stopped=now, success=False),
        "ormq": OrmQ.objects.create(key="q", payload="p"),
        "user": alice,
        "group": Group.objects.create(name="desk"),
    }
    return {model: row.pk for model, row in made.items()}


def path(page: str, keys: dict[str, Any]) -> str:
    page = {"(first)": "", "(else)": "nothing/like/this/", "<app>/": "orders/", "r/<id>": "r/1/1/"}.get(page, page)
    model = page.split("/")[1] if page.count("/") > 1 else ""
    return f"/admin/{page}".replace("<id>", str(keys.get(model)))


def letter(response: Any) -> str:
    led_to_log_in = response.status_code == 302 and response["Location"].startswith("/admin/login/")
    return "l" if led_to_log_in else LETTERS.get(response.status_code, str(response.status_code))


def cookies_of(user: User | None) -> dict[str, str]:
    client = Client()
    if user:
        client.force_login(user)
    return {name: morsel.value for name, morsel in client.cookies.items()}


@pytest.fixture
def nothing_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether somebody may see a page is decided before it is rendered, which takes most of the time."""

    def render(response: SimpleTemplateResponse) -> SimpleTemplateResponse:
        response.content = b""
        return response

    monkeypatch.setattr(SimpleTemplateResponse, "render", render)
    monkeypatch.setattr(type(admin.site), "each_context", lambda *_: {})


def test_every_page_of_the_console_is_expected() -> None:
    assert set(pages()) == set(expected())


def test_everybody_is_shown_the_pages_that_they_may_see(keys: dict[str, Any], nothing_rendered: None) -> None:
    everybody: list[User | None] = [None, UserFactory(), *(UserFactory(group=role) for role in ROLES)]
    cookies, wrong = [cookies_of(user) for user in everybody], []
    for page, letters in expected().items():
        for method, wanted in zip(METHODS, letters, strict=True):
            found = ""
            for each in cookies:
                client = Client()
                client.cookies.load(each)
                with transaction.atomic():
                    found += letter(client.generic(method, path(page, keys)))
                    transaction.set_rollback(True)
            if found != wanted:
                wrong.append(f"{method} {page}: {found}, and not {wanted}")
    assert not wrong, "\n".join(wrong)
