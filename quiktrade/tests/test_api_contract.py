"""The API's contract: the document that is agreed on, and what counts as a break of what was released."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from quiktrade.api.compatibility import breaks
from quiktrade.management.commands import api_contract
from quiktrade.management.commands.api_contract import HOW_TO_WRITE, RELEASED, SNAPSHOT, as_text, described

Document = dict[str, Any]
ORDERS, ONE = "/api/v1/orders", "/api/v1/orders/{id}"


@pytest.fixture(scope="module")
def document() -> Document:
    return described()


def schemas(document: Document, name: str) -> Document:
    schema: Document = document["components"]["schemas"][name]
    return schema


def parameter(document: Document, path: str, name: str) -> Document:
    (found,) = (each for each in document["paths"][path]["get"]["parameters"] if each["name"] == name)
    schema: Document = found
    return schema


def test_the_api_is_described_by_the_document_that_was_reviewed(document: Document) -> None:
    assert SNAPSHOT.read_text() == as_text(document), HOW_TO_WRITE


def test_no_client_of_the_last_release_fails_with_what_is_described_now(document: Document) -> None:
    assert breaks(json.loads(RELEASED.read_text()), document) == []


def move(path: str, other: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document["paths"][other] = document["paths"].pop(path)

    return change


def put(*where: str | int, **values: Any) -> Callable[[Document], None]:
    """Set `values` in the object at `where`; None takes one away."""

    def change(document: Document) -> None:
        at: Any = document
        for step in where:
            at = at[step]
        for name, value in values.items():
            if value is None:
                del at[name]
            else:
                at[name] = value

    return change


def properties(name: str, **values: Any) -> Callable[[Document], None]:
    return put("components", "schemas", name, "properties", **values)


def of_property(name: str, property: str, **values: Any) -> Callable[[Document], None]:
    return put("components", "schemas", name, "properties", property, **values)


def of_parameter(name: str, **values: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        parameter(document, ORDERS, name).update(values)

    return change


def of_parameter_schema(name: str, **values: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        parameter(document, ORDERS, name)["schema"].update(values)

    return change


def new_parameter(**values: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        schema = {"type": "string"}
        document["paths"][ORDERS]["get"]["parameters"].append(
            {"in": "query", "name": "desk", "schema": schema, **values}
        )

    return change


def no_parameter(name: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document["paths"][ORDERS]["get"]["parameters"].remove(parameter(document, ORDERS, name))

    return change


def values_of(name: str, change_of: Callable[[list[Any]], Any]) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        change_of(schemas(document, name)["enum"])

    return change


def required(name: str, change_of: Callable[[list[str]], Any]) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        change_of(schemas(document, name)["required"])

    return change


def both(*changes: Callable[[Document], None]) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        for each in changes:
            each(document)

    return change


TEXT = {"type": "string"}
POST, GET = ("paths", ORDERS, "post"), ("paths", ONE, "get")

HARMLESS: dict[str, Callable[[Document], None]] = {
    "nothing": lambda document: None,
    "a new operation": lambda document: document["paths"].update({"/api/v1/desks": document["paths"][ORDERS]}),
    "a new property of an answer": properties("Order", desk=TEXT),
    "a new property of an answer that is always there": both(
        properties("Order", desk=TEXT), required("Order", lambda names: names.append("desk"))
    ),
    "a new property of a request": properties("NewOrderRequest", desk=TEXT),
    "a property of a request that is needed no more": required("NewOrderRequest", lambda names: names.remove("side")),
    "a new parameter": new_parameter(),
    "a new value of an extensible enum in an answer": values_of("Status", lambda values: values.append("suspended")),
    "a new value in a request": values_of("ReplaceTimeInForceEnum", lambda values: values.append("ioc")),
    "a larger maximum of a request": of_property("NewOrderRequest", "quantity", maximum=10**13),
    "no pattern of a request any more": of_property("NewOrderRequest", "instrument", pattern=None),
    "a smaller maximum of an answer": of_property("Order", "quantity", maximum=10),
    "never null in an answer any more": of_property("Order", "place_by", nullable=None),
    "null in a request": of_property("NewOrderRequest", "quantity", nullable=True),
    "a new error": put(*POST, "responses", **{"418": {"description": "No."}}),
    "a new header": put(*GET, "responses", "200", headers={"ETag": {"schema": TEXT}}),
    "no token needed any more": put(*GET, security=[]),
    "another way to authenticate": put(*GET, security=[{"jwtAuth": []}, {"clientSecret": []}]),
    "another description": put(*GET, description="Something else."),
}
BREAKING: dict[str, tuple[Callable[[Document], None], str]] = {
    "a path that is gone": (
        lambda document: document["paths"].pop(f"{ORDERS}/batch"),
        "POST /api/v1/orders/batch: removed",
    ),
    "a path that is called otherwise": (
        move(f"{ONE}/cancel", f"{ONE}/stop"),
        "POST /api/v1/orders/{id}/cancel: removed",
    ),
    "a method that is gone": (
        lambda document: document["paths"][ORDERS].pop("get"),
        "GET /api/v1/orders: removed",
    ),
    "another operationId": (
        put(*POST, operationId="submit"),
        "POST /api/v1/orders: operationId is submit and was orders_create",
    ),
    "a property of an answer that is gone": (
        both(properties("Order", venue_order_id=None), required("Order", lambda names: names.remove("venue_order_id"))),
        "/venue_order_id: removed",
    ),
    "a property of an answer that may be absent": (
        required("Order", lambda names: names.remove("version")),
        "/version: may be absent now",
    ),
    "another type in an answer": (
        of_property("Order", "attempts", type="string"),
        "/attempts: type is string and was integer",
    ),
    "another format in an answer": (
        of_property("Order", "created_at", format=None),
        "/created_at: format is None and was date-time",
    ),
    "null in an answer": (of_property("Order", "created_at", nullable=True), "/created_at: may be null now"),
    "a new value of a closed enum in an answer": (
        values_of("KindEnum", lambda values: values.append("hold")),
        "/open_request/kind: may be ['hold'] now",
    ),
    "no enum in an answer any more": (put("components", "schemas", "KindEnum", enum=None), "any value may come now"),
    "a larger maximum of an answer": (
        of_property("Order", "quantity", maximum=10**13),
        "/quantity: maximum is 10000000000000 and was 1000000000000",
    ),
    "an answer that is gone": (put(*POST, "responses", **{"200": None}), "POST /api/v1/orders, 200: removed"),
    "a new answer": (
        put(*POST, "responses", **{"202": {"description": "Later."}}),
        "POST /api/v1/orders, 202: a new answer",
    ),
    "a header that is gone": (
        put(*POST, "responses", "201", "headers", Location=None),
        "POST /api/v1/orders, 201, header Location: removed",
    ),
    "another form of an answer": (
        put(*GET, "responses", "200", "content", **{"application/json": None, "text/csv": {}}),
        "GET /api/v1/orders/{id}, 200, application/json: removed",
    ),
    "a new property of a request that is needed": (
        both(properties("NewOrderRequest", desk=TEXT), required("NewOrderRequest", lambda names: names.append("desk"))),
        "/desk: required now",
    ),
    "a property of a request that is gone": (properties("NewOrderRequest", place_by=None), "/place_by: removed"),
    "a value that is refused": (
        values_of("TimeInForce", lambda values: values.remove("gtd")),
        "['gtd'] is refused now",
    ),
    "an enum where anything was taken": (
        of_property("NewOrderRequest", "venue", enum=["XSIM"]),
        "/venue: only some values are taken now",
    ),
    "null that is refused": (
        of_property("NewOrderRequest", "place_by", nullable=None),
        "/place_by: null is refused now",
    ),
    "a smaller maximum of a request": (
        of_property("NewOrderRequest", "quantity", maximum=10),
        "/quantity: maximum is 10 and was 1000000000000",
    ),
    "a larger minimum of a request": (
        of_property("NewOrderRequest", "quantity", minimum=100),
        "/quantity: minimum is 100 and was 1",
    ),
    "a pattern of a request": (
        of_property("NewOrderRequest", "venue", pattern="^X"),
        "/venue: pattern is ^X and was ^[A-Z0-9]{4}$",
    ),
    "properties that are refused": (
        put("components", "schemas", "TokenObtainPairRequest", additionalProperties=False),
        "properties that it does not know are refused now",
    ),
    "a parameter that is gone": (no_parameter("venue"), "GET /api/v1/orders, parameter venue: removed"),
    "a parameter that is needed": (of_parameter("venue", required=True), "parameter venue: required now"),
    "a new parameter that is needed": (new_parameter(required=True), "parameter desk: new and required"),
    "a parameter that is written otherwise": (
        of_parameter("status", explode=False),
        "parameter status: explode is False and was True",
    ),
    "another default": (of_parameter_schema("limit", default=500), "parameter limit: the default is 500 and was 50"),
    "a token where none was needed": (
        put("paths", "/api/v1/auth/logout", "post", security=[{"jwtAuth": []}]),
        "POST /api/v1/auth/logout: security is",
    ),
    "another way to authenticate alone": (
        put(*GET, security=[{"clientSecret": []}]),
        "GET /api/v1/orders/{id}: security is [{'clientSecret': []}] and was [{'jwtAuth': []}]",
    ),
    "a body that is needed": (
        put("paths", f"{ONE}/cancel", "post", "requestBody", required=True),
        "POST /api/v1/orders/{id}/cancel, body: required now",
    ),
    "no body any more": (put(*POST, requestBody=None), "POST /api/v1/orders, body: removed"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_breaks_no_client(document: Document, name: str) -> None:
    changed = copy.deepcopy(document)
    HARMLESS[name](changed)
    assert breaks(document, changed) == []


@pytest.mark.parametrize("name", BREAKING)
def test_what_breaks_a_client(document: Document, name: str) -> None:
    changed, (change, sentence) = copy.deepcopy(document), BREAKING[name]
    if "closed enum" in name or "no enum" in name:
        document = copy.deepcopy(document)
        del schemas(document, "KindEnum")["x-extensible-enum"]
    change(changed)
    found = breaks(document, changed)
    assert any(sentence in each for each in found), found


def test_what_is_deprecated_may_go_after_its_sunset_and_not_before(document: Document) -> None:
    before, changed = copy.deepcopy(document), copy.deepcopy(document)
    del changed["paths"][ONE]["get"]
    for sunset, found in (
        ("2999-01-01T00:00:00+00:00", ["GET /api/v1/orders/{id}: removed"]),
        ("2026-01-01T00:00:00Z", []),
    ):
        before["paths"][ONE]["get"] |= {"deprecated": True, "x-sunset": sunset}
        assert breaks(before, changed) == found


def test_an_enum_that_is_made_extensible_only_now_may_get_no_value_yet(document: Document) -> None:
    before, changed = copy.deepcopy(document), copy.deepcopy(document)
    del schemas(before, "Status")["x-extensible-enum"]
    schemas(changed, "Status")["enum"].append("suspended")
    assert any("may be ['suspended'] now" in each for each in breaks(before, changed))


def test_every_enum_of_an_answer_is_extensible_and_those_of_requests_alone_are_not(document: Document) -> None:
    enums = {name: schema for name, schema in document["components"]["schemas"].items() if "enum" in schema}
    open_ones = {name for name, schema in enums.items() if schema.get("x-extensible-enum")}
    assert {
        "Status",
        "EventType",
        "Side",
        "OrderType",
        "TimeInForce",
        "Actor",
        "WebhookDeliveryStatusEnum",
    } <= open_ones
    assert set(enums) - open_ones == {"GrantTypeEnum", "NullEnum", "ReplaceTimeInForceEnum"}
    inline = [schema for answer in answers(document) for schema in inline_enums(answer)]
    assert inline == []


def answers(document: Document) -> list[Any]:
    answers = [answer for path in document["paths"].values() for each in path.values() for answer in each["responses"]]
    return [*answers, *(schema for name, schema in document["components"]["schemas"].items() if "enum" not in schema)]


def inline_enums(node: Any) -> list[Any]:
    """The enums that have no name, without those of requests, which allow null."""
    if isinstance(node, list):
        return [found for child in node for found in inline_enums(child)]
    if not isinstance(node, dict):
        return []
    here = [node] if "enum" in node and not node.get("nullable") else []
    return here + [found for child in node.values() for found in inline_enums(child)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The two documents, in a place where the command may write them."""
    paths = tmp_path / "agreed.json", tmp_path / "released.json"
    for name, path, real in zip(("SNAPSHOT", "RELEASED"), paths, (SNAPSHOT, RELEASED), strict=True):
        path.write_text(real.read_text())
        monkeypatch.setattr(api_contract, name, path)
    monkeypatch.setattr(settings, "BASE_DIR", tmp_path)
    return paths


