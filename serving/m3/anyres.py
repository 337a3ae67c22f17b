"""LLaVA-NeXT's tiles: which grid of tiles a picture gets, and how their visual tokens are laid out at a scale.

The picture is seen twice: once whole, squeezed into a square tile, and once cut into the tiles of the grid that shows
most of it. Facts from LLaVA's and M3's published code (haotian-liu/LLaVA, mu-cai/matryoshka-mm).
"""

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

Size = tuple[int, int]  # width, height


def best_resolution(size: Size, choices: Sequence[Size]) -> Size:
    """The resolution that keeps most of the picture's pixels and, among equals, wastes fewest; the first of equals.

    >>> best_resolution((1000, 400), [(336, 672), (672, 336), (672, 672)])
    (672, 336)
    """
    width, height = size

    def worth(choice: Size) -> tuple[int, int]:
        scale = min(choice[0] / width, choice[1] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - choice[0] * choice[1]

    return max(choices, key=worth)


def tile(picture: Image.Image, choices: Sequence[Size], side_px: int) -> tuple[list[Image.Image], Size]:
    """Cut a picture up.

    Args:
        picture: RGB.
        choices: resolutions (width, height), multiples of `side_px`.
        side_px: side of a tile.

    Returns:
        The whole picture as one tile and then the grid's tiles, row by row; the grid's size in tiles (wide, high).
    """
    width, height = best_resolution(picture.size, choices)
    canvas = _fitted(picture, (width, height))
    corners = [(left, top) for top in range(0, height, side_px) for left in range(0, width, side_px)]
    tiles = [canvas.crop((left, top, left + side_px, top + side_px)) for left, top in corners]
    return [picture.resize((side_px, side_px)), *tiles], (width // side_px, height // side_px)


def _fitted(picture: Image.Image, size: Size) -> Image.Image:
    """The picture as large as fits, centred on black."""
    across, down = size[0] / picture.width, size[1] / picture.height
    if across < down:
        width, height = size[0], min(math.ceil(picture.height * across), size[1])
    else:
        width, height = min(math.ceil(picture.width * down), size[0]), size[1]
    canvas = Image.new("RGB", size)
    canvas.paste(picture.resize((width, height)), ((size[0] - width) // 2, (size[1] - height) // 2))
    return canvas


def join_tiles(tiles: Tensor, grid: Size) -> Tensor:
    """Tiles' square token maps (high * wide, n, D) -> one map (high * side, wide * side, D)."""
    wide, high = grid
    side = math.isqrt(tiles.shape[1])
    cells = tiles.reshape(high, wide, side, side, -1).permute(0, 2, 1, 3, 4)
    return cells.reshape(high * side, wide * side, -1)


def unpad(cells: Tensor, size: Size) -> Tensor:
    """Cut off the rows or columns of a map (H, W, D) that show only the padding round a picture of `size`.

    At coarse scales nothing may be left of a narrow picture; the original's rounding is kept.
    """
    high, wide = cells.shape[:2]
    width, height = size
    if width / height > wide / high:
        margin = (high - int(height * (wide / width))) // 2
        return cells[margin : high - margin]
    margin = (wide - int(width * (high / height))) // 2
    return cells[:, margin : wide - margin]


def end_rows(cells: Tensor, newline: Tensor) -> Tensor:
    """A map (H, W, D) as a sequence, each row ended by the newline's embedding (D,): (H * (W + 1), D)."""
    ends = newline.to(cells.dtype).expand(cells.shape[0], 1, -1)
    return torch.cat([cells, ends], 1).flatten(0, 1)
