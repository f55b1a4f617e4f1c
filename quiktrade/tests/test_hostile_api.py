"""Whatever a client sends, the answer is one that the OpenAPI document declares, and never a 500.

The requests are made from the document: each field of each body, each parameter and each header with values that no
client should send, each body replaced by one that is none, each path with each method. A new endpoint or field is
tried without being named here.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from orders.streaming import hub
from orders.tests.factories import OrderFactory, UserFactory
from orders.webhooks.services import create_endpoint, send_test
from quiktrade.api.handler import Request
from quiktrade.auth import clients
from quiktrade.auth.tokens import AccessToken, RefreshToken
from quiktrade.auth.views import PasswordThrottle, TokenThrottle
from quiktrade.tests.processes import wait_until

pytestmark = [pytest.mark.django_db, pytest.mark.remembers]

PASSWORD = "correct horse"
CREDENTIALS = {"client_id", "client_secret"}
"""They are not required in the body, because they may stand in a header."""
LARGEST_REFUSAL = 64 * 1024

TEXTS = [
    "",
    " ",
    "\t\n",
    "\0",
    "a\0b",
    "x" * 100,
    "x" * 10_000,
    "x" * 100_000,
    "1" * 5_000,
    "-1",
    "1.5",
    "1e400",
    "NaN",
    "٣",
    "é\u202e\U0001f4a9",
    "a/b~c%s{0}'\"\\;--",
    "../..",
    "null",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2030-02-30T25:61:61Z",
    "US0378331005,",
]
VALUES: list[Any] = [
    *TEXTS,
    "\ud800",
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1e300,
    10**18,
    10**400,
    [],
    [None],
    [[]],
    ["x"] * 1_000,
    {},
    {"": None},
    {"a": {"b": []}},
]
BODIES = [
    b"",
    b" ",
    b"\0",
    b"{",
    b"{}x",
    b"\xff",
    b"\xef\xbb\xbf{}",
    b"[" * 50_000,
    b'{"a":' * 10_000,
    b" " * 2_000_000,
    b"null",
    b"true",
    b"7",
    b'"x"',
    b"[]",
    b"[{}]",
    b"{}",
    b'{"": 1}',
    b'{"\\ud800": 1}',
    b'{"a\\u0000": 1}',
    b'{"a": 1, "a": 2}',
    b"NaN",
    b"1e99999999999999999999",
    b"1" * 5_000,
]
NOTHING_AT_ALL = "\N{LATIN SMALL LETTER Y WITH DIAERESIS}\x80"
HEADERS = {
    "Accept": [
        "",
        "x",
        "text/html",
        "*/*;q=0",
        "application/json;q=x",
        "/",
        ";;;",
        "a/b," * 2_000,
        "application/json; a*=bogus'en'x",
        "a/b; a*=undefined'en'%ff",
        NOTHING_AT_ALL,
    ],
    "Authorization": [
        "",
        " ",
        "Bearer",
        "bearer x",
        "Bearer x y",
        "Bearer ..",
        "Bearer a.b.c",
        "Bearer " + "x" * 100_000,
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "Bearer eyJhbGciOiJIUzI1NiJ9.bnVsbA.x",
        f"Bearer {NOTHING_AT_ALL}",
        "Basic YWxpY2U6eA==",
        NOTHING_AT_ALL,
    ],
    "Content-Type": [
        "",
        "x",
        "/",
        ";",
        "text/plain",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json; charset=rot13",
        "application/json; charset=undefined",
        "application/json; charset=" + "x" * 1_000,
        "application/json; charset*=bogus'en'x",
        "application/json; charset*=undefined'en'%ff",
        "application/json; a*0*=x",
        NOTHING_AT_ALL,
    ],
    "Idempotency-Key": ["", " ", '"', '""', "a b", "x" * 100, "x" * 10_000, "a,b", "\0", NOTHING_AT_ALL],
    "Cookie": ["sessionid=x; csrftoken=\0", NOTHING_AT_ALL],
    "X-Forwarded-For": ["", ",", "x" * 10_000, NOTHING_AT_ALL],
    "Accept-Language": ["\0", "x" * 10_000],
    "X-HTTP-Method-Override": ["DELETE"],
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "X" * 100]

NOT_DECLARED = {"Accept": {406}}
"""What every operation may answer to a wrong header, beyond what the document says about it."""


class Operation(NamedTuple):
    method: str
    path: str
    declared: frozenset[int]
    queries: list[str]
    in_path: list[str]
    shape: dict[str, Any] | None
    """The schema of the body, resolved; None if the operation takes none."""
    body: Any

    def url(self, **changed: str) -> str:
        path = self.path
        for name in self.in_path:
            path = path.replace(f"{{{name}}}", quote(changed.get(name, "{" + name + "}"), safe="{}"))
        return path


class Api:
    """Sends requests as alice, and undoes their effects."""

    def __init__(self) -> None:
        self.document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
        self.alice: User = UserFactory(username="alice", password=PASSWORD)
        self.order = OrderFactory(owner=self.alice)
        self.working = OrderFactory(owner=self.alice, status="placed")
        self.webhook = create_endpoint(self.alice.pk, url="https://example.com/")
        self.delivery = send_test(self.webhook)
        refresh = str(RefreshToken.for_user(self.alice))
        bot = clients.create(user=self.alice, name="bot", scope="orders:read")
        self.known: dict[str, Any] = {
            "id": str(self.order.pk),
            "delivery_id": str(self.delivery.pk),
            "code": "XSIM",
            "username": "alice",
            "password": PASSWORD,
            "old_password": PASSWORD,
            "new_password": "staple battery",
            "token": refresh,
            "refresh": refresh,
            "grant_type": "client_credentials",
            "client_id": bot.pk,
            "client_secret": clients.add_secret(bot),
        }
        """A right value for each name that needs one and has no example."""
        self.client = APIClient(raise_request_exception=False)
        self.client.credentials(HTTP_AUTHORIZATION=f"Bearer {AccessToken.for_user(self.alice)}")
        self.asked = 0
        self.faults: list[str] = []

    def operations(self) -> Iterator[Operation]:
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                parameters = operation.get("parameters", [])
                in_path = [each["name"] for each in parameters if each["in"] == "path"]
                shape, body = self._body(operation)
                yield Operation(
                    method.upper(),
                    path,
                    frozenset(int(status) for status in operation["responses"]),
                    [each["name"] for each in parameters if each["in"] == "query"],
                    in_path,
                    shape,
                    body,
                )

    def _body(self, operation: dict[str, Any]) -> tuple[dict[str, Any] | None, Any]:
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            return None, None
        shape = self._resolved(content["schema"])
        examples = [example["value"] for example in content.get("examples", {}).values()]
        needed = {*shape.get("required", []), *(CREDENTIALS & shape.get("properties", {}).keys())}
        required = {name: self.known[name] for name in sorted(needed)} if not examples else {}
        return shape, (examples or [required])[0]

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        for part in schema.get("allOf", []):
            schema = {**schema, **part}
        if "$ref" not in schema:
            return schema
        return self._resolved(self.document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]])

    def wrong_bodies(self, shape: dict[str, Any], body: Any) -> Iterator[Any]:
        """The body with one value in it replaced, at every place that the schema knows."""
        for name, inner in shape.get("properties", {}).items():
            for value in VALUES:
                yield {**body, name: value}
            if name in body:
                for changed in self.wrong_bodies(self._resolved(inner), body[name]):
                    yield {**body, name: changed}
        if "items" in shape and body:
            for changed in self.wrong_bodies(self._resolved(shape["items"]), body[0]):
                yield [changed, *body[1:]]

    def ask(
        self,
        operation: Operation,
        url: str | None = None,
        body: Any = None,
        also: Iterable[int] = (),
        **headers: str,
    ) -> None:
        known = self.known
        if "/webhooks/" in operation.path:
            known = {**known, "id": str(self.webhook.pk)}
        elif operation.path.endswith("/replace"):
            known = {**known, "id": str(self.working.pk)}
        url = url or operation.url()
        for name in ("id", "code", "delivery_id"):
            url = url.replace(f"{{{name}}}", known[name])
        if body is None:
            body = b"" if operation.shape is None else operation.body
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        media_type = headers.pop("Content-Type", "application/json")
        with transaction.atomic():
            answer: Any = self.client.generic(operation.method, url, content, media_type, headers=headers)  # type: ignore[arg-type]
            transaction.set_rollback(True)
        if answer.streaming:
            answer._at_end()  # close() would also end the connection to the database
        self.asked += 1
        if (why := self._fault(answer, {*operation.declared, *also})) is not None:
            said = f"{operation.method} {url} {content[:200]!r} {media_type} {headers}"
            self.faults.append(f"{answer.status_code} {why}: {said[:600]} {answer.content[:300]!r}")

    def _fault(self, answer: Any, allowed: set[int]) -> str | None:
        if answer.status_code >= 500:
            return "a fault of ours"
        if answer.status_code not in allowed:
            return "not declared"
        if answer.status_code >= 400:
            if answer["Content-Type"] != "application/problem+json":
                return "no problem document"
            if answer.status_code == 401 and not answer["WWW-Authenticate"].startswith(("Bearer", "Basic")):
                return "no scheme"
            if len(answer.content) > LARGEST_REFUSAL:
                return "a refusal that is too long"
        return None

    def check(self, at_least: int) -> None:
        assert not self.faults, "\n".join([f"{len(self.faults)} of {self.asked}:", *self.faults[:40]])
        assert self.asked >= at_least


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr("django.test.client.WSGIRequest", Request)  # as the server makes it
    for throttle in (TokenThrottle, PasswordThrottle):
        monkeypatch.setattr(throttle, "THROTTLE_RATES", {"token": None})
    yield Api()
    wait_until(lambda: hub._tail is None)  # its connection would outlive the database


def test_what_is_right_is_answered_as_declared(api: Api) -> None:
    """The other tests change a right request in one place. If it were not right, they would test little."""
    for operation in api.operations():
        before = len(api.faults)
        right = Operation(**{**operation._asdict(), "declared": frozenset({200, 201, 202, 204})})
        api.ask(right)
        assert len(api.faults) == before, api.faults
    api.check(at_least=12)


@pytest.mark.exhaustive
def test_every_field_of_every_body(api: Api) -> None:
    for operation in api.operations():
        if operation.shape is not None:
            for body in api.wrong_bodies(operation.shape, operation.body):
                api.ask(operation, body=body)
    api.check(at_least=len(VALUES) * 25)


@pytest.mark.exhaustive
def test_every_body_that_is_none(api: Api) -> None:
    for operation in api.operations():
        for body in BODIES:
            api.ask(operation, body=body)
    api.check(at_least=len(BODIES) * 12)


@pytest.mark.exhaustive
def test_every_parameter_of_every_path_and_query(api: Api) -> None:
    for operation in api.operations():
        for text in TEXTS:
            for name in operation.in_path:
                if text:
                    api.ask(operation, operation.url(**{name: text}))
            for name in operation.queries:
                api.ask(operation, f"{operation.url()}?{name}={quote(text, safe='')}")
        for name in (*operation.queries, "unknown", "format", "\0"):
            for raw in ("%FF", "%ED%A0%80", "%", "%u0000", "a&" * 1_100, f"1&{quote(name)}=2", "a;b=c"):
                api.ask(operation, f"{operation.url()}?{quote(name)}={raw}", also={400})
        for name in operation.in_path:
            for raw in ("%FF", "%ED%A0%80", "%2F", "%2e%2e", "a;b", "%0d%0aX:y"):
                api.ask(operation, operation.path.replace(f"{{{name}}}", raw))
    api.check(at_least=len(TEXTS) * 12)


@pytest.mark.exhaustive
def test_every_header(api: Api) -> None:
    for operation in api.operations():
        for name, values in HEADERS.items():
            for value in values:
                api.ask(operation, also=NOT_DECLARED.get(name, set()), **{name: value})
                for query in operation.queries[:1]:  # which Django reads by the Content-Type's charset
                    api.ask(operation, f"{operation.url()}?{query}=%C3%A9", also={400, 406}, **{name: value})
    api.check(at_least=600)


@pytest.mark.parametrize("known", [True, False])
def test_every_method_of_every_path(api: Api, known: bool) -> None:
    if not known:
        api.client.credentials()
    pages = [f"/api/v1/{page}" for page in ("", "docs", "redoc")]
    for path in (*api.document["paths"], *pages):
        offered = {method.upper() for method in api.document["paths"].get(path, {"get": None})}
        for method in METHODS:
            if method in offered or (method == "HEAD" and "GET" in offered):
                continue
            allowed = {405} if known or path in pages or "/token" in path or "/logout" in path else {401, 405}
            if method == "OPTIONS" and path not in pages[1:]:
                allowed |= {200}
            nothing = Operation(method, path, frozenset(allowed), [], [], None, None)
            api.ask(nothing)
    api.check(at_least=100)


def test_the_pages_for_people(api: Api) -> None:
    for page in ("", "docs", "redoc"):
        operation = Operation("GET", f"/api/v1/{page}", frozenset({200, 404, 406}), [], [], None, None)
        for text in TEXTS:
            for name in ("lang", "version", "format"):
                api.ask(operation, f"{operation.path}?{name}={quote(text, safe='')}")
        for value in HEADERS["Accept"]:
            api.ask(operation, Accept=value)
    schema = Operation("GET", "/api/v1/schema", frozenset({200, 406}), [], [], None, None)
    for query in ("lang=%00", "lang=xx", f"lang={'x' * 1000}", "lang=..%2F", "version=%00", "format=%00"):
        api.ask(schema, f"/api/v1/schema?{query}")
    api.check(at_least=200)
