"""How a batch is put to the model doesn't change what it says."""

from dataclasses import replace

import numpy as np
import pytest
from m3_toys import toy_m3

from complexity.sample import Sample
from serving.m3 import GenerateRequest
from training_data.drawn.corpus import draw_item
from training_data.sweeping.labelling import QUESTIONS_AT_ONCE, Asked, Item, Manner, label, look


def items_of(count, questions):
    made = []
    for index in range(count):
        drawn = draw_item("test", 1, index, 1)
        asked = tuple(
            Asked(f"{index}-{k}", "mine", "t", "", f"Which sign is number {k}?", ("red",)) for k in range(questions)
        )
        sample = Sample(drawn.png, "-", 336)
        made.append(Item((sample.picture,), sample.image_sha256, sample.image_features, asked))
    return made


def test_a_small_budget_of_visual_tokens_and_many_questions_change_no_answer():
    """A picture at a time and 16 questions at a time, or all that fits: the same rows in the same order."""
    m3 = toy_m3()
    looked = look(m3, items_of(3, QUESTIONS_AT_ONCE + 3))
    whole, parted = (label(m3, looked, Manner(visual_tokens=tokens)) for tokens in (12_288, 1))
    assert [row.sample_id for row in whole[:: len(m3.ladder)]] == [
        f"{index}-{k}" for index in range(3) for k in range(QUESTIONS_AT_ONCE + 3)
    ]
    assert [row.prediction for row in whole] == [row.prediction for row in parted]
    np.testing.assert_allclose([r.mean_logprob for r in whole], [r.mean_logprob for r in parted], atol=1e-4)


def test_several_pictures_of_a_question_stand_in_one_prompt():
    """Between records of one picture, each row is the model's answer about both pictures."""
    m3 = toy_m3()
    m3.model.language_model.config.max_position_embeddings = 2048  # two pictures at the finest scale
    first, second, third = items_of(3, 2)
    both = replace(second, pictures=first.pictures + second.pictures)
    looked = look(m3, [first, both, third])
    rows = label(m3, looked, Manner(max_new_tokens=6))
    assert [row.sample_id for row in rows[::5]] == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]
    for row in rows[10:20]:
        (said,) = m3.generate([GenerateRequest(row.question, looked[1].encoded, row.tokens, 6)])
        assert (row.prediction, row.visual_tokens) == (said.text, 2 * row.tokens)
        assert row.mean_logprob == pytest.approx(said.mean_logprob, abs=1e-4)
