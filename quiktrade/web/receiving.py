"""Receives a request in full before it takes a place, or refuses it, so that half-sent requests keep nobody out."""

import errno
import io
from typing import Any

SMALL_BODY = 64 * 1024
MOST_RECEIVED = 64 * 1024 * 1024
"""At most this many bytes of unfinished bodies in one process, beyond the first `SMALL_BODY` of each: so an order is
never refused because of it."""
_PIECE = 64 * 1024


class NotReceived(Exception):
    """The request is refused before all of it has arrived, and its connection is closed. `status` says why."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status

    @property
    def why(self) -> str:
        return {408: "TooSlow", 413: "TooLarge", 503: "Overloaded"}[self.status]


_received = 0


def receive(environ: dict[str, Any], most: int) -> None:
    """Read the body into memory. Raises: NotReceived; OSError, if the client is gone."""
    length = environ.get("CONTENT_LENGTH")
    if not length and "HTTP_TRANSFER_ENCODING" not in environ:
        return
    declared = int(length) if length else None
    stream = environ["wsgi.input"]
    body: bytes = stream.read(SMALL_BODY if declared is None else min(declared, SMALL_BODY))
    if len(body) == SMALL_BODY != declared:
        body = _receive_rest(stream, body, most)
    if declared is not None and len(body) < declared:
        raise ConnectionResetError(errno.ECONNRESET, "The client hung up within its request")
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))


def _receive_rest(stream: Any, body: bytes, most: int) -> bytes:
    global _received
    parts, size = [body], len(body)
    try:
        while part := stream.read(_PIECE):
            parts.append(part)
            size += len(part)
            _received += len(part)
            if size > most:
                raise NotReceived(413)
            if _received > MOST_RECEIVED:
                raise NotReceived(503)
    finally:
        _received -= size - len(body)
    return b"".join(parts)
