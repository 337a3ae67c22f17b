"""The OpenAI wire types of requests.

A request field that isn't declared here is refused by name, and so is a value that the service can't honour: nothing
that would change the answer is silently ignored. The description of a restricted field says why it is restricted, and
is sent in the error.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from serving.wire import Closed, Wishes

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


# Why a field is restricted, by its name: sent with the refusal.
REASONS = {
    name: field.description
    for wire_type in (ChatRequest, AssistantMessage, ImageUrl, TextFormat, Wishes)
    for name, field in wire_type.model_fields.items()
    if field.description
}
