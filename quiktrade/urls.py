"""Every address at which QuikTrade answers, except the probes, which are in health.py."""

from typing import Any, NoReturn

from django.conf import settings
from django.contrib import admin
from django.http import Http404, HttpRequest
from django.urls import URLPattern, URLResolver, include, path, reverse
from django.utils.module_loading import import_string
from django.views.generic import RedirectView
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.request import Request
from rest_framework.response import Response

from quiktrade.auth.views import jwks

PUBLIC: dict[str, Any] = {"permission_classes": [], "authentication_classes": [], "http_method_names": ["get", "head"]}


class SwaggerView(SpectacularSwaggerSplitView):
    """Its script comes by itself, as the content security policy wants it, and no cookie comes with it."""

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        response.data["csrf_token"] = ""  # otherwise the template would make one, and have a cookie set
        return response


@extend_schema(exclude=True)
@api_view(["GET", "HEAD"])
@authentication_classes([])
@permission_classes([])
def index(request: Request) -> Response:
    """Where to begin, for somebody who knows only the address of the API."""
    names = {"docs": "docs", "schema": "schema", "token": "token", "orders": "order-list"}
    names |= {"executions": "execution-list", "positions": "position-list"}
    names |= {"webhooks": "webhook-list", "venues": "venue-list"}
    return Response({name: request.build_absolute_uri(reverse(of)) for name, of in names.items()})


def nowhere(request: HttpRequest, **kwargs: Any) -> NoReturn:
    raise Http404


v1: list[URLPattern | URLResolver] = [
    # These are first, and on this level, because each level takes time in every request.
    *(url for router in settings.API_ROUTERS for url in import_string(router).urls),
    path("auth/", include("quiktrade.auth.urls")),
    path("schema", SpectacularJSONAPIView.as_view(**PUBLIC), name="schema"),
    path("docs", SwaggerView.as_view(**PUBLIC), name="docs"),
    path("redoc", SpectacularRedocView.as_view(**PUBLIC), name="redoc"),
]
urlpatterns: list[URLPattern | URLResolver] = []
if settings.SERVICE != "console":
    urlpatterns += [
        path(".well-known/jwks.json", jwks, name="jwks"),
        path("api/v1", index),
        path("api/v1/", include(v1)),
        path("", RedirectView.as_view(pattern_name="docs")),
    ]
if settings.SERVICE != "api":
    from quiktrade.console import second_factor  # the process that serves the API needs none of the console

    admin.autodiscover()
    urlpatterns += [
        path("admin/second-factor/", second_factor.page, name="second-factor"),
        # Django has a page there that leads to a row's page for the public, which none has. It fails for some ids.
        path("admin/r/<path:row>", nowhere),
        path("admin/", admin.site.urls),
        path("", RedirectView.as_view(pattern_name="admin:index")),
    ]
handler400 = "quiktrade.api.problems.bad_request"
handler403 = "quiktrade.api.problems.forbidden"
handler404 = "quiktrade.api.problems.not_found"
handler500 = "quiktrade.api.problems.server_error"
