from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse

from quiktrade.api import health


def probes(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Answer the probes before anything looks at the host's name or the transport.

    Whoever probes names the process by its address, which is no host name of the deployment, and over plain
    HTTP.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        probe = health.PROBES.get(request.path_info)
        if probe is None:
            return get_response(request)
        response = probe(request)
        response["Content-Length"] = str(len(response.content))  # CommonMiddleware's work, and it is passed by
        return response

    return middleware


def optional_trailing_slash(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Answer API paths with and without a trailing slash alike: a redirect would lose a POST's body."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith("/api/") and request.path_info.endswith("/"):
            request.path_info = request.path_info.rstrip("/")
            request.path = request.path.rstrip("/")
        return get_response(request)

    return middleware


def no_nul_in_the_console(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Answer 400 where the address of a page has a NUL: no text in PostgreSQL holds one, and none can be asked for."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith("/admin/") and "\0" in request.path_info + unquote(
            request.META["QUERY_STRING"]
        ):
            raise BadRequest("The address of the page holds a NUL.")
        return get_response(request)

    return middleware


def _not_for_the_api(base: Any) -> Any:
    """The middleware, passed by where a token says who asks: sessions and their kind are the console's."""

    class Middleware(base):  # type: ignore[misc]
        def __call__(self, request: HttpRequest) -> Any:
            if request.path_info.startswith("/api/"):
                return self.get_response(request)
            return super().__call__(request)

    Middleware.__name__ = Middleware.__qualname__ = f"Console{base.__name__}"
    return Middleware


ConsoleSessionMiddleware = _not_for_the_api(SessionMiddleware)
ConsoleAuthenticationMiddleware = _not_for_the_api(AuthenticationMiddleware)
ConsoleMessageMiddleware = _not_for_the_api(MessageMiddleware)
