from collections.abc import Callable
from urllib.parse import unquote

from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse

from quiktrade.api import health


def probes(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Answer the probes before anything looks at the host's name or the transport.

    A probe uses the process's address, which is not a host name of the deployment, and plain HTTP.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        probe = health.PROBES.get(request.path_info)
        if probe is None:
            return get_response(request)
        response = probe(request)
        response["Content-Length"] = str(len(response.content))  # as CommonMiddleware would, which a probe skips
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
    """Answer 400 if the address of a page has a NUL: PostgreSQL stores none, and a query for one is an error."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith("/admin/") and "\0" in request.path_info + unquote(
            request.META["QUERY_STRING"]
        ):
            raise BadRequest("The address of the page holds a NUL.")
        return get_response(request)

    return middleware
