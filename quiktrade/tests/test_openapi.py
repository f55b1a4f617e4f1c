"""The OpenAPI document says what the API does."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from orders.tests.factories import OrderFactory, UserFactory, VenueFactory
from quiktrade.auth.tokens import AccessToken
from quiktrade.auth.views import TokenThrottle
from quiktrade.models import ClientLimits, TokenBucket

pytestmark = pytest.mark.django_db

ORDERS, CANCEL, TOKEN = "/api/v1/orders", "/api/v1/orders/{id}/cancel", "/api/v1/auth/token"
REPLACE = "/api/v1/orders/{id}/replace"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    document: dict[str, Any] = APIClient().get("/api/v1/schema").json()
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


@pytest.fixture
def alice() -> APIClient:
    VenueFactory()
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {AccessToken.for_user(UserFactory(username='alice'))}")
    return client


def test_every_example_of_an_order_is_accepted_and_has_an_id_of_the_clients_own(
    document: dict[str, Any], alice: APIClient
) -> None:
    content = document["paths"][ORDERS]["post"]["requestBody"]["content"]["application/json"]
    examples = [example["value"] for example in content["examples"].values()]
    assert len(examples) == 3
    for example in examples:
        response = alice.post(ORDERS, example)
        assert (response.status_code, response.json()["client_order_id"]) == (201, example["client_order_id"])
    content = document["paths"][f"{ORDERS}/batch"]["post"]["requestBody"]["content"]["application/json"]
    (batch,) = content["examples"].values()
    results = alice.post(f"{ORDERS}/batch", batch["value"]).json()["results"]
    assert [result["status"] for result in results] == [200, 200]


def test_the_example_of_a_201_is_an_order_that_has_just_been_stored(document: dict[str, Any], alice: APIClient) -> None:
    body = document["paths"][ORDERS]["post"]["requestBody"]["content"]["application/json"]
    responses = document["paths"][ORDERS]["post"]["responses"]
    (answer,) = responses["201"]["content"]["application/json"]["examples"].values()
    stored = alice.post(ORDERS, body["examples"]["LimitOrder"]["value"]).json()
    differs = {name for name in stored if stored[name] != answer["value"][name]}
    assert differs == {"id", "created_at", "updated_at", "next_attempt_at"}
    assert answer["value"].keys() == stored.keys()
    (answer,) = document["paths"][CANCEL]["post"]["responses"]["200"]["content"]["application/json"][
        "examples"
    ].values()
    assert answer["value"]["status"] == "canceled"


def test_what_is_refused_where_it_is_unknown_is_declared_so(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("NewOrderRequest", "NewOrderBatchRequest", "CancelRequest"):
        assert schemas[name]["additionalProperties"] is False
    order = schemas["NewOrderRequest"]
    assert order["required"] == ["instrument", "quantity", "side", "type"]
    optional = [field for name, field in order["properties"].items() if name not in order["required"]]
    assert all(field["nullable"] and "default" not in field for field in optional)


def test_every_property_of_an_answer_that_is_always_there_is_required(
    document: dict[str, Any], alice: APIClient
) -> None:
    schemas = document["components"]["schemas"]
    begin = alice.get(f"{ORDERS}/events").json()["next_cursor"]
    order = alice.post(ORDERS, {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1}).json()
    page = alice.get(ORDERS).json()
    (event,) = alice.get(f"{ORDERS}/{order['id']}/events").json()
    (venue,) = alice.get("/api/v1/venues").json()
    told = alice.get(f"{ORDERS}/events?after={begin}").json()
    answers = {"Order": order, "OrderPage": page, "OrderEvent": event, "Venue": venue, "FeedPage": told}
    for name, answer in answers.items():
        assert set(schemas[name]["required"]) == set(schemas[name]["properties"]) == set(answer)


def test_a_list_is_declared_as_the_page_that_it_is_with_its_filters(document: dict[str, Any]) -> None:
    listing = document["paths"][ORDERS]["get"]
    page = listing["responses"]["200"]["content"]["application/json"]["schema"]
    assert page == {"$ref": "#/components/schemas/OrderPage"}
    parameters = {parameter["name"]: parameter for parameter in listing["parameters"]}
    assert (parameters["status"]["style"], parameters["status"]["explode"]) == ("form", True)
    assert parameters["status"]["schema"]["items"] == {"$ref": "#/components/schemas/Status"}
    assert parameters["side"]["schema"] == {"$ref": "#/components/schemas/Side"}
    assert parameters["created_from"]["schema"]["format"] == "date-time"
    assert set(parameters) == {
        *("status", "side", "type", "instrument", "venue", "client_order_id", "created_from", "created_before"),
        *("ordering", "limit", "cursor"),
    }
    parameters = {parameter["name"]: parameter for parameter in document["paths"][CANCEL]["post"]["parameters"]}
    assert set(parameters) == {"id", "Idempotency-Key"}
    assert parameters["id"]["schema"] == {"type": "string", "format": "uuid"}


def test_what_a_post_made_is_linked_to_what_can_be_done_with_it(document: dict[str, Any]) -> None:
    by_id = {operation["operationId"]: operation for _, _, operation in operations(document)}
    for path, code, some in (
        (ORDERS, "201", {"orders_retrieve", "orders_events_list", "orders_cancel_create", "orders_replace_create"}),
        (ORDERS, "200", {"orders_retrieve", "orders_events_list", "orders_cancel_create", "orders_replace_create"}),
        ("/api/v1/webhooks", "201", {"webhooks_retrieve", "webhooks_partial_update", "webhooks_destroy"}),
    ):
        links = document["paths"][path]["post"]["responses"][code]["links"]
        assert some <= set(links)
        for link in links.values():
            parameters = by_id[link["operationId"]]["parameters"]
            assert [each["name"] for each in parameters if each["in"] == "path"] == ["id"]
            assert link["parameters"] == {"id": "$response.body#/id"}


def test_every_error_has_examples_of_its_own_status_and_kind(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        errors = {code: answer for code, answer in operation["responses"].items() if code >= "400"}
        assert {"401", "405", "406", "414", "431", "500", "503"} <= set(errors)
        limited = method == "get" or path in (ORDERS, f"{ORDERS}/batch", REPLACE, TOKEN, "/api/v1/auth/password")
        assert ("429" in errors) == limited
        assert ("404" in errors) == ("{" in path)
        assert ({"400", "413", "415"} <= set(errors)) == (method in ("post", "patch"))
        for code, answer in errors.items():
            examples = answer["content"]["application/problem+json"]["examples"]
            assert {str(example["value"]["status"]) for example in examples.values()} == {code}
            assert all(example["value"]["type"].endswith(f":{kind}") for kind, example in examples.items())


def test_the_errors_that_are_met_are_among_the_examples(
    document: dict[str, Any], alice: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenThrottle, "THROTTLE_RATES", {"token": "1/min"})
    market = {"type": "market", "side": "buy", "instrument": "US0378331005", "quantity": 1, "client_order_id": "a"}
    alice.post(ORDERS, market)
    filled = OrderFactory(owner=User.objects.get(username="alice"), status="filled").pk
    unknown = "019a1c2e-7b1f-7c3d-9a55-0242ac120002"
    nobody = APIClient(REMOTE_ADDR="192.0.2.9")
    met = [
        ("post", ORDERS, alice.post(ORDERS, {**market, "quantity": 0})),
        ("post", ORDERS, alice.post(ORDERS, {**market, "quantity": 2})),
        ("post", ORDERS, alice.generic("POST", ORDERS, "{", content_type="application/json")),
        ("post", ORDERS, alice.generic("POST", ORDERS, " " * 100_000, content_type="application/json")),
        ("post", ORDERS, alice.generic("POST", ORDERS, "x", content_type="text/plain")),
        ("post", ORDERS, nobody.post(ORDERS, market)),
        ("get", ORDERS, alice.get(f"{ORDERS}?limit=0")),
        ("get", ORDERS, alice.put(ORDERS)),
        ("get", ORDERS, alice.get(ORDERS, headers={"Accept": "text/csv"})),
        ("get", "/api/v1/orders/{id}", alice.get(f"{ORDERS}/{unknown}")),
        ("get", f"{ORDERS}/events", alice.get(f"{ORDERS}/events?after=x")),
        ("get", f"{ORDERS}/events", alice.get(f"{ORDERS}/events?after=0000.1.1")),
        ("get", f"{ORDERS}/stream", alice.get(f"{ORDERS}/stream?after=x")),
        ("post", CANCEL, alice.post(f"{ORDERS}/{filled}/cancel")),
        ("post", REPLACE, alice.post(f"{ORDERS}/{filled}/replace", {"quantity": 9})),
        ("post", f"{ORDERS}/cancel", alice.post(f"{ORDERS}/cancel", {})),
        ("get", "/api/v1/venues/{code}", alice.get("/api/v1/venues/XXXX")),
        ("post", TOKEN, nobody.post(TOKEN, {"username": "alice", "password": "wrong"})),
        ("post", TOKEN, nobody.post(TOKEN, {"username": "alice", "password": "wrong"})),
        ("post", f"{TOKEN}/refresh", nobody.post(f"{TOKEN}/refresh", {"refresh": "x"})),
    ]
    user = User.objects.get(username="alice")
    ClientLimits.objects.create(user=user, orders_per_second=1, reads_per_second=1)
    for name in ("orders", "reads"):
        TokenBucket.objects.create(user=user, name=name, tokens=-1000, refilled_at=timezone.now())
    placed = OrderFactory(owner=user, status="placed").pk
    met += [
        ("post", ORDERS, alice.post(ORDERS, market | {"client_order_id": "c"})),
        ("post", f"{ORDERS}/batch", alice.post(f"{ORDERS}/batch", {"orders": [market | {"client_order_id": "c"}]})),
        ("post", REPLACE, alice.post(f"{ORDERS}/{placed}/replace", {"quantity": 9})),
        ("get", ORDERS, alice.get(ORDERS)),
    ]
    assert [response.status_code for *_, response in met[-4:]] == [429] * 4
    for method, path, response in met:
        declared = document["paths"][path][method]["responses"][str(response.status_code)]
        limited = {name for name in ("Retry-After", "RateLimit", "RateLimit-Policy") if name in response}
        assert limited <= declared.get("headers", {}).keys()
        examples = declared["content"]["application/problem+json"]["examples"]
        assert response.json()["type"] in {example["value"]["type"] for example in examples.values()}
        problem = document["components"]["schemas"]["Problem"]["properties"]
        assert response.json().keys() <= problem.keys()
    assert {response.status_code for *_, response in met} == {400, 401, 404, 405, 406, 409, 410, 413, 415, 429}


def test_a_stranger_is_told_where_a_token_comes_from_and_where_it_goes(document: dict[str, Any]) -> None:
    told = document["info"]["description"]
    assert all(word in told for word in ("POST /api/v1/auth/token", "Authorization: Bearer", "Authorize", "alice"))
    scheme = document["components"]["securitySchemes"]["jwtAuth"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert "POST /api/v1/auth/token" in scheme["description"]
    assert document["servers"][0]["url"] == "/"
    public = {path for _, path, operation in operations(document) if not operation.get("security")}
    assert public == {TOKEN, f"{TOKEN}/refresh", f"{TOKEN}/verify", "/api/v1/auth/logout"}


def test_the_answers_to_orders_say_how_many_more_may_be_sent(document: dict[str, Any]) -> None:
    for path, statuses in ((ORDERS, ("200", "201")), (f"{ORDERS}/batch", ("200",)), (REPLACE, ("200", "202"))):
        for status in (*statuses, "429"):
            headers = document["paths"][path]["post"]["responses"][status]["headers"]
            assert {"RateLimit", "RateLimit-Policy"} <= headers.keys()
            assert "Experimental" in headers["RateLimit"]["description"]
