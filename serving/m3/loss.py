"""M3's training loss: the mean over the scales of the language-model loss (paper, equation 3)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from serving.m3.model import M3Model
from serving.m3.packing import PackedText, read
from serving.m3.prompt import IGNORE

ROWS = 4  # read at once: of 16 rows in one, two fifths of a question's tokens were padding


def scale_losses(model: M3Model, states_at: Callable[[int], Tensor], told: Tensor, scales: Sequence[int]) -> Tensor:
    """Mean cross-entropy of the answers' tokens at each of the scales (S,); M3 minimises the mean of these.

    All of the ladder is the paper's loss, one scale alone is its scale-specific baseline.

    Args:
        states_at: number of visual tokens -> the states (n, D) that foretell the answers' tokens.
        told: the answers' n tokens.
    """
    head = model.language_model.lm_head
    return torch.stack([F.cross_entropy(head(states_at(tokens)).float(), told) for tokens in scales])


def m3_losses(model: M3Model, prefix_at: Callable[[int], Tensor], text: PackedText, scales: Sequence[int]) -> Tensor:
    """`scale_losses` of packed questions and answers about B pictures.

    Args:
        prefix_at: number of visual tokens -> what the questions about each picture begin with, (B, P, D).
        text: packed questions and answers about the same B pictures.
    """
    parts = list(text.in_parts(ROWS))
    told = torch.cat([part.labels[part.labels != IGNORE] for _, part in parts])

    def states_at(tokens: int) -> Tensor:
        prefix = prefix_at(tokens)
        return torch.cat([read(model, prefix[rows], part) for rows, part in parts])

    return scale_losses(model, states_at, told, scales)
