"""The parts of the OpenAPI document that hold for every operation: how errors look, and the names of enums."""

from collections.abc import Iterator
from typing import Any

from quiktrade.api.problems import MEDIA_TYPE, RETRY_SECONDS, problem

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "Problem details (RFC 9457). Branch on `type`.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, and what to do."},
        "errors": {
            "type": "array",
            "description": "What to change in the request.",
            "items": {
                "type": "object",
                "required": ["code", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "A JSON pointer into the body."},
                    "parameter": {"type": "string", "description": "A parameter of the query."},
                    "header": {"type": "string"},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
        "order_id": {"type": "string", "format": "uuid", "description": "The order that has the `client_order_id`."},
        "incident": {"type": "string", "format": "uuid", "description": "With a 500: quote it to the operators."},
        "message": {"type": "string", "description": "With a 500 while an order was being accepted."},
    },
}
MEANINGS = {
    400: "The request is wrong; `errors` says where.",
    401: "No token (type unauthorized), a bad one (invalid-token: log in), one that has run out (expired-token: "
    "refresh it), or a wrong name or password (wrong-credentials).",
    403: "The account belongs to the console (type not-a-client).",
    404: "There is no such thing, or it is not yours.",
    405: "The address does not take this method; `Allow` names those that it takes.",
    406: "`Accept` excludes application/json, the type of every answer.",
    409: "The request contradicts what is stored.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "Too many requests; wait as `Retry-After` says.",
    500: "An error on our side; nothing is known to be stored.",
    503: "The database is away, or there are too many requests; send the same request again as `Retry-After` says.",
}
_SECONDS = {"description": "Seconds to wait.", "schema": {"type": "integer"}, "example": RETRY_SECONDS}
HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}}},
    405: {"Allow": {"description": "The methods that it takes.", "schema": {"type": "string"}, "example": "GET, POST"}},
    429: {"Retry-After": _SECONDS},
    503: {"Retry-After": _SECONDS},
}


def add_problems(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A drf-spectacular postprocessing hook: give every operation the errors that it can answer with."""
    result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            for example in problems_of(method, path):
                response = operation["responses"].setdefault(str(example["status"]), _response(example["status"]))
                kind = example["type"].rpartition(":")[2]
                response["content"][MEDIA_TYPE]["examples"][kind] = {"summary": example["detail"], "value": example}
            operation["responses"] = dict(sorted(operation["responses"].items()))
    return result


def name_enums(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A drf-spectacular postprocessing hook: have parameters share the enums of the bodies, as the bodies' fields do.

    Otherwise generated clients have two types for one thing.
    """
    names = {
        tuple(schema["enum"]): name for name, schema in result["components"]["schemas"].items() if "enum" in schema
    }
    for operations in result["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                one = parameter["schema"].get("items", parameter["schema"])
                if name := names.get(tuple(one.get("enum", ()))):
                    one.clear()
                    one["$ref"] = f"#/components/schemas/{name}"
    return result


def problems_of(method: str, path: str) -> Iterator[dict[str, Any]]:
    """An example of each kind of problem that the operation can answer with."""
    if method == "post":
        yield _validation("body", pointer="#/" + _A_FIELD.get(path, "reason"))
        error = {"pointer": "#", "code": "malformed", "detail": "The body is not UTF-8 text."}
        yield problem(400, "malformed-body", error["detail"], errors=[error])
        yield problem(413, "payload-too-large", "The body is larger than 65536 bytes.")
        yield problem(415, "unsupported-media-type", 'Unsupported media type "text/plain" in request.')
    elif path == "/api/v1/orders":
        yield _validation("query", parameter="limit")
    yield from _refusals_of_a_token(path)
    if "{" in path:
        what = "venue" if "venues" in path else "order"
        yield problem(404, "not-found", f"You have no such {what}.")
    if path == "/api/v1/orders" and method == "post":
        taken = f"client_order_id desk-7-000123 is taken by order {_AN_ID}, which differs."
        yield problem(409, "client-order-id-taken", taken, order_id=_AN_ID)
    elif path.endswith("/cancel"):
        yield problem(409, "cannot-cancel", "It is at the venue; canceling there is not offered yet.")
    if path in ("/api/v1/auth/token", "/api/v1/auth/password"):
        yield problem(429, "too-many-requests", "Request was throttled. Expected available in 12 seconds.")
    yield problem(405, "method-not-allowed", 'Method "PUT" not allowed.')
    yield problem(406, "not-acceptable", "Could not satisfy the request Accept header.")
    yield problem(500, "internal-error", "An unexpected error occurred.", incident=_AN_ID)
    yield problem(503, "unavailable", "The database cannot be relied on at this moment. Send the same request again.")
    yield problem(503, "overloaded", "More requests are under way than can be answered in good time. Send it again.")


_AN_ID = "019a1c2e-7b1f-7c3d-9a55-0242ac120002"
_A_FIELD = {
    "/api/v1/orders": "quantity",
    "/api/v1/orders/batch": "orders",
    "/api/v1/auth/token": "password",
    "/api/v1/auth/token/refresh": "refresh",
    "/api/v1/auth/token/verify": "token",
    "/api/v1/auth/logout": "refresh",
    "/api/v1/auth/password": "new_password",
}


def _refusals_of_a_token(path: str) -> Iterator[dict[str, Any]]:
    if path == "/api/v1/auth/token":
        yield problem(401, "wrong-credentials", "No active account has this name and password.")
        yield problem(403, "not-a-client", "Accounts of the console get no token.")
        return
    if not path.startswith("/api/v1/auth/token/") and path != "/api/v1/auth/logout":
        yield problem(401, "unauthorized", "A token is required, in a header: Authorization: Bearer TOKEN.")
        yield problem(403, "not-a-client", "Accounts of the console do not trade.")
    yield problem(401, "invalid-token", "The token is not one of ours, or it was withdrawn: log in.")
    yield problem(401, "expired-token", "The token has run out: refresh it.")


def _validation(what: str, **where: str) -> dict[str, Any]:
    error = {**where, "code": "invalid", "detail": "What is allowed there."}
    return problem(400, "validation-error", f"The {what} has an error.", errors=[error])


def _response(status: int) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}}
    headers = {"headers": HEADERS[status]} if status in HEADERS else {}
    return {"description": MEANINGS[status], **headers, "content": content}
