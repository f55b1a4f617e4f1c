"""Chooses the media type of an answer."""

from collections.abc import Iterable
from typing import Any

from rest_framework.metadata import BaseMetadata
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class JSONFirst(DefaultContentNegotiation):
    """Chooses JSON without reading media types in the common case: the view offers JSON and the client accepts it."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> Any:
        first = next(iter(renderers))
        if first.media_type == "application/json" and request.META.get("HTTP_ACCEPT", "*/*") in _JSON_WILL_DO:
            return first, first.media_type
        return super().select_renderer(request, renderers, format_suffix)


_JSON_WILL_DO = ("*/*", "application/json")


class NoMetadata(BaseMetadata):
    """OPTIONS is answered by the Allow header alone; the OpenAPI document describes what a method takes."""

    def determine_metadata(self, request: Request, view: Any) -> None:
        return None
