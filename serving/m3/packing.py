"""Training rows: several questions about a picture in one row, sharing its visual tokens.

Each question sees the picture and itself only, at the positions that it would have alone, so a packed row gives what
separate ones give.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from serving.m3.model import M3Model
from serving.m3.pool import pool
from serving.m3.prompt import BOS, IGNORE, PAD


@dataclass(frozen=True)
class PackedText:
    """The questions, and in training the answers, about a batch of pictures; one row a picture, padded on the right."""

    input_ids: Tensor  # (B, T)
    labels: Tensor  # (B, T): the next token where it is part of an answer, else IGNORE
    block: Tensor  # (B, T): which question a token belongs to; -1 is padding
    position: Tensor  # (B, T): place within its question

    def to(self, device: torch.device | str) -> "PackedText":
        """The same on a device."""
        return PackedText(*(getattr(self, field.name).to(device) for field in fields(self)))

    def in_parts(self, rows: int) -> Iterator[tuple[Tensor, "PackedText"]]:
        """Rows of about the same length together, without the padding that longer ones needed.

        Args:
            rows: most rows of a part.

        Yields:
            Which rows these are (R,), and their text.
        """
        lengths = (self.block >= 0).sum(1)
        for part in lengths.argsort().split(rows):
            longest = int(lengths[part].max())
            yield part, PackedText(*(getattr(self, field.name)[part, :longest] for field in fields(self)))

    def sees(self, prefix: int) -> Tensor:
        """Which of `prefix` visual tokens and T text tokens each text token attends to: (B, T, prefix + T), bool."""
        batch, length = self.block.shape
        own = (self.block[:, :, None] == self.block[:, None, :]).tril()
        return torch.cat([own.new_ones(batch, length, prefix), own], 2)


def pack(rows: Sequence[Sequence[tuple[list[int], list[int]]]]) -> PackedText:
    """Pack each picture's (question, answer) pairs of token ids into one row; an answer may be empty."""
    packed = []
    for pairs in rows:
        ids: list[int] = []
        labels: list[int] = []
        block: list[int] = []
        position: list[int] = []
        for i, (asked, answered) in enumerate(pairs):
            whole = asked + answered[:-1]
            ids += whole
            labels += [IGNORE] * (len(asked) - 1) + (answered or [IGNORE])
            block += [i] * len(whole)
            position += range(len(whole))
        packed.append((ids, labels, block, position))
    length = max(len(row[0]) for row in packed)
    fills = (PAD, IGNORE, -1, 0)
    columns = [
        torch.tensor([row[i] + [fill] * (length - len(row[i])) for row in packed]) for i, fill in enumerate(fills)
    ]
    return PackedText(*columns)


def flat_prefix(model: M3Model, features: Tensor, tokens: int) -> Tensor:
    """<s> and the visual tokens of a batch of pictures of one tile each.

    Args:
        features: (B, N, D) of `M3Model.encode`.
        tokens: a rung of the ladder.

    Returns:
        (B, 1 + tokens, D).
    """
    pooled = pool(features, tokens)
    begin = model.embed_text(torch.full((len(pooled), 1), BOS, device=pooled.device))
    return torch.cat([begin.to(pooled.dtype), pooled], 1)


class _Enough(Exception):
    """The last layer's keys and values are there."""


class _Prefix(DynamicCache):
    """Keys and values of a prefix: the language model stops at the last layer's, for nobody reads its states."""

    def __init__(self, layers: int):
        super().__init__()
        self._last = layers - 1

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        both = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if layer_idx == self._last:
            self._last = -1
            raise _Enough
        return both


@contextmanager
def _only(module: nn.Module, chosen: Tensor) -> Iterator[None]:
    """Let a module that looks at each token by itself compute the `chosen` ones alone; the others get zeros."""

    def before(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        return (given[0][chosen],)

    def after(_: nn.Module, __: tuple[Tensor], made: Tensor) -> Tensor:
        return made.new_zeros(*chosen.shape, made.shape[-1]).index_put((chosen,), made)

    hooks = module.register_forward_pre_hook(before), module.register_forward_hook(after)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def read(model: M3Model, prefix: Tensor, text: PackedText) -> Tensor:
    """Run the language model over the pictures' prefixes and then over their packed text.

    Args:
        prefix: (B, P, D), what the questions about each picture begin with.

    Returns:
        The states that foretell the answers' tokens (n, D), row by row.
    """
    language = model.language_model.model
    cache = _Prefix(model.language_model.config.num_hidden_layers)
    with suppress(_Enough):
        language(inputs_embeds=prefix, past_key_values=cache, use_cache=True)
    start = prefix.shape[1]
    foretells = text.labels != IGNORE
    with _only(language.layers[-1].mlp, foretells):
        states = language(
            inputs_embeds=model.embed_text(text.input_ids).to(prefix.dtype),
            attention_mask=text.sees(start)[:, None],
            position_ids=start + text.position,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    return states[foretells]
