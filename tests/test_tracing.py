"""Spans of requests: on, off, across processes, and refused."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import ValidationError

from serving.tracing import Tracer, Tracing, TracingError, open_tracer

TRACE, CALLER = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PARENT = f"00-{TRACE:032x}-{CALLER:016x}"
MEMORY = "opentelemetry.sdk.trace.export.in_memory_span_exporter:InMemorySpanExporter"
OTLP = "opentelemetry-exporter-otlp-proto-http"


def collecting(ratio: float = 1.0) -> tuple[Tracer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracer(provider), exporter


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def test_a_request_goes_on_with_its_callers_trace():
    tracer, exporter = collecting(ratio=0.0)
    with tracer.request("chat", {"traceparent": f"{PARENT}-01"}):
        pass
    (span,) = exporter.get_finished_spans()
    assert span.context is not None and span.context.trace_id == TRACE
    assert parent_of(span) == CALLER and span.kind == SpanKind.SERVER


def test_a_caller_that_isnt_traced_isnt_traced_here():
    tracer, exporter = collecting()
    with tracer.request("chat", {"traceparent": f"{PARENT}-00"}) as span:
        tracer.record_intervals(span, [("tower", 0.0, 1.0)], 0.0)
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{0:032x}-{CALLER:016x}-01", "00-" + "f" * 5000])
def test_a_senseless_traceparent_begins_a_trace(header: str):
    tracer, exporter = collecting()
    with tracer.request("chat", {"traceparent": header}):
        pass
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


async def test_spans_nest_through_tasks_and_threads():
    tracer, exporter = collecting()

    def compute() -> None:
        with tracer.span("features"):
            pass

    async def predict() -> None:
        with tracer.span("predict", tokens=36):
            await asyncio.to_thread(compute)

    with tracer.request("chat", {}):
        await asyncio.create_task(predict())
    spans = by_name(exporter)
    assert parent_of(spans["features"]) == id_of(spans["predict"])
    assert parent_of(spans["predict"]) == id_of(spans["chat"])
    assert spans["predict"].attributes == {"tokens": 36}


async def test_requests_at_the_same_time_keep_their_spans_apart():
    tracer, exporter = collecting()

    async def one(name: str) -> None:
        with tracer.request(name, {}):
            await asyncio.sleep(0)
            with tracer.span(f"{name} cache"):
                await asyncio.sleep(0)

    await asyncio.gather(one("a"), one("b"))
    spans = by_name(exporter)
    assert parent_of(spans["a cache"]) == id_of(spans["a"]) and parent_of(spans["b cache"]) == id_of(spans["b"])


def test_intervals_measured_elsewhere_become_children_at_their_times():
    tracer, exporter = collecting()
    with tracer.request("chat", {}) as span:
        tracer.record_intervals(span, [("queue", 0.0, 0.25), ("tower", 0.25, 1.5)], offset_s=1_700_000_000.0)
    spans = by_name(exporter)
    queue, tower = spans["queue"], spans["tower"]
    assert parent_of(queue) == parent_of(tower) == id_of(spans["chat"])
    assert (queue.start_time, queue.end_time) == (1_700_000_000_000_000_000, 1_700_000_000_250_000_000)
    assert (tower.start_time, tower.end_time) == (1_700_000_000_250_000_000, 1_700_000_001_500_000_000)


def test_intervals_of_a_stream_come_after_its_request_has_ended():
    tracer, exporter = collecting()
    with tracer.request("chat", {}) as span:
        pass
    tracer.record_intervals(span, [("tower", 0.0, 1.0)], offset_s=1_700_000_000.0)
    spans = by_name(exporter)
    assert parent_of(spans["tower"]) == id_of(spans["chat"])


def test_an_error_marks_its_span_without_its_text():
    tracer, exporter = collecting()
    with pytest.raises(ValueError), tracer.request("chat", {}):
        raise ValueError("the caller's secret question")
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert "secret" not in span.to_json()


def test_off_makes_no_spans():
    tracer = open_tracer(None)
    with tracer.request("chat", {"traceparent": f"{PARENT}-01"}) as request, tracer.span("cache", tokens=1) as span:
        tracer.record_intervals(request, [("tower", 0.0, 1.0)], 0.0)
    tracer.close()
    assert request is None and span is None


def test_off_doesnt_import_opentelemetry():
    program = (
        "import sys; from serving.tracing import open_tracer\n"
        "with open_tracer(None).request('chat', {}): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize(
    ("exporter", "message"),
    [
        ("nowhere.at_all:Exporter", "no exporter of spans at 'nowhere.at_all:Exporter': No module named 'nowhere'"),
        ("json:Exporter", "no exporter of spans at 'json:Exporter': module 'json' has no attribute 'Exporter'"),
        ("json:dumps", "no exporter of spans at 'json:dumps': dumps\\(\\) missing 1 required"),
        ("json:JSONEncoder", "'json:JSONEncoder' is no exporter of spans: it has no method export"),
        ("", "no exporter of spans at ''"),
    ],
)
def test_an_exporter_that_cant_be_had_is_refused(exporter: str, message: str):
    with pytest.raises(TracingError, match=message):
        open_tracer(Tracing(exporter=exporter))


@pytest.mark.skipif(find_spec("opentelemetry.exporter.otlp") is not None, reason="the OTLP exporter is installed")
def test_a_missing_package_is_named():
    with pytest.raises(TracingError, match=f"tracing to http://127.0.0.1:4318 needs the package {OTLP}"):
        open_tracer(Tracing(exporter="http://127.0.0.1:4318"))


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_a_share_lies_between_none_and_all(ratio: float):
    with pytest.raises(ValidationError):
        Tracing(exporter=MEMORY, ratio=ratio)


def test_an_exporter_is_found_by_its_import_path():
    tracer = open_tracer(Tracing(exporter=MEMORY))
    with tracer.request("chat", {}) as span:
        assert span is not None and span.is_recording()
    tracer.close()


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    """An OTLP collector's address, and the paths that were posted to."""
    paths: list[str] = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            paths.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collect) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


@pytest.mark.skipif(find_spec("opentelemetry.exporter.otlp") is None, reason=f"needs {OTLP}")
@pytest.mark.parametrize("path", ["", "/", "/v1/traces"])
def test_spans_reach_a_collector(path: str, collector: tuple[str, list[str]]):
    address, paths = collector
    tracer = open_tracer(Tracing(exporter=address + path))
    with tracer.request("chat", {}):
        pass
    tracer.close()
    assert paths == ["/v1/traces"]


def test_spans_name_the_service():
    exporter = "opentelemetry.sdk.trace.export:ConsoleSpanExporter"
    program = (
        "from serving.tracing import Tracing, open_tracer\n"
        f"tracer = open_tracer(Tracing(exporter={exporter!r}))\n"
        "with tracer.request('chat', {}): pass\n"
        "tracer.close()"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    span = json.loads(output)
    assert span["name"] == "chat" and span["resource"]["attributes"]["service.name"] == "m3-router"
