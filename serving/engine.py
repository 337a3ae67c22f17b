"""The model as a plain class: a batch of asks in, their answers out. No ray, no asyncio; threads may share it."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from PIL import Image

from serving.m3 import Encoded, GenerateRequest, Generation
from serving.m3.tower_features import tower_features
from serving.model import Answer, Ask, Look, ModelInfo, Pixels


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
    """Encodes the pictures of a batch together, then generates at each ask's own granularity.

    A picture's visual tokens serve every scale and every question, so they are kept for a while.

    Args:
        memory_bytes: of visual tokens that are kept.
    """

    def __init__(self, m3: Generator, memory_bytes: int = 256 * 2**20):
        self._m3 = m3
        self.info = ModelInfo(m3.model_id, tuple(m3.ladder), m3.image_px)
        self._memory_bytes = memory_bytes
        self._seen: OrderedDict[str, Encoded] = OrderedDict()  # by digest of the picture, least recently used first
        self._held_bytes = 0
        self._one_at_a_time = threading.Lock()

    def warm_up(self) -> None:
        """Answer once at every scale, so that the first caller doesn't pay for what is set up lazily."""
        blank = Pixels(1, 1, bytes(3))
        self.answer([Ask(blank, "warm-up", "?", tokens, max_new_tokens=2) for tokens in self.info.ladder])

    def look(self, looks: Sequence[Look]) -> list[np.ndarray]:
        """What the tower sees of each picture, in numbers: (G,) each."""
        with self._one_at_a_time:
            return [tower_features(encoded.tiles, self.info.ladder) for encoded in self._encode(looks)]

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer a batch, in order.

        Raises:
            InvalidInput: an ask that the model can't take, such as a question beyond its context.
        """
        with self._one_at_a_time:
            requests = [
                GenerateRequest(ask.question, (picture,), ask.tokens, ask.max_new_tokens)
                for ask, picture in zip(asks, self._encode(asks), strict=True)
            ]
            generated = self._m3.generate(requests)
        return [
            Answer(
                text=said.text,
                visual_tokens=said.visual_tokens,
                prompt_tokens=said.prompt_tokens,
                completion_tokens=said.completion_tokens,
                mean_logprob=said.mean_logprob,
                finish_reason=said.finish_reason,
            )
            for said in generated
        ]

    def _encode(self, asked: Sequence[Ask | Look]) -> list[Encoded]:
        """The pictures' visual tokens; those that aren't known are encoded together, each once."""
        new = {each.picture: each.pixels for each in asked if each.picture not in self._seen}
        pictures = [Image.frombytes("RGB", (pixels.width, pixels.height), pixels.rgb) for pixels in new.values()]
        fresh = dict(zip(new, self._m3.encode(pictures), strict=True)) if new else {}
        found = [fresh.get(each.picture) or self._seen[each.picture] for each in asked]
        for each, encoded in zip(asked, found, strict=True):
            self._keep(each.picture, encoded)
        return found

    def _keep(self, picture: str, encoded: Encoded) -> None:
        if picture not in self._seen:
            self._held_bytes += encoded.tiles.nbytes
            self._seen[picture] = replace(encoded, tiles=encoded.tiles.clone())  # a view would hold its whole batch
        self._seen.move_to_end(picture)
        while self._held_bytes > self._memory_bytes:
            _, gone = self._seen.popitem(last=False)
            self._held_bytes -= gone.tiles.nbytes
