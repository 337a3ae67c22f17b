"""A request on its way through the engine: what it still needs, what has been said, and where its time went."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from serving.m3 import Encoded
from serving.model import Answer, Ask, Look, Picture, Piece, TokenLogprob
from serving.spelling import Spelling, tokens_of

FRAME = 48  # tokens of a prompt around pictures and texts: its wording, ends of lines of tiles
TURN_FRAME = 24  # tokens around an earlier question and its answer

Tell = Callable[[Piece | Answer | np.ndarray | Exception], None]


@dataclass(eq=False)
class Job:
    """One request; its owner may set `gone`, and it leaves at the next turn."""

    asked: Ask | Look
    tell: Tell  # hears of pieces of the answer, and last of the answer, or what a look saw, or an error
    since_s: float
    gone: bool = False
    seen: dict[str, Encoded] = field(default_factory=dict)  # by digest, those of its pictures that are known
    prompt_tokens: int = 0
    visual_tokens: int = 0
    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    spelling: Spelling | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)  # where the ask wants them
    told_logprobs: int = 0  # of these, in pieces
    read_s: float = 0.0  # when the reading of its prompt began
    first_token_s: float = 0.0  # when its first token came
    intervals: list[tuple[str, float, float]] = field(default_factory=list)  # name, start and end from its arrival

    @property
    def until_s(self) -> float:
        """When nobody wants its answer any more."""
        deadline_s = self.asked.deadline_s if isinstance(self.asked, Ask) else None
        return math.inf if deadline_s is None else self.since_s + deadline_s

    @property
    def unseen(self) -> list[Picture]:
        """Those of its pictures that the tower has to see."""
        return [picture for picture in self.asked.pictures if picture.digest not in self.seen]

    @property
    def encoded(self) -> list[Encoded]:
        """All of its pictures, in order."""
        return [self.seen[picture.digest] for picture in self.asked.pictures]

    @property
    def visual(self) -> int:
        """Visual tokens that its prompt will hold, line ends not counted; a guess until its pictures have been seen."""
        if not isinstance(self.asked, Ask):
            return 0
        known = (self.seen.get(picture.digest) for picture in self.asked.pictures)
        return self.asked.tokens * sum(1 if encoded is None else len(encoded.tiles) for encoded in known)

    @property
    def size(self) -> int:
        """Tokens of its prompt, hardly ever fewer: by this its work is ranked, and room for it is found."""
        if not isinstance(self.asked, Ask):
            return FRAME
        history = self.asked.history
        texts = [self.asked.system, self.asked.question, *(text for t in history for text in (t.question, t.answer))]
        return self.visual + sum(len(text.encode()) for text in texts) + FRAME + TURN_FRAME * len(history)

    def spend(self, name: str, start_s: float, end_s: float) -> None:
        """Note what was done about it, in the engine's time; what lies between two of these is queueing."""
        start_s, end_s = start_s - self.since_s, end_s - self.since_s
        before_s = self.intervals[-1][2] if self.intervals else 0.0
        if start_s > before_s:
            self.intervals.append(("queue", before_s, start_s))
        self.intervals.append((name, start_s, end_s))

    def told_tokens(self, last: bool) -> int:
        """How many tokens the text told so far is made of; with `last`, the answer."""
        if self.spelling is None or (last and not self.spelling.stopped):
            return len(self.logprobs)
        return tokens_of(self.spelling.told, [token.raw for token in self.logprobs])

    def tell_piece(self, text: str, last: bool) -> None:
        """Tell a piece of the answer, with its tokens' log-probabilities where the ask wants them."""
        assert isinstance(self.asked, Ask)
        new: tuple[TokenLogprob, ...] | None = None
        if self.asked.logprobs is not None:
            new = tuple(self.logprobs[self.told_logprobs : self.told_tokens(last)]) if text or last else ()
            self.told_logprobs += len(new)
        if text or new:
            self.tell(Piece(text, new))

    def answer(self, text: str, ended: bool, now_s: float) -> Answer:
        """The whole answer, complete with the token that came now."""
        assert isinstance(self.asked, Ask)
        return Answer(
            text=text,
            visual_tokens=self.visual_tokens,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=len(self.ids),
            mean_logprob=self.logprob / len(self.ids),
            finish_reason="stop" if ended else "length",
            engine_ms=1000 * (now_s - self.since_s),
            first_token_ms=1000 * (self.first_token_s - self.since_s),
            logprobs=None if self.asked.logprobs is None else tuple(self.logprobs[: self.told_tokens(last=True)]),
            intervals=tuple(self.intervals),
        )
