"""Every address at which QuikTrade answers, except the probes, which are in health.py."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, reverse
from django.utils.module_loading import import_string
from django.views.generic import RedirectView
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularRedocView, SpectacularSwaggerView
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.request import Request
from rest_framework.response import Response

PUBLIC: dict[str, Any] = {"permission_classes": [], "authentication_classes": [], "http_method_names": ["get", "head"]}


@extend_schema(exclude=True)
@api_view(["GET"])
@authentication_classes([])
@permission_classes([])
def index(request: Request) -> Response:
    """Where to begin, for somebody who knows only the address of the API."""
    names = {"docs": "docs", "schema": "schema", "token": "token", "orders": "order-list", "venues": "venue-list"}
    return Response({name: request.build_absolute_uri(reverse(of)) for name, of in names.items()})


v1: list[URLPattern | URLResolver] = [
    # These are first, and on this level, because each level takes time in every request.
    *(url for router in settings.API_ROUTERS for url in import_string(router).urls),
    path("auth/", include("quiktrade.auth.urls")),
    path("schema", SpectacularJSONAPIView.as_view(**PUBLIC), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(**PUBLIC), name="docs"),
    path("redoc", SpectacularRedocView.as_view(**PUBLIC), name="redoc"),
]
urlpatterns: list[URLPattern | URLResolver] = []
if settings.SERVICE != "console":
    urlpatterns += [
        path("api/v1", index),
        path("api/v1/", include(v1)),
        path("", RedirectView.as_view(pattern_name="docs")),
    ]
if settings.SERVICE != "api":
    admin.autodiscover()
    urlpatterns += [
        path("admin/", admin.site.urls),
        path("", RedirectView.as_view(pattern_name="admin:index")),
    ]
handler400 = "quiktrade.api.problems.bad_request"
handler403 = "quiktrade.api.problems.forbidden"
handler404 = "quiktrade.api.problems.not_found"
handler500 = "quiktrade.api.problems.server_error"
