"""The problem documents of requests that do not reach a view."""

from http import HTTPStatus
from typing import NamedTuple

from quiktrade.api.problems import MEDIA_TYPE, problem
from quiktrade.api.renderers import FastJSONRenderer

RETRY_SECONDS = 1

# fmt: off
_REFUSALS = {
    400: ("bad-request", "The request is not valid HTTP/1.1."),
    408: ("request-timeout", "The rest of the request did not come in time, and nothing was stored. Send it again."),
    413: ("payload-too-large", "The body is larger than anything that is taken here."),
    414: ("uri-too-long", "The address of the request is too long."),
    417: ("expectation-failed", "The only expectation that is met is 100-continue."),
    431: ("headers-too-large", "The request has too many headers, or one that is too long."),
    500: ("internal-error",
          "An unexpected error occurred. If it was an order, send it again with the same client_order_id."),
    501: ("not-implemented", "The only transfer coding that is understood is chunked."),
    503: ("overloaded",
          "More requests are under way than can be answered in good time, and nothing was stored. Send the same "
          "request again after Retry-After, with the same client_order_id."),
}
# fmt: on


class Refusal(NamedTuple):
    status: str
    headers: list[tuple[str, str]]
    body: bytes


def _refusal(status: int) -> Refusal:
    body = FastJSONRenderer().render(problem(status, *_REFUSALS[status]))
    headers = [("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(body)))]
    if status == 503:
        headers.append(("Retry-After", str(RETRY_SECONDS)))
    return Refusal(f"{status} {HTTPStatus(status).phrase}", headers, body)


REFUSALS = {status: _refusal(status) for status in _REFUSALS}
"""The refusals by status. They are made once, because an expensive refusal would add to the load."""


def closing(status: int) -> bytes:
    """The whole answer with this refusal, after which the connection is closed."""
    return _whole(REFUSALS.get(status, REFUSALS[400]), "close")


def _whole(refusal: Refusal, connection: str) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in [*refusal.headers, ("Connection", connection)])
    return f"HTTP/1.1 {refusal.status}\r\n{head}\r\n".encode() + refusal.body


OVERLOADED = _whole(REFUSALS[503], "keep-alive")
"""A whole answer, after which the connection stays open."""
