"""m3-tiny's tower: cells know their places, and any number of pictures goes through."""

import torch

from serving.m3.tower import ConvTower


def test_a_cell_tells_its_place():
    """What stands beside the cells is the same for every picture; row and column are linear in it to half a cell."""
    tower = ConvTower((8, 16, 16, 16), 24).eval()
    pictures = torch.randn(2, 3, 192, 192)
    with torch.no_grad():
        seen, cells = tower(pictures), tower.cells(pictures)
    assert torch.equal(seen[..., :16], cells) and torch.equal(seen[..., 16:], tower.where.expand(2, -1, -1))
    places = torch.cartesian_prod(torch.arange(24.0), torch.arange(24.0))  # (576, 2): row, column
    where = torch.cat([tower.where, torch.ones(576, 1)], 1).double()
    fitted = where @ torch.linalg.lstsq(where, places.double(), driver="gelsd").solution
    assert (fitted - places).abs().max() < 0.5


def test_a_tower_takes_any_number_of_pictures():
    """One feature vector for each cell of each picture."""
    tower = ConvTower((8, 16, 16, 16), 24)
    assert tower(torch.randn(3, 3, 192, 192)).shape == (3, 576, tower.width)
