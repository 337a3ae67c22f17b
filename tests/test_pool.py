"""Pooling: the paper's ladder, the naive loop's averages, and numbers off the ladder."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from complexity.errors import OffLadder
from serving.m3.pool import REDUCTIONS, ladder_of, pool

LADDER = (1, 9, 36, 144, 576)


def naive_pool(features: torch.Tensor, tokens: int) -> torch.Tensor:
    """The definition, cell by cell: the mean of the square of fine cells under each coarse one."""
    grid, side = int(features.shape[1] ** 0.5), int(tokens**0.5)
    step = grid // side
    out = torch.empty(features.shape[0], tokens, features.shape[2], dtype=features.dtype)
    for row in range(side):
        for column in range(side):
            cells = [(row * step + i) * grid + column * step + j for i in range(step) for j in range(step)]
            out[:, row * side + column] = features[:, cells].mean(1)
    return out


def test_ladder_of_a_24_grid_is_the_papers():
    """A 24x24 grid pools to the paper's five scales."""
    assert LADDER == ladder_of(24)


@pytest.mark.parametrize("tokens", LADDER)
def test_pooling_equals_the_naive_loop(tokens):
    """Pooling is the plain mean over squares, in row order, at every scale."""
    features = torch.randn(2, 576, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(tokens))
    torch.testing.assert_close(pool(features, tokens), naive_pool(features, tokens))


@given(st.integers(-10, 1000).filter(lambda tokens: tokens not in LADDER))
def test_a_number_off_the_ladder_is_refused_with_the_ladder(tokens):
    """Nothing is rounded silently: the error lists what can be asked for."""
    with pytest.raises(OffLadder, match="1, 9, 36, 144, 576"):
        pool(torch.zeros(1, 576, 1), tokens)


def test_the_refusal_crosses_processes():
    """A worker's error reaches its caller whole."""
    error = pickle.loads(pickle.dumps(OffLadder(100, LADDER, "tokens")))
    assert str(error) == str(OffLadder(100, LADDER, "tokens")) and error.param == "tokens"


def test_scales_are_nested():
    """Pooling to 144 and then to 9 gives what pooling to 9 gives at once."""
    features = torch.randn(1, 576, 3, dtype=torch.float64)
    torch.testing.assert_close(pool(pool(features, 144), 9), pool(features, 9))


@pytest.mark.parametrize("tokens", LADDER)
def test_samplings_keep_cells_as_they_are(tokens):
    """Spatial sampling takes the middle of each square, sequential sampling evenly spaced cells in row order."""
    features = torch.arange(576.0).reshape(1, 576, 1)
    side, step = int(tokens**0.5), 24 // int(tokens**0.5)
    middles = [(r * step + step // 2) * 24 + c * step + step // 2 for r in range(side) for c in range(side)]
    assert REDUCTIONS["spatial"](features, tokens).flatten().tolist() == middles
    assert REDUCTIONS["sequential"](features, tokens).flatten().tolist() == [i * 576 // tokens for i in range(tokens)]


@pytest.mark.parametrize("reduction", REDUCTIONS.values())
def test_every_reduction_keeps_to_the_ladder(reduction):
    """At the finest scale nothing is lost; off the ladder nothing is answered."""
    features = torch.randn(2, 576, 3)
    torch.testing.assert_close(reduction(features, 576), features)
    with pytest.raises(OffLadder, match="1, 9, 36, 144, 576"):
        reduction(features, 100)
