"""The messages of a request -> a system text, the turns so far and the question, with the pictures in their places."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.failures import Refused
from serving.model import Turn
from serving.openai import ImagePart, Message, SystemMessage, TextPart, UserMessage

DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*+;base64,", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Image:
    """A picture as a request names it: its bytes, or where they are to be fetched."""

    param: str  # its path in the body, for errors
    detail: str | None
    data: bytes | None = None
    url: str | None = None


@dataclass(frozen=True)
class Conversation:
    """What was said so far, and what is asked now."""

    system: str
    history: tuple[Turn, ...]
    question: str
    images: tuple[Image, ...]  # of all turns, in order
    asked: int  # so many of them, the last ones, are what the question is about
    question_param: str

    @property
    def chars(self) -> int:
        """Characters of all texts."""
        return len(self.system) + len(self.question) + sum(len(turn.question + turn.answer) for turn in self.history)


@dataclass
class _Said:
    """What one side says before the other speaks."""

    user: bool
    at: int  # number of its first message
    texts: list[str] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(filter(None, (text.strip() for text in self.texts)))


def read_conversation(messages: Sequence[Message], fetches: bool = False) -> Conversation:
    """Sort out the messages; several in a row from one side count as one.

    Args:
        fetches: whether pictures may be named by an https URL.

    Raises:
        Refused: the messages make no conversation that ends with a question about a picture.
    """
    system: list[str] = []
    said: list[_Said] = []
    for i, message in enumerate(messages):
        if isinstance(message, SystemMessage):
            if said:
                raise _senseless("system messages come before all others", f"messages.{i}.role")
            system += [part.text.strip() for part in message.content]
            continue
        user = isinstance(message, UserMessage)
        if not said or said[-1].user != user:
            said.append(_Said(user, i))
        for k, part in enumerate(message.content):
            if isinstance(part, TextPart):
                said[-1].texts.append(part.text)
            else:
                said[-1].images.append(_image(part, f"messages.{i}.content.{k}.image_url.url", fetches))
    if not said or not said[-1].user:
        raise _senseless("the last message must be the user's question", f"messages.{len(messages) - 1}.role")
    if not said[0].user:
        raise _senseless("a conversation begins with the user", f"messages.{said[0].at}.role")
    question = said[-1]
    param = f"messages.{question.at}.content"
    if not question.text:
        raise Refused(400, "empty_question", "the question is empty: send a text part", param)
    images = [image for each in said for image in each.images]
    if not images:
        raise Refused(400, "image_required", "a picture is needed: send an image_url part", param)
    asked = next(len(each.images) for each in reversed(said) if each.images)
    earlier = zip(said[:-1:2], said[1::2], strict=True)
    return Conversation(
        system="\n".join(filter(None, system)),
        history=tuple(Turn(asking.text, answering.text, len(asking.images)) for asking, answering in earlier),
        question=question.text,
        images=tuple(images),
        asked=asked,
        question_param=param,
    )


def _senseless(message: str, param: str) -> Refused:
    return Refused(400, "invalid_value", message, param)


def _image(part: ImagePart, param: str, fetches: bool) -> Image:
    url, detail = part.image_url.url, part.image_url.detail
    head = DATA_URL.match(url)
    if head is None:
        if fetches and url[:8].lower() == "https://":
            return Image(param, detail, url=url)
        taken = "base64 data URLs, data:image/png;base64,...," + (" and https URLs" if fetches else " only")
        message = f"pictures are accepted as {taken}" + ("" if fetches else "; nothing is fetched")
        raise Refused(400, "invalid_image_url", message, param)
    try:
        return Image(param, detail, base64.b64decode(url[head.end() :], validate=True))
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "invalid_base64", f"the picture is not valid base64: {error}", param) from None
