"""m3-tiny's vision tower: a small convolutional U over the picture; one feature vector for each cell of the grid.

The tower is a pluggable box: anything that maps pictures (B, 3, side, side) to (B, grid * grid, D) can stand here;
the released models have CLIP in its place.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Conv(nn.Module):
    """A convolution whose weight is kept as a matrix (out, in * side * side): Muon trains matrices."""

    def __init__(self, channels_in: int, channels: int, side: int, stride: int = 1, bias: bool = True):
        super().__init__()
        self.shape, self.stride = (channels, channels_in, side, side), stride
        self.weight = nn.Parameter(torch.empty(channels, channels_in * side * side))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.view(self.shape), self.bias, self.stride, self.shape[-1] // 2)

    def settled(self) -> nn.Conv2d:
        """The same with its weight laid out as it is computed with, which would otherwise be done at every call."""
        channels, channels_in, side, _ = self.shape
        conv = nn.Conv2d(channels_in, channels, side, self.stride, side // 2, bias=False)
        conv.weight = nn.Parameter(self.weight.detach().view(self.shape).contiguous(memory_format=torch.channels_last))
        conv.bias = self.bias
        return conv


class _Block(nn.Module):
    """Residual block: two 3x3 convolutions with group normalisation before each."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = _Conv(channels, channels, 3, bias=False)
        self.conv2 = _Conv(channels, channels, 3, bias=False)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


PLACE = 64  # numbers that say where a cell is


def _waves(width: int, grid: int) -> Tensor:
    """Sines and cosines of each cell's column and row, of a quarter to eight turns over the picture: (N, width)."""
    turns = 0.25 * 2 ** torch.linspace(0, 5, width // 4)
    angle = 2 * torch.pi * turns * (torch.arange(grid)[:, None] + 0.5) / grid  # (grid, width / 4)
    waves = torch.cat([angle.sin(), angle.cos()], 1)  # (grid, width / 2)
    rows = waves[:, None].expand(-1, grid, -1)
    return torch.cat([rows.transpose(0, 1), rows], 2).flatten(0, 1)


class ConvTower(nn.Module):
    """192x192 pixels -> 24x24 cells of `widths[1]` numbers that say what is there and `PLACE` that say where it is.

    Space-to-depth by 4, then cells of 4, 8, 16 and 32 pixels going down; the two coarse levels come back up by
    addition, so that a cell knows the whole thing that it is part of.

    What a tower has learnt to say of a cell hardly tells where the cell is (a linear fit explained 9% of the row and
    22% of the column). The place stands beside it and isn't added to it: added, the two couldn't be told apart well
    enough to find what lies in the same row, or to compare two places.
    """

    def __init__(self, widths: tuple[int, int, int, int], grid: int):
        super().__init__()
        fine, cell, coarse, wide = widths
        self.grid = grid
        self.width = cell + PLACE
        self.stem = _Conv(48, fine, 3)
        self.fine = _Block(fine)
        self.to_cell = _Conv(fine, cell, 3, stride=2)
        self.place = nn.Parameter(torch.randn(1, cell, grid, grid) * 0.02)
        self.cell = _Block(cell)
        self.to_coarse = _Conv(cell, coarse, 3, stride=2)
        self.coarse = _Block(coarse)
        self.to_wide = _Conv(coarse, wide, 3, stride=2)
        self.wide = nn.Sequential(_Block(wide), _Block(wide))
        self.from_wide = _Conv(wide, coarse, 1)
        self.coarse_out = _Block(coarse)
        self.from_coarse = _Conv(coarse, cell, 1)
        self.cell_out = nn.Sequential(_Block(cell), nn.GroupNorm(8, cell))
        self.where: Tensor
        self.register_buffer("where", _waves(PLACE, grid), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pictures: what lies under each cell, and where it is.

        Args:
            pixels: (B, 3, 8 * grid, 8 * grid), normalised.

        Returns:
            (B, grid * grid, width), row by row from the top left.
        """
        return self.placed(self.cells(pixels))

    def placed(self, cells: Tensor) -> Tensor:
        """Say of each cell where it is: (B, grid * grid, widths[1]) -> (B, grid * grid, width)."""
        return torch.cat([cells, self.where.to(cells.dtype).expand(len(cells), -1, -1)], 2)

    def cells(self, pixels: Tensor) -> Tensor:
        """What lies under each cell: (B, 3, 8 * grid, 8 * grid) -> (B, grid * grid, widths[1])."""
        return self.in_context(self.seen(pixels))

    def seen(self, pixels: Tensor) -> Tensor:
        """What each cell shows by itself: (B, 3, 8 * grid, 8 * grid) -> (B, widths[1], grid, grid)."""
        pixels = F.pixel_unshuffle(pixels.contiguous(), 4)  # ten times slower with the channels last
        x = self.fine(self.stem(pixels.contiguous(memory_format=torch.channels_last)))  # (B, fine, 48, 48)
        return self.cell(self.to_cell(x) + self.place)  # (B, cell, 24, 24)

    def in_context(self, x: Tensor) -> Tensor:
        """The cells from what each shows by itself: (B, widths[1], grid, grid) -> (B, grid * grid, widths[1])."""
        y = self.coarse(self.to_coarse(x))  # (B, coarse, 12, 12)
        z = self.wide(self.to_wide(y))  # (B, wide, 6, 6)
        y = self.coarse_out(y + F.interpolate(self.from_wide(z), scale_factor=2.0))
        x = self.cell_out(x + F.interpolate(self.from_coarse(y), scale_factor=2.0))
        return x.flatten(2).transpose(1, 2)


def settle(tower: ConvTower) -> None:
    """Make a tower ready to be used and not trained any more."""
    parts = {name: part for name, part in tower.named_modules() if isinstance(part, _Conv)}
    for name, part in parts.items():
        tower.set_submodule(name, part.settled())
    tower.requires_grad_(False)
