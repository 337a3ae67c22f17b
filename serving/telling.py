"""How one request's decision and answers are told: in headers, in the body, in a stream."""

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial
from typing import Any

from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from router.explain import Explanation
from router.policy import Decision
from serving import replies, wire
from serving.rates import Allowance
from serving.service import Answered, Wanted
from serving.streaming import Told, events


def new_id() -> str:
    """A name for a decision and what follows from it."""
    return uuid.uuid4().hex


def wire_decision(name: str, decision: Decision, explanation: Explanation | None = None) -> wire.Decision:
    """A decision in the shape of the `m3` field."""
    probabilities = None
    if decision.probabilities is not None:
        pairs = zip(decision.ladder, decision.probabilities, strict=True)
        probabilities = {str(tokens): round(float(p), 6) for tokens, p in pairs}
    return wire.Decision(
        decision_id=f"m3-{name}",
        tokens=decision.tokens,
        why=decision.why,
        probabilities=probabilities,
        price=decision.price,
        artifact=decision.artifact,
        decision_ms=round(decision.latency_ms, 3),
        explanation=None if explanation is None else wire.Explanation.model_validate(asdict(explanation)),
    )


def route_response(
    name: str, wanted: Wanted, decision: Decision, explanation: Explanation | None = None
) -> wire.RouteResponse:
    """A decision as /v1/route gives it."""
    return wire.RouteResponse(model=wanted.intake.model, **dict(wire_decision(name, decision, explanation)))


def headers(name: str, decision: Decision) -> dict[str, str]:
    """The x-m3-* headers that every decision comes with."""
    return {
        "x-m3-version": wire.VERSION,
        "x-m3-decision-id": f"m3-{name}",
        "x-m3-tokens": str(decision.tokens),
        "x-m3-why": decision.why,
        "x-m3-artifact": decision.artifact,
        "x-m3-decision-ms": f"{decision.latency_ms:.3f}",
    }


def json(body: BaseModel, sent: dict[str, str]) -> JSONResponse:
    """A body of the wire types, with the headers that say the decision."""
    return JSONResponse(body.model_dump(), headers=sent)


class Reply:
    """The reply to a chat completion, whole or streamed.

    Args:
        conversation: whether the model reads more of it than the question.
    """

    def __init__(
        self,
        name: str,
        wanted: Wanted,
        explanation: Explanation | None,
        allowance: Allowance,
        conversation: bool,
    ):
        self._name, self._wanted, self._explanation, self._allowance = name, wanted, explanation, allowance
        self._reads = "conversation" if conversation else "question"
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{name}",
            "created": int(time.time()),
            "model": wanted.intake.model,
        }

    def whole(self, answered: Answered) -> JSONResponse:
        """One JSON body."""
        answers, decision = answered.answers, answered.decision
        choices = [
            replies.Choice(
                index=index,
                message=replies.AnswerMessage(content=answer.text),
                logprobs=replies.logprobs_of(answer.logprobs),
                finish_reason=answer.finish_reason,
            )
            for index, answer in enumerate(answers)
        ]
        usage = replies.usage_of(answers, answered.before)
        body = replies.ChatCompletion(**self._head, choices=choices, usage=usage, m3=self._decided(answered))
        engine_ms = max(answer.engine_ms for answer in answers) + (answered.before.engine_ms if answered.before else 0)
        more = {
            "x-m3-visual-tokens": str(answered.visual_tokens),
            "x-m3-saved-tokens": str(answered.saved_tokens),
            "server-timing": f"decision;dur={decision.latency_ms:.3f}, model;dur={engine_ms:.3f}",
        }
        return json(body, headers(self._name, decision) | more | self._allowance.headers())

    def stream(self, told: AsyncIterator[Told], finished: Any, failed: Any, decision: Decision) -> StreamingResponse:
        """Server-sent events.

        Args:
            finished: called with the answers when all are complete, gives what was Answered.
            failed: called when an error ends the stream.
        """
        chunk = partial(replies.ChatCompletionChunk, **self._head)
        sent = events(
            told,
            chunk,
            lambda answers: self._decided(finished(answers)),
            failed,
            self._wanted.intake.n,
            self._wanted.intake.include_usage,
        )
        with_headers = headers(self._name, decision) | self._allowance.headers()
        return StreamingResponse(sent, headers=with_headers, media_type="text/event-stream")

    def _decided(self, answered: Answered) -> wire.AnsweredDecision:
        return wire.AnsweredDecision(
            **dict(wire_decision(self._name, answered.decision, self._explanation)),
            visual_tokens=answered.visual_tokens,
            saved_tokens=answered.saved_tokens,
            first_tokens=answered.first_tokens,
            mean_logprob=answered.answers[0].mean_logprob,
            reads=self._reads,  # type: ignore[arg-type]
        )
