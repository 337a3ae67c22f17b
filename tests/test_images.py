"""Pictures as the tower gets them: cropped, padded and resized as LLaVA and CLIP do."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.m3.images import MOST_PX, Vision, cut, pixels_of

VISION = Vision(side_px=48, grid=24, mean=(0.5, 0.4, 0.3), std=(0.3, 0.3, 0.3), aspect="square")
SIDES = st.integers(1, 400)


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def squares(picture, vision):
    """The tower's input as uint8 pixels."""
    values = pixels_of(cut(picture, vision).tiles, vision).permute(0, 2, 3, 1).numpy()
    return np.rint((values * vision.std + vision.mean) * 255).astype(np.uint8)


@settings(max_examples=60)
@given(SIDES, SIDES)
def test_a_crop_is_the_middle_of_the_resized_picture(width, height):
    """As CLIP's processor does it: the shorter side to the tower's, then the middle."""
    picture = noise(width, height)
    short = min(width, height)
    whole = picture.resize((48 * width // short, 48 * height // short), Image.Resampling.BICUBIC)
    left, top = (whole.width - 48) // 2, (whole.height - 48) // 2
    expected = np.asarray(whole.crop((left, top, left + 48, top + 48)), int)
    if max(whole.size) <= MOST_PX:
        assert (squares(picture, VISION)[0] == expected).all()
    else:
        assert np.abs(squares(picture, VISION)[0][1:-1, 1:-1] - expected[1:-1, 1:-1]).mean() <= 8


def test_padding_surrounds_the_picture_with_the_mean():
    """A wide picture stands in the middle of a square of the mean colour."""
    (square,) = squares(Image.new("RGB", (480, 160), "white"), replace(VISION, aspect="pad"))
    assert (square[:14] == [127, 102, 76]).all() and (square[34:] == [127, 102, 76]).all()
    assert (square[18:30] == 255).all()


@pytest.mark.parametrize("aspect", ["pad", "square"])
@pytest.mark.parametrize("size", [(25_000_000, 1), (1, 25_000_000), (MOST_PX + 1, 3)])
def test_a_strip_does_not_fill_the_memory(size, aspect):
    """A picture of the largest accepted number of pixels in one row is a tile like any other."""
    assert squares(Image.new("RGB", size, "white"), replace(VISION, aspect=aspect)).shape == (1, 48, 48, 3)


def test_tiles_of_a_strip():
    """A grid of tiles takes such a picture too."""
    vision = replace(VISION, aspect="anyres", merge="spatial_unpad", resolutions=((96, 48), (48, 96), (96, 96)))
    assert squares(Image.new("RGB", (25_000_000, 1)), vision).shape == (3, 48, 48, 3)
