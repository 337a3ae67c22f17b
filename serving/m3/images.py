"""Pictures -> the tower's input, as LLaVA's `image_aspect_ratio` and CLIP's preprocessing have it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from serving.m3.anyres import Size, tile
from serving.m3.pool import ladder_of

Aspect = Literal["square", "pad", "anyres"]
Merge = Literal["flat", "spatial", "spatial_unpad"]
Channels = tuple[float, float, float]
MOST_PX = 4096  # longer pictures lose detail or their ends early: padded, a strip of a pixel's height fills the memory


@dataclass(frozen=True)
class Vision:
    """How a model sees a picture."""

    side_px: int  # of a tile, the tower's input
    grid: int  # visual tokens on a tile's side
    mean: Channels  # of the normalisation, red, green, blue in [0, 1]
    std: Channels
    aspect: Aspect = "pad"  # how a picture becomes tiles: centre crop, padding to a square, or a grid of tiles
    merge: Merge = "flat"  # how a grid's tiles become one sequence
    resolutions: tuple[Size, ...] = ()  # (width, height) of the grids to choose from, multiples of `side_px`

    @property
    def ladder(self) -> tuple[int, ...]:
        """Numbers of visual tokens per tile that the model can be asked for, coarsest first."""
        return ladder_of(self.grid)

    @property
    def image_px(self) -> int:
        """Pixels of a picture's shorter side that are looked at, at most."""
        return max([self.side_px, *(min(size) for size in self.resolutions)])

    @property
    def newlines(self) -> bool:
        """Whether rows of visual tokens end with an embedding of their own."""
        return self.merge == "spatial_unpad"


@dataclass(frozen=True)
class Cut:
    """A picture as the tower gets it."""

    tiles: tuple[Image.Image, ...]  # the whole first; then the grid's, row by row, if there is one
    grid: Size | None  # (wide, high) in tiles


def cut(picture: Image.Image, vision: Vision) -> Cut:
    """Make an RGB picture of any size into tiles of any size, which `pixels_of` brings to the tower's."""
    if vision.aspect == "anyres":
        tiles, grid = tile(picture, vision.resolutions, vision.side_px)
        return Cut(tuple(tiles), grid)
    return Cut((_padded(picture, vision.mean) if vision.aspect == "pad" else picture,), None)


def pixels_of(tiles: Sequence[Image.Image], vision: Vision) -> Tensor:
    """Tiles -> (K, 3, side_px, side_px) float32: resized, centre cropped, normalised, as CLIP's processor does."""
    squares = np.stack([np.asarray(_cropped(each, vision.side_px)) for each in tiles])
    return normalise(torch.from_numpy(squares), vision)


def normalise(pixels: Tensor, vision: Vision) -> Tensor:
    """uint8 pixels (K, H, W, 3) -> float32 (K, 3, H, W)."""
    mean, std = (torch.tensor(channels, device=pixels.device) for channels in (vision.mean, vision.std))
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def _padded(picture: Image.Image, mean: Channels) -> Image.Image:
    side = max(picture.size)
    if picture.size == (side, side):
        return picture
    if side > MOST_PX:
        shrink = -(-side // MOST_PX)
        width, height = (max(1, length // shrink) for length in picture.size)
        return _padded(picture.resize((width, height), Image.Resampling.BOX), mean)
    square = Image.new("RGB", (side, side), tuple(int(255 * channel) for channel in mean))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _cropped(picture: Image.Image, side_px: int) -> Image.Image:
    """The shorter side becomes `side_px`, and what sticks out of the longer one is cut off."""
    if picture.size == (side_px, side_px):
        return picture
    short = min(picture.size)
    width, height = (side_px * length // short for length in picture.size)
    left, top = (width - side_px) // 2, (height - side_px) // 2
    if max(width, height) > MOST_PX:  # resize the middle alone; at the edges it differs by a few levels
        across, down = picture.width / width, picture.height / height
        box = (left * across, top * down, (left + side_px) * across, (top + side_px) * down)
        return picture.resize((side_px, side_px), Image.Resampling.BICUBIC, box)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side_px, top + side_px))
