"""A request body's bytes -> what is to be answered; refuses by name what this service can't do."""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from complexity.errors import InvalidInput
from complexity.sample import Sample
from router.policy import Wish
from serving.conversation import Conversation, Image, read_conversation
from serving.failures import Refused, shown
from serving.granularity import granularity, wishes_of
from serving.model import ModelInfo, Picture, Pixels
from serving.openai import ChatRequest, RouteBatch
from serving.parse import parsed
from serving.settings import Settings

MAX_SIDE = 768  # pixels sent to the model: no M3 looks at more per grid
MESSAGE_PIXELS = 1_200_000  # of all pictures of a request; keeps the message to the model under Ray's 4 MiB


@dataclass(frozen=True)
class Intake:
    """What one request wants."""

    model: str  # as named by the caller
    tokens: int | None  # a rung of the ladder; None: the router decides
    wish: Wish  # what it is to heed then
    conversation: Conversation
    image_px: int  # that the model needs of a picture's shorter side
    max_new_tokens: int
    explain: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    n: int = 1
    logprobs: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False  # in a stream

    @property
    def question(self) -> str:
        """The last message's text."""
        return self.conversation.question

    @property
    def complete(self) -> bool:
        """Whether the bytes of all pictures are here; others must be fetched."""
        return all(image.data is not None for image in self.conversation.images)

    def samples(self) -> tuple[Sample, ...]:
        """Each picture with the question, in the conversation's order.

        What is routed are the last `conversation.asked` of them, those that the question is about.
        """
        images = self.conversation.images
        return tuple(Sample(image.data or b"", self.question, self.image_px) for image in images)

    def with_images(self, images: tuple[Image, ...]) -> "Intake":
        """The same with pictures that have been fetched."""
        return replace(self, conversation=replace(self.conversation, images=images))


def read_request(body: bytes, info: ModelInfo, settings: Settings, headers: Mapping[str, str] | None = None) -> Intake:
    """Parse and check a chat request; the pictures are not decoded yet, nor fetched.

    Raises:
        Refused: with the HTTP status, the code and the field at fault.
    """
    return intake_of(parsed(ChatRequest, body), info, settings, headers or {})


def read_batch(
    body: bytes, info: ModelInfo, settings: Settings, headers: Mapping[str, str] | None = None
) -> list[Intake | Refused]:
    """Parse a batch of requests; one that makes no sense is refused for itself.

    Raises:
        Refused: the body isn't a batch of requests in their shape.
    """
    read: list[Intake | Refused] = []
    for request in parsed(RouteBatch, body).requests:
        try:
            read.append(intake_of(request, info, settings, headers or {}))
        except Refused as refused:
            read.append(refused)
    return read


def intake_of(request: ChatRequest, info: ModelInfo, settings: Settings, headers: Mapping[str, str]) -> Intake:
    """Check a request whose shape is right.

    Raises:
        Refused: as `read_request`.
    """
    conversation = _readable(read_conversation(request.messages, bool(settings.picture_hosts)), info, settings)
    wishes = wishes_of(request.m3, headers)
    tokens, wish = granularity(request.model, wishes, conversation, info.ladder)
    if request.stream_options is not None and not request.stream:
        raise Refused(400, "invalid_value", "stream_options is for streamed answers", "stream_options")
    if request.top_logprobs is not None and not request.logprobs:
        raise Refused(400, "invalid_value", "top_logprobs needs logprobs to be true", "top_logprobs")
    return Intake(
        model=request.model,
        tokens=tokens,
        wish=wish,
        conversation=conversation,
        image_px=info.image_px,
        max_new_tokens=_max_new_tokens(request, settings),
        explain=bool(wishes.explain),
        **_sampling(request),
        n=request.n or 1,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        stop=tuple(request.stop or ()),
        stream=bool(request.stream),
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
    )


def pixels_of(sample: Sample, pictures: int = 1) -> Pixels:
    """A sample's picture for the model, shrunk if larger than a message allows; raises InvalidInput where it is none.

    Args:
        pictures: that share the message.
    """
    picture = sample.picture
    width, height = picture.size
    factor = min(MAX_SIDE / max(width, height), math.sqrt(MESSAGE_PIXELS / pictures / (width * height)))
    if factor < 1:
        picture = picture.copy()  # the sample's own stays whole: the router looks at it
        picture.thumbnail((math.ceil(width * factor), math.ceil(height * factor)))
    return Pixels(*picture.size, picture.tobytes())


def pictures_of(samples: Sequence[Sample], images: Sequence[Image]) -> tuple[Picture, ...]:
    """The pictures for the model; decoding takes tens of milliseconds for a large one.

    Raises:
        Refused: the bytes of one are not an acceptable picture.
    """
    decoded = []
    for sample, image in zip(samples, images, strict=True):
        try:
            decoded.append(Picture(pixels_of(sample, len(samples)), sample.image_sha256))
        except InvalidInput as error:
            raise Refused(400, "invalid_image", str(error), image.param) from None
    return tuple(decoded)


def _readable(conversation: Conversation, info: ModelInfo, settings: Settings) -> Conversation:
    """A conversation as far as the model reads it, within the service's limits."""
    if len(conversation.question) > settings.max_question_chars:
        message = f"the question has {len(conversation.question)} characters; at most {settings.max_question_chars}"
        raise Refused(400, "question_too_long", f"{message} are accepted", conversation.question_param)
    if conversation.chars > settings.max_conversation_chars:
        message = f"the messages have {conversation.chars} characters; at most {settings.max_conversation_chars}"
        raise Refused(400, "conversation_too_long", f"{message} are accepted", "messages")
    reads = info.reads
    if not reads.history:
        images = conversation.images[-conversation.asked :]
        conversation = replace(conversation, history=(), images=images)
    if not reads.system:
        conversation = replace(conversation, system="")
    most = settings.max_images if reads.pictures is None else min(reads.pictures, settings.max_images)
    if len(conversation.images) > most:
        of = "the model reads" if most == reads.pictures else "the service accepts"
        message = f"{len(conversation.images)} pictures were sent; {of} at most {most}"
        raise Refused(400, "too_many_images", message, conversation.images[most].param)
    return conversation


def _sampling(request: ChatRequest) -> dict[str, Any]:
    """Temperature, top_p and seed; a greedy answer depends on neither of the other two."""
    if not request.temperature:
        return {}
    return {
        "temperature": request.temperature,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "seed": secrets.randbits(63) if request.seed is None else request.seed,
    }


def _max_new_tokens(request: ChatRequest, settings: Settings) -> int:
    if None not in (request.max_tokens, request.max_completion_tokens) and (
        request.max_tokens != request.max_completion_tokens
    ):
        message = "max_tokens and max_completion_tokens differ; send one of them"
        raise Refused(400, "invalid_value", message, "max_tokens")
    asked = request.max_completion_tokens or request.max_tokens or settings.default_answer_tokens
    if asked > settings.max_answer_tokens:
        message = f"max_tokens={shown(asked)}; at most {settings.max_answer_tokens} are generated"
        raise Refused(400, "invalid_value", message, "max_tokens")
    return asked
