"""Every address QuikTrade answers at, but for the probes: those are in health.py."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularRedocView, SpectacularSwaggerView

from exchanges.api.urls import router as venues
from orders.api.urls import router as orders

admin.autodiscover()

v1: list[URLPattern | URLResolver] = [
    *orders.urls,  # first, and not another level down: each level takes time in every request
    *venues.urls,
    path("auth/", include("quiktrade.auth.urls")),
    path("schema", SpectacularJSONAPIView.as_view(permission_classes=[], authentication_classes=[]), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(permission_classes=[], authentication_classes=[]), name="docs"),
    path("redoc", SpectacularRedocView.as_view(permission_classes=[], authentication_classes=[]), name="redoc"),
]
urlpatterns = [
    path("api/v1/", include(v1)),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(pattern_name="docs")),
]
handler400 = "quiktrade.problems.bad_request"
handler403 = "quiktrade.problems.forbidden"
handler404 = "quiktrade.problems.not_found"
handler500 = "quiktrade.problems.server_error"
