"""How likely an answer is: teacher-forced log-probabilities; mixed requests in one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from complexity.errors import InvalidInput
from serving.m3.inputs import check_context, input_row, left_padded
from serving.m3.model import Encoded, M3Model
from serving.m3.prompt import Prompt


@dataclass(frozen=True)
class ScoreRequest:
    """A prompt about encoded pictures, or about none, at one scale, and the answer to judge."""

    prompt: str
    pictures: tuple[Encoded, ...]
    tokens: int
    answer: str


@dataclass(frozen=True)
class Score:
    """`logprobs` is natural, one for each of the answer's tokens and its end token."""

    logprobs: tuple[float, ...]
    greedy: bool  # each token is the likeliest, so greedy decoding gives this answer

    @property
    def logprob(self) -> float:
        """Of the whole answer with its end."""
        return sum(self.logprobs)


@torch.inference_mode()
def score(model: M3Model, prompt: Prompt, requests: Sequence[ScoreRequest]) -> list[Score]:
    """Judge a batch of answers, each at its own scale, in one forward pass; equal to judging one by one.

    Raises:
        OffLadder: a request's `tokens` is not a rung of the model's ladder.
        InvalidInput: a prompt with its answer would not fit the model's context, or an answer is empty.
    """
    if not requests:
        return []
    answers = [prompt.answer_ids(request.answer) for request in requests]
    rows = []
    for request, answer in zip(requests, answers, strict=True):
        if len(answer) < 2:
            raise InvalidInput("an empty answer has no probability to speak of", "answer")
        row = input_row(model, prompt, request.prompt, request.pictures, request.tokens)
        check_context(model, row, len(answer))
        known = model.embed_text(torch.tensor(answer[:-1], device=row.embeds.device))
        rows.append(torch.cat([row.embeds, known.to(row.embeds.dtype)]))
    padded, mask = left_padded(rows)
    states = model.language_model.model(
        inputs_embeds=padded, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False
    ).last_hidden_state
    logits = model.language_model.lm_head(
        torch.cat([row[-len(ids) :] for row, ids in zip(states, answers, strict=True)])
    )
    logprobs = logits.float().log_softmax(-1)  # (all answers' tokens, V)
    told = torch.tensor([token for ids in answers for token in ids], device=logprobs.device)
    each = logprobs.gather(1, told[:, None])[:, 0].tolist()
    best = (logprobs.argmax(1) == told).tolist()
    scores = []
    start = 0
    for ids in answers:
        end = start + len(ids)
        scores.append(Score(tuple(each[start:end]), all(best[start:end])))
        start = end
    return scores
