"""Records spans with OpenTelemetry's SDK, and sends them by OTLP over HTTP.

A thread sends what has come together. Whatever the receiver does, nothing else waits for it: it is given
OTEL_EXPORTER_OTLP_TIMEOUT seconds, and of the spans that wait meanwhile only the latest OTEL_BSP_MAX_QUEUE_SIZE are
kept. The SDK reads these and other variables of the standard; those below have defaults of our own.
"""

import logging
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import requests  # noqa: F401  the exporter imports it when it is made
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from quiktrade.tracing.traceparent import parsed

logger = logging.getLogger(__name__)

MOST_LINKS = 128
TELL_AGAIN_SECONDS = 60.0

DEFAULTS = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
BATCH = 128
"""Spans that are sent at once. A process of the API serves nothing while it encodes them: 128 take 4 ms."""

_ROOT = Context()
_KINDS = {False: SpanKind.INTERNAL, True: SpanKind.CLIENT}


Attributes = Mapping[str, str | int | float] | None


class Recorder:
    def __init__(self, service: str, processor: SpanProcessor | None = None) -> None:
        """Without a processor of the caller's, spans are sent to the receiver that the environment names."""
        for name, value in DEFAULTS.items():
            if not os.environ.get(name, "").strip():
                os.environ[name] = value
        ours: dict[str, str | int] = {
            "service.name": service,
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
        }
        self._provider = TracerProvider(
            resource=Resource.create({**ours, **OTELResourceDetector().detect().attributes}),
            shutdown_on_exit=False,  # it would wait for up to 30 s
        )
        self._by_trace_id = isinstance(self._provider.sampler, TraceIdRatioBased)
        self._provider.sampler = _LikeLinked(self._provider.sampler)
        self._provider.add_span_processor(processor or _sending())
        self._tracer = self._provider.get_tracer("quiktrade")
        self._told_of_header_at = float("-inf")

    def close(self) -> None:
        self._provider.shutdown()

    def current(self) -> str | None:
        context = trace.get_current_span().get_span_context()
        if not context.trace_flags.sampled:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def of_request(self, method: str, traceparent: str | None) -> "Recorded | None":
        """None if it is not sampled, and likewise below."""
        parent = _context(traceparent) if traceparent else None
        if traceparent and parent is None:
            self._tell_of_header()
        if parent and self._by_trace_id:  # of the client's trace, it is the client that has chosen the id
            span = self._tracer.start_span(method, _ROOT, SpanKind.SERVER, links=[Link(parent)])
        else:
            span = self._tracer.start_span(method, _inside(parent) if parent else _ROOT, SpanKind.SERVER)
        return Recorded(span) if span.is_recording() else None

    def child(self, name: str, parent: str, attributes: Attributes, *, call: bool) -> "Recorded | None":
        context = _context(parent)
        if context is None:
            return None
        return Recorded(self._tracer.start_span(name, _inside(context), _KINDS[call], attributes))

    def linked(
        self,
        name: str,
        contexts: Iterable[str | None],
        attributes: Attributes,
        *,
        call: bool = False,
        seconds: float = 0.0,
    ) -> "Recorded | None":
        found = [context for given in dict.fromkeys(contexts) if given and (context := _context(given))]
        if not found:
            return None
        links = [Link(context) for context in found[:MOST_LINKS]]
        began = time.time_ns() - round(seconds * 1e9)
        return Recorded(self._tracer.start_span(name, _ROOT, _KINDS[call], attributes, links, began))

    def _tell_of_header(self) -> None:
        if time.monotonic() - self._told_of_header_at >= TELL_AGAIN_SECONDS:
            self._told_of_header_at = time.monotonic()
            logger.info("A header traceparent is none, and is ignored", extra={"event": "trace.header_ignored"})


class Recorded:
    """A span of the SDK, which is the current one while it is entered."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __enter__(self) -> Self:
        self._token = attach(_inside(self._span, _ROOT))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        detach(self._token)
        if kind is not None:
            self.fail(kind.__name__)  # its text may quote what is nobody's business
        self._span.end()

    def note(self, attributes: Mapping[str, str | int | float]) -> None:
        self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, why: str) -> None:
        self._span.set_status(StatusCode.ERROR, why)


class _LikeLinked(Sampler):
    """Samples a span with links as if it were a child of the first one, and every other as the standard's sampler does.
    So it samples a request, too: a link there leads to its client.

    So whatever is done for a sampled order is recorded, however few are sampled.
    """

    def __init__(self, standard: Sampler) -> None:
        self._standard = standard

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        if links and kind is not SpanKind.SERVER:
            first = links[0].context
            parent_context, trace_id = _inside(first), first.trace_id
        return self._standard.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return self._standard.get_description()


class _Telling(SpanExporter):
    """An exporter that says in our log, and not too often, if its receiver takes nothing."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._told_at = float("-inf")
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            if time.monotonic() - self._told_at >= TELL_AGAIN_SECONDS:
                self._told_at = time.monotonic()
                fields = {"event": "trace.not_taken", "spans": self._lost}
                logger.warning("Spans are lost: the receiver of traces does not take them", extra=fields)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _sending() -> SpanProcessor:
    queue = os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", "").strip()
    batch = os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "").strip()
    most = None if batch else min(BATCH, int(queue)) if queue else BATCH
    return BatchSpanProcessor(_Telling(OTLPSpanExporter()), max_export_batch_size=most)


def _context(traceparent: str) -> SpanContext | None:
    found = parsed(traceparent)
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


def _inside(span: SpanContext | trace.Span, context: Context | None = None) -> Context:
    if isinstance(span, SpanContext):
        span = NonRecordingSpan(span)
    return trace.set_span_in_context(span, context)
