"""What the model's own look at a picture says of it, in numbers: statistics of the visual tokens before pooling.

The tower runs at every scale anyway, so a replica can decide after it at no cost but these few products. The numbers
belong to a model: labels and predictors of other weights don't fit them.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from serving.m3.pool import pool

DIRECTIONS = 48  # that the tokens are projected on, whatever the model's width
LEVELS = (0.1, 0.5, 0.9)  # quantiles


def tower_features(tiles: Tensor, ladder: Sequence[int]) -> np.ndarray:
    """Describe a picture by its projected visual tokens.

    Mean and deviation over the cells in fixed random directions; what pooling to each coarser rung loses, in all and
    in the worst tenth of its cells, as a share of the tokens' energy; how large the tokens are; in how many directions
    they vary.

    Args:
        tiles: (K, N, D) at the finest scale.
        ladder: of the model, coarsest first.

    Returns:
        (G,) float32, G = 2 * DIRECTIONS + 2 * (S - 1) + 4, all finite; of several tiles the means.
    """
    tokens = tiles.float()
    cells = tokens @ _directions(tokens.shape[-1]).to(tokens.device)  # (K, N, DIRECTIONS)
    energy = tokens.square().sum(2)  # (K, N)
    total = energy.mean(1) + 1e-12  # (K,)
    parts = [cells.mean(1), cells.std(1, correction=0)]  # (K, DIRECTIONS) each
    for rung in ladder[:-1]:
        kept = pool(tokens, rung).square().sum(2)  # (K, rung)
        grid = energy.unflatten(1, (-1, round(tokens.shape[1] ** 0.5)))[:, None]
        lost = F.avg_pool2d(grid, round((tokens.shape[1] / rung) ** 0.5)).flatten(1) - kept  # (K, rung): the variance
        parts.append(torch.stack([lost.mean(1), lost.quantile(LEVELS[-1], dim=1)], 1) / total[:, None])
    parts.append(energy.quantile(torch.tensor(LEVELS, device=tokens.device), dim=1).T.sqrt())
    spread = torch.stack([torch.cov(each.T) for each in cells])  # (K, DIRECTIONS, DIRECTIONS)
    varied = spread.diagonal(dim1=1, dim2=2).sum(1).square() / (spread.square().sum((1, 2)) + 1e-12)
    parts.append(varied[:, None])
    return torch.cat(parts, 1).mean(0).cpu().numpy()


@cache
def _directions(width: int) -> Tensor:
    """(width, DIRECTIONS); numpy's legacy generator, whose stream never changes."""
    drawn = np.random.RandomState(0).standard_normal((width, DIRECTIONS)) / DIRECTIONS**0.5
    return torch.from_numpy(drawn.astype(np.float32))
