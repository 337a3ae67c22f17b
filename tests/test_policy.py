"""The policy: the best rung for a price, monotone in the price whatever the rounding."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from complexity.errors import InvalidInput
from router.policy import choose, choose_rung, worth

LADDER = (1, 9, 36, 144, 576)
probability = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, np.nextafter(0.5, 1), 1.0]))
rows = st.lists(probability, min_size=5, max_size=5)
prices = st.one_of(st.just(0.0), st.floats(-0.9, 1), st.floats(1e-20, 1e-10), st.just(-1.0))


@given(rows, prices)
def test_the_choice_has_the_best_utility(row: list[float], price: float):
    """No rung has a higher P - price * tokens than the chosen one, within rounding; -1 asks for no utility."""
    assume(price > -1)
    utility = np.array(row) - price * np.array(LADDER)
    chosen = LADDER.index(int(choose(np.array(row), LADDER, price)))
    assert utility[chosen] >= utility.max() - 1e-9


@settings(max_examples=500)
@given(rows, prices, prices)
def test_a_lower_price_never_gives_fewer_tokens(row: list[float], one: float, other: float):
    """Tokens fall as the price rises, exactly, also where differences drown in rounding."""
    cheap, dear = sorted((one, other))
    assert choose(np.array(row), LADDER, cheap) >= choose(np.array(row), LADDER, dear)


@given(st.lists(rows, min_size=1, max_size=8), prices)
def test_a_batch_is_its_samples(batch: list[list[float]], price: float):
    """Choosing for a batch equals choosing one by one."""
    together = choose(np.array(batch), LADDER, price)
    assert together.tolist() == [int(choose(np.array(row), LADDER, price)) for row in batch]


def test_ties_go_to_fewer_tokens():
    """Rungs that are equally likely right are decided by their number of tokens, also at price 0."""
    assert choose(np.full(5, 0.7), LADDER, 0.0) == 1
    assert choose(np.array([0.1, 0.9, 0.9, 0.9, 0.9]), LADDER, 0.0) == 9


def test_the_price_is_a_probability_per_token():
    """35 more tokens for 7 points are taken at 0.0019 a token and left at 0.0021."""
    row = np.array([0.50, 0.50, 0.57, 0.57, 0.57])
    assert choose(row, LADDER, 0.0019) == 36 and choose(row, LADDER, 0.0021) == 1


def test_extreme_prices_give_the_ends_of_the_ladder():
    """At price 0 the likeliest rung is taken, at a high price the coarsest, at -1 the finest come what may."""
    rising = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert choose(1 - rising, LADDER, -1.0) == 576 and choose(1 - rising, LADDER, 0.0) == 1
    assert choose(rising, LADDER, 0.0) == 576 and choose(rising, LADDER, 1.0) == 1


def test_worth_is_the_price_at_which_a_rung_falls():
    """At its worth a rung is no longer taken; just below it is."""
    row = np.array([0.2, 0.4, 0.5, 0.8, 0.9])
    worths = worth(row, LADDER)
    finest = worths[-1]
    assert LADDER[choose_rung(worths, finest)] < 576 == LADDER[choose_rung(worths, np.nextafter(finest, 0))]


@pytest.mark.parametrize("price", [-1.1, float("nan"), float("inf")])
def test_a_senseless_price_is_refused(price: float):
    """Prices below -1 and non-finite ones are the caller's mistake."""
    with pytest.raises(InvalidInput, match="price"):
        choose(np.full(5, 0.5), LADDER, price)


def test_probabilities_must_fit_the_ladder():
    """Four probabilities for five rungs are refused."""
    with pytest.raises(InvalidInput, match="5 rungs"):
        choose(np.full(4, 0.5), LADDER, 0.0)
