"""The HTTP interface: chat completions, dry-run routing, the list of models, liveness and readiness."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from complexity.errors import InvalidInput, M3Error
from complexity.sample import Sample
from router.policy import Decision
from serving import openai
from serving.failures import Refused, failure_of
from serving.intake import Intake, model_name, read_request, tokens_of
from serving.model import Answer, Ask, Model, ModelInfo, ModelOverloaded, Piece
from serving.settings import Settings
from serving.streaming import events, peeked

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 5.0
EXAMPLE = {
    "model": "m3-auto",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What colour is the background?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}},
            ],
        }
    ],
}
BODY_DOC = {"requestBody": {"required": True, "content": {"application/json": {"example": EXAMPLE}}}}


class Router(Protocol):
    """What decides; router.route.Router is one."""

    async def route(self, sample: Sample, floor: int | None = None, ceiling: int | None = None) -> Decision: ...

    def forced(self, tokens: int) -> Decision: ...

    def again(self, decision: Decision, mean_logprob: float, ceiling: int | None = None) -> Decision | None: ...


@dataclass(frozen=True)
class Answered:
    """The answer that is sent, and how it came about."""

    decision: Decision
    answer: Answer  # its tokens are those of both answers when there were two
    first_tokens: int | None = None  # of a first answer that was answered again


@dataclass
class Service:
    """What the HTTP handlers need: the router, which may be exchanged at any time, the model, and what the model is."""

    router: Router
    model: Model
    info: ModelInfo
    settings: Settings

    async def read(self, request: Request, whole: bool = True) -> Intake:
        """Read and check a request in a thread, since it can be megabytes; its picture is decoded if `whole`."""
        body = await read_body(request, self.settings.max_body_bytes)

        def checked() -> Intake:
            intake = read_request(body, self.info, self.settings)
            if whole or intake.tokens is not None:  # without its pixels a fixed scale would accept a broken picture
                _ = intake.pixels
            return intake

        return await asyncio.to_thread(checked)

    async def decide(self, intake: Intake) -> Decision:
        """The number of tokens asked for by name, or else the router's choice."""
        if intake.tokens is not None:
            return self.router.forced(intake.tokens)
        try:
            return await self.router.route(intake.sample, intake.floor, intake.ceiling)
        except InvalidInput as error:
            raise Refused(400, "invalid_image", str(error), intake.image_param) from None

    async def ask(self, intake: Intake) -> tuple[Decision, Ask]:
        """Decide, and say what the model is to be asked."""
        decision = await self.decide(intake)
        return decision, Ask(
            pixels=intake.pixels,
            picture=intake.sample.image_sha256,
            question=intake.sample.question,
            tokens=decision.tokens,
            max_new_tokens=intake.max_new_tokens,
            temperature=intake.temperature,
            top_p=intake.top_p,
            seed=intake.seed,
            stop=intake.stop,
            stream=intake.stream,
        )

    async def answer(self, intake: Intake) -> Answered:
        """Let the model answer at the granularity that is decided, perhaps twice."""
        decision, ask = await self.ask(intake)
        answer = await self.model.answer(ask)
        better = self.router.again(decision, answer.mean_logprob, intake.ceiling)
        if better is None:
            return Answered(decision, answer)
        second = await self.model.answer(replace(ask, tokens=better.tokens))
        return Answered(
            better,
            replace(
                second,
                visual_tokens=answer.visual_tokens + second.visual_tokens,
                prompt_tokens=answer.prompt_tokens + second.prompt_tokens,
                completion_tokens=answer.completion_tokens + second.completion_tokens,
                engine_ms=answer.engine_ms + second.engine_ms,
            ),
            decision.tokens,
        )


