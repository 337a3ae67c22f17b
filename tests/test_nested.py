"""All questions about a picture at all scales in one row: the same answers and scores as separate requests."""

import pytest
import torch
from m3_toys import toy_m3, toy_pictures

from complexity.errors import InvalidInput, OffLadder
from serving.m3 import M3, Encoded, GenerateRequest, ScoreRequest
from serving.m3.formats import plain
from serving.m3.prompt import IMAGE, LlavaPrompt

QUESTIONS = ["What color is the background?", "Read the red sign.", "How much is MILK?", "red?"]


def test_answers_at_all_scales_equal_separate_requests():
    """Questions and scales share a row with other questions and scales, and nothing of what they say."""
    m3 = toy_m3()
    pictures = toy_pictures(2)
    asked = [QUESTIONS[:3], QUESTIONS[3:]]
    together = m3.answer_at_scales(pictures, asked, max_new_tokens=5)
    for picture, row, answers in zip(pictures, asked, together, strict=True):
        for question, scales in zip(row, answers, strict=True):
            alone = m3.generate([GenerateRequest(question, (picture,), tokens, 5) for tokens in m3.ladder])
            assert [answer.text for answer in alone] == [answer.text for answer in scales]
            assert [answer.prompt_tokens for answer in alone] == [answer.prompt_tokens for answer in scales]
            assert [answer.visual_tokens for answer in scales] == list(m3.ladder)
            likely = [answer.mean_logprob for answer in scales]
            assert likely == pytest.approx([answer.mean_logprob for answer in alone], abs=1e-4)


def test_scores_at_all_scales_equal_separate_requests():
    """Judged answers share a row too."""
    m3 = toy_m3()
    pictures = toy_pictures(2)
    pairs = [list(zip(QUESTIONS, ("red", "MILK 3", "3.40"), strict=False)), [("red?", "blue")]]
    together = m3.score_at_scales(pictures, pairs, (36, 1))
    for picture, row, scores in zip(pictures, pairs, together, strict=True):
        for (question, answer), scales in zip(row, scores, strict=True):
            alone = m3.score([ScoreRequest(question, (picture,), tokens, answer) for tokens in (36, 1)])
            for one, other in zip(alone, scales, strict=True):
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
                assert (one.greedy, one.visual_tokens) == (other.greedy, other.visual_tokens)


def test_pictures_of_different_length_share_a_batch():
    """Pictures of one tile and of several, as LLaVA-NeXT cuts them, are padded to the longest."""
    m3 = toy_m3()
    pictures = [Encoded(torch.randn(3, 576, 32)), *toy_pictures(1)]
    together = m3.answer_at_scales(pictures, [["red?"], ["red?"]], (9, 36), 4)
    for picture, ((both),) in zip(pictures, together, strict=True):
        alone = m3.generate([GenerateRequest("red?", (picture,), tokens, 4) for tokens in (9, 36)])
        assert [answer.text for answer in alone] == [answer.text for answer in both]
        assert [answer.visual_tokens for answer in both] == [9 * len(picture.tiles), 36 * len(picture.tiles)]


def test_a_prompt_may_begin_with_the_picture():
    """Worded plainly for a tokenizer without a token for the beginning, no text comes before the picture."""
    m3 = toy_m3()
    m3 = M3(m3.model, LlavaPrompt(m3.prompt.tokenizer, plain), "toy@0")
    assert m3.prompt.head() == [IMAGE]
    pictures = toy_pictures(2)
    asked = [QUESTIONS[:2], QUESTIONS[2:3]]
    for picture, row, answers in zip(pictures, asked, m3.answer_at_scales(pictures, asked, (1, 36), 4), strict=True):
        for question, scales in zip(row, answers, strict=True):
            alone = m3.generate([GenerateRequest(question, (picture,), tokens, 4) for tokens in (1, 36)])
            assert [answer.text for answer in alone] == [answer.text for answer in scales]


def test_a_picture_without_questions_gets_no_answers():
    """Such a picture changes nothing for the others of its batch."""
    m3 = toy_m3()
    pictures = toy_pictures(3)
    first, middle, last = m3.answer_at_scales(pictures, [[], QUESTIONS, []], (9,), 3)
    (alone,) = m3.answer_at_scales(pictures[1:2], [QUESTIONS], (9,), 3)
    assert (first, last) == ([], [])
    assert [[said.text for said in each] for each in middle] == [[said.text for said in each] for each in alone]
    assert m3.answer_at_scales(pictures, [[], [], []]) == m3.score_at_scales(pictures, [[], [], []]) == [[], [], []]


def test_what_cannot_be_answered_is_refused():
    """A scale off the ladder, an empty answer, a prompt beyond the context."""
    m3 = toy_m3()
    pictures = toy_pictures(1)
    with pytest.raises(OffLadder, match="100 visual tokens"):
        m3.answer_at_scales(pictures, [["red?"]], (100,))
    with pytest.raises(InvalidInput, match="empty answer"):
        m3.score_at_scales(pictures, [[("red?", "")]])
    with pytest.raises(InvalidInput, match="576 visual.*holds 1024"):
        m3.answer_at_scales(pictures, [["red " * 600]])
