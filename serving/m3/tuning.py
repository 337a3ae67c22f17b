"""Conversations about pictures as batches, and M3's loss of them as a module that Trainer can train."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from complexity.errors import InvalidInput
from serving.m3.anyres import Size
from serving.m3.images import Vision, cut, pixels_of
from serving.m3.loss import scale_losses
from serving.m3.model import Encoded, M3Model
from serving.m3.prompt import IGNORE, IMAGE


@dataclass(frozen=True)
class TuningRow:
    """A conversation: token ids with `IMAGE` for each picture, labels with IGNORE outside answers, the pictures."""

    ids: list[int]
    labels: list[int]
    pictures: tuple[Image.Image, ...]


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how."""

    scales: tuple[int, ...] = ()  # none: all of the ladder, as M3 is trained; one alone is its baseline
    lora_rank: int = 0  # 0 trains the language model's own weights
    tower_learns: bool = False


class Collate:
    """Rows -> the arguments of `Tuning.forward`."""

    def __init__(self, vision: Vision):
        self.vision = vision

    def __call__(self, rows: Sequence[TuningRow]) -> dict[str, Any]:
        cuts = [[(cut(picture, self.vision), picture.size) for picture in row.pictures] for row in rows]
        tiles = [tile for row in cuts for whole, _ in row for tile in whole.tiles]
        return {
            "pixels": pixels_of(tiles, self.vision) if tiles else torch.zeros(0),
            "rows": [(row.ids, row.labels) for row in rows],
            "layouts": [[(len(whole.tiles), whole.grid, size) for whole, size in row] for row in cuts],
        }


class Tuning(nn.Module):
    """A model with M3's loss as its forward pass, for Trainer."""

    def __init__(self, model: M3Model, recipe: Recipe):
        super().__init__()
        self.model = model
        self.recipe = recipe
        self._no_split_modules = getattr(model.language_model, "_no_split_modules", None)  # FSDP wraps these
        self.latest: dict[int, float] = {}
        """Each scale's loss in the last forward pass."""

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Trainer's switch, for the language model's layers."""
        self.model.language_model.activation_checkpointing_enable(**options)
        self.model.language_model.enable_input_require_grads()  # adapters get no gradients otherwise

    def forward(
        self,
        pixels: Tensor,
        rows: Sequence[tuple[list[int], list[int]]],
        layouts: Sequence[Sequence[tuple[int, Size | None, Size]]],
    ) -> dict[str, Tensor]:
        """M3's loss of a batch of conversations.

        Args:
            pixels: all pictures' tiles, (K, 3, side, side).
            rows: token ids and labels.
            layouts: of each row's pictures: tiles, their grid, the picture's size.

        A conversation longer than the model's context at the finest scale loses its end.

        Raises:
            InvalidInput: the pictures of a conversation don't fit into the model's context.
        """
        pictures, nothing = self._encode(pixels, layouts)
        fitting = [self._fit(*row, own) for row, own in zip(rows, pictures, strict=True)]
        told = torch.tensor([label for _, labels in fitting for label in labels if label != IGNORE])
        if not len(told):  # all answers lie beyond the context: nothing to learn, but every gradient is awaited
            return {"loss": sum((weight.sum() * 0.0 for weight in self.parameters() if weight.requires_grad), nothing)}
        losses = scale_losses(
            self.model,
            lambda tokens: self._states(fitting, pictures, tokens),
            told.to(nothing.device),
            self.recipe.scales,
        )
        self.latest = dict(zip(self.recipe.scales, losses.detach().tolist(), strict=True))
        return {"loss": losses.mean() + nothing}

    def _encode(
        self, pixels: Tensor, layouts: Sequence[Sequence[tuple[int, Size | None, Size]]]
    ) -> tuple[list[list[Encoded]], Tensor]:
        """Pictures of each row, and a zero that without any depends on what encodes them: DDP awaits its gradients."""
        model = self.model
        weight = next(model.projector.parameters())
        blank = not len(pixels)
        if blank:
            side = model.vision.side_px
            pixels = torch.zeros(1, 3, side, side, device=weight.device)
        with torch.set_grad_enabled(self.recipe.tower_learns and torch.is_grad_enabled()):
            features = model.tower(pixels.to(weight.device, next(model.tower.parameters()).dtype))
        tiles = model.projector(features)
        counts = [[count for count, _, _ in row] for row in layouts]
        each = iter(() if blank else tiles.split(sum(counts, [])))
        pictures = [[Encoded(next(each), grid, size) for _, grid, size in row] for row in layouts]
        if not blank:
            return pictures, tiles.new_zeros(())
        newline = tiles.new_zeros(()) if model.newline is None else model.newline.sum()
        return pictures, (tiles.sum() + newline) * 0.0

    def _fit(self, ids: list[int], labels: list[int], pictures: Sequence[Encoded]) -> tuple[list[int], list[int]]:
        """A conversation without what goes beyond the context at the finest scale."""
        context = self.model.language_model.config.max_position_embeddings
        finest = max(self.recipe.scales)
        visual = sum(len(self.model.visual(picture, finest)) for picture in pictures)
        room = context - visual + len(pictures)  # each picture's place among the ids is counted too
        if IMAGE in ids[max(0, room) :] or room < 1:
            raise InvalidInput(
                f"a conversation with {visual} visual tokens doesn't fit the model's context of {context}"
            )
        return ids[:room], labels[:room]

    def _states(
        self,
        rows: Sequence[tuple[list[int], list[int]]],
        pictures: Sequence[Sequence[Encoded]],
        tokens: int,
    ) -> Tensor:
        """The states (n, D) that foretell the answers' tokens, row by row."""
        embeds, foretells = [], []
        for (ids, labels), own in zip(rows, pictures, strict=True):
            embeds.append(self.model.embed(ids, own, tokens))
            visual = iter([len(self.model.visual(picture, tokens)) for picture in own])
            lengths = torch.tensor([next(visual) if token == IMAGE else 1 for token in ids])
            answer = torch.tensor([label != IGNORE for label in labels]).repeat_interleave(lengths)
            foretells.append(answer[1:])
        device = embeds[0].device
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in embeds], True).to(device)
        states = self.model.language_model.model(
            inputs_embeds=pad_sequence(embeds, True), attention_mask=mask, use_cache=False
        ).last_hidden_state
        return states[:, :-1][pad_sequence(foretells, True).to(device)]