def create_app(service: Service) -> FastAPI:
    """The ASGI application around a service."""
    app = FastAPI(title="M3 router", docs_url="/docs", redoc_url=None)
    app.add_middleware(LastResort)
    app.add_exception_handler(M3Error, _failed)
    app.add_exception_handler(HTTPException, _not_served)
    started = int(time.time())

    def entry(name: str) -> openai.ModelEntry:
        return openai.ModelEntry(id=name, created=started, owned_by=service.info.model_id)

    @app.post("/v1/chat/completions", response_model=openai.ChatCompletion, openapi_extra=BODY_DOC)
    async def chat_completions(request: Request) -> Response:
        intake = await service.read(request)
        name = f"chatcmpl-{uuid.uuid4().hex}"
        told: dict[str, Any] = {"id": name, "created": int(time.time()), "model": intake.model}
        if intake.stream and not service.settings.second_look:
            decision, ask = await service.ask(intake)
            answering = await peeked(service.model.stream(ask))
            chunk = partial(openai.ChatCompletionChunk, **told)
            return _stream(events(answering, chunk, partial(_carried_out, decision), intake.include_usage), decision)
        answered = await service.answer(intake)
        decision, answer = answered.decision, answered.answer
        carried_out = _carried_out(decision, answer, answered.first_tokens)
        if intake.stream:  # which answer is sent is known when the first is complete
            chunk = partial(openai.ChatCompletionChunk, **told)
            return _stream(events(_whole(answer), chunk, lambda _: carried_out, intake.include_usage), decision)
        body = openai.ChatCompletion(
            **told,
            choices=[
                openai.Choice(message=openai.AnswerMessage(content=answer.text), finish_reason=answer.finish_reason)
            ],
            usage=openai.usage_of(answer),
            m3=carried_out,
        )
        timing = f"decision;dur={decision.latency_ms:.3f}, model;dur={answer.engine_ms:.3f}"
        return _json(body, decision, {"x-m3-visual-tokens": str(answer.visual_tokens), "server-timing": timing})

    @app.post("/v1/route", response_model=openai.RouteResponse, openapi_extra=BODY_DOC)
    async def route(request: Request) -> Response:
        intake = await service.read(request, whole=False)  # a remembered decision needs no pixels
        decision = await service.decide(intake)
        return _json(openai.RouteResponse(model=intake.model, **_wire(decision).model_dump()), decision)

    @app.get("/v1/models")
    async def models() -> openai.ModelList:
        return openai.ModelList(data=[entry(model_name(tokens)) for tokens in (None, *service.info.ladder)])

    @app.get("/v1/models/{name}")
    async def model(name: str) -> openai.ModelEntry:
        tokens_of(name, service.info.ladder)
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

    return app


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body, at most `limit` bytes of it.

    Raises:
        Refused: 413, as soon as the body is known to be larger.
    """
    too_large = Refused(413, "body_too_large", f"the request body is larger than {limit} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


class LastResort:
    """Outermost middleware: an error that nobody foresaw is logged, and answered as a bare 500 in OpenAI's shape."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            logger.exception("request failed")
            await failure_of(error).response()(scope, receive, send)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return failure_of(error).response()


async def _not_served(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own refusals (no such path, wrong method) in OpenAI's shape."""
    assert isinstance(error, HTTPException)
    code = "unknown_url" if error.status_code == 404 else "method_not_allowed"
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return failure_of(Refused(error.status_code, code, message)).response()


def _wire(decision: Decision) -> openai.Decision:
    probabilities = None
    if decision.probabilities is not None:
        pairs = zip(decision.ladder, decision.probabilities, strict=True)
        probabilities = {str(tokens): round(float(p), 6) for tokens, p in pairs}
    return openai.Decision(
        tokens=decision.tokens,
        why=decision.why,
        probabilities=probabilities,
        price=decision.price,
        artifact=decision.artifact,
        decision_ms=round(decision.latency_ms, 3),
    )


def _carried_out(decision: Decision, answer: Answer, first_tokens: int | None = None) -> openai.AnsweredDecision:
    return openai.AnsweredDecision(
        **_wire(decision).model_dump(),
        visual_tokens=answer.visual_tokens,
        first_tokens=first_tokens,
        mean_logprob=answer.mean_logprob,
    )


async def _whole(answer: Answer) -> AsyncIterator[Piece | Answer]:
    yield answer


def _headers(decision: Decision) -> dict[str, str]:
    return {
        "x-m3-tokens": str(decision.tokens),
        "x-m3-why": decision.why,
        "x-m3-artifact": decision.artifact,
        "x-m3-decision-ms": f"{decision.latency_ms:.3f}",
    }


def _json(body: BaseModel, decision: Decision, more: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(body.model_dump(), headers=_headers(decision) | (more or {}))


def _stream(sent: AsyncIterator[bytes], decision: Decision) -> StreamingResponse:
    return StreamingResponse(sent, headers=_headers(decision), media_type="text/event-stream")
