"""The HTTP interface: chat completions, decisions alone, feedback, the list of models, liveness and readiness."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import FastAPI, Header, Path, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from complexity.errors import M3Error
from serving import page, replies, telling, wire
from serving.access import Access, ApiKey
from serving.accounts import log_fields
from serving.edge import Counted, LastResort, read_body
from serving.failures import Refused, failure_of
from serving.granularity import AUTO, model_name, named
from serving.model import Answer, ModelOverloaded
from serving.openapi import OPEN, describe
from serving.parse import parsed
from serving.rates import OverLimit
from serving.request_log import RequestLog
from serving.service import Answered, Service, Wanted
from serving.streaming import Told, merged, peeked
from serving.tracing import Traced

READY_TIMEOUT_S = 5.0
SPANS = {"/v1/chat/completions": "chat", "/v1/route": "route", "/v1/route/batch": "route_batch"}


def create_app(service: Service, names_requests: bool = True) -> FastAPI:
    """The ASGI application around a service.

    Args:
        names_requests: send x-request-id back; off behind a server that does so itself.
    """
    settings = service.settings
    app = FastAPI(title="M3 router", docs_url=None, redoc_url=None)  # theirs load scripts from elsewhere
    open_paths = OPEN + (page.PATHS if settings.page else ())
    app.add_middleware(Access, keys=settings.api_keys, open_paths=open_paths)  # the last one added is the outermost
    app.add_middleware(LastResort)
    app.add_middleware(Counted, metrics=service.accounts.metrics)
    app.add_middleware(RequestLog, send_back=names_requests)
    if service.tracer.on:
        app.add_middleware(Traced, tracer=service.tracer, names=SPANS)
    app.add_exception_handler(M3Error, _failed)
    app.add_exception_handler(HTTPException, _not_served)
    app.openapi = lambda: describe(app, bool(settings.api_keys), service.info.ladder)  # type: ignore[method-assign]
    started = int(time.time())

    async def body_of(request: Request) -> bytes:
        return await read_body(request, settings.max_body_bytes, settings.body_timeout_s)

    def entry(name: str) -> replies.ModelEntry:
        return replies.ModelEntry(id=name, created=started, owned_by=service.info.model_id)

    @app.post("/v1/chat/completions", response_model=replies.ChatCompletion)
    async def chat_completions(request: Request) -> Response:
        start_s, name, log = time.perf_counter(), telling.new_id(), request.state.log
        key: ApiKey | None = request.state.api_key
        with service.tracer.span("read"):
            wanted = await service.read(await body_of(request), request.headers)
        intake = wanted.intake
        with service.tracer.span("decide"):
            decision, about = await service.decide(wanted, f"m3-{name}")
        log |= log_fields(decision, f"m3-{name}", intake.model)
        explanation = await service.explain(wanted, about, decision)
        allowance = await service.charge(key, wanted, decision)
        reply = telling.Reply(name, wanted, explanation, allowance, service.info.reads.history)

        def finished(answered: Answered) -> Answered:
            log.update(log_fields(answered.decision, f"m3-{name}", intake.model, answered.answers))
            service.finished(f"m3-{name}", wanted, answered, start_s)
            return answered

        def failed() -> None:
            log["ended"] = "error"

        try:
            if intake.stream and not settings.second_look:
                told = await peeked(merged(service.streams(wanted, decision)))
                return reply.stream(told, lambda answers: finished(Answered(decision, answers)), failed, decision)
            answered = finished(await service.answer(wanted, decision))
        except BaseException:  # also when the caller has gone away
            await asyncio.shield(service.refund(key, wanted, decision, allowance))
            raise
        if intake.stream:  # which answer is sent is known when the first is complete
            return reply.stream(_whole(answered.answers), lambda _: answered, failed, answered.decision)
        return reply.whole(answered)

    @app.post("/v1/route", response_model=wire.RouteResponse)
    async def route(request: Request) -> Response:
        name = telling.new_id()
        with service.tracer.span("read"):
            wanted = await service.read(await body_of(request), request.headers, whole=False)
        with service.tracer.span("decide"):
            decision, about = await service.decide(wanted, f"m3-{name}")
        request.state.log |= log_fields(decision, f"m3-{name}", wanted.intake.model)
        told = telling.route_response(name, wanted, decision, await service.explain(wanted, about, decision))
        return telling.json(told, telling.headers(name, decision))

    @app.post("/v1/route/batch", response_model=replies.RouteBatchResponse)
    async def route_batch(request: Request) -> replies.RouteBatchResponse:
        with service.tracer.span("read"):
            batch = await service.read_batch(await body_of(request), request.headers)
        with service.tracer.span("decide"):
            decisions = await service.decide_all(batch)
        data: list[wire.RouteResponse | replies.RouteFailure] = []
        for wanted, decided in zip(batch, decisions, strict=True):
            if isinstance(decided, M3Error):
                data.append(replies.RouteFailure(error=failure_of(decided).detail))
                continue
            assert isinstance(wanted, Wanted)  # what couldn't be read couldn't be decided
            decision, about = decided
            explanation = await service.explain(wanted, about, decision)
            data.append(telling.route_response(telling.new_id(), wanted, decision, explanation))
        return replies.RouteBatchResponse(data=data)

    @app.post("/v1/feedback", response_model=wire.FeedbackReceipt)
    async def feedback(request: Request, idempotency_key: Annotated[str | None, Header()] = None) -> Response:
        store = service.accounts.feedback
        if store is None:
            raise Refused(404, "feedback_off", "this service takes no feedback: its setting feedback_dir is unset")
        given = read_feedback(await body_of(request))
        assert given.score is not None
        await service.accounts.remembered(given.decision_id)
        outcome = await store.give(given.decision_id, given.score, given.reference, idempotency_key)
        if outcome == "stored":
            service.accounts.judged(given.score)
        receipt = wire.FeedbackReceipt(decision_id=given.decision_id, duplicate=outcome == "duplicate")
        return JSONResponse(receipt.model_dump())

    @app.get("/v1/models")
    async def models() -> replies.ModelList:
        return replies.ModelList(data=[entry(model_name(tokens)) for tokens in (None, *service.info.ladder)])

    @app.get("/v1/models/{name}")
    async def model(name: Annotated[str, Path(examples=[AUTO])]) -> replies.ModelEntry:
        named(name, service.info.ladder)
        return entry(name)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await service.model.info()
        except ModelOverloaded:
            pass  # busy is ready
        except TimeoutError:
            raise Refused(503, "not_ready", "the model doesn't answer") from None
        return {"status": "ready"}

    if settings.page:
        page.add_page(app, service.info, settings)
    return app


def read_feedback(body: bytes) -> wire.Feedback:
    """The verdict in a body, its score filled in.

    Raises:
        Refused: the body is no verdict, or says none or two.
    """
    given = parsed(wire.Feedback, body)
    if (given.score is None) == (given.correct is None):
        raise Refused(400, "invalid_value", "send one of score and correct", "score")
    return given if given.correct is None else given.model_copy(update={"score": float(given.correct)})


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return error.response() if isinstance(error, OverLimit) else failure_of(error).response()


async def _not_served(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own refusals (no such path, wrong method) in OpenAI's shape, with their headers (Allow)."""
    assert isinstance(error, HTTPException)
    code = "unknown_url" if error.status_code == 404 else "method_not_allowed"
    message = f"{request.method[:20]} {request.url.path[:200]}: {error.detail}"
    response = failure_of(Refused(error.status_code, code, message)).response()
    response.headers.update(error.headers or {})
    return response


async def _whole(answers: tuple[Answer, ...]) -> AsyncIterator[Told]:
    for told in enumerate(answers):
        yield told
