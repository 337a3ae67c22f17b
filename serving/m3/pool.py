"""M3's one idea: the grid of projected visual tokens, average-pooled to any rung of the ladder (paper, section 3)."""

from math import isqrt

from torch import Tensor
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
    """
    count, width = features.shape[-2:]
    grid = isqrt(count)
    if tokens not in ladder_of(grid):
        raise OffLadder(tokens, ladder_of(grid), "tokens")
    cells = features.transpose(1, 2).reshape(-1, width, grid, grid)
    pooled = F.avg_pool2d(cells, grid // isqrt(tokens))  # (B, D, side, side)
    return pooled.flatten(2).transpose(1, 2)  # (B, tokens, D)
