"""Records spans, if traces are asked for. Otherwise, and for what is not sampled, nothing is imported or recorded.

    with spans.child("place at venue", order.traceparent, {"order.id": str(order.id)}, call=True) as span:
        ...
        span.note({"event": step.event})

A context is what the header `traceparent` says (W3C Trace Context). It is kept and sent only where it is sampled, so
None stands for all that is not to be recorded. A span says nothing of clients, prices or the texts of errors.
"""

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from quiktrade.tracing.traceparent import trace_of

if TYPE_CHECKING:
    from quiktrade.tracing.recorder import Recorder

logger = logging.getLogger(__name__)

Attributes = Mapping[str, str | int | float]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
END_SECONDS = 1.0
"""A process that ends waits this long for a receiver to take its last spans."""


class Span(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""

    def rename(self, name: str) -> None: ...

    def fail(self, why: str) -> None:
        """Mark it as failed. `why` is a word of ours."""


class _Nothing:
    """A span that is not recorded."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, attributes: Attributes) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    def fail(self, why: str) -> None:
        pass


NOTHING: Span = _Nothing()

_recorder: "Recorder | None" = None


def asked_for() -> bool:
    """Whether the environment asks for traces, by the standard's own variables."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if off or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(os.environ.get(name, "").strip() for name in ENDPOINTS)


def preload() -> None:
    """Load what `start()` would load, so that processes forked afterwards share it."""
    if asked_for():
        with suppress(Exception):  # `start()` says what is wrong
            import quiktrade.tracing.recorder  # noqa: F401


def start(part: str) -> None:
    """Begin to record in this process, if traces are asked for. `part` is the program's, such as `api`.

    It starts a thread, so call it after the last fork.
    """
    global _recorder
    if _recorder is None and asked_for():
        try:
            from quiktrade.tracing.recorder import Recorder  # the SDK reads some variables as it is imported

            _recorder = Recorder(f"quiktrade-{part}")
        except Exception as error:  # nobody is refused an order because it cannot be traced
            logger.error("Traces are off: they cannot be begun", extra={"event": "trace.off", "error": str(error)})


def end() -> None:
    """Have the last spans sent, and record no more. It waits `END_SECONDS` at most, whatever the receiver does."""
    global _recorder
    recorder, _recorder = _recorder, None
    if recorder is not None:
        ending = threading.Thread(target=recorder.close, name="last spans", daemon=True)
        ending.start()
        ending.join(END_SECONDS)


def recording() -> bool:
    return _recorder is not None


def current() -> str | None:
    """The context of the span that this thread, greenlet or task is in."""
    return _recorder.current() if _recorder is not None else None


def trace_id() -> str | None:
    return trace_of(current()) if _recorder is not None else None


def headers() -> dict[str, str]:
    """What a request to somebody else says of the span that it is made in."""
    context = current()
    return {"traceparent": context} if context else {}


def of_request(method: str, traceparent: str | None) -> Span:
    """The span of a request that is served. It is sampled as its client's is, or by chance."""
    return (_recorder.of_request(method, traceparent) if _recorder is not None else None) or NOTHING


def here(name: str, attributes: Attributes | None = None) -> Span:
    """A child of the span that this thread, greenlet or task is in."""
    return child(name, _recorder.current(), attributes) if _recorder is not None else NOTHING


def child(name: str, parent: str | None, attributes: Attributes | None = None, *, call: bool = False) -> Span:
    """A child of the span with this context. `call` says that it is a call to somebody else."""
    if _recorder is None or parent is None:
        return NOTHING
    return _recorder.child(name, parent, attributes, call=call) or NOTHING


def linked(
    name: str, contexts: Iterable[str | None], attributes: Attributes | None = None, *, call: bool = False
) -> Span:
    """A span of a trace of its own, with links to these contexts; none if none of them is sampled."""
    if _recorder is None:
        return NOTHING
    return _recorder.linked(name, contexts, attributes, call=call) or NOTHING


def done(name: str, contexts: Iterable[str | None], seconds: float, attributes: Attributes | None = None) -> None:
    """Like `linked`, of what was done just now and took so long: only its result says which orders it was about."""
    if _recorder is not None and (span := _recorder.linked(name, contexts, attributes, seconds=seconds)):
        with span:
            pass
