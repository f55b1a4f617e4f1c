"""The parts of the OpenAPI document that hold for every operation: how errors look, the names of enums and what may be
added to them, what can be done with what was made, and which operations will end."""

from collections.abc import Iterator
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter

from quiktrade.api.compatibility import EXTENSIBLE, SUNSET
from quiktrade.api.deprecation import Deprecated, deprecation_of
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
        "error": {"type": "string", "description": "With invalid-client: the same in the words of RFC 6749."},
        "scope": {"type": "string", "description": "With insufficient-scope: what the token needs."},
        "retry_after": {"type": "integer", "description": "With rate-limited: seconds to wait, as in `Retry-After`."},
        "next_cursor": {"type": "string", "description": "With a 410: where to go on reading events."},
        "request_id": {"type": "string", "description": "The id of the request, as in the header `X-Request-ID`."},
        "trace_id": {"type": "string", "description": "The request's trace (W3C Trace Context), if one is recorded."},
        "incident": {"type": "string", "format": "uuid", "description": "With a 500: quote it to the operators."},
        "message": {"type": "string", "description": "With a 500 while an order was being accepted."},
    },
}
MEANINGS = {
    400: "The request is wrong; `errors` says where.",
    401: "No token (type unauthorized), a bad one (invalid-token: log in), one that has run out (expired-token: "
    "refresh it), or a wrong name or password (wrong-credentials).",
    403: "The account belongs to the console (type not-a-client), the token lacks a scope (insufficient-scope), or a "
    "service account is used from elsewhere (wrong-network).",
    404: "There is no such thing, or it is not yours.",
    405: "The address does not take this method; `Allow` names those that it takes.",
    406: "`Accept` excludes application/json, the type of every answer.",
    409: "The request contradicts what is stored.",
    410: "Events cannot be continued from this cursor: list your orders, and continue from `next_cursor`.",
    413: "The body is too large.",
    414: "The address is too long.",
    415: "The body is not application/json.",
    429: "Too many requests; wait as `Retry-After` says.",
    431: "There are too many headers, or one that is too long.",
    500: "An error on our side; nothing is known to be stored.",
    503: "The database is away, or there are too many requests; send the same request again as `Retry-After` says.",
}
RATE_LIMIT = "If that is limited: what you may still send now (r), and in how many seconds all of it (t). Experimental."
RATE_LIMIT_POLICY = "If that is limited: how many (q) in how many seconds (w). Experimental."
_SECONDS = {"description": "Seconds to wait.", "schema": {"type": "integer"}, "example": RETRY_SECONDS}
HEADERS: dict[int, dict[str, Any]] = {
    403: {"WWW-Authenticate": {"description": "With insufficient-scope.", "schema": {"type": "string"}}},
    401: {"WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}}},
    405: {"Allow": {"description": "The methods that it takes.", "schema": {"type": "string"}, "example": "GET, POST"}},
    429: {
        "Retry-After": _SECONDS,
        "RateLimit": {"description": RATE_LIMIT, "schema": {"type": "string"}, "example": '"orders";r=0;t=1'},
        "RateLimit-Policy": {
            "description": RATE_LIMIT_POLICY,
            "schema": {"type": "string"},
            "example": '"orders";q=100;w=1',
        },
    },
    503: {"Retry-After": _SECONDS},
}


class Operation(AutoSchema):
    """An operation, which may be deprecated."""

    @property
    def _deprecation(self) -> Deprecated | None:
        return deprecation_of(self.view, getattr(self.view, "action", None) or self.method.lower())

    def is_deprecated(self) -> bool:
        return self._deprecation is not None

    def get_extensions(self) -> dict[str, Any]:
        extensions: dict[str, Any] = super().get_extensions()
        found = self._deprecation
        return {**extensions, SUNSET: found.sunset.isoformat()} if found and found.sunset else extensions

    def get_override_parameters(self) -> list[Any]:
        parameters: list[Any] = super().get_override_parameters()
        found = self._deprecation
        return [*parameters, *(_TOLD[name] for name in found.headers())] if found else parameters


def _told(name: str, description: str) -> OpenApiParameter:
    return OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.HEADER, response=True, description=description)


