"""M3's training loss: the mean over the scales of the language-model loss (paper, equation 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from serving.m3.model import M3Model
from serving.m3.packing import IGNORE, PackedText, read


def scale_loss(model: M3Model, features: Tensor, text: PackedText, tokens: int) -> Tensor:
    """Mean cross-entropy of the answers' tokens with the picture pooled to `tokens` visual tokens.

    Args:
        features: (B, N, D) of `M3Model.encode`.
        text: packed questions and answers about the same B pictures.
        tokens: a rung of the ladder.
    """
    states, _ = read(model, model.prefix(features, tokens), text)
    told = text.labels != IGNORE
    logits = model.language_model.lm_head(states[told]).float()
    return F.cross_entropy(logits, text.labels[told])


def m3_losses(model: M3Model, features: Tensor, text: PackedText, scales: Sequence[int]) -> Tensor:
    """`scale_loss` at each of the scales (S,); M3 minimises their mean.

    All of the ladder is the paper's loss, one scale alone is its scale-specific baseline.
    """
    return torch.stack([scale_loss(model, features, text, tokens) for tokens in scales])
