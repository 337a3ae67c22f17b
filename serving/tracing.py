"""Spans of requests in OpenTelemetry's form; off unless asked for, and then the package isn't even imported.

A request's span has children: read, and below it image (its pictures decoded); decide, and below it cache, features,
predict; and of the engine queue, tower, prefill, decode. Whoever hands work to a thread hands it a copy of the context,
so that spans made there find their parents. What another process has done is measured there as intervals on a clock of
its own, travels with the answer, and becomes spans here. Spans carry names and numbers, never a question, an answer or
an error's text.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from complexity.errors import M3Error

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

Interval = tuple[str, float, float]  # a name, its start and its end in seconds, of whatever clock
Attribute = str | int | float | bool

OTLP_PATH = "/v1/traces"
OTLP_MODULE = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

_OFF: AbstractContextManager[None] = nullcontext()


class TracingError(M3Error):
    """Tracing is asked for and can't be had; the message says what is missing."""


class Tracing(BaseModel):
    """Which requests are traced, and where their spans are sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exporter: str = Field(
        description="http://host:4318, an OTLP collector; or package.module:Name, a SpanExporter made without "
        "arguments, such as opentelemetry.sdk.trace.export:ConsoleSpanExporter"
    )
    ratio: float = Field(1.0, ge=0, le=1, description="share of the requests that are traced, where no caller decided")


class Tracer:
    """Makes spans; without a provider it makes none, and each call costs a fraction of a microsecond."""

    def __init__(self, provider: "TracerProvider | None" = None):
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("m3-router")

    @property
    def on(self) -> bool:
        """Whether it makes spans."""
        return self._tracer is not None

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager["Span | None"]:
        """The span of a request, a child of the caller's if `headers` (in lower case) hold a W3C traceparent.

        What a caller's span says of sampling holds for its children. The spans made inside are children of this one,
        also in tasks, and in threads that work in a copy of the context.
        """
        return _OFF if self._tracer is None else self._request(name, headers)

    def span(self, name: str, **attributes: Attribute) -> AbstractContextManager["Span | None"]:
        """A span below the one that is open; an exception marks it with its type's name."""
        return _OFF if self._tracer is None else self._open(name, attributes=attributes)

    def record_intervals(self, intervals: Sequence[Interval], offset_s: float) -> None:
        """Make children of the span that is open from what was measured elsewhere.

        Args:
            offset_s: Unix time of the clock's 0. For this process's monotonic clock that is time.time() less
                time.monotonic(); for an engine's times since a request's arrival, the time at which its answer came
                less the engine's whole time.
        """
        if self._tracer is None:
            return
        zero_ns = _nanoseconds(offset_s)
        for name, start_s, end_s in intervals:
            child = self._tracer.start_span(name, start_time=zero_ns + _nanoseconds(start_s))
            child.end(zero_ns + _nanoseconds(end_s))

    def close(self) -> None:
        """Send what hasn't been sent; spans made later are lost."""
        if self._provider is not None:
            self._provider.shutdown()

    def _request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager["Span"]:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        caller = TraceContextTextMapPropagator().extract(headers)
        return self._open(name, context=caller, kind=SpanKind.SERVER)

    @contextmanager
    def _open(self, name: str, **options: Any) -> Iterator["Span"]:
        from opentelemetry.trace import Status, StatusCode

        assert self._tracer is not None
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, **options
        ) as span:
            try:
                yield span
            except BaseException as error:  # its text may repeat what the caller sent
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise


class Traced:
    """ASGI middleware: the span of a request, open until its answer is sent to the last byte, fails or is left.

    Belongs outside of RequestLog, which says how the request ended. A server's fault and an answer that didn't come
    to its end mark the span as failed; a caller's mistake doesn't.

    Args:
        names: of spans, by the path that they are for, below the application's root; other paths have none.
    """

    def __init__(self, app: ASGIApp, tracer: Tracer, names: Mapping[str, str]):
        self.app = app
        self._tracer = tracer
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = None
        if scope["type"] == "http":
            name = self._names.get(scope["path"].removeprefix(scope.get("root_path", "")))
        if name is None:
            await self.app(scope, receive, send)
            return
        with self._tracer.request(name, Headers(scope=scope)) as span:
            try:
                await self.app(scope, receive, send)
            finally:
                if span is not None:
                    _tell_end(span, **scope["state"]["outcome"])


def _tell_end(span: "Span", status: int | None, ended: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("m3.ended", ended)
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if ended != "complete" or status is None or status >= 500:
        span.set_status(Status(StatusCode.ERROR, None if ended == "complete" else ended))


def open_tracer(tracing: Tracing | None) -> Tracer:
    """A tracer as the settings say; None is one that is off.

    Raises:
        TracingError: a package is missing, or the exporter can't be found or made.
    """
    if tracing is None:
        return Tracer()
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ImportError as error:
        raise TracingError(
            f"tracing needs the package opentelemetry-sdk ({error}): pip install 'm3-router[trace]'"
        ) from None
    exporter = _exporter(tracing.exporter)
    named = Resource({"service.name": "m3-router"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(tracing.ratio), resource=named)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracer(provider)


def _exporter(to: str) -> Any:
    if to.startswith(("http://", "https://")):
        try:
            otlp = import_module(OTLP_MODULE)
        except ImportError as error:
            needed = f"the package opentelemetry-exporter-otlp-proto-http ({error}): pip install 'm3-router[trace]'"
            raise TracingError(f"tracing to {to} needs {needed}") from None
        return otlp.OTLPSpanExporter(endpoint=to if urlsplit(to).path.strip("/") else to.rstrip("/") + OTLP_PATH)
    module, _, name = to.partition(":")
    try:
        exporter = getattr(import_module(module), name)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise TracingError(
            f"no exporter of spans at {to!r}: {error}; package.module:Name or a URL is expected"
        ) from None
    if not callable(getattr(exporter, "export", None)):
        raise TracingError(f"{to!r} is no exporter of spans: it has no method export")
    return exporter


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
