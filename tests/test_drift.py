"""The comparison of decided scales with calibration's."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from complexity.errors import InvalidInput, OffLadder
from router.drift import Drift, stability_index

LADDER = (1, 9, 36, 144, 576)
EVEN = dict.fromkeys(LADDER, 0.2)

weights = st.lists(st.integers(0, 1000), min_size=5, max_size=5).filter(any)
decided = st.lists(st.sampled_from(LADDER), min_size=1, max_size=60)


def shares(counts: list[int]) -> dict[int, float]:
    return {tokens: count / sum(counts) for tokens, count in zip(LADDER, counts, strict=True)}


def drift_of(expected: dict[int, float], tokens: list[int], window: int) -> Drift:
    drift = Drift(expected, window)
    for each in tokens:
        drift.add(each)
    return drift


def test_it_is_the_sum_of_the_published_formula():
    drift = drift_of({1: 0.5, 576: 0.5}, [1, 1, 1, 576], 4)
    assert drift.index() == pytest.approx(0.25 * math.log(1.5) - 0.25 * math.log(0.5))


@given(weights, decided)
def test_it_is_finite_and_never_negative(counts: list[int], tokens: list[int]):
    index = drift_of(shares(counts), tokens, len(tokens)).index()
    assert index is not None and 0 <= index < 100


@given(decided)
def test_the_expected_mix_has_no_drift(tokens: list[int]):
    expected = {scale: tokens.count(scale) / len(tokens) for scale in LADDER}
    assert drift_of(expected, tokens, len(tokens)).index() == pytest.approx(0)


@given(weights, weights)
def test_it_doesnt_matter_which_of_two_mixes_was_expected(one: list[int], other: list[int]):
    pairs = list(zip(shares(one).values(), shares(other).values(), strict=True))
    swapped = [(b, a) for a, b in pairs]
    assert stability_index(pairs, 1e-3) == pytest.approx(stability_index(swapped, 1e-3))


@given(decided, st.randoms())
def test_the_order_within_the_window_doesnt_matter(tokens: list[int], random):
    shuffled = random.sample(tokens, len(tokens))
    assert drift_of(EVEN, tokens, len(tokens)).index() == drift_of(EVEN, shuffled, len(tokens)).index()


@given(decided, decided)
def test_only_the_last_decisions_count(before: list[int], tokens: list[int]):
    assert drift_of(EVEN, before + tokens, len(tokens)).index() == drift_of(EVEN, tokens, len(tokens)).index()


@given(st.integers(1, 50))
def test_it_rises_as_traffic_goes_to_one_scale(more: int):
    def index(finest: int) -> float:
        others = [1, 9, 36, 144] * 20
        found = drift_of(EVEN, [*others[finest:], *[576] * (20 + finest)], 100).index()
        assert found is not None
        return found

    assert index(more) > index(more - 1)


def test_it_tells_nothing_before_the_window_is_full():
    drift = drift_of(EVEN, [1] * 99, 100)
    assert drift.index() is None
    drift.add(1)
    assert drift.index() is not None


def test_traffic_as_at_calibration_stays_below_a_small_drift():
    expected = {1: 0.1, 9: 0.3, 36: 0.35, 144: 0.2, 576: 0.05}
    mix = [tokens for tokens, share in expected.items() for _ in range(round(1000 * share))]
    few = Counter(mix[::7])
    index = drift_of(expected, list(few.elements()), few.total()).index()
    assert index is not None and index < 0.1


@pytest.mark.parametrize("expected", [{}, {1: 0.5, 9: 0.4}, {1: 1.5, 9: -0.5}])
def test_shares_that_are_none_are_refused(expected: dict[int, float]):
    with pytest.raises(InvalidInput, match="must be at least 0 and add up to 1"):
        Drift(expected)


def test_a_window_of_nothing_is_refused():
    with pytest.raises(InvalidInput, match="window 0 must be at least 1"):
        Drift(EVEN, 0)


def test_a_scale_that_nobody_expects_is_refused():
    with pytest.raises(OffLadder, match="choose one of 1, 9, 36, 144, 576"):
        Drift(EVEN).add(100)
