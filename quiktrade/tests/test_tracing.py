"""Spans of requests, what they cost where nobody asks for them, and receivers that do not do their part."""

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from rest_framework.test import APIClient

from orders.models import Order
from orders.tests.factories import VenueFactory
from quiktrade.api.context import OfRequest, known
from quiktrade.local.venv import ROOT
from quiktrade.tests.processes import Processes, wait_until
from quiktrade.tests.taps import CLIENT, SAMPLED, TRACE, UNSAMPLED, Memory, recorded
from quiktrade.tests.test_overload import Client
from quiktrade.tests.test_settings import read, refusal, start
from quiktrade.tracing import spans
from quiktrade.tracing.recorder import Recorder

NONE = [
    "",
    "zz",
    f"00-{TRACE}-{CLIENT}",
    f"00-{TRACE}-{CLIENT}-1",
    f"00-{TRACE}-{CLIENT}-01-more",
    f"ff-{TRACE}-{CLIENT}-01",
    f"00-{'0' * 32}-{CLIENT}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE.upper()}-{CLIENT}-01",
    f"{SAMPLED},{SAMPLED}",
    "é" * 55,
    "0" * 8000,
]
"""No trace headers."""


@pytest.fixture
def memory() -> Iterator[Memory]:
    with recorded() as memory:
        yield memory


def served(traceparent: str | None, memory: Memory) -> logging.LogRecord:
    """A line that is logged while a request with this header is served."""
    record = logging.makeLogRecord({"msg": "Said"})

    def serve(request: HttpRequest) -> HttpResponse:
        OfRequest().filter(record)
        return HttpResponse()

    headers = {} if traceparent is None else {"traceparent": traceparent}
    known(serve)(RequestFactory().get("/", headers=headers))
    return record


def test_the_span_of_a_request_is_a_child_of_its_clients(memory: Memory) -> None:
    served(SAMPLED, memory)
    (span,) = memory.spans()
    assert (span.trace, span.parent) == (TRACE, CLIENT)


@pytest.mark.parametrize("header", [None, UNSAMPLED, *NONE])
def test_what_is_not_sampled_is_not_recorded(header: str | None, memory: Memory) -> None:
    served(header, memory)
    assert memory.spans() == []


CHOSEN = f"00-{'0' * 31}1-{CLIENT}-01"
"""The SDK decides by a trace's id. This one is among the first to be sampled."""


@pytest.mark.parametrize("header", [CHOSEN, SAMPLED])
def test_a_client_has_no_say_in_what_the_ratio_alone_samples(header: str) -> None:
    with recorded(OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="1e-15") as memory:
        served(header, memory)
    assert memory.spans() == []


def test_a_trace_that_the_ratio_alone_samples_is_its_own_with_a_link_to_the_clients() -> None:
    with recorded(OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="1") as memory:
        record = served(UNSAMPLED, memory)
        spans.done("claim", [memory.one("GET none").context], 0.5)
    request, claim = memory.spans()
    assert (request.parent, request.links) == ("", [(TRACE, CLIENT)])
    assert vars(record)["trace_id"] == request.trace != TRACE
    assert claim.links == [(request.trace, request.id)]


@pytest.mark.parametrize("header", NONE)
def test_a_header_that_is_none_begins_no_trace_of_its_own_choice(header: str) -> None:
    with recorded(OTEL_TRACES_SAMPLER_ARG="1") as memory:
        served(header, memory)
    (span,) = memory.spans()
    assert (span.parent, span.trace == TRACE) == ("", False)


def test_a_line_says_once_that_headers_are_ignored(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "quiktrade.tracing")
    for _ in range(3):
        served("zzSECRETzz", memory)
    assert [vars(record)["event"] for record in caplog.records] == ["trace.header_ignored"]
    assert "SECRET" not in caplog.text


def test_a_line_has_the_trace_that_is_recorded() -> None:
    with recorded(OTEL_TRACES_SAMPLER_ARG="1") as memory:
        record = served(None, memory)
    assert vars(record)["trace_id"] == memory.spans()[0].trace


