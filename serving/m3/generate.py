"""Answers to mixed requests in one batch; equal to answering one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from serving.m3.decode import Generation, decode, generation, greedy
from serving.m3.inputs import check_context, input_row, left_padded
from serving.m3.model import Encoded, M3Model
from serving.m3.prompt import Prompt
from serving.m3.sampling import Sampling, sample


@dataclass(frozen=True)
class GenerateRequest:
    """One prompt about encoded pictures, or about none, at one scale; greedy at temperature 0."""

    prompt: str
    pictures: tuple[Encoded, ...]
    tokens: int
    max_new_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0  # sample from the likeliest tokens that together have this probability
    seed: int = 0  # of the sampling


@torch.inference_mode()
def generate(model: M3Model, prompt: Prompt, requests: Sequence[GenerateRequest]) -> list[Generation]:
    """Answer a batch of requests, each at its own scale.

    Rows are padded on the left and keep their own positions, so scales and question lengths mix freely.

    Raises:
        OffLadder: a request's `tokens` is not a rung of the model's ladder.
        InvalidInput: a prompt with its answer would not fit the model's context.
    """
    if not requests:
        return []
    rows = [input_row(model, prompt, request.prompt, request.pictures, request.tokens) for request in requests]
    for row, request in zip(rows, requests, strict=True):
        check_context(model, row.visual_tokens, row.text_tokens, request.max_new_tokens)
    padded, mask = left_padded([row.embeds for row in rows])
    cache = DynamicCache()
    hidden = model.language_model.model(
        inputs_embeds=padded,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[:, -1:]
    most = torch.tensor([[request.max_new_tokens] for request in requests], device=padded.device)
    sees, position = mask.bool()[:, None], mask.sum(1, keepdim=True)
    decoded = decode(model, prompt.stops, _Sampler(requests), cache, hidden, sees, position, most)
    return [
        generation(prompt, said, row.visual_tokens, len(row.embeds)) for (said,), row in zip(decoded, rows, strict=True)
    ]


class _Sampler:
    """Chooses each request's next token: greedily, or by chance with the request's own generator."""

    def __init__(self, requests: Sequence[GenerateRequest]):
        samplings = [Sampling(request.temperature, request.top_p, request.seed) for request in requests]
        sources = [sampling.generator() for sampling in samplings]
        self._sampled = [
            (row, sampling, source)
            for row, (sampling, source) in enumerate(zip(samplings, sources, strict=True))
            if source is not None
        ]

    def __call__(self, logprobs: Tensor) -> Tensor:
        token = greedy(logprobs)
        for row, sampling, generator in self._sampled:
            token[row, 0] = sample(logprobs[row, 0], sampling, generator)
        return token