_TOLD = {
    "Deprecation": _told("Deprecation", "Since when clients should use something else (RFC 9745)."),
    "Link": _told("Link", "Where is explained what to use instead."),
    "Sunset": _told("Sunset", "After this time it may be gone (RFC 8594)."),
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


def sort_methods(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A drf-spectacular postprocessing hook: write the document alike in every process. Sets give them in any order."""
    for path, operations in result["paths"].items():
        result["paths"][path] = dict(sorted(operations.items()))
    return result


def mark_extensible_enums(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A drf-spectacular postprocessing hook: say of which enums in answers a later version may have more values."""
    schemas, reached = result["components"]["schemas"], set[str]()

    def reach(node: Any) -> None:
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            reach(child)
        name = node.get("$ref", "").rpartition("/")[2] if isinstance(node, dict) else ""
        if name in schemas and name not in reached:
            reached.add(name)
            reach(schemas[name])

    for operations in result["paths"].values():
        for operation in operations.values():
            reach(operation["responses"])
    for name in reached:
        if {"enum", "type"} <= schemas[name].keys():  # the enum without a type is that of null
            schemas[name][EXTENSIBLE] = True
    return result


def add_links(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A drf-spectacular postprocessing hook: link what a POST makes to all that can be done with it by its `id`."""
    paths = result["paths"]
    for path, operations in paths.items():
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {"id": "$response.body#/id"},
                "description": operation.get("summary", ""),
            }
            for below, of_one in paths.items()
            if below.startswith(f"{path}/{{id}}") and below.count("{") == 1
            for operation in of_one.values()
        }
        for code, answer in operations.get("post", {}).get("responses", {}).items():
            if links and code in ("200", "201"):
                answer["links"] = links
    return result


def problems_of(method: str, path: str) -> Iterator[dict[str, Any]]:
    """An example of each kind of problem that the operation can answer with."""
    if method in ("post", "patch"):
        yield _validation("body", pointer="#/" + _A_FIELD.get(path, "reason"))
        error = {"pointer": "#", "code": "malformed", "detail": "The body is not UTF-8 text."}
        yield problem(400, "malformed-body", error["detail"], errors=[error])
        yield problem(413, "payload-too-large", "The body is larger than 65536 bytes.")
        yield problem(415, "unsupported-media-type", 'Unsupported media type "text/plain" in request.')
    elif path in _QUERIES:
        yield _validation("query", parameter=_QUERIES[path])
    yield from _refusals_of_a_token(path)
    if "{" in path:
        what = "venue" if "venues" in path else "webhook" if "webhooks" in path else "order"
        yield problem(404, "not-found", f"You have no such {what}.")
    if path == "/api/v1/orders" and method == "post":
        taken = f"client_order_id desk-7-000123 is taken by order {_AN_ID}, which differs."
        yield problem(409, "client-order-id-taken", taken, order_id=_AN_ID)
    elif path.endswith(("/{id}/cancel", "/{id}/replace")):
        verb = path.rpartition("/")[2]
        yield problem(409, f"cannot-{verb}", "It is filled, which is final.")
        taken = "client_order_id desk-7-000124 is taken by another request of yours, which differs."
        yield problem(409, "client-order-id-taken", taken)
    elif path == "/api/v1/webhooks" and method == "post":
        yield problem(409, "too-many-webhooks", "You have 10 webhooks, the most that an account may have.")
    elif path.startswith("/api/v1/webhooks/") and path.endswith(("/test", "/replay", "/resend")):
        yield problem(409, "webhook-disabled", "This webhook is disabled, so nothing is sent to it. Enable it first.")
    if method == "get" and not path.startswith("/api/v1/auth"):
        said = "You may send 50 reads in a second. Send the same request again in 1 s."
        yield problem(429, "rate-limited", said, retry_after=1)
    elif method == "post" and path in _ORDERS:
        said = "You may send 100 orders in a second. Send the same request again in 1 s."
        yield problem(429, "rate-limited", said, retry_after=1)
    if path in ("/api/v1/auth/token", "/api/v1/auth/password"):
        yield problem(429, "too-many-requests", "Request was throttled. Expected available in 12 seconds.")
    if path == "/api/v1/orders/events":
        yield problem(410, "cursor-lost", "The cursor is from more than 7 days ago.", next_cursor="3f1c.7731.0")
    elif path == "/api/v1/orders/stream":
        yield problem(429, "too-many-streams", "You follow your orders on 20 streams, and more are not served.")
        yield problem(503, "no-stream", "No more streams can be served at this moment. Connect again later.")
    yield problem(405, "method-not-allowed", 'Method "PUT" not allowed.')
    yield problem(406, "not-acceptable", "Could not satisfy the request Accept header.")
    yield problem(414, "uri-too-long", "The address of the request is too long.")
    yield problem(431, "headers-too-large", "The request has too many headers, or one that is too long.")
    yield problem(500, "internal-error", "An unexpected error occurred.", incident=_AN_ID)
    yield problem(503, "unavailable", "The database cannot be relied on at this moment. Send the same request again.")
    yield problem(503, "overloaded", "More requests are under way than can be answered in good time. Send it again.")


_ORDERS = ("/api/v1/orders", "/api/v1/orders/batch", "/api/v1/orders/{id}/replace")
"""These count as orders in a client's limit."""
_AN_ID = "019a1c2e-7b1f-7c3d-9a55-0242ac120002"
_QUERIES = {
    "/api/v1/orders": "limit",
    "/api/v1/orders/{id}/executions": "limit",
    "/api/v1/executions": "limit",
    "/api/v1/positions": "limit",
    "/api/v1/orders/events": "after",
    "/api/v1/orders/stream": "after",
    "/api/v1/webhooks/{id}/deliveries": "limit",
}
"""Those that take parameters in the query, each with one of them."""
_A_FIELD = {
    "/api/v1/orders": "quantity",
    "/api/v1/orders/batch": "orders",
    "/api/v1/orders/cancel": "venue",
    "/api/v1/orders/{id}/replace": "quantity",
    "/api/v1/webhooks": "url",
    "/api/v1/webhooks/{id}": "url",
    "/api/v1/webhooks/{id}/replay": "from",
    "/api/v1/auth/token": "password",
    "/api/v1/auth/token/refresh": "refresh",
    "/api/v1/auth/token/verify": "token",
    "/api/v1/auth/client-token": "grant_type",
    "/api/v1/auth/logout": "refresh",
    "/api/v1/auth/password": "new_password",
}


def _refusals_of_a_token(path: str) -> Iterator[dict[str, Any]]:
    if path == "/api/v1/auth/token":
        yield problem(401, "wrong-credentials", "No active account has this name and password.")
        yield problem(401, "code-needed", "This account has a second factor: send `code`, too.")
        yield problem(401, "wrong-code", "The code is wrong, or it was used before.")
        yield problem(403, "not-a-client", "Accounts of the console get no token.")
        yield problem(403, "second-factor-missing", "This account must have a second factor first.")
        return
    if path == "/api/v1/auth/client-token":
        wrong = "No service account that may be used has this client id and secret."
        yield problem(401, "invalid-client", wrong, error="invalid_client")
        yield problem(403, "wrong-network", "This service account may not be used from your address.")
        yield problem(403, "not-a-client", "Accounts of the console get no token.")
        return
    if not path.startswith("/api/v1/auth/token/") and path != "/api/v1/auth/logout":
        yield problem(401, "unauthorized", "A token is required, in a header: Authorization: Bearer TOKEN.")
        yield problem(403, "not-a-client", "Accounts of the console do not trade.")
        if not path.startswith("/api/v1/venues"):
            needed = "The token may not be used for this. It needs the scope orders:write: log in with it."
            yield problem(403, "insufficient-scope", needed, scope="orders:write")
        yield problem(403, "wrong-network", "This service account may not be used from your address.")
    yield problem(401, "invalid-token", "The token is not one of ours, or it was withdrawn: log in.")
    yield problem(401, "expired-token", "The token has run out: refresh it.")


def _validation(what: str, **where: str) -> dict[str, Any]:
    error = {**where, "code": "invalid", "detail": "What is allowed there."}
    return problem(400, "validation-error", f"The {what} has an error.", errors=[error])


def _response(status: int) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}}
    headers = {"headers": HEADERS[status]} if status in HEADERS else {}
    return {"description": MEANINGS[status], **headers, "content": content}
