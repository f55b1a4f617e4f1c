"""The frame of every page of the console. settings.UNFOLD names these functions."""

from django.conf import settings
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse


def stylesheet(request: HttpRequest) -> str:
    return static("quiktrade/console.css")


def script(request: HttpRequest) -> str:
    return static("quiktrade/console.js")


def icon(request: HttpRequest) -> str:
    return static("quiktrade/favicon.svg")


def own_account(request: HttpRequest) -> list[dict[str, str]]:
    """The links behind the name at the bottom left."""
    return [
        {"title": "Change password", "link": reverse("admin:password_change")},
        {"title": "Second factor", "link": reverse("second-factor")},
    ]


def environment(request: HttpRequest) -> list[str]:
    return ["Production", "danger"] if settings.PRODUCTION else ["Local", "info"]
