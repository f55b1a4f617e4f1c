"""What the answer to a wrong request says: the words that tell a stranger what to do next."""

import json
import sys
from typing import Any, NamedTuple

import pytest
from rest_framework.test import APIClient

from orders.tests.factories import UserFactory, VenueFactory
from quiktrade.auth.tokens import AccessToken
from quiktrade.tests.test_api_errors import bearing

pytestmark = pytest.mark.django_db

ORDERS = "/api/v1/orders"
BATCH = f"{ORDERS}/batch"
AN_ORDER = f"{ORDERS}/019a1c2e-7b1f-7c3d-9a55-0242ac120002"
LIMIT = {"type": "limit", "side": "buy", "instrument": "US0378331005", "limit_price": "187.50", "quantity": 100}
JSON = "application/json"


class Said(NamedTuple):
    """A request, and what its answer must contain. `at` is the pointer, parameter or header of its error."""

    request: str
    body: Any
    status: int
    kind: str
    at: str | None
    words: list[str]
    headers: dict[str, str] = {}
    media_type: str = JSON


def wrong(at: str, value: Any, *words: str) -> Said:
    return Said(f"POST {ORDERS}", {**LIMIT, at: value}, 400, "validation-error", f"#/{at}", list(words))


def query(text: str, at: str, *words: str) -> Said:
    return Said(f"GET {ORDERS}?{text}", None, 400, "validation-error", at, list(words))


def malformed(body: bytes, *words: str) -> Said:
    return Said(f"POST {ORDERS}", body, 400, "malformed-body", "#", list(words))


TABLE = [
    # What is allowed
    wrong("side", "BUY", "Allowed are: buy, sell; in lower case."),
    wrong("side", "up", "Allowed are: buy, sell."),
    wrong("side", 7, "buy, sell"),
    wrong("type", "Limit", "market, limit, stop, stop_limit", "lower case"),
    wrong("time_in_force", "GTC", "day, gtc, ioc, fok, gtd", "lower case"),
    wrong("colour", "red", "Unknown", "instrument"),
    wrong("venue", "XNYS", "Known: XSIM"),
    wrong("venue", 7, "A JSON string"),
    wrong("quantity", "5", "without quotes"),
    wrong("client_order_id", "a b", "1 to 64 characters"),
    query("side=BUY", "side", "buy, sell", "lower case"),
    query("ordering=up", "ordering", "-created_at, created_at"),
    query("status=PENDING", "status", "pending"),
    query("venue=xsim", "venue", "four characters A-Z", "/api/v1/venues"),
    query("instrument=AAPL", "instrument", "12 characters A-Z"),
    query("client_order_id=a%20b", "client_order_id", "1 to 64 characters"),
    query("created_from=2026-01-31T09:30:00+02:00", "created_from", "%2B"),
    query("created_from=yesterday", "created_from", "2030-01-31T09:30:00Z"),
    query("since=1", "since", "Unknown", "created_from"),
    # ISINs
    wrong("instrument", "US0378331006", "check digit of US0378331006 is not 6; it would be 5"),
    wrong("instrument", "US0373831005", "it would be 9"),
    wrong("instrument", "us0378331005", "upper case", "US0378331005"),
    wrong("instrument", " US0378331005", "without blanks"),
    wrong("instrument", "AAPL", "ticker", "ISIN"),
    wrong("instrument", "brk.b", "ticker"),
    wrong("instrument", "US03783310055", "12 characters"),
    wrong("instrument", "ZZ0378331001", "No ISIN begins with ZZ", "ISO 3166", "EU, QS", "XS."),
    # Bodies
    Said(f"POST {ORDERS}", [LIMIT], 400, "validation-error", "#", [BATCH, '{"orders": [...]}']),
    Said(f"POST {BATCH}", [LIMIT], 400, "validation-error", "#", ['{"orders": [...]}']),
    Said(f"POST {BATCH}", {"orders": LIMIT}, 400, "validation-error", "#/orders", ["array of orders"]),
    Said(f"POST {BATCH}", {"orders": []}, 400, "validation-error", "#/orders", ["At least one"]),
    Said("POST /api/v1/auth/token", [], 400, "validation-error", "#", ["A JSON object"]),
    malformed(b'\xef\xbb\xbf{"type": "limit"}', "byte-order mark"),
    malformed(b"\xff\xfe{", "UTF-8"),
    malformed(b'{"quantity": 1,}', "line 1 column 15" if sys.version_info >= (3, 13) else "line 1 column 16"),
    malformed(b'{"quantity": ' + b"1" * 5000 + b"}", "more than 4300 digits"),
    malformed(b'{"quantity": 1, "quantity": 1}', "'quantity' is given twice"),
    # Media types, methods, paths
    Said(f"POST {ORDERS}", b"x", 415, "unsupported-media-type", None, [JSON], media_type="text/plain"),
    Said(f"GET {ORDERS}", None, 406, "not-acceptable", None, [JSON], {"Accept": "text/csv"}),
    Said(f"DELETE {AN_ORDER}", None, 405, "method-not-allowed", None, ["GET", "/api/v1/orders/{id}/cancel"]),
    Said(f"PUT {AN_ORDER}", LIMIT, 405, "method-not-allowed", None, ["/api/v1/orders/{id}/cancel"]),
    Said("DELETE /api/v1/venues", None, 405, "method-not-allowed", None, ["GET"]),
    Said("GET /api/v1/order", None, 404, "not-found", None, ["/api/v1/docs", "/api/v1/"]),
    Said("GET /api/v2/orders", None, 404, "not-found", None, ["/api/v1/docs"]),
    Said("GET /api/v1/venues/XNYS", None, 404, "not-found", None, ["/api/v1/venues"]),
    Said(f"GET {ORDERS}?{'a&' * 1001}", None, 400, "bad-request", None, ["1000 parameters"]),
    Said(f"GET {ORDERS}", None, 400, "bad-request", None, ["Host"], {"Host": "elsewhere.example"}),
]


