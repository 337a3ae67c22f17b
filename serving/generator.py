"""What the engine needs of a model; `serving.m3.M3` and `serving.vllm_engine.VllmM3` have it."""

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

from serving.m3 import Encoded, InputRow, NewRow, Said
from serving.model import Reads, Turn


class Writer(Protocol):
    """Answers under way, as `serving.m3.rows.Rows`; one thread at a time."""

    def __len__(self) -> int:
        """Answers under way."""
        ...

    @property
    def longest(self) -> int:
        """Tokens, prompt and answer, that the longest of them will need at most; 0 without any."""
        ...

    def join(self, new: Sequence[NewRow]) -> None:
        """Read prompts; their first tokens come with a later `say`."""
        ...

    def say(self) -> list[Said]:
        """The next token of each answer that has one."""
        ...

    def leave(self, owners: set[Any]) -> None:
        """Forget the answers of these owners; owners without one are no error."""
        ...

    def advance(self) -> None:
        """Read what was said, so that the next tokens can be."""
        ...


class Generator(Protocol):
    """What the engine needs of an M3."""

    @property
    def model_id(self) -> str:
        """Name and digest of the weights, as decisions and labels carry it."""
        ...

    @property
    def ladder(self) -> tuple[int, ...]:
        """Visual tokens of a tile at each scale, the coarsest first."""
        ...

    @property
    def image_px(self) -> int:
        """Of a picture's shorter side, that the model can make use of."""
        ...

    @property
    def aspect(self) -> str:
        """How a picture becomes squares: "square", "pad" or "anyres"."""
        ...

    @property
    def reads(self) -> Reads:
        """What of a conversation it reads."""
        ...

    @property
    def stops(self) -> frozenset[int]:
        """Token ids that end an answer."""
        ...

    def encode(self, pictures: Sequence[Image.Image]) -> list[Encoded]:
        """Projected visual tokens of each picture, at the finest scale."""
        ...

    def prepare(
        self,
        question: str,
        pictures: Sequence[Encoded],
        tokens: int,
        answer_tokens: int,
        system: str = "",
        history: Sequence[Turn] = (),
    ) -> InputRow:
        """The language model's input for a question about pictures.

        Args:
            tokens: visual tokens of a tile, a rung of the ladder.
            answer_tokens: that must fit into the context beside the prompt.

        Raises:
            InvalidInput: the prompt with its answer is beyond the model's context, or it can't read so many pictures.
            OffLadder: `tokens` is not a rung.
        """
        ...

    def rows(self) -> Writer:
        """A writer of answers, with none under way."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens, without special ones."""
        ...

    def token(self, token: int) -> tuple[str, bytes]:
        """A token's text, U+FFFD for parts of characters, and its very bytes; special ones have a name and none."""
        ...
