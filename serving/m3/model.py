"""The M3 model: vision tower -> projector -> average pooling -> causal language model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from complexity.errors import InvalidInput
from serving.m3.anyres import Size, end_rows, join_tiles, unpad
from serving.m3.images import Vision
from serving.m3.pool import pool
from serving.m3.prompt import IMAGE


@dataclass(frozen=True)
class Encoded:
    """A picture's projected visual tokens at the finest scale; they serve every scale and question."""

    tiles: Tensor  # (K, N, D): the whole picture, then the grid's tiles row by row
    grid: Size | None = None  # (wide, high) in tiles
    size: Size | None = None  # (width, height) of the picture in pixels, where its padding is cut off


class M3Model(nn.Module):
    """The weights and the forward steps."""

    def __init__(
        self,
        tower: nn.Module,
        projector: nn.Module,
        language_model: PreTrainedModel,
        vision: Vision,
        newline: Tensor | None = None,
    ):
        super().__init__()
        self.tower = tower
        """Pixels (K, 3, side, side) -> features (K, N, width)."""
        self.projector = projector
        """Features (..., width) -> the language model's width (..., D)."""
        self.language_model = language_model
        self.vision = vision
        self.reduce: Callable[[Tensor, int], Tensor] = pool
        """(K, N, D), tokens -> (K, tokens, D): one of `REDUCTIONS`."""
        self.newline = None if newline is None else nn.Parameter(newline)  # (D,)

    def encode(self, pixels: Tensor) -> Tensor:
        """Tiles (K, 3, side, side) -> projected visual tokens of the finest grid (K, N, D)."""
        return self.projector(self.tower(pixels))

    def visual(self, picture: Encoded, tokens: int) -> Tensor:
        """The visual tokens that the language model sees of a picture at a scale: (V, D).

        A tile is reduced first and then laid out with the others, as in the original code.

        Args:
            tokens: visual tokens per tile, a rung of the ladder.

        Raises:
            OffLadder: `tokens` is not a rung.
        """
        pooled = self.reduce(picture.tiles.to(self.language_model.dtype), tokens)  # (K, tokens, D)
        newline = self.newline if self.vision.newlines else None
        if self.vision.merge == "flat":
            return pooled.flatten(0, 1)
        if picture.grid is None or picture.size is None:
            return pooled[0] if newline is None else torch.cat([pooled[0], newline[None].to(pooled.dtype)])
        cells = join_tiles(pooled[1:], picture.grid)
        laid = cells.flatten(0, 1) if newline is None else end_rows(unpad(cells, picture.size), newline)
        return torch.cat([pooled[0], laid])

    def embed(self, input_ids: Sequence[int], pictures: Sequence[Encoded], tokens: int) -> Tensor:
        """The language model's input for a prompt.

        Args:
            input_ids: token ids, with `IMAGE` for each of the pictures.
            tokens: visual tokens per tile, a rung of the ladder.

        Returns:
            (L, D), the pictures' visual tokens in their places.

        Raises:
            InvalidInput: other than one picture for each `IMAGE`.
            OffLadder: `tokens` is not a rung.
        """
        places = [at for at, token in enumerate(input_ids) if token == IMAGE]
        if len(places) != len(pictures):
            raise InvalidInput(f"a prompt with places for {len(places)} pictures got {len(pictures)}")
        device = self.language_model.device
        parts: list[Tensor] = []
        start = 0
        for place, picture in zip(places, pictures, strict=True):
            parts += [self.embed_text(torch.tensor(input_ids[start:place], dtype=torch.long, device=device))]
            parts += [self.visual(picture, tokens)]
            start = place + 1
        parts += [self.embed_text(torch.tensor(input_ids[start:], dtype=torch.long, device=device))]
        return torch.cat([part.to(parts[0].dtype) for part in parts])

    def embed_text(self, input_ids: Tensor) -> Tensor:
        """Token ids (..., T) -> embeddings (..., T, D)."""
        return self.language_model.get_input_embeddings()(input_ids)
