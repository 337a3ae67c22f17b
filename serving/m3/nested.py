"""All questions about a picture at all scales in one row of the language model.

The text before the picture, each scale's visual tokens and each question are computed once. A token attends to that
text, to the visual tokens of its own scale and to its own question, at the positions of a prompt of its own, so each
question gets what it would get alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from complexity.errors import InvalidInput
from serving.m3.decode import Generation, decode, generation, greedy
from serving.m3.inputs import check_context
from serving.m3.model import Encoded, M3Model
from serving.m3.prompt import Prompt
from serving.m3.score import Score, judge

_SHARED, _PADDING = -1, -2  # in the place of a scale's or a question's number


@dataclass(frozen=True)
class _Block:
    """Tokens that belong together: a text, or a picture's visual tokens at a scale."""

    embeds: Tensor  # (L, D)
    start: int  # position of the first
    scale: int = _SHARED
    question: int = _SHARED


@dataclass(frozen=True)
class _Tokens:
    """What one pass of the language model reads about a batch of pictures; a row a picture, padded on the right."""

    embeds: Tensor  # (B, L, D)
    position: Tensor  # (B, L)
    scale: Tensor  # (B, L): which scale's, or _SHARED, or _PADDING
    question: Tensor  # (B, L)


@dataclass(frozen=True)
class _Read:
    """The language model's states of the questions' texts."""

    states: Tensor  # (B, T, D)
    sees: Tensor  # (B, T, L) bool: which of a row's L tokens each text token attends to
    cache: DynamicCache  # keys and values of the L tokens
    last: list[list[list[int]]]  # of each picture, question and scale: where its text ends in T
    prompt_tokens: list[list[list[int]]]  # of each picture, question and scale
    visual_tokens: list[list[int]]  # of each picture and scale


@torch.inference_mode()
def answer_at_scales(
    model: M3Model,
    prompt: Prompt,
    pictures: Sequence[Encoded],
    questions: Sequence[Sequence[str]],
    scales: Sequence[int],
    max_new_tokens: int,
) -> list[list[list[Generation]]]:
    """Greedy answers of every picture, question and scale, in this order; all are decoded together.

    Raises:
        OffLadder: a scale is not a rung of the model's ladder.
        InvalidInput: a prompt with its answer would not fit the model's context.
    """
    texts = [[prompt.question_ids(question) for question in asked] for asked in questions]
    if not any(texts):
        return [[] for _ in pictures]
    read = _read(model, prompt, pictures, texts, scales, max_new_tokens)
    last, start = (
        pad_sequence([torch.tensor(sum(row, []), dtype=torch.long, device=read.states.device) for row in rows], True)
        for rows in (read.last, read.prompt_tokens)
    )  # (B, Q x S), 0 where a picture has fewer questions
    decoded = decode(
        model,
        prompt.stops,
        greedy,
        read.cache,
        read.states.gather(1, last[..., None].expand(-1, -1, read.states.shape[-1])),
        read.sees.gather(1, last[..., None].expand(-1, -1, read.sees.shape[-1])),
        start,
        max_new_tokens * (start > 0),
    )
    answers = []
    for said, visual, counts in zip(decoded, read.visual_tokens, read.prompt_tokens, strict=True):
        each = iter(said)
        answers.append(
            [[generation(prompt, next(each), *used) for used in zip(visual, row, strict=True)] for row in counts]
        )
    return answers


@torch.inference_mode()
def score_at_scales(
    model: M3Model,
    prompt: Prompt,
    pictures: Sequence[Encoded],
    questions: Sequence[Sequence[tuple[str, str]]],
    scales: Sequence[int],
) -> list[list[list[Score]]]:
    """Judge the answer to every picture's questions at every scale without decoding.

    Args:
        questions: (question, answer) pairs about each picture.

    Raises:
        OffLadder: a scale is not a rung of the model's ladder.
        InvalidInput: a prompt with its answer would not fit the model's context, or an answer is empty.
    """
    told = [[prompt.answer_ids(answer) for _, answer in pairs] for pairs in questions]
    if any(len(answer) < 2 for row in told for answer in row):
        raise InvalidInput("an empty answer has no probability to speak of", "answer")
    texts = [
        [[*prompt.question_ids(asked), *answer[:-1]] for (asked, _), answer in zip(pairs, answers, strict=True)]
        for pairs, answers in zip(questions, told, strict=True)
    ]
    if not any(texts):
        return [[] for _ in pictures]
    read = _read(model, prompt, pictures, texts, scales, 1)
    foretell, answers, seen = [], [], []
    for states, last, visual, spelt in zip(read.states, read.last, read.visual_tokens, told, strict=True):
        for ends, answer in zip(last, spelt, strict=True):
            foretell += [states[end - len(answer) + 1 : end + 1] for end in ends]
            answers += [answer] * len(ends)
            seen += visual
    judged = iter(judge(model, foretell, answers, seen))
    return [[[next(judged) for _ in ends] for ends in row] for row in read.last]


