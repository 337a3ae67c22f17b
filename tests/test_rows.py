"""Answers written side by side are what each would be alone, whoever joins and leaves meanwhile."""

import math
import random
from dataclasses import replace

import pytest
import torch

from serving.m3 import GenerateRequest, NewRow, Sampling, ScoreRequest, load
from training_data.drawn.corpus import draw_item

QUESTIONS = 3


@pytest.fixture(scope="module")
def m3():
    return load()


@pytest.fixture(scope="module")
def requests(m3):
    items = [draw_item("test", 0, index, QUESTIONS) for index in range(4)]
    encoded = m3.encode([item.picture.image for item in items])
    drawn = random.Random(0)
    return [
        GenerateRequest(question.text, (picture,), drawn.choice(m3.ladder), drawn.choice([2, 12]))
        for item, picture in zip(items, encoded, strict=True)
        for question in item.questions
    ]


def new_row(m3, request, owner, sampling=None):
    prepared = m3.prepare(request.prompt, request.pictures, request.tokens, request.max_new_tokens)
    return NewRow(owner, prepared.embeds, request.max_new_tokens, sampling or Sampling())


def finish(m3, rows, requests, texts, dropped=()):
    """Write on until nobody is left; `texts` collects ids by owner."""
    while len(rows):
        done = set()
        for said in rows.say():
            ids = texts.setdefault(said.owner, [])
            ids.append(said.token)
            if said.token in m3.stops or len(ids) == requests[said.owner].max_new_tokens:
                done.add(said.owner)
        rows.leave(done | set(dropped))
        rows.advance()
        yield


def test_answers_are_those_of_one_by_one_whoever_joins_between_tokens(m3, requests):
    """Prompts of all scales join one at a time, between tokens of the others."""
    alone = [m3.generate([request])[0] for request in requests]
    rows, ids = m3.rows(), {}
    writing = None
    for owner, request in enumerate(requests):
        rows.join([new_row(m3, request, owner)])
        writing = finish(m3, rows, requests, ids)
        next(writing)
    for _ in writing:
        pass
    assert [m3.text(ids[owner]) for owner in range(len(requests))] == [said.text for said in alone]
    assert [len(ids[owner]) for owner in range(len(requests))] == [said.completion_tokens for said in alone]


def test_a_row_that_leaves_takes_nothing_along(m3, requests):
    """Half of the rows are dropped after their first token, from everywhere; the others say what they would."""
    alone = [m3.generate([request])[0] for request in requests]
    rows, ids = m3.rows(), {}
    for owner, request in enumerate(requests):
        rows.join([new_row(m3, request, owner)])
        if owner < len(requests) - 1:
            continue
        stay = {0, 3, 4, 7, 11}
        writing = finish(m3, rows, requests, ids, set(range(len(requests))) - stay)
        next(writing)
        assert len(rows) <= len(stay)
        for _ in writing:
            pass
    for owner in stay:
        assert m3.text(ids[owner]) == alone[owner].text
    assert len(rows) == 0 and rows.say() == []


def test_chance_is_each_rows_own(m3, requests):
    """A seed gives the same answer in company as alone, and as the batch generator gives; another seed differs."""
    request = requests[0]
    wild = [GenerateRequest(request.prompt, request.pictures, 9, 12, 2.0, 0.9, seed) for seed in range(6)]
    alone = [m3.generate([each])[0].text for each in wild]
    rows, ids = m3.rows(), {}
    rows.join([new_row(m3, each, i, Sampling(2.0, 0.9, i)) for i, each in enumerate(wild)])
    for _ in finish(m3, rows, wild, ids):
        pass
    assert [m3.text(ids[i]) for i in range(6)] == alone
    assert len(set(alone)) > 1


def test_the_table_is_no_larger_than_its_rows_need(m3, requests):
    """It grows for the longest row and shrinks after it has gone."""
    rows = m3.rows()
    rows.join([new_row(m3, GenerateRequest("?", requests[0].pictures, 576, 8), "long")])
    large = rows._table[0].keys.shape[2]
    rows.leave({"long"})
    rows.join([new_row(m3, GenerateRequest("?", requests[0].pictures, 1, 8), "short")])
    assert large >= 576 + 8 and rows._table[0].keys.shape[2] <= 64
    assert torch.isfinite(torch.tensor([said.logprob for said in rows.say()])).all()


def test_alternatives_are_the_likeliest_tokens_for_those_rows_that_want_them(m3, requests):
    """Beside rows that don't; nothing else changes by it, to the last bit."""

    def first_said(alternatives):
        rows = m3.rows()
        pairs = enumerate(zip(requests[:3], alternatives, strict=True))
        rows.join([replace(new_row(m3, request, i), alternatives=count) for i, (request, count) in pairs])
        return rows.say()

    plain, told = first_said((0, 0, 0)), first_said((5, 0, 600))
    assert [(said.token, said.logprob) for said in told] == [(said.token, said.logprob) for said in plain]
    five, none, everything = (said.top for said in told)
    assert len(five) == 5 and none == () and len(everything) == len(m3.prompt.tokenizer)
    assert five[0] == (told[0].token, told[0].logprob)
    assert [logprob for _, logprob in everything] == sorted((logprob for _, logprob in everything), reverse=True)
    assert sum(math.exp(logprob) for _, logprob in everything) == pytest.approx(1)


def test_log_probabilities_are_those_of_scoring(m3, requests):
    """Teacher forcing of the same answer gives each token what it was told with."""
    request = requests[1]
    rows, said = m3.rows(), []
    rows.join([new_row(m3, request, 0)])
    while len(rows):
        (each,) = rows.say()
        said.append(each)
        rows.leave({0} if each.token in m3.stops or len(said) == 12 else set())
        rows.advance()
    answer = m3.text([each.token for each in said])
    (score,) = m3.score([ScoreRequest(request.prompt, request.pictures, request.tokens, answer)])
    assert [each.logprob for each in said] == pytest.approx(list(score.logprobs)[: len(said)], abs=1e-3)
