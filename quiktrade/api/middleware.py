from collections.abc import Callable
from time import perf_counter
from urllib.parse import unquote

from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse

from quiktrade.api import health
from quiktrade.api.deprecation import deprecation_of
from quiktrade.metrics.names import HTTP_REQUEST_SECONDS

_METHODS = frozenset(("GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS"))


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


def measured(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Count requests, and how long they take. The labels are names of ours, however requests are made up."""

    def middleware(request: HttpRequest) -> HttpResponse:
        began = perf_counter()
        response = get_response(request)
        match, status = request.resolver_match, response.status_code
        HTTP_REQUEST_SECONDS(
            match.view_name if match else "none",
            request.method if request.method in _METHODS else "other",
            "429" if status == 429 else f"{status // 100}xx",
        ).observe(perf_counter() - began)
        return response

    return middleware


def deprecation(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Tell clients of an operation that will end. Each of its answers says so, an error, too."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        match = request.resolver_match
        if match is not None and hasattr(view := getattr(match.func, "cls", None), "deprecated"):
            method = "get" if request.method == "HEAD" else str(request.method).lower()
            found = deprecation_of(view, (getattr(match.func, "actions", None) or {}).get(method, method))
            for name, value in found.headers().items() if found else ():
                response[name] = f"{response[name]}, {value}" if name in response else value
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


_API = "default-src 'none'; frame-ancestors 'none'"
_PAGE = (
    "default-src 'none'; script-src 'self'{more}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_CONSOLE = _PAGE.format(more=" 'unsafe-eval'")  # unfold's scripts (Alpine) evaluate expressions
_DOCUMENTS = {
    "/api/v1/docs": _PAGE.format(more=""),
    "/api/v1/redoc": _PAGE.format(more="") + "; worker-src blob:; child-src blob:",
}
_NOTHING = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"


def content_security_policy(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Let a page load from this host only, and let nothing put it in a frame."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        path = request.path_info
        if path.startswith("/admin"):
            policy = _CONSOLE
        else:
            policy = _DOCUMENTS.get(path, _API)
        response["Content-Security-Policy"] = policy
        if policy is not _API:
            response["Permissions-Policy"] = _NOTHING
        return response

    return middleware