@pytest.mark.parametrize("said", TABLE, ids=[f"{said.request[:60]} {str(said.body)[-60:]}" for said in TABLE])
def test_an_answer_names_what_is_wrong_and_what_is_allowed(said: Said) -> None:
    VenueFactory()
    method, path = said.request.split(" ")
    body = said.body if isinstance(said.body, bytes) else b"" if said.body is None else json.dumps(said.body).encode()

    response = bearing(AccessToken.for_user(UserFactory())).generic(
        method,
        path,
        body,  # type: ignore[arg-type]
        said.media_type,
        headers=said.headers,
    )

    problem = response.json()
    assert (response.status_code, problem["type"]) == (said.status, f"urn:quiktrade:problem:{said.kind}")
    assert response["Content-Type"] == "application/problem+json"
    text = problem["detail"]
    if said.at is not None:
        (error,) = problem["errors"]
        assert said.at in (error.get("pointer"), error.get("parameter"), error.get("header"))
        text = error["detail"]
    assert [word for word in said.words if word not in text] == [], text


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/"])
def test_the_api_has_an_index(path: str) -> None:
    index = APIClient().get(path, headers={"Host": "localhost"}).json()
    assert index == {
        "docs": "http://localhost/api/v1/docs",
        "schema": "http://localhost/api/v1/schema",
        "token": "http://localhost/api/v1/auth/token",
        "orders": "http://localhost/api/v1/orders",
        "executions": "http://localhost/api/v1/executions",
        "positions": "http://localhost/api/v1/positions",
        "webhooks": "http://localhost/api/v1/webhooks",
        "venues": "http://localhost/api/v1/venues",
    }


@pytest.mark.parametrize("page", ["docs", "redoc", "schema", ""])
@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "TRACE"])
def test_a_method_that_a_page_does_not_have_is_a_problem_in_json(page: str, method: str) -> None:
    response = APIClient().generic(method, f"/api/v1/{page}", headers={"Accept": "text/html, */*"})
    assert (response.status_code, response["Content-Type"]) == (405, "application/problem+json")
    assert response.json()["type"] == "urn:quiktrade:problem:method-not-allowed"


# ---- A refusal is no larger than it needs to be ----

NAMES = {f"n{number}": 1 for number in range(5_000)}


def refused(path: str, body: Any) -> Any:
    VenueFactory()
    return bearing(AccessToken.for_user(UserFactory())).post(path, body)


def test_of_many_errors_fifty_are_named_and_the_others_counted() -> None:
    problem = refused(ORDERS, {**LIMIT, **NAMES}).json()
    assert len(problem["errors"]) == 50
    assert problem["detail"] == "The body has 5000 errors. 4950 of them are left out here."


def test_a_name_is_quoted_up_to_a_length() -> None:
    (error,) = refused(ORDERS, {**LIMIT, "n" * 50_000: 1}).json()["errors"]
    assert error["pointer"] == f"#/{'n' * 64}…"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (ORDERS, {**LIMIT, **NAMES}),
        (ORDERS, {"n" * 60_000: 1}),
        (ORDERS, b'{"%b": 1, "%b": 1}' % (b"n" * 30_000, b"n" * 30_000)),
        (ORDERS, {**LIMIT, "side": "x" * 60_000, "type": "x" * 60_000}),
        (ORDERS, {**LIMIT, "instrument": "X" * 60_000, "venue": "x" * 60_000}),
        (BATCH, {"orders": [], **NAMES}),
        (f"{ORDERS}?status={'x' * 4000}", None),
        (f"{ORDERS}?{'n' * 4000}=1", None),
        ("/api/v1/auth/token", {"username": "n" * 60_000, "password": "n" * 60_000}),
    ],
)
def test_an_answer_repeats_little_of_its_request(path: str, body: Any) -> None:
    client = bearing(AccessToken.for_user(UserFactory()))
    VenueFactory()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    response = client.generic(method, path, b"" if body is None else content, JSON)  # type: ignore[arg-type]
    assert response.status_code in (400, 401, 413)
    assert len(response.content) < 16_000


def test_a_batch_shares_its_errors_out_among_its_orders() -> None:
    few = refused(BATCH, {"orders": [NAMES, LIMIT]}).json()["results"]
    assert len(few[0]["problem"]["errors"]) == 50
    assert few[1]["status"] == 201

    many = refused(BATCH, {"orders": [{f"n{number}": 1 for number in range(100)}] * 500})
    assert {len(result["problem"]["errors"]) for result in many.json()["results"]} == {2}
    assert len(many.content) < 500 * 1024
