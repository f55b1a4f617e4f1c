"""How Django is entered: its WSGI handler, and a request whose text is UTF-8."""

from typing import Any

from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters


class Request(WSGIRequest):
    """Django's own reads the query in the charset that the Content-Type names, whatever that is.

    It does so before anything could answer an error: `charset=rot13` ended a request without a problem document.
    """

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except ValueError:  # its parameters cannot be read; none of them means anything to us
            meta["CONTENT_TYPE"] = meta["CONTENT_TYPE"].partition(";")[0]
            self.content_type, self.content_params = meta["CONTENT_TYPE"].strip().lower(), {}


class Handler(WSGIHandler):
    request_class = Request
