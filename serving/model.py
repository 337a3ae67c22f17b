"""What the ingress knows of the model: what it asks, what comes back, and how that can fail. No torch, no ray."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

from complexity.errors import M3Error


@dataclass(frozen=True)
class Pixels:
    """An RGB picture as plain bytes, to cross process borders."""

    width: int
    height: int
    rgb: bytes  # (height, width, 3) uint8


@dataclass(frozen=True)
class Ask:
    """One question about one picture, at a decided granularity."""

    pixels: Pixels
    picture: str  # digest of the picture: what is known of it is found by this
    question: str
    tokens: int  # visual tokens per grid, a rung of the ladder
    max_new_tokens: int
    temperature: float = 0.0  # greedy
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()  # texts that end the answer
    stream: bool = False  # tell of the answer piece by piece


@dataclass(frozen=True)
class Look:
    """One picture to be looked at by the tower alone."""

    pixels: Pixels
    picture: str


@dataclass(frozen=True)
class Piece:
    """What an answer goes on with."""

    text: str


@dataclass(frozen=True)
class Answer:
    """What the model said to one Ask."""

    text: str
    visual_tokens: int  # what the language model really saw
    prompt_tokens: int  # text and visual
    completion_tokens: int
    mean_logprob: float  # natural log, mean over the answer's tokens
    finish_reason: Literal["stop", "length"]
    engine_ms: float = 0.0  # from its arrival in the engine to its last token


@dataclass(frozen=True)
class Refusal:
    """The caller's mistake, found by the model: crosses processes as a value, since Ray reports a raise as a crash."""

    message: str
    param: str | None


@dataclass(frozen=True)
class ModelInfo:
    """Which model answers, and at which granularities."""

    model_id: str
    ladder: tuple[int, ...]
    image_px: int  # of a picture's shorter side, that it can make use of


class Model(Protocol):
    """The model as the ingress calls it; answers raise InvalidInput or one of the errors below.

    A stream tells pieces of the answer while it is written, where the ask wants them, and last the whole answer.
    """

    async def info(self) -> ModelInfo: ...

    async def answer(self, ask: Ask) -> Answer: ...

    def stream(self, ask: Ask) -> AsyncIterator[Piece | Answer]: ...


class ModelUnavailable(M3Error):
    """No replica of the model can answer now (HTTP 503)."""


class ModelOverloaded(M3Error):
    """More requests wait than the model accepts; `retry_after_s` says when to try again (HTTP 429)."""

    def __init__(self, message: str, retry_after_s: int = 1):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelTimeout(M3Error):
    """The model didn't answer in time (HTTP 504)."""
