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
class Picture:
    """A picture, and the digest by which what is known of it is found."""

    pixels: Pixels
    digest: str


@dataclass(frozen=True)
class Turn:
    """An earlier question of a conversation and its answer."""

    question: str
    answer: str
    pictures: int = 0  # that stand before the question


@dataclass(frozen=True)
class Reads:
    """What of a conversation reaches the model beside the question; the rest is left out, but for pictures."""

    history: bool  # earlier turns
    system: bool  # a system message
    pictures: int | None = None  # in a whole conversation; an ask with more is refused; None: any number


@dataclass(frozen=True)
class Ask:
    """One question about pictures, at a decided granularity, and the conversation that it ends.

    `pictures` are those of the whole conversation in order; those that the history doesn't use belong to the question.
    """

    pictures: tuple[Picture, ...]
    question: str
    tokens: int  # visual tokens per grid, a rung of the ladder
    max_new_tokens: int
    system: str = ""  # replaces the conversation format's own
    history: tuple[Turn, ...] = ()
    temperature: float = 0.0  # greedy
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()  # texts that end the answer
    stream: bool = False  # tell of the answer piece by piece
    logprobs: int | None = None  # alternatives told of each token, 0 to 20; None: its log-probability isn't told either
    deadline_s: float | None = None  # from its arrival in the engine; an answer that isn't complete then isn't wanted

    @property
    def picture(self) -> str:
        """Digest of the first picture: a conversation goes to the replica that knows it."""
        return self.pictures[0].digest


@dataclass(frozen=True)
class Look:
    """One picture to be looked at by the tower alone."""

    pixels: Pixels
    picture: str

    @property
    def pictures(self) -> tuple[Picture]:
        return (Picture(self.pixels, self.picture),)


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer, how likely the model held it to be, and what it held to be likeliest.

    A token may be part of a character: `token` has U+FFFD for what isn't complete, `raw` its very bytes. Special tokens
    have a name for `token` and no bytes. Log-probabilities are natural and the model's own, at temperature 1.
    """

    token: str
    logprob: float
    raw: bytes
    top: tuple[tuple[str, float, bytes], ...] = ()  # (token, logprob, raw) of the alternatives, the likeliest first


@dataclass(frozen=True)
class Piece:
    """What an answer goes on with; the last may be of tokens without text."""

    text: str
    logprobs: tuple[TokenLogprob, ...] | None = None  # of the tokens that begin in it, where the ask wants them


@dataclass(frozen=True)
class Answer:
    """What the model said to one Ask.

    `logprobs`, where the ask wants them, are of the tokens that `text` is made of, without the one that ends answers.
    Their bytes are the text before blanks around it were cut off. Where a stop text cut it, they end with the token in
    which the last of its characters stands, whole. A stream's pieces together have the same.
    """

    text: str
    visual_tokens: int  # what the language model really saw
    prompt_tokens: int  # text and visual
    completion_tokens: int
    mean_logprob: float  # natural log, mean over the answer's tokens
    finish_reason: Literal["stop", "length"]
    engine_ms: float = 0.0  # from its arrival in the engine to its last token
    first_token_ms: float = 0.0  # from its arrival in the engine
    logprobs: tuple[TokenLogprob, ...] | None = None
    intervals: tuple[tuple[str, float, float], ...] = ()
    """What its time went to, (name, start_s, end_s) from its arrival: "queue", "tower", "prefill" up to the first
    token, "decode". They follow each other without gaps; there is no "tower" for pictures that were known."""


@dataclass(frozen=True)
class Refusal:
    """Why the model didn't answer: crosses processes as a value, since Ray reports a raise as a crash."""

    message: str
    param: str | None
    late: bool = False  # the deadline is over; otherwise it is the caller's mistake


@dataclass(frozen=True)
class ModelInfo:
    """Which model answers, and at which granularities."""

    model_id: str
    ladder: tuple[int, ...]
    image_px: int  # of a picture's shorter side, that it can make use of
    reads: Reads = Reads(history=True, system=True)
    aspect: str = "pad"  # how a picture becomes squares: "square" crops its middle, "pad" pads it, "anyres" cuts tiles


class Model(Protocol):
    """The model as the ingress calls it; answers raise InvalidInput or one of the errors below.

    A stream tells pieces of the answer while it is written, where the ask wants them, and last the whole answer.
    """

    async def info(self) -> ModelInfo:
        """Which model it is."""
        ...

    async def answer(self, ask: Ask) -> Answer:
        """The whole answer."""
        ...

    def stream(self, ask: Ask) -> AsyncIterator[Piece | Answer]:
        """The answer's pieces, and last the whole."""
        ...


class ModelUnavailable(M3Error):
    """No replica of the model can answer now (HTTP 503)."""


class ModelOverloaded(M3Error):
    """More requests wait than the model accepts; `retry_after_s` says when to try again (HTTP 429)."""

    def __init__(self, message: str, retry_after_s: int = 1):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelTimeout(M3Error):
    """The model didn't answer in time (HTTP 504)."""
