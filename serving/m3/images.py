"""Pictures -> the tower's input."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def preprocess(pictures: Sequence[Image.Image], side_px: int) -> Tensor:
    """Pad to a square with gray, resize to the tower's input, scale to [-1, 1].

    Args:
        pictures: RGB, any size.
        side_px: side of the tower's input.

    Returns:
        (B, 3, side_px, side_px) float32.
    """
    squares = np.stack([np.asarray(_square(picture, side_px)) for picture in pictures])
    return normalise(torch.from_numpy(squares))


def normalise(pixels: Tensor) -> Tensor:
    """uint8 pixels (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _square(picture: Image.Image, side_px: int) -> Image.Image:
    if picture.size == (side_px, side_px):
        return picture
    scale = side_px / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side_px, side_px), (127, 127, 127))
    square.paste(resized, ((side_px - size[0]) // 2, (side_px - size[1]) // 2))
    return square
