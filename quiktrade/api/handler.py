"""Django's WSGI handler, with requests whose text is always read as UTF-8."""

from typing import Any

from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters


class Request(WSGIRequest):
    """A request that ignores the charset in the Content-Type.

    Django's own class reads the query in that charset, whatever it is, before anything could answer an error:
    `charset=rot13` ended a request without a problem document.
    """

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except ValueError:  # its parameters cannot be read, and we use none of them
            meta["CONTENT_TYPE"] = meta["CONTENT_TYPE"].partition(";")[0]
            self.content_type, self.content_params = meta["CONTENT_TYPE"].strip().lower(), {}


class Handler(WSGIHandler):
    request_class = Request
