"""A second look: it learns what an answer's certainty tells, and pays for both answers."""

import numpy as np
import pytest

from router.calibrate import PRICES
from router.cascade import SecondLook, cascade_path, cascaded
from router.evaluate import mixed_to, price_path

LADDER = (1, 9, 36)


def world(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions that know nothing, answers whose certainty tells all, and scores (each (B, S))."""
    rng = np.random.default_rng(seed)
    score = (rng.random((rows, 1)) < np.array([0.5, 0.7, 0.9])).astype(float)
    logprob = np.where(score == 1, -0.05, -1.5) + rng.normal(0, 0.1, score.shape)
    return np.tile([0.5, 0.7, 0.9], (rows, 1)), np.minimum(logprob, 0), score


def test_certainty_is_learnt():
    """P(right) after a sure answer is high and after an unsure one low; what a finer scale would give follows."""
    look = SecondLook.fit(*world(2000, 0))
    probabilities, logprob, score = world(500, 1)
    chances = look.predict(probabilities, logprob[:, 0], 0)
    assert chances.shape == (500, 3)
    assert np.abs(chances[:, 0] - score[:, 0]).mean() < 0.1
    wrong = score[:, 0] == 0
    assert chances[wrong, 2].mean() == pytest.approx(score[wrong, 2].mean(), abs=0.1)


def test_both_answers_are_paid_for():
    """Where the second answer is given, its tokens come on top of the first's."""
    look = SecondLook.fit(*world(2000, 0))
    probabilities, logprob, score = world(500, 1)
    outcome = cascaded("c", np.zeros(500, int), look, probabilities, logprob, score, LADDER, 0.001)
    assert set(outcome.tokens) == {1.0, 37.0}
    again = outcome.tokens == 37
    assert np.array_equal(outcome.score[again], score[again, 2]) and again.mean() == pytest.approx(0.5, abs=0.1)
    costly = cascaded("c", np.zeros(500, int), look, probabilities, logprob, score, LADDER, 0.001, (2, 3, 4))
    assert set(costly.cost) == {2.0, 6.0} and np.array_equal(costly.cost == 6, again)


def test_at_price_1_nothing_is_answered_twice():
    """Nothing is worth that much."""
    probabilities, logprob, score = world(200, 1)
    look = SecondLook.fit(probabilities, logprob, score)
    outcome = cascaded("c", np.zeros(200, int), look, probabilities, logprob, score, LADDER, 1.0)
    assert (outcome.tokens == 1).all()


def test_it_beats_deciding_up_front_where_only_the_answer_tells():
    """Predictions that know nothing leave mixing at random; certainty of the answer does better at equal tokens."""
    look = SecondLook.fit(*world(2000, 0))
    told = world(2000, 1)
    path = cascade_path("cascade", 2.0, look, *told, LADDER, [p for p in PRICES if p >= 0])
    front = price_path("front", told[0], told[2], LADDER)
    assert mixed_to("", path, 15).accuracy > mixed_to("", front, 15).accuracy + 0.05


def test_a_scale_that_is_always_right_needs_no_second_look():
    """Nothing to learn isn't an error."""
    probabilities, logprob, _ = world(50, 0)
    look = SecondLook.fit(probabilities, logprob, np.ones((50, 3)))
    assert look.predict(probabilities, logprob[:, 1], 1).min() > 0.95
