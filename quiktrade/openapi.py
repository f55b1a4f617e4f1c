"""The parts of the OpenAPI document that hold for every operation: how errors look."""

from typing import Any

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "Problem details (RFC 9457). Branch on `type`.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri", "example": "urn:quiktrade:problem:validation-error"},
        "title": {"type": "string", "example": "Bad Request"},
        "status": {"type": "integer", "example": 400},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "What to change.",
            "items": {
                "type": "object",
                "required": ["code", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "Into the body.", "example": "#/quantity"},
                    "parameter": {"type": "string", "description": "Of the query."},
                    "header": {"type": "string"},
                    "code": {"type": "string", "example": "min_value"},
                    "detail": {"type": "string"},
                },
            },
        },
        "incident": {"type": "string", "format": "uuid", "description": "With a 500: quote it to the operators."},
        "message": {"type": "string", "description": "With a 500 while an order was being accepted."},
    },
}
MEANINGS = {
    "400": "The request is wrong; `errors` says where.",
    "401": "No token (type unauthorized), a bad one (invalid-token: log in), one that has run out (expired-token: "
    "refresh it), or a wrong name or password (wrong-credentials).",
    "403": "The account is one of the console's (type not-a-client).",
    "404": "There is no such thing, or it is not yours.",
    "409": "It contradicts what is stored.",
    "413": "The body is too large.",
    "415": "The body is not application/json.",
    "429": "Too many requests; wait as Retry-After says.",
    "500": "A fault of ours; nothing was stored.",
    "503": "The database is away; send the same request again as Retry-After says.",
}


def add_problems(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A drf-spectacular postprocessing hook: give every operation the errors that it can answer with."""
    result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            codes = ["500", "503"]
            codes += ["401", "403"]
            codes += ["404"] if "{" in path else []
            codes += ["400"] if method == "post" or path.endswith("/orders") else []
            codes += ["413", "415"] if method == "post" else []
            codes += ["409"] if method == "post" and "/orders" in path else []
            codes += ["429"] if path.endswith(("/auth/token", "/auth/password")) else []
            for code in codes:
                operation["responses"][code] = {
                    "description": MEANINGS[code],
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            operation["responses"] = dict(sorted(operation["responses"].items()))
    return result