def test_a_line_outside_of_a_request_has_the_trace_of_its_span(memory: Memory) -> None:
    inside, outside = logging.makeLogRecord({"msg": "Said"}), logging.makeLogRecord({"msg": "Said"})
    with spans.child("look up", SAMPLED):
        OfRequest().filter(inside)
    OfRequest().filter(outside)
    assert vars(inside)["trace_id"] == TRACE
    assert "trace_id" not in vars(outside)


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "status"), [("/api/v1/orders", 401), ("/no/such/address", 404)])
def test_a_problem_names_the_trace_that_is_recorded(path: str, status: int, memory: Memory) -> None:
    answer = APIClient().get(path, headers={"traceparent": SAMPLED})
    assert (answer.status_code, answer.json()["trace_id"]) == (status, TRACE)
    assert "trace_id" not in APIClient().get(path, headers={"traceparent": UNSAMPLED}).json()
    assert "trace_id" not in APIClient().get(path).json()


@pytest.mark.django_db
def test_the_span_of_a_request_names_its_route_and_not_its_address(memory: Memory) -> None:
    APIClient().get("/api/v1/orders/zzSECRETzz?status=zzSECRETzz", headers={"traceparent": SAMPLED})
    span = memory.one("GET /api/v1/orders/<str:pk>")
    assert span.attributes["http.response.status_code"] == "401"
    assert "SECRET" not in str(span)


def test_an_error_fails_its_span_without_its_text(memory: Memory) -> None:
    with pytest.raises(ValueError, match="SECRET"), spans.child("look up", SAMPLED):
        raise ValueError("zzSECRETzz")
    span = memory.one("look up")
    assert span.failed
    assert "SECRET" not in str(span)


def test_a_span_of_many_has_at_most_128_links_and_each_once(memory: Memory) -> None:
    contexts = [f"00-{TRACE}-{number:016x}-01" for number in range(1, 301)]
    spans.done("claim", [None, *contexts, *contexts], 0.5)
    span = memory.one("claim")
    assert span.links == [(TRACE, f"{number:016x}") for number in range(1, 129)]
    assert (span.parent, span.trace == TRACE) == ("", False)


