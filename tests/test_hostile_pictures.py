"""Pictures that are odd, damaged or made to hurt: each is decoded as it is meant, or refused as a caller's mistake."""

import io
import random
import resource
import struct
import time
import warnings

import numpy as np
import pytest
from hostile import BOMBS, animated, damaged, encoded, exif_of, seeds
from PIL import Image

from complexity.errors import InvalidInput
from complexity.picture import decode_picture

SEEDS = seeds()
SLOW_S = 20.0  # no test of speed: what was a time bomb took minutes
MOST_MB = 700  # beyond what the process has already: 25 megapixels in RGBA are 100, and they are held a few times


def decoded(data: bytes) -> Image.Image | None:
    """The picture, or None where it is refused; whatever else comes is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            picture = decode_picture(data, 192).picture
        except InvalidInput as error:
            assert len(str(error)) < 300
            return None
    assert picture.mode == "RGB"
    return picture


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_is_made_to_hurt_is_bounded_in_time_and_memory(name):
    data = BOMBS[name]()
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s = time.monotonic()
    decoded(data)
    assert time.monotonic() - start_s < SLOW_S
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024 < MOST_MB


@pytest.mark.parametrize("name", SEEDS)
def test_a_file_cut_off_anywhere_is_a_picture_or_refused(name):
    data = SEEDS[name]
    for end in range(0, len(data), 1 + len(data) // 200):
        decoded(data[:end])


@pytest.mark.parametrize("name", SEEDS)
def test_a_damaged_file_is_a_picture_or_refused(name):
    rng = random.Random(name)
    for _ in range(150):
        decoded(damaged(SEEDS[name], rng))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_refused_by_name(kind):
    with pytest.raises(InvalidInput, match="animated picture of 3 frames"):
        decode_picture(animated(kind))
    assert decode_picture(animated(kind, 1)).size == (16, 12)


def test_sixteen_bits_are_scaled_not_clipped():
    deep = Image.new("I;16", (4, 1))
    for x, value in enumerate((0, 300, 32_768, 65_535)):
        deep.putpixel((x, 0), value)
    shown = np.asarray(decode_picture(encoded(deep)).picture)[0, :, 0]
    assert np.abs(shown.astype(int) - [0, 1, 128, 255]).max() <= 1


def test_every_mode_shows_its_colours():
    """Palettes, greys, one bit, CMYK, and transparency on white."""
    orange, clear = (250, 120, 10), (255, 255, 255)
    plain = Image.new("RGB", (16, 16), orange)
    see_through = Image.new("RGBA", (16, 16), (*orange, 0))
    cases = [
        (encoded(plain.quantize(4)), orange),
        (encoded(plain.quantize(4), "GIF"), orange),
        (encoded(plain.convert("CMYK"), "JPEG", quality=95), orange),
        (encoded(plain, "BMP"), orange),
        (encoded(plain, "WEBP", lossless=True), orange),
        (encoded(Image.new("1", (16, 16), 1)), clear),
        (encoded(Image.new("LA", (16, 16), (0, 0))), clear),
        (encoded(see_through), clear),
        (encoded(see_through, "WEBP", lossless=True), clear),
    ]
    for data, colour in cases:
        shown = np.asarray(decode_picture(data).picture).reshape(-1, 3).mean(0)
        assert np.abs(shown - colour).max() < 12, data[:16]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(kind, orientation):
    """The corner that EXIF's table says is the top left is there."""
    quarters = np.zeros((32, 48, 3), np.uint8)
    quarters[:16, :24], quarters[:16, 24:], quarters[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    picture = decode_picture(encoded(Image.fromarray(quarters), kind, exif=exif_of(orientation), **options))
    red, green, blue, black = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)
    top_left = {1: red, 2: green, 3: black, 4: blue, 5: red, 6: blue, 7: black, 8: green}[orientation]
    assert np.abs(np.asarray(picture.picture)[4, 4].astype(int) - top_left).max() < 40
    assert picture.size == ((48, 32) if orientation < 5 else (32, 48))


def test_broken_exif_leaves_the_picture_as_it_is():
    picture = Image.new("RGB", (20, 10), "teal")
    for exif in (
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        exif_of(99),
        exif_of(6)[:-9],
        b"Exif\0\0" + random.Random(0).randbytes(60),
    ):
        assert decode_picture(encoded(picture, "JPEG", exif=exif)).size in ((20, 10), (10, 20))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_a_header_that_promises_too_much_is_refused_before_anything_is_decoded(kind):
    data = bytearray(encoded(Image.new("L", (8, 8)), kind))
    at, form = {"PNG": (16, ">II"), "GIF": (6, "<HH"), "BMP": (18, "<II")}[kind]
    data[at : at + struct.calcsize(form)] = struct.pack(form, 50_000, 50_000)
    assert decoded(bytes(data)) is None


def test_nothing_of_a_file_is_in_its_refusal():
    for data in (b"a secret that is no picture", SEEDS["png"][:30] + b"a secret" * 9, io.BytesIO().getvalue()):
        with pytest.raises(InvalidInput) as caught:
            decode_picture(data)
        assert "secret" not in str(caught.value)
