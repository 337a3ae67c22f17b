"""Prompts about pictures as rows of the language model's input, and rows as a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from complexity.errors import InvalidInput
from serving.m3.model import Encoded, M3Model
from serving.m3.prompt import Prompt
from serving.model import Turn


@dataclass(frozen=True)
class InputRow:
    """A prompt as the language model gets it."""

    embeds: Tensor  # (L, D)
    visual_tokens: int

    @property
    def text_tokens(self) -> int:
        """Tokens of the prompt that aren't visual."""
        return len(self.embeds) - self.visual_tokens


def input_row(
    model: M3Model,
    prompt: Prompt,
    text: str,
    pictures: Sequence[Encoded],
    tokens: int,
    system: str = "",
    history: Sequence[Turn] = (),
) -> InputRow:
    """A prompt about pictures at one scale.

    Args:
        pictures: of the whole conversation; those that the history doesn't use stand before the question.

    Raises:
        OffLadder: `tokens` is not a rung of the model's ladder.
        InvalidInput: fewer pictures than the history uses, or `<image>` in a text.
    """
    used = sum(turn.pictures for turn in history)
    ids = prompt.asked_ids(text, len(pictures) - used, system, history)
    embeds = model.embed(ids, pictures, tokens)
    return InputRow(embeds, len(embeds) - len(ids) + len(pictures))


def check_context(model: M3Model, visual_tokens: int, text_tokens: int, answer_tokens: int) -> None:
    """Refuse a prompt that doesn't fit the model's context with its answer: cut short, it might lose the picture."""
    context = model.language_model.config.max_position_embeddings
    wanted = visual_tokens + text_tokens + answer_tokens
    if wanted > context:
        raise InvalidInput(
            f"{visual_tokens} visual and {text_tokens} text tokens with an answer of up to "
            f"{answer_tokens} make {wanted}; the model's context holds {context}"
        )


def left_padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows (L, D) of any lengths -> (B, L, D) padded on the left with zeros, and the mask (B, L) of what is real."""
    longest = max(len(row) for row in rows)
    padded = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=padded.device)
    return padded, mask
