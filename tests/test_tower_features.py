"""The tower's statistics: what they count, for any width and number of tiles."""

import numpy as np
import torch
from m3_toys import toy_m3

from serving.m3.pool import pool
from serving.m3.tower_features import DIRECTIONS, tower_features
from training_data.drawn.corpus import draw_item

LADDER = (1, 9, 36, 144, 576)
LOST = 2 * DIRECTIONS


def test_what_pooling_loses_is_the_naive_residual():
    """Mean and ninth decile over a rung's cells of the squared distance to their average, by the tokens' energy."""
    torch.manual_seed(0)
    tokens = torch.randn(1, 576, 20)
    found = tower_features(tokens, LADDER)
    energy = tokens.square().sum(2).mean()
    for place, (rung, side) in enumerate(zip(LADDER[:-1], (24, 8, 4, 2), strict=True)):
        grid = tokens.view(24, 24, 20)
        pooled = pool(tokens, rung).view(24 // side, 24 // side, 20)
        lost = [
            (grid[side * y : side * (y + 1), side * x : side * (x + 1)] - pooled[y, x]).square().sum(2).mean()
            for y in range(24 // side)
            for x in range(24 // side)
        ]
        wanted = torch.stack([torch.stack(lost).mean(), torch.stack(lost).quantile(0.9)]) / energy
        np.testing.assert_allclose(found[LOST + 2 * place :][:2], wanted, rtol=1e-3)


def test_the_features_hold_for_any_width_and_number_of_tiles():
    """As many numbers for a wide model, of several tiles their means, and nothing infinite for equal tokens."""
    torch.manual_seed(0)
    tiles = torch.randn(3, 576, 64)
    each = np.stack([tower_features(tile[None], LADDER) for tile in tiles])
    np.testing.assert_allclose(tower_features(tiles, LADDER), each.mean(0), rtol=1e-4, atol=1e-5)
    assert tower_features(torch.randn(1, 576, 8), LADDER).shape == each[0].shape
    assert np.isfinite(tower_features(torch.zeros(1, 576, 8), LADDER)).all()


def test_a_picture_encoded_among_others_has_the_features_that_it_has_alone():
    m3 = toy_m3()
    pictures = [draw_item("test", 0, index, 1).picture.image for index in range(3)]
    together = [tower_features(each.tiles, m3.ladder) for each in m3.encode(pictures)]
    for picture, found in zip(pictures, together, strict=True):
        (alone,) = m3.encode([picture])
        np.testing.assert_allclose(tower_features(alone.tiles, m3.ladder), found, rtol=1e-3, atol=1e-4)
