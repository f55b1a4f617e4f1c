"""Answers that go on for as long as their client stays: each part is sent as soon as it is there.

Such an answer holds no place of admission and no connection to the database. It must end by itself when the process is
told to stop, so whoever makes one registers with `at_stop`.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from django.http import HttpRequest, StreamingHttpResponse

_stops: list[Callable[[], None]] = []


class Line(Protocol):
    """The connection of a client, as far as who serves it may need it."""

    def go_live(self) -> None:
        """Send what comes from now on at once, instead of collecting an answer."""

    def push(self, part: bytes) -> int | None:
        """Send a part now, where that takes no wait. Returns how many bytes are left, which go with the next part;
        None if nothing was sent."""

    def cut(self) -> None:
        """End it at once, though its client has not read all."""

    def hung_up(self) -> bool:
        """Whether the client has closed its end."""


class LiveResponse(StreamingHttpResponse):
    """`at_end` is called once it is over, however it ended, also if no part was ever asked for."""

    def __init__(self, parts: Iterable[bytes], *, at_end: Callable[[], None], **more: Any) -> None:
        super().__init__(parts, **more)
        self._at_end = at_end

    def close(self) -> None:
        try:
            self._at_end()
        finally:
            super().close()


def line_of(request: HttpRequest) -> Line | None:
    """The client's connection; None where another server than ours serves it."""
    line = request.META.get("gunicorn.socket")
    return line if hasattr(line, "go_live") else None


def at_stop(end: Callable[[], None]) -> None:
    """Have this called when the process is told to stop."""
    _stops.append(end)


def stop() -> None:
    for end in _stops:
        end()
