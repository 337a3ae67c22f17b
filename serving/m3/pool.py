"""M3's one idea: the grid of projected visual tokens, average-pooled to any rung of the ladder (paper, section 3).

Beside it the two samplings that the paper compares with on models that weren't trained for any (table 4). The paper
doesn't give their index patterns; the ones here are in their docstrings.
"""

from collections.abc import Callable
from math import isqrt

from torch import Tensor, arange
from torch.nn import functional as F

from complexity.errors import OffLadder


def ladder_of(grid: int) -> tuple[int, ...]:
    """Rungs of a `grid` x `grid` map, coarsest first: halve the side while it is even, then go to one token.

    >>> ladder_of(24)
    (1, 9, 36, 144, 576)
    """
    sides = [grid]
    while sides[-1] % 2 == 0 and sides[-1] > 3:
        sides.append(sides[-1] // 2)
    if sides[-1] != 1:
        sides.append(1)
    return tuple(side * side for side in reversed(sides))


def pool(features: Tensor, tokens: int) -> Tensor:
    """Average-pool visual tokens to a coarser square grid.

    Args:
        features: (B, N, D) with N a square, row by row from the top left.
        tokens: a rung of `ladder_of(sqrt(N))`.

    Returns:
        (B, tokens, D).

    Raises:
        OffLadder: `tokens` is not a rung; the original code floors silently instead (ask 100, get 144).

    >>> cells = arange(36.0).reshape(1, 36, 1)  # a grid of 6 x 6, one number a cell
    >>> pool(cells, 9).flatten().tolist()
    [3.5, 5.5, 7.5, 15.5, 17.5, 19.5, 27.5, 29.5, 31.5]
    >>> pool(cells, 1).item()
    17.5
    """
    grid, width = _grid(features, tokens), features.shape[-1]
    if tokens == features.shape[1]:
        return features
    cells = features.transpose(1, 2).reshape(-1, width, grid, grid)
    pooled = F.avg_pool2d(cells, grid // isqrt(tokens))  # (B, D, side, side)
    return pooled.flatten(2).transpose(1, 2)  # (B, tokens, D)


def sample_spatially(features: Tensor, tokens: int) -> Tensor:
    """Keep the cell at row k // 2, column k // 2 of each k x k square that `pool` would average; shapes as there.

    >>> sample_spatially(arange(36.0).reshape(1, 36, 1), 9).flatten().tolist()
    [7.0, 9.0, 11.0, 19.0, 21.0, 23.0, 31.0, 33.0, 35.0]
    """
    grid = _grid(features, tokens)
    step = grid // isqrt(tokens)
    at = arange(step // 2, grid, step, device=features.device)
    return features[:, (at[:, None] * grid + at).flatten()]


def sample_sequentially(features: Tensor, tokens: int) -> Tensor:
    """Keep every (N / tokens)-th cell in row order, beginning with the first; shapes as in `pool`.

    >>> sample_sequentially(arange(36.0).reshape(1, 36, 1), 9).flatten().tolist()
    [0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0]
    """
    _grid(features, tokens)
    return features[:, :: features.shape[1] // tokens]


REDUCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "average": pool,
    "spatial": sample_spatially,
    "sequential": sample_sequentially,
}


def _grid(features: Tensor, tokens: int) -> int:
    """Cells on a side of the grid that the features (B, N, D) are of, if `tokens` is a rung of its ladder."""
    grid = isqrt(features.shape[1])
    if tokens not in ladder_of(grid):
        raise OffLadder(tokens, ladder_of(grid), "tokens")
    return grid
