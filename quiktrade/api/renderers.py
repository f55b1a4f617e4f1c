"""Writes JSON to clients."""

import json
from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework.renderers import BaseRenderer


class FastJSONRenderer(BaseRenderer):
    """JSON by orjson. Times are as in RFC 3339, with Z for UTC. Decimals are strings, so that no reader rounds them."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        if data is None:
            return b""
        try:
            return orjson.dumps(data, default=str, option=orjson.OPT_UTC_Z)
        except TypeError:  # half of a surrogate pair; the request has been carried out, so the answer must not be a 500
            return json.dumps(data, default=str).encode()
