"""Answers that are written side by side, a token of each at a time; prompts join and answers leave between any two.

The keys and values of all rows stand in one table per layer, filled from the left, so that rows of any lengths share
a step. A row that leaves is replaced by the last one, and the table stays without gaps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin

from serving.m3.model import M3Model
from serving.m3.sampling import Sampling, sample

ROUND_ROWS, ROUND_LENGTH = 8, 64  # the table grows and shrinks by these, not by every row and token


@dataclass(frozen=True)
class NewRow:
    """A prompt to be answered."""

    owner: Any  # whom its tokens are for
    embeds: Tensor  # (L, D), the language model's input
    most: int  # new tokens
    sampling: Sampling = field(default_factory=Sampling)
    alternatives: int = 0  # the likeliest tokens, told with each that it says


@dataclass(frozen=True)
class Said:
    """One token of one row."""

    owner: Any
    token: int
    logprob: float  # natural
    top: tuple[tuple[int, float], ...] = ()  # the row's alternatives with their logprobs, the likeliest first


@dataclass
class _Row:
    owner: Any
    length: int  # tokens in the table
    room: int  # that it will need at most
    sampling: Sampling
    generator: torch.Generator | None
    alternatives: int


class Rows:
    """The rows of one model: `join`, then in turns `say`, `leave` and `advance`. One thread at a time."""

    def __init__(self, model: M3Model):
        self._model = model
        self._table = [_Layer() for _ in range(model.language_model.config.num_hidden_layers)]
        self._cache = Cache(layers=list(self._table))
        self._rows: list[_Row] = []
        self._state: Tensor | None = None  # (R, D), the state of each row's last token; None when it isn't known yet
        self._said: Tensor | None = None  # (R,) tokens that the rows have said and not read yet

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def longest(self) -> int:
        """Tokens that the longest row will need at most."""
        return max((row.room for row in self._rows), default=0)

    @torch.inference_mode()
    def join(self, new: Sequence[NewRow]) -> None:
        """Read prompts, best of nearly the same length; their first tokens come with the next `say`."""
        lengths = [len(row.embeds) for row in new]
        cache = DynamicCache()
        # Padded on the right, where a causal model doesn't see it.
        states = self._model.language_model.model(
            inputs_embeds=pad_sequence([row.embeds for row in new], batch_first=True),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        last = states[torch.arange(len(new)), torch.tensor(lengths, device=states.device) - 1]
        running = len(self._rows)
        rows = self._rows + [
            _Row(row.owner, length, length + row.most, row.sampling, row.sampling.generator(), row.alternatives)
            for row, length in zip(new, lengths, strict=True)
        ]
        self._make_room(rows)
        layers: list[Any] = cache.layers
        for table, read in zip(self._table, layers, strict=True):
            table.keys[running : len(rows), :, : max(lengths)] = read.keys
            table.values[running : len(rows), :, : max(lengths)] = read.values
        self._state = last if self._state is None or not running else torch.cat([self._state, last])
        self._rows = rows  # at last: a join that fails, for want of memory, leaves the others as they were

    @torch.inference_mode()
    def say(self) -> list[Said]:
        """The next token of every row."""
        if not self._rows:
            return []
        assert self._state is not None
        logprobs = self._model.language_model.lm_head(self._state).float().log_softmax(-1)  # (R, V)
        said = logprobs.argmax(-1)
        for i, row in enumerate(self._rows):
            if row.generator is not None:
                said[i] = sample(logprobs[i], row.sampling, row.generator)
        self._said = said
        chosen = logprobs.gather(1, said[:, None])[:, 0].tolist()
        tops = self._tops(logprobs)
        return [
            Said(row.owner, token, logprob, tops.get(i, ()))
            for i, (row, token, logprob) in enumerate(zip(self._rows, said.tolist(), chosen, strict=True))
        ]

    @torch.inference_mode()
    def leave(self, owners: set[Any]) -> None:
        """End rows, whether they were done or not."""
        kept = [i for i, row in enumerate(self._rows) if row.owner not in owners]
        if len(kept) == len(self._rows):
            return
        # Rows that stay beyond the new end take the places that became free before it.
        places = list(range(len(kept)))
        free = [i for i in places if self._rows[i].owner in owners]
        order = places.copy()
        for hole, mover in zip(free, (i for i in kept if i >= len(kept)), strict=True):
            order[hole] = mover
        moved = [(hole, order[hole]) for hole in free]
        if moved:
            holes, movers = (list(each) for each in zip(*moved, strict=True))
            used = max(self._rows[mover].length for mover in movers)
            for table in self._table:
                table.keys[holes, :, :used] = table.keys[movers, :, :used]
                table.values[holes, :, :used] = table.values[movers, :, :used]
        self._rows = [self._rows[i] for i in order]
        if self._state is not None:
            self._state = self._state[order]
        if self._said is not None:
            self._said = self._said[order]

    @torch.inference_mode()
    def advance(self) -> None:
        """Read what the rows have said last."""
        if not self._rows:
            return
        assert self._said is not None and self._state is not None
        device = self._said.device
        position = torch.tensor([row.length for row in self._rows], device=device)  # (R,)
        longest = max(row.length for row in self._rows) + 1
        for table in self._table:
            table.write_at(position, longest)
        sees = torch.arange(longest, device=device) <= position[:, None]  # (R, longest)
        states = self._model.language_model.model(
            inputs_embeds=self._model.embed_text(self._said[:, None]).to(self._state.dtype),
            attention_mask=sees[:, None, None],
            position_ids=position[:, None],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        self._state, self._said = states[:, 0], None
        for row in self._rows:
            row.length += 1

    def _tops(self, logprobs: Tensor) -> dict[int, tuple[tuple[int, float], ...]]:
        """By row, the likeliest tokens of (R, V) and their log-probabilities, for those rows that want them."""
        wants = [i for i, row in enumerate(self._rows) if row.alternatives]
        if not wants:
            return {}
        most = min(max(self._rows[i].alternatives for i in wants), logprobs.shape[1])
        values, tokens = logprobs[wants].topk(most)
        return {
            i: tuple(zip(likeliest, each, strict=True))[: self._rows[i].alternatives]
            for i, likeliest, each in zip(wants, tokens.tolist(), values.tolist(), strict=True)
        }

    def _make_room(self, rows: Sequence[_Row]) -> None:
        """Have a table for rows at their longest, and not much larger than that."""
        count = -(-len(rows) // ROUND_ROWS) * ROUND_ROWS
        length = -(-max(row.room for row in rows) // ROUND_LENGTH) * ROUND_LENGTH
        language = self._model.language_model
        for table in self._table:
            table.resize(count, length, language)


class _Layer(CacheLayerMixin):
    """One layer's table: keys and values (rows, heads, length, width)."""

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._position = torch.zeros(0, dtype=torch.long)
        self._longest = 0

    def resize(self, rows: int, length: int, language: Any) -> None:
        """Room for so many rows and tokens; what stands there stays, as far as it fits."""
        if self.is_initialized:
            have_rows, have_length = self.keys.shape[0], self.keys.shape[2]
            if rows <= have_rows <= 2 * rows and length <= have_length <= 2 * length:
                return
        config = language.config
        heads, width = config.num_key_value_heads, language.model.layers[0].self_attn.head_dim
        fresh = torch.zeros(2, rows, heads, length, width, dtype=language.dtype, device=language.device)
        if self.is_initialized:
            kept_rows, kept_length = min(rows, have_rows), min(length, have_length)
            fresh[0, :kept_rows, :, :kept_length] = self.keys[:kept_rows, :, :kept_length]
            fresh[1, :kept_rows, :, :kept_length] = self.values[:kept_rows, :, :kept_length]
        self.keys, self.values = fresh
        self.is_initialized = True

    def write_at(self, position: Tensor, longest: int) -> None:
        """Where the next keys and values belong, (R,), and how far the rows reach with them."""
        self._position, self._longest = position, longest

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(self._position), device=key_states.device)
        self.keys[rows, :, self._position] = key_states[:, :, 0]
        self.values[rows, :, self._position] = value_states[:, :, 0]
        return self.keys[: len(rows), :, : self._longest], self.values[: len(rows), :, : self._longest]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise AssertionError("the table is made before anything is written")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._longest, 0

    def get_seq_length(self) -> int:
        return self._longest - 1

    def get_max_length(self) -> int:
        return -1
