"""Spans of requests: on, off, through threads, to a stream's end, across processes, and refused."""

import asyncio
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec

import httpx
import pytest
from doubles import LADDER, FailingModel, FakeM3, LocalModel, chat_body, png
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import ValidationError
from routers import FakePredictor, artifact_of
from starlette.types import Message

from router.cache import DecisionCache
from router.rollout import Rollout, Shadow
from router.route import Router
from serving.api import create_app
from serving.model import Model, ModelInfo, ModelTimeout
from serving.service import Service
from serving.settings import Settings
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


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def test_a_request_goes_on_with_its_callers_trace():
    tracer, exporter = collecting(ratio=0.0)
    with tracer.request("chat", {"traceparent": f"{PARENT}-01"}):
        pass
    (span,) = exporter.get_finished_spans()
    assert span.context is not None and span.context.trace_id == TRACE
    assert parent_of(span) == CALLER and span.kind == SpanKind.SERVER


def test_a_caller_that_isnt_traced_isnt_traced_here():
    tracer, exporter = collecting()
    with tracer.request("chat", {"traceparent": f"{PARENT}-00"}):
        tracer.record_intervals([("tower", 0.0, 1.0)], 0.0)
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
    with tracer.request("chat", {}):
        tracer.record_intervals([("queue", 0.0, 0.25), ("tower", 0.25, 1.5)], offset_s=1_700_000_000.0)
    spans = by_name(exporter)
    queue, tower = spans["queue"], spans["tower"]
    assert parent_of(queue) == parent_of(tower) == id_of(spans["chat"])
    assert (queue.start_time, queue.end_time) == (1_700_000_000_000_000_000, 1_700_000_000_250_000_000)
    assert (tower.start_time, tower.end_time) == (1_700_000_000_250_000_000, 1_700_000_001_500_000_000)


def test_an_error_marks_its_span_without_its_text():
    tracer, exporter = collecting()
    with pytest.raises(ValueError), tracer.request("chat", {}):
        raise ValueError("the caller's secret question")
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert "secret" not in span.to_json()


def traced_app(
    model: Model | None = None, predictor: FakePredictor | None = None, shadow: bool = False
) -> tuple[FastAPI, InMemorySpanExporter]:
    """The service around a fake model and a router with a fake predictor."""
    tracer, exporter = collecting()
    artifact = artifact_of(predictor or FakePredictor())
    watching = Shadow(Router(artifact, DecisionCache(None), span=tracer.span), lambda seen: None) if shadow else None
    rollout = Rollout(Router(artifact, DecisionCache(None), span=tracer.span), watching)
    info = ModelInfo("fake-m3", LADDER, 192)
    return create_app(Service(rollout, model or LocalModel(FakeM3()), info, Settings(), tracer=tracer)), exporter


async def ask(app: FastAPI, *bodies: object, path: str = "/v1/chat/completions") -> list[httpx.Response]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return [await client.post(path, json=body) for body in bodies]


async def by_hand(app: FastAPI, body: object, send: Callable[[Message], Awaitable[None]], gone: asyncio.Event) -> None:
    """Post a chat request; what is sent back is handed over, and the caller is there until it is gone."""
    arriving = iter([{"type": "http.request", "body": json.dumps(body).encode()}])

    async def receive() -> Message:
        for message in arriving:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    path = "/v1/chat/completions"
    request = {"type": "http", "method": "POST", "path": path, "root_path": "", "query_string": b"", "headers": []}
    await app(request | {"asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1"}, receive, send)


BELOW = {  # the span above each
    "read": "chat",
    "image": "read",
    "decide": "chat",
    "cache": "decide",
    "features": "decide",
    "predict": "decide",
    **dict.fromkeys(("queue", "tower", "prefill", "decode"), "chat"),
}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_requests_spans_nest_whichever_thread_they_are_made_in(stream: bool):
    """Read and decoded in one thread, described and predicted in another, answered in a third."""
    app, exporter = traced_app(shadow=True)
    await ask(app, chat_body() | {"stream": stream})
    spans = by_name(exporter)
    assert {name: parent_of(span) for name, span in spans.items() if name != "chat"} == {
        name: id_of(spans[above]) for name, above in BELOW.items()
    }
    assert Counter(span.name for span in exporter.get_finished_spans())["predict"] == 1  # the shadow's has no span
    chat = spans["chat"]
    assert all(chat.start_time <= span.start_time and span.end_time <= chat.end_time for span in spans.values())
    assert dict(chat.attributes or {}) == {"m3.ended": "complete", "http.response.status_code": 200}
    assert chat.status.status_code == StatusCode.UNSET


