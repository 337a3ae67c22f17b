"""Prompts about pictures as rows of the language model's input, and rows as a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from complexity.errors import InvalidInput
from serving.m3.model import Encoded, M3Model
from serving.m3.prompt import Prompt, prompt_ids


@dataclass(frozen=True)
class InputRow:
    """A prompt as the language model gets it."""

    embeds: Tensor  # (L, D)
    visual_tokens: int


def input_row(model: M3Model, prompt: Prompt, text: str, pictures: Sequence[Encoded], tokens: int) -> InputRow:
    """A prompt about pictures at one scale.

    Raises:
        OffLadder: `tokens` is not a rung of the model's ladder.
    """
    ids = prompt_ids(prompt, text, len(pictures))
    embeds = model.embed(ids, pictures, tokens)
    return InputRow(embeds, len(embeds) - len(ids) + len(pictures))


def check_context(model: M3Model, row: InputRow, answer_tokens: int) -> None:
    """Refuse a prompt that doesn't fit the model's context with its answer: cut short, it might lose the picture."""
    context = model.language_model.config.max_position_embeddings
    wanted = len(row.embeds) + answer_tokens
    if wanted > context:
        raise InvalidInput(
            f"{row.visual_tokens} visual and {len(row.embeds) - row.visual_tokens} text tokens with an answer of up to "
            f"{answer_tokens} make {wanted}; the model's context holds {context}"
        )


def left_padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows (L, D) of any lengths -> (B, L, D) padded on the left with zeros, and the mask (B, L) of what is real."""
    longest = max(len(row) for row in rows)
    padded = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=padded.device)
    return padded, mask
