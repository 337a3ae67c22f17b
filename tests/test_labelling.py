"""How a batch is put to the model doesn't change what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from m3_toys import toy_m3

from complexity.errors import M3Error
from complexity.sample import Sample
from serving.m3 import M3, GenerateRequest
from training_data.drawn.corpus import draw_item
from training_data.sweeping.labelling import QUESTIONS_AT_ONCE, Asked, Item, Manner, label, look
from training_data.sweeping.recorded import Batch, label_batch
from training_data.sweeping.table import Failure


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


BRIEF = Manner(max_new_tokens=2)


class SmallGpu(M3):
    """A model whose memory holds so many pictures in the tower and so many questions at once, and never some texts."""

    def __init__(self, m3, pictures, questions, never=""):
        super().__init__(m3.model, m3.prompt, m3.model_id)
        self.most, self.never, self.refused = (pictures, questions), never, 0

    def _hold(self, count, most, texts=()):
        if count > most or self.never and any(self.never in text for text in texts):
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def encode(self, pictures):
        self._hold(len(pictures), self.most[0])
        return super().encode(pictures)

    def answer_at_scales(self, pictures, questions, scales=None, max_new_tokens=32):
        texts = [text for each in questions for text in each]
        self._hold(len(texts), self.most[1], texts)
        return super().answer_at_scales(pictures, questions, scales, max_new_tokens)


def test_what_a_gpu_does_not_hold_is_halved_and_changes_no_answer():
    """Halves of pictures, then of a picture's questions: the same rows in the same order, each once."""
    m3 = toy_m3()
    items = items_of(3, 3)
    small = SmallGpu(m3, pictures=2, questions=1)
    whole, failures = label_batch(m3, Batch(items, []), BRIEF)
    halved, more = label_batch(small, Batch(items, []), BRIEF)
    assert failures == more == [] and small.refused > 0
    assert [(row.sample_id, row.tokens) for row in halved] == [(row.sample_id, row.tokens) for row in whole]
    assert [row.prediction for row in halved] == [row.prediction for row in whole]
    np.testing.assert_allclose([r.mean_logprob for r in halved], [r.mean_logprob for r in whole], atol=1e-4)
    np.testing.assert_allclose([r.tower_features for r in halved], [r.tower_features for r in whole], atol=1e-4)


def test_a_question_that_alone_is_too_much_is_set_aside(tmp_path):
    """The others about its picture are answered; a picture that the tower can't take loses all of its questions."""
    m3, items = toy_m3(), items_of(2, 3)
    rows, failures = label_batch(SmallGpu(m3, 9, 9, never="number 1?"), Batch(items, []), BRIEF)
    reason = "the GPU's memory doesn't hold it: CUDA out of memory. Tried to allocate 2.00 GiB."
    assert failures == [Failure(f"{index}-1", "", 0, reason) for index in range(2)]
    assert len(rows) == 5 * 4 and not any(row.sample_id.endswith("-1") for row in rows)
    rows, failures = label_batch(SmallGpu(m3, 0, 9), Batch(items, []), BRIEF)
    assert rows == [] and [each.sample_id for each in failures] == [f"{i}-{k}" for i in range(2) for k in range(3)]
    with pytest.raises(M3Error, match="0-0: the GPU's memory doesn't hold it"):
        look(SmallGpu(m3, 0, 9), items)
