"""Pictures with questions -> rows of the label table: what a model answers at every scale, and how right that is.

Each picture is encoded once, and its questions are put at all scales together. What a GPU's memory doesn't hold at once
is halved until it does.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image

from complexity.errors import M3Error
from complexity.labels import LabelRow
from serving.m3 import M3, Encoded, GenerateRequest, Generation, short_answer
from serving.m3.tower_features import tower_features
from training_data.scoring import SCORERS

AT_ONCE = {"cpu": 2}  # pictures that the language model takes at once: 16 take a CPU 1.3 times as long
MOST_AT_ONCE = 16  # elsewhere
SHOWN_CHARS = 200  # of what PyTorch says of memory
QUESTIONS_AT_ONCE = 16  # about a picture; each is read at every scale, and attention grows with their square


@dataclass(frozen=True)
class Asked:
    """A question about a picture, with all that a row of the label table says of it."""

    sample_id: str
    dataset: str
    task: str
    split: str
    question: str
    references: tuple[str, ...]
    scorer: str = "exact"  # a name in SCORERS
    options: tuple[str, ...] = ()
    latents: tuple[float, ...] = ()


@dataclass(frozen=True)
class Item:
    """A picture, or several that are shown together, and what is asked about it."""

    pictures: tuple[Image.Image, ...]  # RGB
    image_sha256: str
    image_features: np.ndarray  # (F,)
    asked: tuple[Asked, ...]


@dataclass(frozen=True)
class Looked:
    """An item that went through the tower."""

    item: Item
    encoded: tuple[Encoded, ...]  # one of each picture

    @property
    def tiles(self) -> int:
        """Of all its pictures."""
        return sum(len(each.tiles) for each in self.encoded)


@dataclass(frozen=True)
class Manner:
    """How questions are put."""

    generate: bool = True  # decode the answers; otherwise single references of exact match are judged
    short: bool = False  # with LLaVA's instruction to answer in a word or phrase
    max_new_tokens: int = 12
    visual_tokens: int = 12_288  # that the language model takes at once, of all scales: 16 tiles of a 24 x 24 grid

    def worded(self, question: str) -> str:
        """The question as the model gets it."""
        return short_answer(question) if self.short else question


SetAside: TypeAlias = Callable[[Asked, str], None]
"""What is done with a question for which a GPU's memory doesn't suffice even alone: takes it and the reason."""


def refuse(asked: Asked, reason: str) -> None:
    """Give up at the first.

    Raises:
        M3Error: always.
    """
    raise M3Error(f"{asked.sample_id}: {reason}")


def look(m3: M3, items: Sequence[Item], set_aside: SetAside = refuse) -> list[Looked]:
    """Encode the pictures of a batch of items; those that the memory doesn't hold are missing."""
    try:
        encoded = iter(m3.encode([picture for item in items for picture in item.pictures]))
        return [Looked(item, tuple(next(encoded) for _ in item.pictures)) for item in items]
    except torch.OutOfMemoryError as error:
        reason = _too_large(error)
    torch.cuda.empty_cache()
    if len(items) == 1:
        for asked in items[0].asked:
            set_aside(asked, reason)
        return []
    half = len(items) // 2
    return look(m3, items[:half], set_aside) + look(m3, items[half:], set_aside)


def label(m3: M3, looked: Sequence[Looked], manner: Manner, set_aside: SetAside = refuse) -> list[LabelRow]:
    """Judge or answer all questions at every scale; those that are set aside have no rows.

    Raises:
        InvalidInput: a question with its answer would not fit the model's context.
    """
    answer = _answered if manner.generate else _judged
    parts = _parts(m3, looked, manner.visual_tokens)
    outcomes = iter([each for part in parts for each in _halving(answer, m3, part, manner)])
    rows = []
    for one in looked:
        seen = np.mean([tower_features(each.tiles, m3.ladder) for each in one.encoded], axis=0)
        for asked in one.item.asked:
            scales = next(outcomes)
            if isinstance(scales, str):
                set_aside(asked, scales)
                continue
            rows += [
                LabelRow(
                    sample_id=asked.sample_id,
                    dataset=asked.dataset,
                    task=asked.task,
                    split=asked.split,
                    image_sha256=one.item.image_sha256,
                    question=asked.question,
                    references=asked.references,
                    model=m3.model_id,
                    tokens=tokens,
                    visual_tokens=outcome.visual_tokens,
                    prediction=outcome.prediction,
                    score=outcome.score,
                    mean_logprob=outcome.mean_logprob,
                    reference_logprob=outcome.reference_logprob,
                    generated_tokens=outcome.generated_tokens,
                    image_features=one.item.image_features,
                    tower_features=seen,
                    latents=asked.latents,
                )
                for tokens, outcome in zip(m3.ladder, scales, strict=True)
            ]
    return rows


