"""Answers to mixed requests: in a batch as one by one, and as transformers' own generate gives them."""

import pytest
import torch
from m3_toys import toy_m3, toy_pictures

from complexity.errors import InvalidInput, OffLadder
from serving.m3 import GenerateRequest

QUESTIONS = ["What color is the background?", "Read the red sign.", "How much is MILK?", "red?"]


def requests(m3, pictures):
    """Every scale with every question about no picture, one or two, different limits, in one batch."""
    shown = [pictures[:1], pictures[1:], (), pictures]
    return [
        GenerateRequest(question, shown[(i + k) % 4], tokens, 3 + (i + k) % 5, temperature=k % 2 * 0.8, seed=i)
        for i, tokens in enumerate(m3.ladder[:4])
        for k, question in enumerate(QUESTIONS)
    ]


def test_a_mixed_batch_equals_one_by_one():
    """Scales, pictures, question lengths, limits and sampling mix; each answer is what it would be alone."""
    m3 = toy_m3()
    asked = requests(m3, tuple(toy_pictures(2)))
    together = m3.generate(asked)
    for request, answer in zip(asked, together, strict=True):
        (alone,) = m3.generate([request])
        assert (alone.text, alone.completion_tokens, alone.finish_reason) == (
            answer.text,
            answer.completion_tokens,
            answer.finish_reason,
        )
        assert alone.mean_logprob == pytest.approx(answer.mean_logprob, abs=1e-4)
        assert alone.prompt_tokens == answer.prompt_tokens


def test_batched_generation_equals_transformers_generate():
    """The decode loop gives what transformers' own greedy generate gives."""
    m3 = toy_m3()
    (picture,) = toy_pictures(1)
    request = GenerateRequest(QUESTIONS[1], (picture,), 36, max_new_tokens=6)
    (ours,) = m3.generate([request])
    embeds = m3.embed([picture], [*m3.prompt.head(), *m3.prompt.question_ids(request.prompt)], 36)[None]
    ids = m3.model.language_model.generate(
        inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), max_new_tokens=6, do_sample=False
    )
    assert ours.text == m3.prompt.text(ids[0].tolist())


def test_visual_tokens_and_prompt_tokens_are_counted():
    """The prompt is <s>, the visual tokens and the question."""
    m3 = toy_m3()
    (answer,) = m3.generate([GenerateRequest("Read the red sign.", tuple(toy_pictures(1)), 9)])
    assert answer.visual_tokens == 9
    assert answer.prompt_tokens == 1 + 9 + len(m3.prompt.question_ids("Read the red sign."))


def test_sampling_follows_its_seed_and_its_nucleus():
    """The same seed gives the same answer, other seeds give others, and a tiny nucleus is greedy."""
    m3 = toy_m3()
    shown = tuple(toy_pictures(1))

    def said(seed, top_p=1.0, temperature=1.5):
        (answer,) = m3.generate([GenerateRequest("red?", shown, 9, 12, temperature, top_p, seed)])
        return answer.text

    assert said(1) == said(1)
    assert len({said(seed) for seed in range(6)}) > 1
    assert {said(seed, top_p=1e-6) for seed in range(3)} == {said(0, temperature=0.0)}


def test_off_ladder_requests_are_refused():
    """A scale that the model doesn't have is an error, never another scale."""
    m3 = toy_m3()
    with pytest.raises(OffLadder, match="100 visual tokens"):
        m3.generate([GenerateRequest("red?", tuple(toy_pictures(1)), 100)])


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers():
    """Nothing is cut off silently, least of all the picture."""
    m3 = toy_m3()
    with pytest.raises(InvalidInput, match="576 visual.*holds 1024"):
        m3.generate([GenerateRequest("red " * 600, tuple(toy_pictures(1)), 576)])


def test_no_requests_no_answers():
    """An empty batch is answered with an empty list."""
    assert toy_m3().generate([]) == []
