"""Greedy answers from mixed requests in one batch, equal to answering them one by one.

Rows are padded on the left and keep their own positions, so scales and question lengths mix freely in a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from complexity.errors import InvalidInput
from serving.m3.model import M3Model
from serving.m3.prompt import EOS, PAD, Prompt


@dataclass(frozen=True)
class GenerateRequest:
    """One question about one encoded picture, at one scale."""

    question: str
    features: Tensor  # (N, D), one row of `M3.encode`
    tokens: int
    max_new_tokens: int = 32


@dataclass(frozen=True)
class Generation:
    """An answer; token counts include special tokens, `mean_logprob` is natural and counts the end token."""

    text: str
    visual_tokens: int
    prompt_tokens: int
    completion_tokens: int
    mean_logprob: float
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class _Decoded:
    ids: list[int]
    mean_logprob: float
    finish_reason: Literal["stop", "length"]


@torch.inference_mode()
def generate(model: M3Model, prompt: Prompt, requests: Sequence[GenerateRequest]) -> list[Generation]:
    """Answer a batch of requests greedily, each at its own scale.

    Raises:
        OffLadder: a request's `tokens` is not a rung of the model's ladder.
        InvalidInput: a prompt with its answer would not fit the model's context.
    """
    if not requests:
        return []
    context = model.language_model.config.max_position_embeddings
    embeds = []
    for request in requests:
        ids = prompt.question_ids(request.question)
        wanted = 1 + request.tokens + len(ids) + request.max_new_tokens
        if wanted > context:
            raise InvalidInput(
                f"{request.tokens} visual and {1 + len(ids)} text tokens with an answer of up to "
                f"{request.max_new_tokens} make {wanted}; the model's context holds {context}"
            )
        words = model.embed_text(torch.tensor([ids], device=request.features.device))
        prefix = model.prefix(request.features[None], request.tokens)
        embeds.append(torch.cat([prefix, words.to(prefix.dtype)], 1)[0])  # (P + T, D)
    lengths = [len(row) for row in embeds]
    longest = max(lengths)
    padded = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in embeds])
    mask = torch.tensor([[0] * (longest - length) + [1] * length for length in lengths], device=padded.device)
    decoded = _decode(model, DynamicCache(), padded, mask, [request.max_new_tokens for request in requests])
    return [
        Generation(
            text=prompt.text(row.ids),
            visual_tokens=request.tokens,
            prompt_tokens=length,
            completion_tokens=len(row.ids),
            mean_logprob=row.mean_logprob,
            finish_reason=row.finish_reason,
        )
        for request, length, row in zip(requests, lengths, decoded, strict=True)
    ]


@torch.inference_mode()
def answer_about_pictures(
    model: M3Model,
    prompt: Prompt,
    features: Tensor,
    questions: Sequence[Sequence[str]],
    tokens: int,
    max_new_tokens: int,
) -> list[list[Generation]]:
    """Answer several questions about each picture at one scale; the pictures' prefixes are computed once.

    Args:
        features: (B, N, D) of `M3Model.encode`.
        questions: of each of the B pictures.
        tokens: a rung of the ladder.
    """
    counts = torch.tensor([len(row) for row in questions], device=features.device)
    cache = DynamicCache()
    prefix = model.prefix(features, tokens)
    model.language_model.model(inputs_embeds=prefix, past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
        layer.keys, layer.values = layer.keys.repeat_interleave(counts, 0), layer.values.repeat_interleave(counts, 0)
    asked = [prompt.question_ids(question) for row in questions for question in row]
    longest = max(map(len, asked))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in asked], device=features.device)
    seen = torch.ones(len(asked), prefix.shape[1], dtype=torch.long, device=features.device)
    mask = torch.cat([seen, (ids != PAD).long()], 1)
    embeds = model.embed_text(ids).to(prefix.dtype)
    decoded = iter(_decode(model, cache, embeds, mask, [max_new_tokens] * len(asked)))
    lengths = iter(mask.sum(1).tolist())
    return [
        [
            Generation(prompt.text(row.ids), tokens, next(lengths), len(row.ids), row.mean_logprob, row.finish_reason)
            for row in (next(decoded) for _ in range(len(row)))
        ]
        for row in questions
    ]


def _decode(model: M3Model, cache: DynamicCache, embeds: Tensor, mask: Tensor, most: Sequence[int]) -> list[_Decoded]:
    """Greedy continuation of left-padded rows.

    Args:
        cache: what precedes `embeds`, or empty.
        embeds: (B, T, D).
        mask: (B, cached + T), 0 on padding.
        most: new tokens allowed for each row.
    """
    rows = embeds.shape[0]
    language = model.language_model
    position = (mask.cumsum(1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
    running = torch.ones(rows, dtype=torch.bool, device=embeds.device)
    limit = torch.tensor(most, device=embeds.device)
    ids: list[list[int]] = [[] for _ in range(rows)]
    logprob = torch.zeros(rows, device=embeds.device)
    count = torch.zeros(rows, dtype=torch.long, device=embeds.device)
    stopped = torch.zeros_like(running)
    while True:
        out = language.model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
        )
        logprobs = language.lm_head(out.last_hidden_state[:, -1]).float().log_softmax(-1)  # (B, V)
        best, token = logprobs.max(-1)
        logprob += best * running
        count += running
        for row in running.nonzero()[:, 0].tolist():
            ids[row].append(int(token[row]))
        stopped |= running & (token == EOS)
        running = running & (token != EOS) & (count < limit)
        if not running.any():
            break
        embeds = model.embed_text(token[:, None]).to(embeds.dtype)
        mask = torch.cat([mask, running[:, None].long()], 1)
        position = position[:, -1:] + 1
    means = (logprob / count).tolist()
    return [
        _Decoded(row, mean, "stop" if stop else "length")
        for row, mean, stop in zip(ids, means, stopped.tolist(), strict=True)
    ]
