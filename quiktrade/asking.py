"""Asks parts of the system on this machine whether they answer. `up`, the laboratory and the tests use it."""

import http.client
import json
import socket
from typing import Any

SECONDS = 5.0
"""A part that takes longer does not answer."""


def ask(
    port: int, path: str, *, host: str = "127.0.0.1", method: str = "GET", content: Any = None, seconds: float = SECONDS
) -> Any:
    """The JSON that a part answers with. Raises: OSError, HTTPException; ValueError for an answer other than 200."""
    asked = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        body = None if content is None else json.dumps(content)
        asked.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = asked.getresponse()
        answer = response.read()
    finally:
        asked.close()
    if response.status != http.HTTPStatus.OK:
        raise ValueError(f"{method} {path}: {response.status} {answer[:300]!r}")
    return json.loads(answer)


def answer_of(port: int, path: str, *, host: str = "127.0.0.1") -> Any:
    """The JSON that a part answers with, or None if it does not answer so."""
    try:
        return ask(port, path, host=host)
    except (OSError, http.client.HTTPException, ValueError):
        return None


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=SECONDS).close()
    except OSError:
        return False
    return True