@pytest.mark.parametrize(("sampler", "recorded_spans"), [("parentbased_traceidratio", 1), ("always_off", 0)])
def test_a_span_of_many_is_sampled_as_its_orders_are(sampler: str, recorded_spans: int) -> None:
    with recorded(OTEL_TRACES_SAMPLER=sampler) as memory:
        spans.done("claim", [None, SAMPLED], 0.5)
        spans.done("claim", [None], 0.5)
    assert len(memory.spans()) == recorded_spans


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "zzSECRETzz:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "zzSECRETzz"),
        ("OTEL_TRACES_SAMPLER", "zzSECRETzz"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "zzSECRETzz"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "zzSECRETzz"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
    ],
)
def test_a_variable_of_the_standard_that_means_nothing_ends_the_process(variable: str, value: str) -> None:
    said = refusal({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", variable: value})
    assert said.startswith(f"{variable} must be ")
    assert "SECRET" not in said


def test_compose_passes_on_every_variable_that_the_page_tells_of() -> None:
    told = set(re.findall(r"OTEL_[A-Z_]+", (ROOT / "docs/traces.md").read_text()))
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("api", "console", "worker", "session"):
        assert told - set(services[name]["environment"]) == set()


def test_the_address_of_traces_needs_a_place_for_their_id() -> None:
    url = "https://traces.example.com/trace/{trace_id}"
    assert read({"QUIKTRADE_TRACE_URL": url}, "TRACE_URL") == {"TRACE_URL": url}
    assert "{trace_id}" in refusal({"QUIKTRADE_TRACE_URL": "https://traces.example.com/"})
    assert "QUIKTRADE_TRACE_URL" in refusal({"QUIKTRADE_TRACE_URL": "javascript:alert({trace_id})"})


# ---- Off ----

WATCH = """
import os, sys

def watch(event, arguments):
    if event == "import" and arguments[0].partition(".")[0] == "opentelemetry":
        with open(os.environ["IMPORTED"], "a") as file:
            file.write(" ".join(sys.argv) + "\\n")

sys.addaudithook(watch)
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("asked_for", [False, True])
def test_no_process_imports_what_nobody_asks_for(processes: Processes, tmp_path: Path, asked_for: bool) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    imported = tmp_path / "imported"
    environment = {"PYTHONPATH": str(tmp_path), "IMPORTED": str(imported)}
    if asked_for:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{closed_port()}"
    exchange = processes.exchange()
    VenueFactory(settings={"url": exchange.url})
    web, worker = processes.web(**environment), processes.worker(**environment)
    session = processes.session(**environment)
    assert Client(web).post("one") == 201
    wait_until(lambda: Order.objects.exclude(placed_at=None).exists(), web, worker, session)
    importing = imported.read_text() if imported.exists() else ""
    programs = [name for name in ("gunicorn", "qcluster", "run_venue_session") if name in importing]
    assert programs == (["gunicorn", "qcluster", "run_venue_session"] if asked_for else [])


def closed_port() -> int:
    with closing(socket.socket()) as once:
        once.bind(("127.0.0.1", 0))
        return int(once.getsockname()[1])


# ---- Receivers that are away, or do not answer ----


@contextmanager
def silent_receiver() -> Iterator[dict[str, str]]:
    """Something that takes connections and what is sent there, and never answers. Yields the environment for it."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
            "OTEL_TRACES_SAMPLER_ARG": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }


@pytest.mark.exhaustive
def test_a_receiver_that_never_answers_delays_no_order_and_no_end(processes: Processes) -> None:
    exchange = processes.exchange()
    VenueFactory(settings={"url": exchange.url})
    with silent_receiver() as environment:
        web, worker = processes.web(**environment), processes.worker(**environment)
        session = processes.session(**environment)
        client = Client(web)
        assert [client.post(f"{number}") for number in range(5)] == [201] * 5
        wait_until(lambda: Order.objects.exclude(placed_at=None).count() == 5, web, worker, session)
        assert [web.stop(), worker.stop(), session.stop()] == [0, 0, 0]


def test_what_a_receiver_does_not_take_is_bounded() -> None:
    with silent_receiver() as environment, patch.dict(os.environ, {**environment, "OTEL_BSP_MAX_QUEUE_SIZE": "300"}):
        recorder = Recorder("quiktrade-test")
        with patch.object(spans, "_recorder", recorder):
            for _ in range(1000):
                with spans.child("look up", SAMPLED):
                    pass
            (processor,) = recorder._provider._active_span_processor._span_processors
            assert 0 < len(processor._batch_processor._queue) <= 300  # type: ignore[attr-defined]
            spans.end()
        assert not spans.recording()


def test_traces_that_cannot_be_begun_are_off(caplog: pytest.LogCaptureFixture) -> None:
    with (
        silent_receiver() as environment,
        patch.dict(os.environ, {**environment, "OTEL_SPAN_LINK_COUNT_LIMIT": "x"}),
    ):
        spans.start("test")
    assert not spans.recording()
    assert [vars(record)["event"] for record in caplog.records] == ["trace.off"]


BEGIN = """
from quiktrade.tracing import spans
spans.preload()
spans.start("test")
print(spans.recording())
"""


def test_traces_that_cannot_be_loaded_are_off() -> None:
    """The SDK reads some variables as it is imported, and in this process it was."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "x"}
    done = start(["-c", BEGIN], environment)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
    assert done.stderr.count("Traces are off") == 1


def test_half_an_installation_of_what_traces_need_is_none(tmp_path: Path) -> None:
    (tmp_path / "requests.py").write_text("raise ImportError('half of it is missing')")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(tmp_path)}
    done = start(["-c", BEGIN], environment)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
    assert done.stderr.count("Traces are off") == 1


def test_a_short_queue_has_short_batches() -> None:
    with silent_receiver() as environment, patch.dict(os.environ, {**environment, "OTEL_BSP_MAX_QUEUE_SIZE": "10"}):
        Recorder("quiktrade-test").close()


def test_a_line_says_that_spans_are_lost_and_not_how_often(caplog: pytest.LogCaptureFixture) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:SECRET@127.0.0.1:{closed_port()}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.1",
    }
    with patch.dict(os.environ, environment):
        recorder = Recorder("quiktrade-test")
    with patch.object(spans, "_recorder", recorder):
        for _ in range(3):
            with spans.child("look up", SAMPLED):
                pass
            recorder._provider.force_flush()
    ours = [record for record in caplog.records if record.name == "quiktrade.tracing.recorder"]
    assert [vars(record)["event"] for record in ours] == ["trace.not_taken"]
    assert "SECRET" not in "".join(map(str, map(vars, ours)))
    recorder.close()
