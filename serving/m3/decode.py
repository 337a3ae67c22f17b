"""Decoding, one token a step, for any number of questions about what the rows of a batch hold."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from serving.m3.model import M3Model
from serving.m3.prompt import Prompt


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
class Decoded:
    """The tokens of one answer, the one that ends it included, and how likely they were together."""

    ids: list[int]
    logprob: float  # of all of them
    finish_reason: Literal["stop", "length"]


def greedy(logprobs: Tensor) -> Tensor:
    """The likeliest tokens (B, Q) of log-probabilities (B, Q, V)."""
    return logprobs.argmax(-1)


def generation(prompt: Prompt, decoded: Decoded, visual_tokens: int, prompt_tokens: int) -> Generation:
    """A decoded answer as text, with the mean log-probability of its tokens."""
    count = len(decoded.ids)
    return Generation(
        prompt.text(decoded.ids), visual_tokens, prompt_tokens, count, decoded.logprob / count, decoded.finish_reason
    )


def decode(
    model: M3Model,
    stops: AbstractSet[int],
    choose: Callable[[Tensor], Tensor],
    cache: DynamicCache,
    hidden: Tensor,
    sees: Tensor,
    position: Tensor,
    most: Tensor,
) -> list[list[Decoded]]:
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
        [Decoded(*answer[:2], "stop" if answer[2] else "length") for answer in zip(*row, strict=True)]
        for row in zip(ids, logprob.tolist(), stopped.tolist(), strict=True)
    ]
