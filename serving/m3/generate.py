"""Greedy answers: mixed requests in one batch, or many questions about each picture; equal to answering one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from complexity.errors import InvalidInput
from serving.m3.model import M3Model
from serving.m3.packing import pack, read
from serving.m3.prompt import EOS, Prompt


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
    logprob: float  # of all of them
    finish_reason: Literal["stop", "length"]


@torch.inference_mode()
def generate(model: M3Model, prompt: Prompt, requests: Sequence[GenerateRequest]) -> list[Generation]:
    """Answer a batch of requests greedily, each at its own scale.

    Rows are padded on the left and keep their own positions, so scales and question lengths mix freely.

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
    cache = DynamicCache()
    hidden = model.language_model.model(
        inputs_embeds=padded,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[:, -1:]
    most = torch.tensor([[request.max_new_tokens] for request in requests], device=padded.device)
    decoded = _decode(model, cache, hidden, mask.bool()[:, None], mask.sum(1, keepdim=True), most)
    return [
        _generation(prompt, row, request.tokens, length)
        for request, length, (row,) in zip(requests, lengths, decoded, strict=True)
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
    """Answer several questions about each picture at one scale.

    A picture's questions share its visual tokens and stand in one row, as in training.

    Args:
        features: (B, N, D) of `M3Model.encode`.
        questions: of each of the B pictures.
        tokens: a rung of the ladder.
    """
    asked = [[prompt.question_ids(question) for question in row] for row in questions]
    text = pack([[(ids, []) for ids in row] for row in asked]).to(features.device)
    start = 1 + tokens
    states, cache = read(model, model.prefix(features, tokens), text)
    lengths = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([len(ids) for ids in row], dtype=torch.long, device=features.device) for row in asked],
        batch_first=True,
    )  # (B, Q), 0 where a picture has fewer questions
    last = (lengths.cumsum(1) - 1).clamp(min=0)[..., None]  # (B, Q, 1); a picture may have no question at all
    sees = text.sees(start)
    decoded = _decode(
        model,
        cache,
        states.gather(1, last.expand(-1, -1, states.shape[-1])),
        sees.gather(1, last.expand(-1, -1, sees.shape[-1])),
        start + lengths,
        max_new_tokens * (lengths > 0),
    )
    return [
        [
            _generation(prompt, said, tokens, start + len(ids))
            for ids, said in zip(row, answers[: len(row)], strict=True)
        ]
        for row, answers in zip(asked, decoded, strict=True)
    ]


def _generation(prompt: Prompt, decoded: _Decoded, tokens: int, prompt_tokens: int) -> Generation:
    count = len(decoded.ids)
    return Generation(
        prompt.text(decoded.ids), tokens, prompt_tokens, count, decoded.logprob / count, decoded.finish_reason
    )


def _decode(
    model: M3Model, cache: DynamicCache, hidden: Tensor, sees: Tensor, position: Tensor, most: Tensor
) -> list[list[_Decoded]]:
    """Greedy answers to the Q questions of each row.

    Args:
        cache: keys and values of the L tokens of each row.
        hidden: (B, Q, D), the state of each question's last token.
        sees: (B, Q, L), the tokens that a question sees.
        position: (B, Q) of each answer's first token.
        most: (B, Q), new tokens allowed; 0 where a row has fewer questions.
    """
    language = model.language_model
    running = most > 0
    ids: list[list[list[int]]] = [[[] for _ in row] for row in most.tolist()]
    logprob = torch.zeros(most.shape, device=most.device)
    stopped = torch.zeros_like(running)
    own = torch.eye(most.shape[1], dtype=torch.bool, device=most.device).expand(len(most), -1, -1)
    for count in range(1, int(most.max()) + 1):
        best, token = language.lm_head(hidden).float().log_softmax(-1).max(-1)  # (B, Q)
        logprob += best * running
        spelt = token.tolist()
        for row, question in running.nonzero().tolist():
            ids[row][question].append(spelt[row][question])
        stopped |= running & (token == EOS)
        running = running & (token != EOS) & (count < most)
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