def test_the_command_says_what_is_not_agreed_on_and_writes_it(files: tuple[Path, Path]) -> None:
    agreed, released = files
    before = released.read_text()
    call_command("api_contract")
    agreed.write_text("{}")
    with pytest.raises(CommandError, match=r"agreed\.json is not what the API describes"):
        call_command("api_contract")
    call_command("api_contract", write=True)
    call_command("api_contract")
    assert released.read_text() == before


@pytest.mark.parametrize("options", [{}, {"write": True}, {"release": True}])
def test_the_command_hides_no_break(files: tuple[Path, Path], options: dict[str, bool]) -> None:
    """A client of the release sends `desk`, which is refused today."""
    agreed, released = files
    document = json.loads(released.read_text())
    schemas(document, "NewOrderRequest")["properties"]["desk"] = TEXT
    released.write_text(as_text(document))
    before = agreed.read_text(), released.read_text()
    with pytest.raises(CommandError, match="/desk: removed"):
        call_command("api_contract", **options)
    assert (agreed.read_text(), released.read_text()) == before


def test_a_release_is_what_is_described_then(files: tuple[Path, Path]) -> None:
    agreed, released = files
    released.unlink()
    call_command("api_contract", release=True)
    assert released.read_text() == agreed.read_text() == as_text(described())
