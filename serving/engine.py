"""The model as a plain class: a batch of asks in, their answers out. Runs in one thread; no ray, no asyncio."""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from serving.m3 import Encoded, GenerateRequest, Generation
from serving.model import Answer, Ask, ModelInfo, Pixels


class Generator(Protocol):
    """What the engine needs of an M3."""

    @property
    def model_id(self) -> str: ...

    @property
    def ladder(self) -> tuple[int, ...]: ...

    @property
    def image_px(self) -> int: ...

    def encode(self, pictures: list[Image.Image]) -> list[Encoded]: ...

    def generate(self, requests: list[GenerateRequest]) -> list[Generation]: ...


class Engine:
    """Encodes the pictures of a batch together, then generates at each ask's own granularity."""

    def __init__(self, m3: Generator):
        self._m3 = m3
        self.info = ModelInfo(m3.model_id, tuple(m3.ladder), m3.image_px)

    def warm_up(self) -> None:
        """Answer once at every scale, so that the first caller doesn't pay for what is set up lazily."""
        blank = Pixels(1, 1, bytes(3))
        self.answer([Ask(blank, "?", tokens, max_new_tokens=2) for tokens in self.info.ladder])

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer a batch, in order.

        Raises:
            InvalidInput: an ask that the model can't take, such as a question beyond its context.
        """
        pictures = [Image.frombytes("RGB", (ask.pixels.width, ask.pixels.height), ask.pixels.rgb) for ask in asks]
        encoded = self._m3.encode(pictures)
        requests = [
            GenerateRequest(ask.question, (picture,), ask.tokens, ask.max_new_tokens)
            for ask, picture in zip(asks, encoded, strict=True)
        ]
        return [
            Answer(
                text=said.text,
                visual_tokens=said.visual_tokens,
                prompt_tokens=said.prompt_tokens,
                completion_tokens=said.completion_tokens,
                mean_logprob=said.mean_logprob,
                finish_reason=said.finish_reason,
            )
            for said in self._m3.generate(requests)
        ]
