"""Receivers of traces: one that this project did not write, and one in the memory of a test."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self
from unittest.mock import patch

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.stage.ports import free_ports
from quiktrade.asking import listens
from quiktrade.tests.processes import wait_until
from quiktrade.tracing import spans
from quiktrade.tracing.recorder import Recorder

TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{CLIENT}-01"
UNSAMPLED = f"00-{TRACE}-{CLIENT}-00"


class Received(NamedTuple):
    """A span. Its ids are written as in the header traceparent; `parent` is empty for the first of a trace."""

    name: str
    trace: str
    id: str
    parent: str
    links: list[tuple[str, str]]
    attributes: dict[str, str]
    failed: bool

    @property
    def context(self) -> str:
        return f"00-{self.trace}-{self.id}-01"


class Tap:
    """oteltap, in a process of its own: it listens for OTLP over HTTP, and writes each span as a line of JSON."""

    def __init__(self, directory: Path) -> None:
        self.port = free_ports(1)[0]
        self._output = directory / "spans.ndjson"
        with open(self._output, "wb") as output:
            command = [sys.executable, "-u", "-m", "oteltap", "--port", str(self.port)]
            self._process = subprocess.Popen(command, stdout=output, stderr=output)

    def __enter__(self) -> Self:
        wait_until(lambda: listens(self.port))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def environment(self) -> dict[str, str]:
        """For processes that are to send their spans here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_TRACES_SAMPLER_ARG": "0",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def spans(self, name: str | None = None) -> list[Received]:
        lines = self._output.read_text().splitlines()
        found = [_read(json.loads(line)) for line in lines if line.startswith('{"traceId"') and line.endswith("}")]
        return [span for span in found if name in (None, span.name)]

    def wait_for(self, name: str, count: int = 1) -> list[Received]:
        wait_until(lambda: len(self.spans(name)) >= count)
        return self.spans(name)

    def one(self, name: str) -> Received:
        (span,) = self.wait_for(name)
        return span


def _read(span: dict[str, object]) -> Received:
    given: dict[str, list[dict[str, dict[str, str]]]] = span  # type: ignore[assignment]
    return Received(
        name=str(span["name"]),
        trace=str(span["traceId"]),
        id=str(span["spanId"]),
        parent=str(span["parentSpanId"]),
        links=[(str(link["traceId"]), str(link["spanId"])) for link in given["links"]],
        attributes={str(each["key"]): str(*each["value"].values()) for each in given["attributes"]},
        failed=span["status"]["code"] == 2,  # type: ignore[index]
    )


class Memory:
    """The spans of this process."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def spans(self, name: str | None = None) -> list[Received]:
        return [
            Received(
                name=span.name,
                trace=f"{span.context.trace_id:032x}",
                id=f"{span.context.span_id:016x}",
                parent=f"{span.parent.span_id:016x}" if span.parent else "",
                links=[(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links],
                attributes={key: str(value) for key, value in (span.attributes or {}).items()},
                failed=not span.status.is_ok and not span.status.is_unset,
            )
            for span in self._exporter.get_finished_spans()
            if name in (None, span.name) and span.context
        ]

    def one(self, name: str) -> Received:
        (span,) = self.spans(name)
        return span


@contextmanager
def recorded(**environment: str) -> Iterator[Memory]:
    """Record the spans of this process; of requests that name no trace, none."""
    exporter = InMemorySpanExporter()
    with patch.dict(os.environ, {"OTEL_TRACES_SAMPLER_ARG": "0", **environment}):
        recorder = Recorder("quiktrade-test", SimpleSpanProcessor(exporter))
        with patch.object(spans, "_recorder", recorder):
            yield Memory(exporter)
