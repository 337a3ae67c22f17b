"""Scores of given answers: the sum of stepwise log-probabilities, in mixed batches as alone."""

import pytest
import torch
from m3_toys import toy_m3, toy_pictures

from complexity.errors import InvalidInput
from serving.m3 import GenerateRequest, ScoreRequest
from serving.m3.prompt import prompt_ids

PROMPTS = ["What color is the background?", "Read the red sign.", "red?"]


def test_a_score_is_the_sum_of_stepwise_log_probabilities():
    """Teacher forcing in one pass gives what feeding the answer token by token gives."""
    m3 = toy_m3()
    pictures = tuple(toy_pictures(2))
    (score,) = m3.score([ScoreRequest("red?", pictures, 36, "MILK 3")])
    ids = prompt_ids(m3.prompt, "red?", 2)
    for token, logprob in zip(m3.prompt.answer_ids("MILK 3"), score.logprobs, strict=True):
        logits = m3.model.language_model(inputs_embeds=m3.embed(pictures, ids, 36)[None]).logits[0, -1]
        assert logprob == pytest.approx(float(logits.log_softmax(-1)[token]), abs=1e-4)
        ids.append(token)
    assert score.logprob == pytest.approx(sum(score.logprobs))


def test_a_mixed_batch_equals_one_by_one():
    """Scales, pictures and lengths mix; each score is what it would be alone."""
    m3 = toy_m3()
    one, two = toy_pictures(2)
    asked = [
        ScoreRequest(prompt, shown, tokens, answer)
        for tokens, shown in zip((1, 36, 144), ((one,), (), (two, one)), strict=True)
        for prompt, answer in zip(PROMPTS, ("red", "MILK", "3.40"), strict=True)
    ]
    for request, together in zip(asked, m3.score(asked), strict=True):
        (alone,) = m3.score([request])
        assert together.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert together.greedy == alone.greedy


def test_greedy_says_whether_generation_gives_the_answer():
    """What greedy decoding answers is greedy, anything else is not."""
    m3 = toy_m3()
    with torch.no_grad():
        m3.model.language_model.lm_head.weight[2] *= 40  # so that answers end
    found = 0
    for picture in toy_pictures(40):
        (said,) = m3.generate([GenerateRequest("Read the red sign.", (picture,), 9, 30)])
        if said.finish_reason == "stop" and said.text and m3.prompt.text(m3.prompt.answer_ids(said.text)) == said.text:
            (score,) = m3.score([ScoreRequest("Read the red sign.", (picture,), 9, said.text)])
            found += score.greedy
        (other,) = m3.score([ScoreRequest("Read the red sign.", (picture,), 9, said.text + "MILK")])
        assert not other.greedy
    assert found


def test_an_empty_answer_is_refused():
    """There is nothing to judge."""
    with pytest.raises(InvalidInput, match="empty answer"):
        toy_m3().score([ScoreRequest("red?", (), 9, "")])


def test_nothing_to_score():
    """An empty batch gives an empty list."""
    assert toy_m3().score([]) == []
