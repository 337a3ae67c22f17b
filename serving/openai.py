"""The OpenAI wire types this service speaks: chat completions, models, errors, and its own `m3` decision.

A request field that isn't declared here is refused by name, and so is a value that the service can't honour: nothing
is silently ignored. The description of a restricted field says why it is restricted, and is sent in the error.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from serving.model import Answer


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TextPart(_Closed):
    type: Literal["text"]
    text: str


class ImageUrl(_Closed):
    url: str
    detail: Literal["auto"] | None = Field(None, description="the model name chooses the granularity, m3-auto or m3-36")


class ImagePart(_Closed):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


Zero = Annotated[float, Field(ge=0, le=0)]


def _parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Message(_Closed):
    """One message; content given as a string is read as one text part."""

    role: Literal["user"] = Field(description="one user message is answered; system or earlier turns aren't supported")
    content: Annotated[list[Part], BeforeValidator(_parts, json_schema_input_type=str | list[Part])]


class TextFormat(_Closed):
    type: Literal["text"] = Field(description="answers are plain text")


Stops = Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=4)]


def _stops(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


class StreamOptions(_Closed):
    include_usage: bool = False


class Wishes(_Closed):
    """What a request asks of the router."""

    floor: int | None = Field(None, description="the fewest visual tokens, one of the model's scales")
    ceiling: int | None = Field(None, description="the most visual tokens, one of the model's scales")


class ChatRequest(_Closed):
    """Body of POST /v1/chat/completions and of POST /v1/route."""

    model: str = Field(description="m3-auto, or m3-TOKENS for a fixed number of visual tokens")
    messages: Annotated[list[Message], Field(min_length=1, max_length=1, description="one user message is answered")]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    temperature: float | None = Field(None, ge=0, le=2, description="0, the default here, is greedy decoding")
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[Stops | None, BeforeValidator(_stops, json_schema_input_type=str | list[str] | None)] = Field(
        None, description="up to 4 texts, none of them empty"
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    n: Annotated[int, Field(ge=1, le=1)] | None = Field(None, description="one answer per request")
    presence_penalty: Zero | None = Field(None, description="penalties aren't supported")
    frequency_penalty: Zero | None = Field(None, description="penalties aren't supported")
    logit_bias: None = Field(None, description="biases aren't supported")
    logprobs: Literal[False] | None = Field(None, description="per-token log-probabilities aren't supported")
    top_logprobs: None = Field(None, description="per-token log-probabilities aren't supported")
    tools: None = Field(None, description="tools aren't supported")
    tool_choice: None = Field(None, description="tools aren't supported")
    parallel_tool_calls: None = Field(None, description="tools aren't supported")
    functions: None = Field(None, description="functions aren't supported")
    function_call: None = Field(None, description="functions aren't supported")
    response_format: TextFormat | None = None

    m3: Wishes = Field(Wishes(floor=None, ceiling=None), description="bounds for the router, with model m3-auto")


class Decision(BaseModel):
    """How many visual tokens were chosen, and why.

    predicted, or cached: the scale worth its cost; forced: named by the caller; unfamiliar: unlike the training data,
    so the finest; fallback: the prediction failed, so the finest; unsure: a first answer was doubtful.
    """

    tokens: int  # per grid
    why: Literal["predicted", "cached", "forced", "fallback", "unfamiliar", "unsure"]
    probabilities: dict[str, float] | None  # P(right answer) by tokens; null where nothing was predicted
    price: float  # probability of a right answer per unit of cost
    artifact: str
    decision_ms: float


class AnsweredDecision(Decision):
    """A decision that was carried out."""

    visual_tokens: int  # what the language model really saw, of both answers when it answered twice
    first_tokens: int | None = None  # tokens per grid of a first answer that wasn't sure enough
    mean_logprob: float  # natural log, mean over the answer's tokens


class RouteResponse(Decision):
    """Body of a reply of POST /v1/route."""

    object: Literal["m3.decision"] = "m3.decision"
    model: str


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    index: int = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class PromptTokensDetails(BaseModel):
    image_tokens: int
    cached_tokens: int = 0


class Usage(BaseModel):
    prompt_tokens: int  # text and visual
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


def usage_of(answer: Answer) -> Usage:
    """What an answer took."""
    return Usage(
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        total_tokens=answer.prompt_tokens + answer.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(image_tokens=answer.visual_tokens),
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
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    index: int = 0
    delta: Delta
    logprobs: None = None
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
    id: str
    object: Literal["model"] = "model"
    created: int  # Unix seconds
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Body of every reply that isn't a success."""

    error: ErrorDetail


# Why a field is restricted, by its name: sent with the refusal.
REASONS = {
    name: field.description
    for wire_type in (ChatRequest, Message, ImageUrl, TextFormat, Wishes)
    for name, field in wire_type.model_fields.items()
    if field.description
}
