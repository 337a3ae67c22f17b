"""Stand-ins that the tests own, injected through constructors: a model and a router without weights."""

import base64
import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image

from complexity.errors import InvalidInput
from complexity.sample import Sample
from router.policy import Decision
from serving.batcher import Batcher, BatchLimits
from serving.engine import Engine
from serving.m3 import Encoded, GenerateRequest, Generation
from serving.model import Answer, Ask, ModelInfo

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
    """Says the picture's top left pixel and the question back; remembers batches, and in which thread they ran."""

    ladder: tuple[int, ...] = LADDER
    model_id: str = "fake-m3"
    image_px: int = 192
    slow_s: float = 0.0
    batches: list[list[GenerateRequest]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def encode(self, pictures: Sequence[Image.Image]) -> list[Encoded]:
        pixels = [torch.tensor(picture.getpixel((0, 0)), dtype=torch.float32) for picture in pictures]
        return [Encoded(pixel.expand(1, max(self.ladder), 3)) for pixel in pixels]

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        self.batches.append(list(requests))
        self.threads.add(threading.get_ident())
        time.sleep(self.slow_s)
        return [self._say(request) for request in requests]

    def _say(self, request: GenerateRequest) -> Generation:
        if request.prompt == "refuse":
            raise InvalidInput("the question is beyond the model's context")
        if request.prompt == "break":
            raise RuntimeError("a secret of the inside")
        pixel = ",".join(str(int(value)) for value in request.pictures[0].tiles[0, 0].tolist())
        words = f"{pixel} {request.prompt}".split()[: request.max_new_tokens]
        return Generation(
            text=" ".join(words),
            visual_tokens=request.tokens,
            prompt_tokens=request.tokens + len(request.prompt.split()),
            completion_tokens=len(words),
            mean_logprob=-0.25,
            finish_reason="length" if len(words) == request.max_new_tokens else "stop",
        )


class LocalModel:
    """The engine and the batcher as a replica holds them, in this process."""

    def __init__(self, m3: FakeM3, limits: BatchLimits | None = None):
        self._engine = Engine(m3)
        self._batcher: Batcher[Ask, Answer] = Batcher(
            self._engine.answer, lambda ask: ask.tokens, limits or BatchLimits(16, 4608)
        )

    async def info(self) -> ModelInfo:
        return self._engine.info

    async def answer(self, ask: Ask) -> Answer:
        return await self._batcher.submit(ask)


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
        self.bounds: list[tuple[int | None, int | None]] = []
        self._known: set[tuple[str, str]] = set()

    async def route(self, sample: Sample, floor: int | None = None, ceiling: int | None = None) -> Decision:
        key = (sample.image_sha256, sample.question_sha256)
        why = "cached" if key in self._known else "predicted"
        assert sample.picture.mode == "RGB"
        self.bounds.append((floor, ceiling))
        self._known.add(key)
        tokens = 1 if "colour" in sample.question else 576
        return Decision(tokens, LADDER, (0.1, 0.2, 0.3, 0.4, 0.5), why, 0.001, "fake-artifact", 1.5)  # type: ignore[arg-type]

    def again(self, decision: Decision, mean_logprob: float, ceiling: int | None = None) -> Decision | None:
        if not self.second_look or decision.why == "forced":
            return None
        return replace(decision, tokens=ceiling or 576, why="unsure")

    def forced(self, tokens: int) -> Decision:
        return Decision(tokens, LADDER, None, "forced", 0.001, "fake-artifact", 0.0)
