"""The frame of every page of the console. settings.UNFOLD names these functions."""

from django.conf import settings
from django.http import HttpRequest
from django.templatetags.static import static


def stylesheet(request: HttpRequest) -> str:
    return static("quiktrade/console.css")


def script(request: HttpRequest) -> str:
    return static("quiktrade/console.js")


def icon(request: HttpRequest) -> str:
    return static("quiktrade/favicon.svg")


def environment(request: HttpRequest) -> list[str]:
    return ["Production", "danger"] if settings.PRODUCTION else ["Local", "info"]