@dataclass(frozen=True)
class _Outcome:
    """What a model made of a question at one scale."""

    visual_tokens: int
    prediction: str
    score: float
    mean_logprob: float  # of the prediction; NaN when it isn't known
    reference_logprob: float  # NaN when it isn't known
    generated_tokens: int


@dataclass(frozen=True)
class _Turn:
    """Questions about one item that are put together."""

    encoded: tuple[Encoded, ...]
    asked: tuple[Asked, ...]


def _parts(m3: M3, looked: Sequence[Looked], visual_tokens: int) -> Iterator[list[_Turn]]:
    """What the language model takes at once, in order; several pictures of one question stand alone."""
    most = AT_ONCE.get(m3.model.language_model.device.type, MOST_AT_ONCE)
    part: list[_Turn] = []
    held = 0
    for one in looked:
        size = one.tiles * sum(m3.ladder)
        for start in range(0, len(one.item.asked), QUESTIONS_AT_ONCE):
            alone = len(one.encoded) > 1
            if part and (alone or len(part) == most or held + size > visual_tokens or len(part[0].encoded) > 1):
                yield part
                part, held = [], 0
            part.append(_Turn(one.encoded, one.item.asked[start : start + QUESTIONS_AT_ONCE]))
            held += size
    if part:
        yield part


_Answer: TypeAlias = Callable[[M3, Sequence[_Turn], Manner], list[list[_Outcome]]]


def _halving(answer: _Answer, m3: M3, part: Sequence[_Turn], manner: Manner) -> Sequence[list[_Outcome] | str]:
    """Each question's outcomes, or why there are none: the memory doesn't suffice for it alone."""
    try:
        return answer(m3, part, manner)
    except torch.OutOfMemoryError as error:
        reason = _too_large(error)  # the error itself keeps what was computed so far in memory
    torch.cuda.empty_cache()
    halves = _halves(part)
    return [each for half in halves for each in _halving(answer, m3, half, manner)] if halves else [reason]


def _halves(part: Sequence[_Turn]) -> list[Sequence[_Turn]]:
    """Two parts of the same, in order; none of a single question."""
    half = len(part) // 2
    if half:
        return [part[:half], part[half:]]
    (turn,) = part
    half = len(turn.asked) // 2
    return [[replace(turn, asked=turn.asked[:half])], [replace(turn, asked=turn.asked[half:])]] if half else []


def _too_large(error: torch.OutOfMemoryError) -> str:
    return f"the GPU's memory doesn't hold it: {' '.join(str(error).split())[:SHOWN_CHARS]}"


def _judged(m3: M3, part: Sequence[_Turn], manner: Manner) -> list[list[_Outcome]]:
    """Exact match with one reference needs no decoding: greedy decoding gives it where each token is the likeliest."""
    pairs = [[(manner.worded(asked.question), asked.references[0]) for asked in turn.asked] for turn in part]
    judged = m3.score_at_scales([turn.encoded[0] for turn in part], pairs)
    return [
        [
            _Outcome(
                said.visual_tokens,
                asked.references[0] if said.greedy else "",
                float(said.greedy),
                said.logprob / len(said.logprobs) if said.greedy else math.nan,
                said.logprob / len(said.logprobs),
                len(said.logprobs) if said.greedy else 0,
            )
            for said in scales
        ]
        for turn, questions in zip(part, judged, strict=True)
        for asked, scales in zip(turn.asked, questions, strict=True)
    ]


def _answered(m3: M3, part: Sequence[_Turn], manner: Manner) -> list[list[_Outcome]]:
    if len(part[0].encoded) > 1:
        answers = [_of_several(m3, part[0], manner)]
    else:
        texts = [[manner.worded(asked.question) for asked in turn.asked] for turn in part]
        answers = m3.answer_at_scales([turn.encoded[0] for turn in part], texts, None, manner.max_new_tokens)
    return [
        [
            _Outcome(
                said.visual_tokens,
                said.text,
                SCORERS[asked.scorer](said.text, asked.references, asked.options),
                said.mean_logprob,
                math.nan,
                said.completion_tokens,
            )
            for said in scales
        ]
        for turn, questions in zip(part, answers, strict=True)
        for asked, scales in zip(turn.asked, questions, strict=True)
    ]


def _of_several(m3: M3, turn: _Turn, manner: Manner) -> list[list[Generation]]:
    """Answers about several pictures in one prompt, one question at all scales at a time."""
    return [
        m3.generate(
            [
                GenerateRequest(manner.worded(asked.question), turn.encoded, tokens, manner.max_new_tokens)
                for tokens in m3.ladder
            ]
        )
        for asked in turn.asked
    ]
