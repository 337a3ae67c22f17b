"""What the engine needs of a model; `serving.m3.M3` and `serving.vllm_engine.VllmM3` have it."""

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

from serving.m3 import Encoded, InputRow, NewRow, Said
from serving.model import Reads, Turn


class Writer(Protocol):
    """Answers under way, as `serving.m3.rows.Rows`."""

    def __len__(self) -> int: ...

    @property
    def longest(self) -> int: ...

    def join(self, new: Sequence[NewRow]) -> None: ...

    def say(self) -> list[Said]: ...

    def leave(self, owners: set[Any]) -> None: ...

    def advance(self) -> None: ...


class Generator(Protocol):
    """What the engine needs of an M3."""

    @property
    def model_id(self) -> str: ...

    @property
    def ladder(self) -> tuple[int, ...]: ...

    @property
    def image_px(self) -> int: ...

    @property
    def aspect(self) -> str: ...

    @property
    def reads(self) -> Reads: ...

    @property
    def stops(self) -> frozenset[int]: ...

    def encode(self, pictures: Sequence[Image.Image]) -> list[Encoded]: ...

    def prepare(
        self,
        question: str,
        pictures: Sequence[Encoded],
        tokens: int,
        answer_tokens: int,
        system: str = "",
        history: Sequence[Turn] = (),
    ) -> InputRow: ...

    def rows(self) -> Writer: ...

    def text(self, ids: Sequence[int]) -> str: ...

    def token(self, token: int) -> tuple[str, bytes]: ...