def _read(
    model: M3Model,
    prompt: Prompt,
    pictures: Sequence[Encoded],
    texts: Sequence[Sequence[list[int]]],
    scales: Sequence[int],
    answer_tokens: int,
) -> _Read:
    """Run the language model over the text before the pictures, all visual tokens, and each question at each scale.

    The finest scale comes first, with the text before it: a plain causal pass. The other scales follow in one pass
    that knows that text only, then all questions in one that knows everything; a pass over everything at once would
    spend most of its attention on pairs of tokens that don't see each other.
    """
    ids = torch.tensor(prompt.head()[:-1], dtype=torch.long, device=model.language_model.device)  # perhaps none
    head = model.embed_text(ids)  # (H, D)
    before = len(head)
    visual = [[model.visual(picture, tokens).to(head.dtype) for tokens in scales] for picture in pictures]
    for row, own in zip(visual, texts, strict=True):
        for each, text in product(row, own):
            check_context(model, len(each), before + len(text), answer_tokens)
    finest = max(range(len(scales)), key=lambda rung: scales[rung])
    first = _tokens([[_Block(head, 0), _Block(row[finest], before, finest)] for row in visual])
    cache = DynamicCache()
    model.language_model.model(inputs_embeds=first.embeds, past_key_values=cache, use_cache=True)
    known = [first]
    if len(scales) > 1:
        rest = _tokens(
            [[_Block(each, before, rung) for rung, each in enumerate(row) if rung != finest] for row in visual]
        )
        shared = _tokens([[_Block(head, 0)]] * len(pictures))
        beside = DynamicCache([(keys[:, :, :before], values[:, :, :before]) for keys, values in _contents(cache)])
        _pass(model, rest, [shared], beside)
        for i, (keys, values) in enumerate(_contents(beside)):
            cache.update(keys[:, :, before:], values[:, :, before:], i)
        known.append(rest)
    asked, last, counts = [], [], []
    for row, own in zip(visual, texts, strict=True):
        spoken = [model.embed_text(torch.tensor(text, device=head.device)) for text in own]
        asked.append(
            [_Block(each, before + len(row[s]), s, k) for k, each in enumerate(spoken) for s in range(len(scales))]
        )
        ends = accumulate(len(text) for text in own for _ in scales)
        last.append([[next(ends) - 1 for _ in scales] for _ in own])
        counts.append([[before + len(each) + len(text) for each in row] for text in own])
    states, sees = _pass(model, _tokens(asked), known, cache)
    return _Read(states, sees, cache, last, counts, [[len(each) for each in row] for row in visual])


def _tokens(rows: Sequence[Sequence[_Block]]) -> _Tokens:
    """Blocks of each picture, one behind the other."""
    some = next(block.embeds for row in rows for block in row)
    embeds = [torch.cat([some[:0], *(block.embeds for block in row)]) for row in rows]
    columns = (
        [
            torch.tensor([number for block in row for number in of(block)], dtype=torch.long, device=some.device)
            for row in rows
        ]
        for of in (
            lambda block: range(block.start, block.start + len(block.embeds)),
            lambda block: [block.scale] * len(block.embeds),
            lambda block: [block.question] * len(block.embeds),
        )
    )
    position, scale, question = columns
    return _Tokens(
        pad_sequence(embeds, True),
        pad_sequence(position, True),
        pad_sequence(scale, True, _PADDING),
        pad_sequence(question, True, _PADDING),
    )


def _pass(model: M3Model, tokens: _Tokens, known: Sequence[_Tokens], cache: DynamicCache) -> tuple[Tensor, Tensor]:
    """Let the language model read tokens behind those that `cache` holds.

    Returns:
        Their states (B, L, D), and which of the K known and L new tokens each attends to (B, L, K + L), bool.
    """
    sees = torch.cat([_meets(tokens, each) for each in known] + [_meets(tokens, tokens).tril()], 2)
    states = model.language_model.model(
        inputs_embeds=tokens.embeds,
        attention_mask=sees[:, None],
        position_ids=tokens.position,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return states, sees


def _contents(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer, (B, heads, L, width) each."""
    layers: Any = cache.layers  # typed for kinds of layers that hold neither
    return [(layer.keys, layer.values) for layer in layers]


def _meets(tokens: _Tokens, others: _Tokens) -> Tensor:
    """Where the others belong to all, or to the same scale and question as the tokens: (B, L, L'), bool."""
    scale = (others.scale[:, None] == tokens.scale[..., None]) | (others.scale[:, None] == _SHARED)
    question = (others.question[:, None] == tokens.question[..., None]) | (others.question[:, None] == _SHARED)
    return scale & question
