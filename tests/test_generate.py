import pytest
import torch
from m3_toys import toy_m3

from complexity.errors import InvalidInput, OffLadder
from serving.m3 import GenerateRequest

QUESTIONS = ["What color is the background?", "Read the red sign.", "How much is MILK?", "red?"]


def requests(m3, features):
    """Every scale with every question, two pictures, different limits, in one batch."""
    return [
        GenerateRequest(question, features[(i + k) % 2], tokens, max_new_tokens=3 + (i + k) % 5)
        for i, tokens in enumerate(m3.ladder)
        for k, question in enumerate(QUESTIONS)
    ]


def test_a_mixed_batch_equals_one_by_one():
    """Scales, question lengths and limits mix in a batch; each answer is what it would be alone."""
    m3 = toy_m3()
    asked = requests(m3, torch.randn(2, 576, 32))
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
    features = torch.randn(2, 576, 32)
    request = GenerateRequest(QUESTIONS[1], features[0], 36, max_new_tokens=6)
    (ours,) = m3.generate([request])
    words = m3.model.embed_text(torch.tensor([m3.prompt.question_ids(request.question)]))
    embeds = torch.cat([m3.model.prefix(features[:1], 36), words], 1)
    ids = m3.model.language_model.generate(
        inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), max_new_tokens=6, do_sample=False
    )
    assert ours.text == m3.prompt.text(ids[0].tolist())


def test_questions_about_a_picture_share_its_prefix_and_nothing_else():
    """Answering many questions about pictures at once equals separate requests."""
    m3 = toy_m3()
    features = torch.randn(2, 576, 32)
    asked = [QUESTIONS[:3], QUESTIONS[3:]]
    for tokens in m3.ladder:
        together = m3.answer(features, asked, tokens, max_new_tokens=5)
        for picture, row, answers in zip(features, asked, together, strict=True):
            alone = m3.generate([GenerateRequest(question, picture, tokens, 5) for question in row])
            assert [answer.text for answer in alone] == [answer.text for answer in answers]
            assert [answer.prompt_tokens for answer in alone] == [answer.prompt_tokens for answer in answers]


def test_a_picture_without_questions_gets_no_answers():
    """Such a picture changes nothing for the others of its batch."""
    m3 = toy_m3()
    features = torch.randn(3, 576, 32)
    first, middle, last = m3.answer(features, [[], QUESTIONS, []], 9, max_new_tokens=3)
    (alone,) = m3.answer(features[1:2], [QUESTIONS], 9, max_new_tokens=3)
    assert (first, last) == ([], [])
    assert [answer.text for answer in middle] == [answer.text for answer in alone]


def test_visual_tokens_and_prompt_tokens_are_counted():
    """The prompt is <s>, the visual tokens and the question."""
    m3 = toy_m3()
    (answer,) = m3.generate([GenerateRequest("Read the red sign.", torch.randn(576, 32), 9)])
    assert answer.visual_tokens == 9
    assert answer.prompt_tokens == 1 + 9 + len(m3.prompt.question_ids("Read the red sign."))


def test_off_ladder_requests_are_refused():
    """A scale that the model doesn't have is an error, never another scale."""
    m3 = toy_m3()
    with pytest.raises(OffLadder, match="100 visual tokens"):
        m3.generate([GenerateRequest("red?", torch.randn(576, 32), 100)])


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers():
    """Nothing is cut off silently, least of all the picture."""
    m3 = toy_m3()
    with pytest.raises(InvalidInput, match="576 visual.*holds 1024"):
        m3.generate([GenerateRequest("red " * 600, torch.randn(576, 32), 576)])


def test_no_requests_no_answers():
    """An empty batch is answered with an empty list."""
    assert toy_m3().generate([]) == []
