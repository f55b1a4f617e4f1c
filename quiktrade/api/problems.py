"""Makes problem details (RFC 9457) of every error that a client meets. Their shape is decided in this one place.

    {"type": "urn:quiktrade:problem:validation-error", "title": "Bad Request", "status": 400,
     "detail": "…", "errors": [{"pointer": "#/quantity", "code": "min_value", "detail": "…"}]}

`type` is stable: programs branch on it. `errors` names what to change, by a `pointer` into the body, a `parameter`
of the query, or a `header`; their number is limited, so that a refusal stays small. `request_id` is the request's, by
which the lines of the log about it are found, and `trace_id` that of its trace, if one is recorded; a 500 also carries
`incident`, which the log has, too.
"""

import http
import logging
import sys
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import DisallowedHost, PermissionDenied, SuspiciousOperation, TooManyFieldsSent
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import exception_handler as standard_handler

from quiktrade.api.context import request_id
from quiktrade.api.parsers import LONGEST_NAME
from quiktrade.api.renderers import FastJSONRenderer
from quiktrade.database.durability import NotDurable
from quiktrade.errors import Refusal
from quiktrade.metrics import names
from quiktrade.tracing import spans

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
"""A database restart or failover takes seconds; a client that asks again sooner finds it still away."""

MOST_ERRORS = 50
"""One problem names at most this many errors, or fewer if the handler's context has a lower `most_errors`."""

DATABASE_TROUBLE = (OperationalError, InterfaceError, NotDurable)
_SEND_AGAIN = (
    "nothing is known to be stored. Send the same request again, with the same client_order_id, and it takes "
    "effect once."
)
_LOOK_FIRST = (
    "what you asked for may or may not have been done. Look before you ask for it again. Orders that were accepted "
    "are kept, and placed when it is back; /readyz tells when."
)


