"""Bytes to pixels: upright, RGB, no larger than needed, and refused before they cost memory."""

import io

import numpy as np
import pytest
from PIL import Image

from complexity.errors import InvalidInput
from complexity.picture import LONGEST, MAX_PIXELS, decode_picture


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(width: int, height: int) -> Image.Image:
    """Smooth, and different in every corner."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode: str):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    decoded = decode_picture(encoded(ramp(40, 30).convert(mode), kind))
    assert decoded.picture.mode == "RGB" and decoded.picture.size == decoded.size == (40, 30)


def test_transparent_pixels_lie_on_white():
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert decode_picture(encoded(picture)).picture.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("side", [None, 30])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright(orientation: int, side: int | None):
    """Whatever way the camera was held: the size and the pixels are those of the upright picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # the transposition that Pillow undoes
    upright = ramp(240, 120)
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    decoded = decode_picture(encoded(stored, "JPEG", quality=95, exif=exif), side)
    assert decoded.size == (240, 120)
    shown = np.asarray(decoded.picture.resize((24, 12), Image.Resampling.BOX), int)
    wanted = np.asarray(upright.resize((24, 12), Image.Resampling.BOX), int)
    assert np.abs(shown - wanted).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(1000, 700), (500, 2100), (150, 90), (399, 399)])
def test_no_more_pixels_than_needed(kind: str, size: tuple[int, int]):
    """At least `side` on the shorter side where there are as many, at most about twice; what is seen stays the same."""
    data = encoded(ramp(*size), kind)
    decoded = decode_picture(data, side=100)
    short = min(decoded.picture.size)
    assert (
        decoded.size == size and min(100, min(size)) <= short <= 2 * 100 and max(decoded.picture.size) <= LONGEST * 100
    )
    whole = decode_picture(data).picture
    assert whole.size == size
    small = [np.asarray(each.resize((20, 20), Image.Resampling.BOX), int) for each in (decoded.picture, whole)]
    assert np.abs(small[0] - small[1]).max() < 10


def test_a_strip_costs_no_more_than_other_pictures():
    """A very long picture is shrunk by its length, even below the needed side."""
    decoded = decode_picture(encoded(Image.new("RGB", (20_000, 50))), side=100)
    assert max(decoded.picture.size) <= LONGEST * 100


def test_what_is_no_picture_is_refused():
    whole = encoded(ramp(64, 64))
    for data, says in [
        (b"", "not a picture"),
        (b"hello", "not a picture"),
        (whole[: len(whole) // 2], "broken picture"),
    ]:
        with pytest.raises(InvalidInput, match=says):
            decode_picture(data, side=32)


def test_a_bomb_is_refused_by_its_header():
    """The limit is on what the header promises; nothing is decoded."""
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(InvalidInput, match="at most 25000000 pixels"):
        decode_picture(encoded(Image.new("1", (side, side))))