async def test_requests_side_by_side_are_traces_apart():
    app, exporter = traced_app()
    await asyncio.gather(*(ask(app, chat_body(image=png(9 + i))) for i in range(5)))
    spans = exporter.get_finished_spans()
    traces = {trace_of(span) for span in spans}
    assert len(traces) == 5
    for trace in traces:
        assert {span.name for span in spans if trace_of(span) == trace} == {"chat", *BELOW}


async def test_a_decision_that_is_remembered_has_no_prediction():
    app, exporter = traced_app()
    await ask(app, chat_body(), chat_body(), path="/v1/route")
    names = Counter(span.name for span in exporter.get_finished_spans())
    assert names == {"route": 2, "read": 2, "decide": 2, "cache": 2, "features": 1, "predict": 1}


async def test_below_a_prefix_it_is_the_same():
    """Where the application isn't served at the root."""
    app, exporter = traced_app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, root_path="/m3"), base_url="http://test") as client:
        assert (await client.post("/m3/v1/route", json=chat_body())).status_code == 200
    assert "route" in by_name(exporter)


async def test_a_batch_is_one_request():
    app, exporter = traced_app()
    await ask(app, {"requests": [chat_body("Which?"), chat_body("How many?")]}, path="/v1/route/batch")
    spans = by_name(exporter)
    assert set(spans) == {"route_batch", "read", "decide", "cache", "features", "predict"}
    assert len(set(map(trace_of, spans.values()))) == 1


async def test_a_streams_span_ends_with_its_last_byte():
    """While anything is sent it is open."""
    app, exporter = traced_app()
    sent: list[tuple[bool, bool]] = []  # is it the last, has the span ended

    async def send(message: Message) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        sent.append((last, "chat" in by_name(exporter)))

    await by_hand(app, chat_body() | {"stream": True}, send, asyncio.Event())
    assert len(sent) > 3 and sent[-1][0] and not any(ended for _, ended in sent)
    assert "chat" in by_name(exporter)


async def test_a_stream_that_breaks_marks_its_span():
    """Though on the wire, with its error event, it is complete."""
    app, exporter = traced_app()
    (reply,) = await ask(app, chat_body("crash") | {"stream": True})
    chat = by_name(exporter)["chat"]
    assert '"error"' in reply.text and (chat.attributes or {})["m3.ended"] == "error"
    assert chat.status.status_code == StatusCode.ERROR and "secret" not in chat.to_json()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_caller_that_goes_away_ends_the_span(cancelled: bool):
    """Whether the server tells so, or cancels the request as Ray Serve does."""
    app, exporter = traced_app()
    begun, gone = asyncio.Event(), asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            begun.set()
            await asyncio.Event().wait()  # nobody takes it

    asked = asyncio.create_task(by_hand(app, chat_body() | {"stream": True}, send, gone))
    async with asyncio.timeout(60):
        await begun.wait()
        if cancelled:
            asked.cancel()
        else:
            gone.set()
        with suppress(asyncio.CancelledError):
            await asked
    chat = by_name(exporter)["chat"]
    assert (chat.attributes or {})["m3.ended"] == "client_gone" and chat.status.status_code == StatusCode.ERROR


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [(chat_body(), 504, StatusCode.ERROR), ({"model": "m3-auto"}, 400, StatusCode.UNSET)],
)
async def test_a_servers_fault_marks_the_span_and_a_callers_does_not(body: object, status: int, code: StatusCode):
    app, exporter = traced_app(FailingModel(ModelTimeout("late")))  # type: ignore[arg-type]
    (reply,) = await ask(app, body)
    chat = by_name(exporter)["chat"]
    assert reply.status_code == (chat.attributes or {})["http.response.status_code"] == status
    assert chat.status.status_code == code


async def test_what_breaks_in_a_thread_marks_the_span_there():
    app, exporter = traced_app(predictor=FakePredictor(fails=RuntimeError("a secret")))
    (reply,) = await ask(app, chat_body())
    predict = by_name(exporter)["predict"]
    assert reply.json()["m3"]["why"] == "fallback"
    assert (predict.status.status_code, predict.status.description) == (StatusCode.ERROR, "RuntimeError")


async def test_what_is_no_request_to_decide_on_has_no_span():
    app, exporter = traced_app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.get("/health")
    assert exporter.get_finished_spans() == ()


def test_off_makes_no_spans():
    tracer = open_tracer(None)
    with tracer.request("chat", {"traceparent": f"{PARENT}-01"}) as request, tracer.span("cache", tokens=1) as span:
        tracer.record_intervals([("tower", 0.0, 1.0)], 0.0)
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
