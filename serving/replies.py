"""The OpenAI wire types of replies: chat completions and their events, models, errors."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from serving.model import Answer
from serving.model import TokenLogprob as Logprob
from serving.wire import AnsweredDecision, RouteResponse


class AnswerMessage(BaseModel):
    """An answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class TopLogprob(BaseModel):
    """A token and how likely the model held it to be."""

    token: str
    logprob: float  # natural
    bytes: list[int]  # of its UTF-8; a token may be part of a character


class TokenLogprob(TopLogprob):
    """A token of an answer, and what the model held to be likeliest in its place."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """Of an answer's tokens; the one that ends it isn't among them."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(BaseModel):
    """One of a request's answers, and whether it ended by itself or at the limit."""

    index: int = 0
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]


class PromptTokensDetails(BaseModel):
    """How many of a prompt's tokens are visual; none are cached from one request to another."""

    image_tokens: int
    cached_tokens: int = 0


class Usage(BaseModel):
    """Tokens that a request took."""

    prompt_tokens: int  # text and visual
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


def usage_of(answers: Sequence[Answer], before: Answer | None = None) -> Usage:
    """What answers to one prompt took, and perhaps an answer `before` them that wasn't sent."""
    first = answers[0]
    prompt, image = first.prompt_tokens, first.visual_tokens
    completion = sum(answer.completion_tokens for answer in answers)
    if before is not None:
        prompt, image = prompt + before.prompt_tokens, image + before.visual_tokens
        completion += before.completion_tokens
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(image_tokens=image),
    )


def logprobs_of(told: Sequence[Logprob] | None) -> Logprobs | None:
    """Log-probabilities in OpenAI's shape; None where none were asked for."""
    if told is None:
        return None
    return Logprobs(
        content=[
            TokenLogprob(
                token=each.token,
                logprob=each.logprob,
                bytes=list(each.raw),
                top_logprobs=[TopLogprob(token=t, logprob=p, bytes=list(raw)) for t, p, raw in each.top],
            )
            for each in told
        ]
    )


class ChatCompletion(BaseModel):
    """Body of a reply of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int  # Unix seconds
    model: str
    choices: list[Choice]
    usage: Usage
    m3: AnsweredDecision


class Delta(BaseModel):
    """What an event of a stream adds to an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """Which of a request's answers an event belongs to, and what it adds."""

    index: int = 0
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatCompletionChunk(BaseModel):
    """One event of a streamed reply; the last with a choice tells how it ended, and carries the decision."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int  # Unix seconds
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    m3: AnsweredDecision | None = None


class ModelEntry(BaseModel):
    """One of the names under which the model is asked."""

    id: str
    object: Literal["model"] = "model"
    created: int  # Unix seconds
    owned_by: str


class ModelList(BaseModel):
    """Body of a reply of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ErrorDetail(BaseModel):
    """What went wrong: for people, as a class, and, where there is one, which parameter it is about."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Body of every reply that isn't a success."""

    error: ErrorDetail


class RouteFailure(BaseModel):
    """What stands in a decision's place where a request of a batch can't be decided."""

    object: Literal["error"] = "error"
    error: ErrorDetail


class RouteBatchResponse(BaseModel):
    """Body of a reply of POST /v1/route/batch: a decision or an error for each request, in their order."""

    object: Literal["list"] = "list"
    data: list[RouteResponse | RouteFailure]
