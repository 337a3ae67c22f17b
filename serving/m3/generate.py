"""Answers: mixed requests in one batch, or many questions about each picture; equal to answering one by one."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from serving.m3.inputs import check_context, input_row, left_padded
from serving.m3.model import Encoded, M3Model
from serving.m3.packing import pack, read
from serving.m3.prompt import Prompt


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
    logprob: float  # of all of them
    finish_reason: Literal["stop", "length"]


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
        check_context(model, row, request.max_new_tokens)
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
    decoded = _decode(model, prompt.stops, _Sampler(requests), cache, hidden, sees, position, most)
    return [
        _generation(prompt, said, row.visual_tokens, len(row.embeds))
        for (said,), row in zip(decoded, rows, strict=True)
    ]


@torch.inference_mode()
def answer_about_pictures(
    model: M3Model,
    prompt: Prompt,
    pictures: Sequence[Encoded],
    questions: Sequence[Sequence[str]],
    tokens: int,
    max_new_tokens: int,
) -> list[list[Generation]]:
    """Answer several questions about each of the pictures at one scale.

    A picture's questions share its visual tokens and stand in one row, as in training; pictures with equally many
    visual tokens are answered together.
    """
    heads = [model.embed(prompt.head(), (picture,), tokens) for picture in pictures]  # (P, D) each
    answers: dict[int, list[Generation]] = {}
    for length in {len(head) for head in heads}:
        chosen = [i for i, head in enumerate(heads) if len(head) == length]
        asked = [[prompt.question_ids(question) for question in questions[i]] for i in chosen]
        prefix = torch.stack([heads[i] for i in chosen])
        decoded = _answer_rows(model, prompt.stops, prefix, asked, max_new_tokens)
        visual = length - len(prompt.head()) + 1
        for i, ids, said in zip(chosen, asked, decoded, strict=True):
            row = zip(said[: len(ids)], ids, strict=True)
            answers[i] = [_generation(prompt, each, visual, length + len(own)) for each, own in row]
    return [answers[i] for i in range(len(pictures))]


def _answer_rows(
    model: M3Model, stops: AbstractSet[int], prefix: Tensor, asked: Sequence[Sequence[list[int]]], max_new_tokens: int
) -> list[list[_Decoded]]:
    """Answers to the questions' ids of each row, behind the rows' prefixes (B, P, D)."""
    text = pack([[(ids, []) for ids in row] for row in asked]).to(prefix.device)
    start = prefix.shape[1]
    states, cache = read(model, prefix, text)
    lengths = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([len(ids) for ids in row], dtype=torch.long, device=prefix.device) for row in asked],
        batch_first=True,
    )  # (B, Q), 0 where a picture has fewer questions
    last = (lengths.cumsum(1) - 1).clamp(min=0)[..., None]  # (B, Q, 1); a picture may have no question at all
    sees = text.sees(start)
    return _decode(
        model,
        stops,
        _greedy,
        cache,
        states.gather(1, last.expand(-1, -1, states.shape[-1])),
        sees.gather(1, last.expand(-1, -1, sees.shape[-1])),
        start + lengths,
        max_new_tokens * (lengths > 0),
    )


def _greedy(logprobs: Tensor) -> Tensor:
    return logprobs.argmax(-1)


class _Sampler:
    """Chooses each request's next token: greedily, or by chance with the request's own generator."""

    def __init__(self, requests: Sequence[GenerateRequest]):
        self._sampled = [
            (row, request, torch.Generator().manual_seed(request.seed))
            for row, request in enumerate(requests)
            if request.temperature > 0
        ]

    def __call__(self, logprobs: Tensor) -> Tensor:
        token = _greedy(logprobs)
        for row, request, generator in self._sampled:
            chances = (logprobs[row, 0].cpu() / request.temperature).softmax(-1)  # (V,)
            ranked, order = chances.sort(descending=True)
            ranked[ranked.cumsum(0) - ranked >= request.top_p] = 0
            token[row, 0] = order[ranked.multinomial(1, generator=generator)]
        return token


def _generation(prompt: Prompt, decoded: _Decoded, visual_tokens: int, prompt_tokens: int) -> Generation:
    count = len(decoded.ids)
    return Generation(
        prompt.text(decoded.ids), visual_tokens, prompt_tokens, count, decoded.logprob / count, decoded.finish_reason
    )


def _decode(
    model: M3Model,
    stops: AbstractSet[int],
    choose: Callable[[Tensor], Tensor],
    cache: DynamicCache,
    hidden: Tensor,
    sees: Tensor,
    position: Tensor,
    most: Tensor,
) -> list[list[_Decoded]]:
    """Answers to the Q questions of each row.

    Args:
        stops: ids that end an answer.
        choose: log-probabilities (B, Q, V) -> tokens (B, Q).
        cache: keys and values of the L tokens of each row.
        hidden: (B, Q, D), the state of each question's last token.
        sees: (B, Q, L), the tokens that a question sees.
        position: (B, Q) of each answer's first token.
        most: (B, Q), new tokens allowed; 0 where a row has fewer questions.
    """
    language = model.language_model
    stop = torch.tensor(sorted(stops), device=most.device)
    running = most > 0
    ids: list[list[list[int]]] = [[[] for _ in row] for row in most.tolist()]
    logprob = torch.zeros(most.shape, device=most.device)
    stopped = torch.zeros_like(running)
    own = torch.eye(most.shape[1], dtype=torch.bool, device=most.device).expand(len(most), -1, -1)
    for count in range(1, int(most.max()) + 1):
        logprobs = language.lm_head(hidden).float().log_softmax(-1)  # (B, Q, V)
        token = choose(logprobs)
        logprob += logprobs.gather(2, token[..., None])[..., 0] * running
        spelt = token.tolist()
        for row, question in running.nonzero().tolist():
            ids[row][question].append(spelt[row][question])
        ends = torch.isin(token, stop)
        stopped |= running & ends
        running = running & ~ends & (count < most)
        if not running.any():
            break
        sees = torch.cat([sees, own], 2)
        hidden = language.model(
            inputs_embeds=model.embed_text(token).to(hidden.dtype),
            attention_mask=sees[:, None],
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        position = position + 1
    return [
        [_Decoded(*answer[:2], "stop" if answer[2] else "length") for answer in zip(*row, strict=True)]
        for row in zip(ids, logprob.tolist(), stopped.tolist(), strict=True)
    ]
