"""The OpenAI wire types this service speaks: chat completions, models, errors.

A request field that isn't declared here is refused by name, and so is a value that the service can't honour: nothing
that would change the answer is silently ignored. The description of a restricted field says why it is restricted, and
is sent in the error.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from serving.model import Answer
from serving.model import TokenLogprob as Logprob
from serving.wire import AnsweredDecision, Closed, RouteResponse, Wishes

MOST_CHOICES = 8
MOST_MESSAGES = 64
BATCH = 64  # requests of one POST /v1/route/batch


class TextPart(Closed):
    """A text of a message."""

    type: Literal["text"]
    text: str


class ImageUrl(Closed):
    """Where a picture is: a data URL with its bytes, or an address, where the service fetches."""

    url: str
    detail: Literal["auto", "low", "high"] | None = Field(
        None, description="low: at most a coarse scale; high: the finest; auto: the router chooses"
    )


class ImagePart(Closed):
    """A picture of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Zero = Annotated[float, Field(ge=0, le=0)]


def _parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def content_of(part: type) -> type:
    """Content of a message: a list of parts, or a string, which is read as one text part."""
    parts = Annotated[list[part], Field(min_length=1)]  # type: ignore[valid-type]
    return Annotated[parts, BeforeValidator(_parts, json_schema_input_type=str | parts)]  # type: ignore[return-value]


class SystemMessage(Closed):
    """What holds for the whole conversation."""

    role: Literal["system", "developer"]
    content: content_of(TextPart)  # type: ignore[valid-type]


class UserMessage(Closed):
    """A question, with the pictures that it is about."""

    role: Literal["user"]
    content: content_of(Part)  # type: ignore[valid-type]


class AssistantMessage(Closed):
    """An earlier answer; the empty fields are those that clients send along when they hand an answer back."""

    role: Literal["assistant"]
    content: content_of(TextPart)  # type: ignore[valid-type]
    refusal: None = None
    audio: None = Field(None, description="sound isn't supported")
    tool_calls: None = Field(None, description="tools aren't supported")
    function_call: None = Field(None, description="functions aren't supported")
    annotations: Annotated[list[object], Field(max_length=0)] | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class TextFormat(Closed):
    """The form of answers."""

    type: Literal["text"] = Field(description="answers are plain text")


Stop = Annotated[str, Field(min_length=1, max_length=100)]
Stops = Annotated[list[Stop], Field(max_length=4)]


def _stops(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


class StreamOptions(Closed):
    """How a stream is told."""

    include_usage: bool = False
    include_obfuscation: bool = Field(False, description="accepted, and without effect")


class ChatRequest(Closed):
    """Body of POST /v1/chat/completions and of POST /v1/route."""

    model: str = Field(
        description="m3-auto; m3-auto-LOSS, such as m3-auto-0.02, where so much accuracy may be lost; or m3-TOKENS for "
        "a fixed number of visual tokens"
    )
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    temperature: float | None = Field(None, ge=0, le=2, description="0, the default here, is greedy decoding")
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES, description="answers of one request")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20, description="alternatives told of each token, with logprobs")
    stop: Annotated[Stops | None, BeforeValidator(_stops, json_schema_input_type=Stop | Stops | None)] = Field(
        None, description="up to 4 texts, none of them empty"
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # Accepted since they don't change the answer; kept nowhere.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: Literal["auto", "default"] | None = None

    presence_penalty: Zero | None = Field(None, description="penalties aren't supported")
    frequency_penalty: Zero | None = Field(None, description="penalties aren't supported")
    logit_bias: None = Field(None, description="biases aren't supported")
    tools: None = Field(None, description="tools aren't supported")
    tool_choice: None = Field(None, description="tools aren't supported")
    parallel_tool_calls: None = Field(None, description="tools aren't supported")
    functions: None = Field(None, description="functions aren't supported")
    function_call: None = Field(None, description="functions aren't supported")
    response_format: TextFormat | None = None

    m3: Wishes = Field(Wishes(), description="what is asked of the router")  # type: ignore[call-arg]


class RouteBatch(Closed):
    """Body of POST /v1/route/batch."""

    requests: Annotated[list[ChatRequest], Field(min_length=1, max_length=BATCH)]


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


# Why a field is restricted, by its name: sent with the refusal.
REASONS = {
    name: field.description
    for wire_type in (ChatRequest, AssistantMessage, ImageUrl, TextFormat, Wishes)
    for name, field in wire_type.model_fields.items()
    if field.description
}
