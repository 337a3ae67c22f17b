"""A request body's bytes -> what is to be answered; refuses by name what this service can't do."""

import base64
import binascii
import re
import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from complexity.errors import InvalidInput
from complexity.sample import Sample
from router.policy import check_bounds
from serving.failures import Refused, refusal_of, shown
from serving.model import ModelInfo, Pixels
from serving.openai import ChatRequest, ImagePart, TextPart
from serving.settings import Settings

AUTO = "m3-auto"
MAX_SIDE = 768  # pixels sent to the model; keeps a message under Ray's 4 MiB, and no M3 looks at more per grid
DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64,", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Intake:
    """What one request wants."""

    model: str  # as named by the caller
    tokens: int | None  # a rung of the ladder; None: the router decides
    floor: int | None  # fewest and most tokens that it may choose
    ceiling: int | None
    sample: Sample
    image_param: str  # path of the picture in the body, for errors
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False  # in a stream

    @cached_property
    def pixels(self) -> Pixels:
        """The picture for the model, decoded at the first call: tens of milliseconds for a large picture.

        Raises:
            Refused: the bytes are not an acceptable picture.
        """
        try:
            return pixels_of(self.sample)
        except InvalidInput as error:
            raise Refused(400, "invalid_image", str(error), self.image_param) from None


def read_request(body: bytes, info: ModelInfo, settings: Settings) -> Intake:
    """Parse and check a chat request; the picture is not decoded yet.

    Raises:
        Refused: with the HTTP status, the code and the field at fault.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise refusal_of(error) from None
    tokens = tokens_of(request.model, info.ladder)
    parts = request.messages[0].content
    question = " ".join(part.text.strip() for part in parts if isinstance(part, TextPart)).strip()
    if not question:
        raise Refused(400, "empty_question", "the question is empty: send a text part", "messages.0.content")
    if len(question) > settings.max_question_chars:
        message = f"the question has {len(question)} characters; at most {settings.max_question_chars} are accepted"
        raise Refused(400, "question_too_long", message, "messages.0.content")
    image, image_param = _image(parts)
    floor, ceiling = _bounds(request, tokens, info.ladder)
    if request.stream_options is not None and not request.stream:
        raise Refused(400, "invalid_value", "stream_options is for streamed answers", "stream_options")
    return Intake(
        model=request.model,
        tokens=tokens,
        floor=floor,
        ceiling=ceiling,
        sample=Sample(image, question, info.image_px),
        image_param=image_param,
        max_new_tokens=_max_new_tokens(request, settings),
        **_sampling(request),
        stop=tuple(request.stop or ()),
        stream=bool(request.stream),
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
    )


def tokens_of(model: str, ladder: tuple[int, ...]) -> int | None:
    """Visual tokens that a model name asks for; None for m3-auto.

    Raises:
        Refused: 404, listing the names there are.
    """
    names = {model_name(tokens): tokens for tokens in (None, *ladder)}
    if model not in names:
        message = f"model {shown(model)} does not exist; choose one of {', '.join(names)}"
        raise Refused(404, "model_not_found", message, "model")
    return names[model]


def model_name(tokens: int | None) -> str:
    """The name under which a number of visual tokens is asked for."""
    return AUTO if tokens is None else f"m3-{tokens}"


def pixels_of(sample: Sample) -> Pixels:
    """A sample's picture for the model, shrunk to MAX_SIDE if larger; raises InvalidInput where it is none."""
    picture = sample.picture
    if max(picture.size) > MAX_SIDE:
        picture = picture.copy()  # the sample's own stays whole: the router looks at it
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return Pixels(*picture.size, picture.tobytes())


def _image(parts: list[TextPart | ImagePart]) -> tuple[bytes, str]:
    images = [(i, part.image_url.url) for i, part in enumerate(parts) if isinstance(part, ImagePart)]
    if not images:
        raise Refused(400, "image_required", "one picture is needed: send an image_url part", "messages.0.content")
    if len(images) > 1:
        message = f"one picture per request is supported, {len(images)} were sent"
        raise Refused(400, "too_many_images", message, f"messages.0.content.{images[1][0]}")
    i, url = images[0]
    param = f"messages.0.content.{i}.image_url.url"
    head = DATA_URL.match(url)
    if head is None:
        message = "pictures are accepted as base64 data URLs only, data:image/png;base64,...; nothing is fetched"
        raise Refused(400, "invalid_image_url", message, param)
    try:
        image = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "invalid_base64", f"the picture is not valid base64: {error}", param) from None
    return image, param


def _bounds(request: ChatRequest, tokens: int | None, ladder: tuple[int, ...]) -> tuple[int | None, int | None]:
    wishes = request.m3
    if tokens is not None and (wishes.floor, wishes.ceiling) != (None, None):
        message = f"m3.floor and m3.ceiling steer {AUTO}; {request.model} has a fixed number of tokens"
        raise Refused(400, "invalid_value", message, "m3")
    try:
        check_bounds(ladder, wishes.floor, wishes.ceiling)
    except InvalidInput as error:
        raise Refused(400, "invalid_value", str(error), f"m3.{error.param}") from None
    return wishes.floor, wishes.ceiling


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