def problem(status: int, kind: str, detail: str, **more: Any) -> dict[str, Any]:
    return {
        "type": f"urn:quiktrade:problem:{kind}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }


def exception_handler(exception: Exception, context: Mapping[str, Any]) -> Response:
    """Turn whatever a view raised into a problem. Django REST framework calls this."""
    request: Request = context["request"]
    request.accepted_renderer, request.accepted_media_type = FastJSONRenderer(), MEDIA_TYPE  # for a page's view, too
    if isinstance(exception, SuspiciousOperation):
        return _response(request, _from_suspicion(exception))
    if isinstance(exception, Http404 | PermissionDenied | exceptions.APIException):
        standard = standard_handler(exception, dict(context))  # it knows the status and the headers
        assert standard is not None
        body = _from_api_exception(exception, standard.status_code, context)
        headers = {name: value for name, value in standard.items() if name in ("WWW-Authenticate", "Retry-After")}
        if "WWW-Authenticate" in headers and getattr(exception, "token_was_given", False):
            # RFC 6750, 3.1: if no token was given, no error is named.
            headers["WWW-Authenticate"] += f', error="invalid_token", error_description="{body["detail"]}"'
        return _response(request, body, headers)
    if isinstance(exception, Refusal):
        body = problem(exception.status, exception.kind, **exception.members())
        return _response(request, body, exception.headers())
    if isinstance(exception, DATABASE_TROUBLE):
        return _response(request, unavailable(exception), {"Retry-After": str(RETRY_SECONDS)})
    return _response(request, unexpected(request._request, exception))


def unavailable(exception: BaseException, detail: str = _SEND_AGAIN) -> dict[str, Any]:
    names.DATABASE_TROUBLE("web").inc()
    logger.error("Database cannot be relied on", extra={"event": "api.unavailable", "error": str(exception).strip()})
    return problem(503, "unavailable", f"The database cannot be relied on at this moment, and {detail}")


def unexpected(request: HttpRequest, exception: BaseException | None) -> dict[str, Any]:
    """An error on our side. The log has the traceback, and the client gets a number to quote."""
    incident = str(uuid.uuid4())
    logger.error(
        "Request failed",
        exc_info=exception or True,
        extra={"event": "api.failed", "incident": incident, "method": request.method, "path": request.path},
    )
    more: dict[str, Any] = {"incident": incident}
    if request.method == "POST" and request.path == reverse("order-list"):
        more["message"] = "Internal server error while placing the order"
    detail = "An unexpected error occurred. If it was an order, send it again with the same client_order_id."
    return problem(500, "internal-error", detail, **more)


def _response(request: Request, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return Response(_of(request, body), status=body["status"], headers=headers, content_type=MEDIA_TYPE)


def _of(request: object, body: dict[str, Any]) -> dict[str, Any]:
    ids = {"request_id": request_id(request), "trace_id": spans.trace_id()}
    return body | {name: id_ for name, id_ in ids.items() if id_}


_KINDS = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    413: "payload-too-large",
    415: "unsupported-media-type",
    429: "too-many-requests",
}


_KINDS_BY_CODE = {
    "invalid_token": "invalid-token",
    "expired_token": "expired-token",
    "no_active_account": "wrong-credentials",
    "not_a_client": "not-a-client",
}


def _from_api_exception(exception: Exception, status: int, context: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(exception, exceptions.ValidationError):
        errors = list(_field_errors(exception.get_full_details(), "#"))
        where = {key: error[key] for error in errors for key in ("parameter", "header") if key in error}
        what = "query" if "parameter" in where else "header" if "header" in where else "body"
        detail = f"The {what} has {_count(len(errors))}."
        most = min(MOST_ERRORS, context.get("most_errors", MOST_ERRORS))
        if len(errors) > most:
            detail += f" {len(errors) - most} of them are left out here."
        return problem(400, "validation-error", detail, errors=errors[:most])
    if isinstance(exception, exceptions.ParseError):
        return problem(400, "malformed-body", str(exception.detail), errors=[_error("#", "malformed", exception)])
    if isinstance(exception, exceptions.APIException):
        kind = _KINDS_BY_CODE.get(str(exception.get_codes())) or _KINDS.get(status, "error")
        return problem(status, kind, _said_better(exception, context))
    return problem(
        status, _KINDS[status], "There is nothing here for you." if status == 404 else "You may not do this."
    )


def _said_better(exception: exceptions.APIException, context: Mapping[str, Any]) -> str:
    """What happened and what to do, where Django REST framework says only the former or repeats the request."""
    match exception:
        case exceptions.NotAuthenticated():
            return (
                "A token is required, in a header: Authorization: Bearer TOKEN. POST /api/v1/auth/token gives one for "
                "a name and a password."
            )
        case exceptions.MethodNotAllowed():
            view, method = context["view"], context["request"].method
            hint = getattr(view, "instead_of", {}).get(method, "")
            return f"This is not offered here; {', '.join(view.allowed_methods)} are. {hint}".strip()
        case exceptions.NotAcceptable():
            return "Answers are JSON: send Accept: application/json, or no Accept at all."
        case exceptions.UnsupportedMediaType():
            return "The body must be JSON, with the header Content-Type: application/json."
        case exceptions.Throttled():
            return "There were too many requests. Send it again after the number of seconds in Retry-After."
        case _:
            return str(exception.detail)


def _from_suspicion(exception: Exception) -> dict[str, Any]:
    detail = "The request cannot be understood."
    if isinstance(exception, DisallowedHost):
        detail = "The Host header names a host that this server does not answer for."
    elif isinstance(exception, TooManyFieldsSent):
        detail = f"The query has more than {settings.DATA_UPLOAD_MAX_NUMBER_FIELDS} parameters."
    return problem(400, "bad-request", detail)


def _error(pointer: str, code: str, exception: exceptions.APIException) -> dict[str, str]:
    return {"pointer": pointer, "code": code, "detail": str(exception.detail)}


def _count(errors: int) -> str:
    return "an error" if errors == 1 else f"{errors} errors"


def _field_errors(details: Any, pointer: str) -> Iterator[dict[str, str]]:
    """Flatten DRF's nested details. A key `query:name` or `header:Name` means that the error is not in the body."""
    if isinstance(details, dict) and isinstance(details.get("message"), str):
        yield {**_where(pointer), "code": str(details["code"]), "detail": str(details["message"])}
    elif isinstance(details, dict):
        for name, inner in details.items():
            yield from _field_errors(inner, pointer if name == "non_field_errors" else f"{pointer}/{_escape(name)}")
    elif isinstance(details, list):
        for inner in details:
            yield from _field_errors(inner, pointer)


def _where(pointer: str) -> dict[str, str]:
    for kind, prefix in (("parameter", "#/query:"), ("header", "#/header:")):
        if pointer.startswith(prefix):
            return {kind: pointer.removeprefix(prefix)}
    return {"pointer": pointer}


def _escape(name: object) -> str:
    """A name as a part of a JSON pointer. A name that is longer than any of ours is cut."""
    text = str(name)
    if len(text) > LONGEST_NAME:
        text = f"{text[:LONGEST_NAME]}…"
    return text.replace("~", "~0").replace("/", "~1")


# ---- Errors outside the API's views: Django's own handlers, named in urls.py ----


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    detail = "There is nothing at this address."
    if request.path.startswith("/api"):
        detail += " GET /api/v1/ lists what there is, and /api/v1/docs describes it."
    return _page(request, problem(404, "not-found", detail))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _page(request, _from_suspicion(exception))


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _page(request, problem(403, "forbidden", "You may not do this."))


def server_error(request: HttpRequest) -> HttpResponse:
    fault = sys.exception()
    if isinstance(fault, Refusal):  # of a page of the console: the API's views make problems of theirs
        response = _page(request, problem(fault.status, fault.kind, **fault.members()))
        for name, value in fault.headers().items():
            response[name] = value
        return response
    if not isinstance(fault, DATABASE_TROUBLE):
        return _page(request, unexpected(request, None))
    response = _page(request, unavailable(fault, _LOOK_FIRST))
    response["Retry-After"] = str(RETRY_SECONDS)
    return response


def _page(request: HttpRequest, body: dict[str, Any]) -> HttpResponse:
    if request.path.startswith("/admin"):
        return render(request, "problem.html", {"problem": body}, status=body["status"])
    return JsonResponse(_of(request, body), status=body["status"], content_type=MEDIA_TYPE)
