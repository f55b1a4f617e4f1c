"""The request that is being served, so that every line of the log can be traced back to it.

A request has an id: the client's own, in the header X-Request-ID, if that is harmless text, else a new one. The answer
carries it, and so does each line that is logged meanwhile, with the client and the order that the address names, and
the trace: the one that is recorded, else the one that the header traceparent names, which some other system records.
"""

import logging
import re
from collections.abc import Callable
from contextvars import ContextVar

from django.http import HttpRequest, HttpResponse
from uuid_utils import uuid7

from quiktrade.tracing import spans
from quiktrade.tracing.traceparent import trace_of

HEADER = "X-Request-ID"
_GIVEN = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_served: ContextVar[HttpRequest | None] = ContextVar("served", default=None)


def known(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Give a request its id, and its answer the same; and its span, if it is sampled."""

    def middleware(request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID")
        id_ = given if given and _GIVEN.fullmatch(given) else str(uuid7())
        request.id = id_  # type: ignore[attr-defined]
        token = _served.set(request)
        try:
            with spans.of_request(request.method or "", request.META.get("HTTP_TRACEPARENT")) as span:
                response = get_response(request)
                if span is not spans.NOTHING:
                    _describe(span, request, response)
        finally:
            _served.reset(token)
        response.headers[HEADER] = id_
        return response

    return middleware


def request_id(request: object) -> str | None:
    """The id of Django's request, or of Django REST framework's; None for one that did not come by `known`."""
    id_: str | None = getattr(request, "id", None)
    return id_


def trace_id(request: HttpRequest) -> str | None:
    """The trace that is recorded, else that of the client's header, if it has one and that is a trace header."""
    return spans.trace_id() or trace_of(request.META.get("HTTP_TRACEPARENT"))


def _describe(span: spans.Span, request: HttpRequest, response: HttpResponse) -> None:
    route = f"/{request.resolver_match.route}" if request.resolver_match else "none"
    span.rename(f"{request.method} {route}")
    span.note(
        {
            "http.request.method": request.method or "",
            "http.route": route,
            "http.response.status_code": response.status_code,
            "request.id": request_id(request) or "",
        }
    )
    if response.status_code >= 500:
        span.fail(f"HTTP {response.status_code}")


class OfRequest(logging.Filter):
    """Adds the ids of the request that is being served to a line, unless the line has its own; elsewhere, the trace."""

    def filter(self, record: logging.LogRecord) -> bool:
        request = _served.get()
        if request is None:
            fields = {"trace_id": spans.trace_id()}
        else:
            fields = {
                "request_id": request_id(request),
                "trace_id": trace_id(request),
                "client": _client(request),
                "order_id": _order(request),
            }
        for name, value in fields.items():
            if value is not None and not hasattr(record, name):
                setattr(record, name, value)
        return True


def _client(request: HttpRequest) -> str | None:
    """The name of the account, if it is known already: nothing is read from the database for a line of the log."""
    known = vars(request)
    account = known.get("_cached_user") or (known.get("user") if "session" not in known else None)
    return account.get_username() or None if account is not None else None


def _order(request: HttpRequest) -> str | None:
    match = request.resolver_match
    if match is None or not (match.url_name or "").startswith("order"):
        return None
    named = str(match.kwargs.get("pk") or match.kwargs.get("object_id") or "")
    return named if _UUID.fullmatch(named) else None  # nothing else that a client writes into an address is logged
