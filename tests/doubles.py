"""Stand-ins that the tests own, injected through constructors: a model and a router without weights."""

import base64
import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from PIL import Image

from complexity.errors import InvalidInput
from complexity.sample import Sample
from router.explain import Explanation, FeatureShare, ScaleChance
from router.policy import FREE, Decision, Wish
from serving.async_engine import AsyncEngine
from serving.engine import Engine, Limits
from serving.m3 import Encoded, InputRow, NewRow, Said
from serving.metrics import Declared, Record
from serving.model import Answer, Ask, ModelInfo, Reads, Turn

LADDER = (1, 9, 36, 144, 576)


def png(width: int = 8, height: int = 8, colour: str = "red") -> bytes:
    """An encoded one-colour picture."""
    data = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(data, "PNG")
    return data.getvalue()


def data_url(image: bytes) -> str:
    """A picture's bytes as a base64 data URL."""
    return "data:image/png;base64," + base64.b64encode(image).decode()


def chat_body(question: str = "What is it?", image: bytes | None = None, model: str = "m3-auto") -> dict[str, object]:
    """A request body with one question about one picture."""
    content = [
        {"type": "text", "text": question},
        {"type": "image_url", "image_url": {"url": data_url(png() if image is None else image)}},
    ]
    return {"model": model, "messages": [{"role": "user", "content": content}]}


@dataclass
class FakeM3:
    """Says the pictures' top left pixels and what it was told back, a word a token; remembers what it read together."""

    ladder: tuple[int, ...] = LADDER
    model_id: str = "fake-m3"
    image_px: int = 192
    aspect: str = "pad"
    reads: Reads = Reads(history=True, system=True)
    slow_s: float = 0.0  # of each prompt that it reads
    stops = frozenset({0})
    words: list[str] = field(default_factory=lambda: ["</s>"])  # by token id
    encoded: list[int] = field(default_factory=list)  # pictures at once
    read: list[list[int]] = field(default_factory=list)  # visual tokens of the prompts read together
    threads: set[int] = field(default_factory=set)

    def encode(self, pictures: Sequence[Image.Image]) -> list[Encoded]:
        self.encoded.append(len(pictures))
        self.threads.add(threading.get_ident())
        pixels = [torch.tensor(picture.getpixel((0, 0)), dtype=torch.float32) for picture in pictures]
        return [Encoded(pixel.expand(1, max(self.ladder), 3)) for pixel in pixels]

    def prepare(
        self,
        question: str,
        pictures: Sequence[Encoded],
        tokens: int,
        answer_tokens: int,
        system: str = "",
        history: Sequence[Turn] = (),
    ) -> InputRow:
        if question == "refuse":
            raise InvalidInput("the question is beyond the model's context")
        pixels = [",".join(str(int(value)) for value in picture.tiles[0, 0].tolist()) for picture in pictures]
        earlier = [f"{turn.question} {turn.answer}" for turn in history]
        words = " ".join([*pixels, system, *earlier, question]).split()
        visual_tokens = tokens * len(pictures)
        return InputRow(FakePrompt(words, visual_tokens), visual_tokens)  # type: ignore[arg-type]

    def rows(self) -> "FakeRows":
        return FakeRows(self)

    def text(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[token] for token in ids if token not in self.stops)

    def token(self, token: int) -> tuple[str, bytes]:
        if token in self.stops:
            return self.words[token], b""
        return f" {self.words[token]}", f" {self.words[token]}".encode()

    def token_of(self, word: str) -> int:
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)


@dataclass
class FakePrompt:
    """Stands for the language model's input: the words that will be the answer."""

    words: list[str]
    tokens: int

    def __len__(self) -> int:
        return self.tokens + len(self.words) - 1


