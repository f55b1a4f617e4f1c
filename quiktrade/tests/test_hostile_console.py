"""Whatever is sent to any page of the console, no page fails.

The pages are those of the admin's URL patterns, the parameters those of the lists' filters and of Django's own, the
fields those of the forms that the pages show. So whatever is added to the console is tried without being named here.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.contrib import admin
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from django_q.models import Failure, OrmQ, Schedule

from orders.tests.factories import OrderFactory, UserFactory
from quiktrade.models import WorkerNode

pytestmark = pytest.mark.django_db

NUL, SURROGATE, LONG = "\0", b"\xed\xa0\x80", "9" * 100_000
TEXTS: tuple[str | bytes, ...] = ("", NUL, SURROGATE, LONG, "x", "9" * 20, "0001-01-01", "9999-12-31")
ENDLESS = f'{{"url": "http://127.0.0.1:9", "timeout_seconds": 1{"0" * 400}}}'
JSON = (
    *("null", "1", "NaN", "[]", "[" * 9_999, '{"url": 1e999}', ENDLESS),
    *('{"url": "\\u0000"}', '{"url": "\\ud800"}', '{"\\u0000": 1}'),
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
PARAMETERS = (
    "q",
    "p",
    "o",
    "e",
    "all",
    "_facets",
    "_popup",
    "_to_field",
    "_changelist_filters",
    "keys",
    "next",
    "page",
)
LOOKUPS = ("__year", "__regex")


class Forms(HTMLParser):
    """The forms of a page that are sent by POST: where each goes, and its fields with what they hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, list[str]]]] = []
        self._fields: dict[str, list[str]] | None = None
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._fields = None
            if given.get("method", "").lower() == "post":
                self._fields = defaultdict(list)
                self.found.append((given.get("action", ""), self._fields))
        name = given.get("name")
        if self._fields is None or tag not in ("input", "select", "textarea", "button") or not name:
            return
        held = self._fields[name]
        self._inside = name
        if tag == "input" and (given.get("type") not in ("checkbox", "radio") or "checked" in given):
            held.append(given.get("value", ""))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "textarea" and self._fields is not None and not self._fields[self._inside]:
            self._fields[self._inside].append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._fields = None


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Client:
    """The console of a superuser, who may open every page. Each list has a row, so that every cell is shown."""
    monkeypatch.setattr("orders.admin.overview.PAGES", {})  # the sidebar is the same on all of them
    client = Client(raise_request_exception=False)
    client.force_login(UserFactory(username="root", is_superuser=True, is_staff=True, group="Administrator"))
    OrderFactory(status="failed", owner=UserFactory(username="alice"))
    now = timezone.now()
    WorkerNode.objects.create(name="node-1", started_at=now, heartbeat_at=now)
    Failure.objects.create(id="f" * 32, name="job", func="a.b", started=now, stopped=now, success=False, result="no")
    Schedule.objects.create(name="job", func="a.b", schedule_type=Schedule.MINUTES, minutes=1)
    OrmQ.objects.create(key="quiktrade", payload="", lock=now)
    return client


