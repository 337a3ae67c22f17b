"""M3's training loss: the mean over the scales of the language-model loss (paper, equation 3)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from serving.m3.model import M3Model
from serving.m3.packing import IGNORE, PackedText, read


def scale_loss(model: M3Model, prefix: Tensor, text: PackedText) -> Tensor:
    """Mean cross-entropy of the answers' tokens behind the pictures at one scale.

    Args:
        prefix: (B, P, D), what the questions about each picture begin with.
        text: packed questions and answers about the same B pictures.
    """
    states, _ = read(model, prefix, text)
    told = text.labels != IGNORE
    logits = model.language_model.lm_head(states[told]).float()
    return F.cross_entropy(logits, text.labels[told])


def m3_losses(model: M3Model, prefix_at: Callable[[int], Tensor], text: PackedText, scales: Sequence[int]) -> Tensor:
    """`scale_loss` at each of the scales (S,); M3 minimises their mean.

    All of the ladder is the paper's loss, one scale alone is its scale-specific baseline.

    Args:
        prefix_at: number of visual tokens -> prefix (B, P, D).
    """
    return torch.stack([scale_loss(model, prefix_at(tokens), text) for tokens in scales])