class FakeRows:
    """Writes each row's words, one at a turn. The word "break" breaks the reading, "crash" the writing."""

    def __init__(self, m3: FakeM3):
        self._m3 = m3
        self._rows: dict[Any, tuple[FakePrompt, int, int]] = {}
        self._said: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def longest(self) -> int:
        return max((len(prompt) + most for prompt, most, _ in self._rows.values()), default=0)

    def join(self, new: Sequence[NewRow]) -> None:
        prompts: list[FakePrompt] = [row.embeds for row in new]  # type: ignore[misc]
        if any("break" in prompt.words for prompt in prompts):
            raise RuntimeError("a secret of the inside")
        time.sleep(self._m3.slow_s * len(new))
        self._m3.read.append([prompt.tokens for prompt in prompts])
        self._m3.threads.add(threading.get_ident())
        self._rows |= {
            row.owner: (prompt, row.most, row.alternatives) for row, prompt in zip(new, prompts, strict=True)
        }
        self._said |= {row.owner: 0 for row in new}

    def say(self) -> list[Said]:
        said = []
        for owner, (prompt, _, alternatives) in self._rows.items():
            at = self._said[owner]
            if prompt.words[at : at + 1] == ["crash"]:
                raise RuntimeError("a secret of the inside")
            token = self._m3.token_of(prompt.words[at]) if at < len(prompt.words) else 0
            top = [(token, -0.25), *((other, -2.0) for other in range(len(self._m3.words)) if other != token)]
            said.append(Said(owner, token, -0.25, tuple(top[:alternatives])))
        return said

    def leave(self, owners: set[Any]) -> None:
        self._rows = {owner: row for owner, row in self._rows.items() if owner not in owners}

    def advance(self) -> None:
        for owner in self._rows:
            self._said[owner] += 1


class LocalModel(AsyncEngine):
    """The engine as a replica holds it, in this process; for use in one `asyncio.run`."""

    def __init__(self, m3: FakeM3, limits: Limits | None = None):
        super().__init__(Engine(m3, limits))


class FailingModel:
    """A model whose every call fails with a given error."""

    def __init__(self, error: Exception):
        self._error = error

    async def info(self) -> ModelInfo:
        raise self._error

    async def answer(self, ask: Ask) -> Answer:
        raise self._error


class FakeRouter:
    """One token for a question about colour, else the finest scale; remembers what it has decided."""

    def __init__(self, second_look: bool = False) -> None:
        self.second_look = second_look
        self.asked: list[Wish] = []
        self._known: set[tuple[str, str]] = set()

    async def route(self, sample: Sample, wish: Wish = FREE, decision_id: str = "") -> Decision:
        key = (sample.image_sha256, sample.question_sha256)
        why = "cached" if key in self._known and not wish.fresh else "predicted"
        assert sample.picture.mode == "RGB"
        self.asked.append(wish)
        if wish.store:
            self._known.add(key)
        tokens = 1 if "colour" in sample.question else 576
        return Decision(tokens, LADDER, (0.1, 0.2, 0.3, 0.4, 0.5), why, 0.001, "fake-artifact", 1.5)  # type: ignore[arg-type]

    async def route_many(self, samples: Sequence[Sample], wish: Wish = FREE) -> list[Decision | InvalidInput]:
        decided: list[Decision | InvalidInput] = []
        for sample in samples:
            try:
                decided.append(await self.route(sample, wish))
            except InvalidInput as error:
                decided.append(error)
        return decided

    async def explain(self, sample: Sample, decision: Decision) -> Explanation | None:
        scales = tuple(ScaleChance(tokens, 0.5, float(tokens), 0.5 - 0.001 * tokens) for tokens in LADDER)
        return Explanation(decision.tokens, 0.001, "tokens", scales, True, (FeatureShare("edges", 0.25),))

    def arm(self, decision: Decision) -> Literal["main", "canary"]:
        return "main"

    def again(self, decision: Decision, mean_logprob: float, ceiling: int | None = None) -> Decision | None:
        if not self.second_look or decision.why == "forced":
            return None
        return replace(decision, tokens=ceiling or 576, why="unsure")

    def forced(self, tokens: int) -> Decision:
        return Decision(tokens, LADDER, None, "forced", 0.001, "fake-artifact", 0.0)


class CollectedMetrics:
    """Takes what `Metrics` counts, and holds it to the declarations: `values` by metric's name and labels."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}

    def make(self, declared: Declared) -> Record:
        def record(value: float, labels: dict[str, str]) -> None:
            assert tuple(labels) == declared.labels and all(isinstance(label, str) for label in labels.values())
            assert value > 0 or declared.kind != "counter"
            assert type(value) in (int, float)
            self.values.setdefault((declared.name, tuple(labels.items())), []).append(value)

        return record

    def total(self, declared: Declared, **labels: str) -> float:
        """The sum of what was recorded of a metric under these labels, whatever its others."""
        return sum(
            sum(values)
            for (name, found), values in self.values.items()
            if name == declared.name and labels.items() <= dict(found).items()
        )

    def last(self, declared: Declared, **labels: str) -> float:
        """What was recorded last under exactly these labels."""
        return self.values[declared.name, tuple(labels.items())][-1]
