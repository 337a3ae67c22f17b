"""M3's training loss: the mean over the scales of the language-model loss (paper, equation 3).

Several questions about a picture share its visual tokens in one sequence. Each question attends to the picture and
to itself only, at the positions that it would have alone, so a packed sequence gives the losses of separate ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from serving.m3.model import M3Model
from serving.m3.prompt import PAD, Prompt

IGNORE = -100


@dataclass(frozen=True)
class PackedText:
    """The questions and answers of a batch of pictures, one row a picture, padded on the right."""

    input_ids: Tensor  # (B, T)
    labels: Tensor  # (B, T): the next token where it is part of an answer, else IGNORE
    block: Tensor  # (B, T): which question a token belongs to; -1 is padding
    position: Tensor  # (B, T): place within its question

    def to(self, device: str) -> "PackedText":
        return PackedText(*(getattr(self, field.name).to(device) for field in fields(self)))


def pack(rows: Sequence[Sequence[tuple[str, str]]], prompt: Prompt) -> PackedText:
    """Pack each picture's (question, answer) pairs into one row."""
    packed = []
    for pairs in rows:
        ids: list[int] = []
        labels: list[int] = []
        block: list[int] = []
        position: list[int] = []
        for i, (question, answer) in enumerate(pairs):
            asked, answered = prompt.question_ids(question), prompt.answer_ids(answer)
            whole = asked + answered
            ids += whole[:-1]
            labels += [IGNORE] * (len(asked) - 1) + answered
            block += [i] * (len(whole) - 1)
            position += range(len(whole) - 1)
        packed.append((ids, labels, block, position))
    length = max(len(row[0]) for row in packed)
    fills = (PAD, IGNORE, -1, 0)
    columns = [
        torch.tensor([row[i] + [fill] * (length - len(row[i])) for row in packed]) for i, fill in enumerate(fills)
    ]
    return PackedText(*columns)


def scale_loss(model: M3Model, features: Tensor, text: PackedText, tokens: int) -> Tensor:
    """Mean cross-entropy of the answers' tokens with the picture pooled to `tokens` visual tokens.

    Args:
        features: (B, N, D) of `M3Model.encode`.
        text: packed questions of the same B pictures.
        tokens: a rung of the ladder.
    """
    prefix = model.prefix(features, tokens)  # (B, P, D)
    batch, start = prefix.shape[:2]
    words = model.embed_text(text.input_ids).to(prefix.dtype)
    embeds = torch.cat([prefix, words], 1)  # (B, P + T, D)
    device = embeds.device
    block = torch.cat([torch.full((batch, start), -2, device=device), text.block], 1)
    position = torch.cat([torch.arange(start, device=device).expand(batch, -1), start + text.position], 1)
    same = block[:, :, None] == block[:, None, :]
    seen = torch.ones(embeds.shape[1], embeds.shape[1], dtype=torch.bool, device=device).tril()
    mask = ((same | (block == -2)[:, None, :]) & seen)[:, None]  # (B, 1, P + T, P + T)
    hidden = model.language_model.model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=position, use_cache=False
    ).last_hidden_state[:, start:]
    told = text.labels != IGNORE
    logits = model.language_model.lm_head(hidden[told]).float()
    return F.cross_entropy(logits, text.labels[told])


def m3_losses(model: M3Model, features: Tensor, text: PackedText, scales: Sequence[int]) -> Tensor:
    """`scale_loss` at each of the scales (S,); M3 minimises their mean.

    All of the ladder is the paper's loss, one scale alone is its scale-specific baseline.
    """
    return torch.stack([scale_loss(model, features, text, tokens) for tokens in scales])