class Attack:
    """Sends requests, undoes their effects, and collects those for which the console failed."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.session = client.cookies["sessionid"].value
        self.sent = 0
        self.failed: list[str] = []

    def send(self, method: str, path: str, query: str = "", body: bytes = b"") -> Any:
        url, kind = f"{path}?{query}", "application/x-www-form-urlencoded"
        self.sent += 1
        with transaction.atomic():
            self.client.cookies["sessionid"] = self.session  # it may have been logged out
            response: Any = self.client.generic(method, url, body, content_type=kind)
            transaction.set_rollback(True)
        if response.status_code >= 500:
            error = response.exc_info[1] if response.exc_info else response.status_code
            self.failed.append(f"{method} {url[:200]} {body[:200]!r}: {error!r}"[:500])
        return response


def encoded(fields: Mapping[str, Any]) -> str:
    return urlencode(fields, doseq=True)


def patterns(resolver: Any, route: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from patterns(pattern, route + str(pattern.pattern))
        else:
            yield route + str(pattern.pattern), pattern


def pages(identifier: str | bytes | None = None) -> list[str]:
    """The paths of the console; each identifier in them is that of an existing row, or the given one."""
    rows = {model._meta.label_lower: model._default_manager.last() for model in admin.site._registry}
    paths = []
    for route, pattern in patterns(get_resolver()):
        if not route.startswith("admin/") or "catch_all" in repr(pattern.callback) or route.endswith("/$"):
            continue
        arguments = pattern.pattern.converters
        if "content_type_id" in arguments or (identifier is not None and not arguments):
            continue
        for name in arguments:
            parts = route.split("/")
            row = rows.get(".".join(parts[1:3]))
            value = quote(identifier) if identifier is not None else str(row.pk if row else 1)
            kind = "path:" if "path" in type(arguments[name]).__name__.lower() else ""
            route = route.replace(f"<{kind}{name}>", value)
        paths.append("/" + route)
    return paths


def lists() -> Iterator[tuple[str, Any]]:
    for model, page in admin.site._registry.items():
        yield f"/admin/{model._meta.app_label}/{model._meta.model_name}/", page


@pytest.fixture
def attack(browser: Client, request: pytest.FixtureRequest) -> Iterator[Attack]:
    attack = Attack(browser)
    yield attack
    assert attack.failed == []
    assert attack.sent > (100 if request.node.get_closest_marker("exhaustive") else 50)


@pytest.mark.exhaustive
def test_every_page_is_shown_and_takes_a_form_that_is_empty(attack: Attack) -> None:
    for path in pages():
        for method in ("GET", "POST"):
            attack.send(method, path)


def test_no_parameter_breaks_the_list_of_orders(attack: Attack) -> None:
    path = "/admin/orders/order/"
    filters = attack.client.get(path).context["cl"].filter_specs
    names = [name for filter_ in filters for name in filter_.expected_parameters() if name]
    for name in ("q", "p", "o", "_to_field", *names):
        for text in (NUL, SURROGATE, LONG, "9" * 20, "9999-12-31"):
            attack.send("GET", path, f"{name}={quote(text)}")


@pytest.mark.exhaustive
def test_every_page_takes_every_method(attack: Attack) -> None:
    for path in pages():
        for method in METHODS:
            attack.send(method, path)


@pytest.mark.exhaustive
def test_no_identifier_breaks_a_page(attack: Attack) -> None:
    for text in TEXTS:
        for path in pages(text):
            attack.send("GET", path)


@pytest.mark.exhaustive
def test_no_parameter_breaks_a_list(attack: Attack) -> None:
    for path, page in lists():
        filters = attack.client.get(path).context["cl"].filter_specs
        fields = [field.name for field in page.model._meta.get_fields()]
        names = [name for filter_ in filters for name in filter_.expected_parameters() if name]
        asked = [(name, text) for name in PARAMETERS for text in (SURROGATE, "9" * 20)]
        asked += [(name, text) for name in ("q", "p", *names) for text in TEXTS]
        for name, text in asked:
            attack.send("GET", path, f"{name}={quote(text)}")
        for name in [f"{field}{lookup}" for field in fields for lookup in LOOKUPS]:
            attack.send("GET", path, f"{name}=99999")


@pytest.mark.exhaustive
def test_no_field_breaks_a_form(attack: Attack) -> None:
    seen: set[tuple[str, str]] = set()
    for path in pages():
        attack.client.cookies["sessionid"] = attack.session
        for action, fields in Forms(attack.client.get(path).content.decode()).found:
            for name in fields:
                if (action or path, name) in seen or name == "csrfmiddlewaretoken":
                    continue  # the button to log out is on every page
                seen.add((action or path, name))
                for text in (*TEXTS[:-2], *(JSON if name == "settings" else ())):
                    sent = encoded({other: held for other, held in fields.items() if other != name})
                    attack.send("POST", action or path, body=f"{sent}&{name}={quote(text)}".encode())


def test_nobody_asks_for_what_no_filter_offers(browser: Client) -> None:
    for query in ("place_by__year=2026", "last_error__regex=x", "owner__password__startswith=p", "owner__email=x"):
        assert browser.get(f"/admin/orders/order/?{query}").status_code == 400, query
    for query in ("password__startswith=p", "email__startswith=a", "date_joined__year=99999"):
        assert browser.get(f"/admin/auth/user/?{query}").status_code == 400, query
