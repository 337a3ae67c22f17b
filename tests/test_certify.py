"""The certificate: exact tests, one row a picture, and a violation rate within what it promises."""

import numpy as np
import pytest
from scipy.stats import binom

from complexity.errors import InvalidInput
from router.calibrate import PRICES
from router.certify import certified_price, flip_bound, harmful, helpful, one_a_picture, rows_needed
from router.policy import FINEST_ALWAYS, choose_rung, worth

LADDER = (1, 9, 36)


def world(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Beliefs (B, S) and scores (B, S) of samples whose beliefs are right on average."""
    coarse = rng.uniform(0, 0.9, rows)
    p = np.stack([coarse, (coarse + 0.95) / 2, np.full(rows, 0.95)], axis=1)
    luck = rng.random((rows, 1))
    return worth(p, LADDER), (luck < p).astype(float)


def test_flips_are_counted_against_the_finest_scale():
    """Right there and wrong here is harmful, the other way round helpful, and equal is neither."""
    score = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.4, 0.0, 0.6]])
    rungs = np.zeros(4, int)
    assert harmful(score, rungs).tolist() == [True, False, False, True]
    assert helpful(score, rungs).tolist() == [False, True, False, False]


def test_the_price_is_the_last_before_the_first_failure():
    """Every price up to the certified one passes its exact test, and the next doesn't."""
    worths, score = world(2000, np.random.default_rng(0))
    price, flips = certified_price(worths, score, PRICES, 0.05, 0.9)
    counts = [int(harmful(score, choose_rung(worths, each)).sum()) for each in PRICES]
    passed = [binom.cdf(count, 2000, 0.05) <= 0.1 for count in counts]
    failed = passed.index(False, 1)
    assert 0 < failed and price == PRICES[failed - 1] and flips == counts[failed - 1]


def test_when_nothing_can_be_certified_the_finest_scale_is_taken():
    """Ten rows prove nothing at one percent."""
    worths, score = world(10, np.random.default_rng(0))
    assert certified_price(worths, score, PRICES, 0.01, 0.9) == (FINEST_ALWAYS, 0)
    assert (choose_rung(worths, FINEST_ALWAYS) == 2).all()


def test_the_promise_is_kept_as_often_as_promised():
    """Over 300 calibration sets the true flip rate exceeds alpha in at most a tenth, but for chance."""
    worths, score = world(200_000, np.random.default_rng(1))
    true_rate = {price: harmful(score, choose_rung(worths, price)).mean() for price in PRICES}
    rng, broken, useful = np.random.default_rng(2), 0, 0
    for _ in range(300):
        drawn = rng.choice(len(score), 500, replace=False)
        price, _ = certified_price(worths[drawn], score[drawn], PRICES, 0.06, 0.9)
        broken += true_rate[price] > 0.06
        useful += price > 0
    assert useful > 250 and broken <= binom.ppf(0.999, 300, 0.1)


def test_the_bound_is_clopper_and_pearsons():
    """No flip in 29 rows: at most 10% with 95% confidence (0.9 ** 29 = 0.047)."""
    assert flip_bound(0, 29, 0.95) == pytest.approx(1 - 0.05 ** (1 / 29))
    assert flip_bound(5, 5, 0.9) == 1.0


def test_rows_needed_are_enough_and_not_too_many():
    """Without flips 114 rows certify 2% at 90%; with half the allowed rate many more; at the allowed rate none do."""
    assert rows_needed(0.02, 0.0, 0.9) == 114
    some = rows_needed(0.02, 0.01, 0.9)
    assert some is not None and some > 500
    assert rows_needed(0.02, 0.02, 0.9, most=10_000) is None


def test_one_row_of_each_picture_is_taken():
    """Every picture once, not always by its first row, and the same for the same seed."""
    pictures = np.repeat(np.arange(100), 5)
    picked = one_a_picture(pictures, 0)
    assert sorted(pictures[picked]) == list(range(100)) and len(set(picked % 5)) == 5
    assert np.array_equal(picked, one_a_picture(pictures, 0))


def test_a_senseless_level_is_refused():
    with pytest.raises(InvalidInput, match="--certify 0"):
        certified_price(np.zeros((1, 3)), np.zeros((1, 3)), PRICES, 0.0, 0.9)
