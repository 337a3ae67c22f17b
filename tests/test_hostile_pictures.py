"""Pictures that are odd, damaged or made to hurt: each is decoded as it is meant, or refused as a caller's mistake."""

import io
import random
import resource
import struct
import time
import warnings

import numpy as np
import pytest
from hostile import (
    BOMBS,
    COLOURS,
    animated,
    bmp_file,
    chunk,
    damaged,
    encoded,
    exif_of,
    gif_file,
    gif_frame,
    png_file,
    riff_chunk,
    seeds,
    segment,
    webp_canvas,
    webp_file,
    with_segments,
)
from PIL import Image, ImageFile

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


def pixels_of(data: bytes) -> list[tuple[int, ...]]:
    """The first row of a picture."""
    return [tuple(map(int, pixel)) for pixel in np.asarray(decode_picture(data).picture)[0]]


def grey(*levels: int) -> list[tuple[int, ...]]:
    return [(level, level, level) for level in levels]


def transparent(*levels: int) -> list[bytes]:
    """The chunk that names a PNG's transparent colour."""
    return [chunk(b"tRNS", struct.pack(f">{len(levels)}H", *levels))]


def deep(*levels: int) -> bytes:
    """A row of 16 bits a channel."""
    return b"\0" + struct.pack(f">{len(levels)}H", *levels)


PALETTE = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (png_file(4, 1, 16, 0, deep(0, 300, 32_768, 65_535)), grey(0, 1, 128, 255)),
        (png_file(3, 1, 16, 0, deep(1000, 1001, 65_535), transparent(1000)), grey(255, 3, 255)),
        (png_file(2, 1, 16, 2, deep(1000, 0, 65_535, 65_535, 0, 256)), [(3, 0, 255), (255, 0, 1)]),
        (png_file(2, 1, 16, 2, deep(1000, 0, 65_535, 0, 0, 0), transparent(1000, 0, 65_535)), grey(255, 0)),
        (png_file(2, 1, 16, 4, deep(0, 65_535, 0, 0)), grey(0, 255)),
        (png_file(2, 1, 16, 6, deep(65_535, 0, 0, 65_535, 0, 0, 0, 0)), [RED, WHITE]),
        (png_file(4, 1, 2, 0, b"\0\x1b", transparent(0)), grey(255, 85, 170, 255)),
        (png_file(2, 1, 4, 0, b"\0\x1f", transparent(1)), grey(255, 255)),
        (png_file(2, 1, 4, 0, b"\0\x1f"), grey(17, 255)),
        (png_file(2, 1, 1, 0, b"\0\x40", transparent(0)), grey(255, 255)),
        (png_file(2, 1, 8, 2, b"\0\1\2\3\4\5\6", transparent(4, 5, 6)), [(1, 2, 3), WHITE]),
        (png_file(3, 1, 2, 3, b"\0\x18", [PALETTE]), [RED, GREEN, BLUE]),
        (png_file(3, 1, 2, 3, b"\0\x18", [PALETTE, chunk(b"tRNS", b"\xff\0")]), [RED, WHITE, BLUE]),
        (png_file(2, 1, 8, 4, b"\0\x40\xff\x40\0"), grey(64, 255)),
        (png_file(2, 1, 8, 0, b"\0\x40\0\x41", interlaced=True), grey(64, 65)),
        (bmp_file(2, 1, 24, bytes([0, 0, 255, 255, 0, 0, 0, 0])), [RED, BLUE]),
        (bmp_file(2, -1, 24, bytes([0, 0, 255, 255, 0, 0, 0, 0])), [RED, BLUE]),
        (bmp_file(2, 1, 32, bytes([0, 0, 255, 0, 255, 0, 0, 9])), [RED, BLUE]),
        (bmp_file(2, 1, 16, struct.pack("<HH", 0x7C00, 0x001F)), [RED, BLUE]),
        (bmp_file(2, 1, 8, b"\0\xff\0\0", 0, COLOURS), [GREEN, (127, 0, 255)]),
        (bmp_file(3, 1, 8, b"\3\1\0\1", 1, COLOURS), [(0, 254, 1)] * 3),
        (gif_file(1, 1, gif_frame(1, 1)), grey(0)),
    ],
)
def test_pixels_are_what_the_file_says(data: bytes, shown: list[tuple[int, ...]]):
    """Sixteen bits are scaled and colours named transparent are white, whatever the depth."""
    assert pixels_of(data) == shown


@pytest.mark.parametrize(("alpha", "shown"), [((0, 0), [RED, BLUE]), ((255, 0), [RED, WHITE])])
def test_a_bmps_alpha_counts_unless_nobody_filled_it_in(alpha: tuple[int, int], shown: list[tuple[int, ...]]):
    head = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0)
    masks = struct.pack("<IIII52x", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    pixels = bytes([0, 0, 255, alpha[0], 255, 0, 0, alpha[1]])
    assert pixels_of(b"BM" + struct.pack("<IHHI", 130, 0, 0, 122) + head + masks + pixels) == shown


def near_red(data: bytes) -> bool:
    return bool(np.abs(np.asarray(decode_picture(data).picture, int) - RED).max() < 12)


def test_jpegs_of_every_colour_space_show_red():
    """YCbCr, RGB, CMYK and YCCK, inverted as Adobe does: the last is told from the third by one byte only."""
    red = Image.new("RGB", (16, 16), RED)
    assert near_red(encoded(red, "JPEG", quality=95)) and near_red(encoded(red, "JPEG", quality=95, keep_rgb=True))
    assert near_red(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    luminance = encoded(Image.new("CMYK", (16, 16), (76, 84, 254, 0)), "JPEG", quality=95)  # of cyan, inverted
    at = luminance.index(b"Adobe") + 11
    assert luminance[at] == 0 and near_red(luminance[:at] + b"\2" + luminance[at + 1 :])


def test_profiles_comments_and_further_pictures_change_no_pixel():
    """ICC profiles are ignored; so are texts, and what a phone puts behind its picture."""
    gradient = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    for kind in ("JPEG", "PNG", "WEBP"):
        plain = encoded(gradient, kind)
        told = encoded(gradient, kind, icc_profile=b"anything " * 50)
        assert np.array_equal(decode_picture(plain).picture, decode_picture(told).picture)
    jpeg = encoded(gradient, "JPEG")
    more = with_segments(jpeg, [segment(0xFE, b"hello"), segment(0xED, b"Photoshop 3.0\0")]) + b"ftypmp42" + jpeg
    assert np.array_equal(decode_picture(jpeg).picture, decode_picture(more).picture)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [1, 3, 4])
def test_exif_is_read_in_either_order_of_bytes(order: str, kind: int):
    assert decode_picture(encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif_of(6, order, kind))).size == (10, 20)


def test_a_jpeg_of_twelve_bits_is_refused_by_name():
    jpeg = encoded(Image.new("RGB", (16, 16)), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 4
    with pytest.raises(InvalidInput, match="8 bits are accepted, not of 12"):
        decode_picture(jpeg[:at] + bytes([12]) + jpeg[at + 1 :])


def test_a_webp_that_lies_about_its_canvas_is_refused():
    frame = encoded(Image.new("RGB", (64, 48)), "WEBP")[12:]
    assert decoded(webp_file(webp_canvas(64, 48), frame)) is not None
    for lie in (webp_canvas(65, 48), webp_canvas(1, 1), riff_chunk(b"VP8X", b"")):
        assert decoded(webp_file(lie, frame)) is None


def test_a_gif_of_one_frame_is_no_animation_and_thousands_are_counted():
    assert decoded(gif_file(4, 4, gif_frame(4, 4))) is None  # one pixel of sixteen
    assert decoded(gif_file(1, 1, gif_frame(1, 1))) is not None
    with pytest.raises(InvalidInput, match="an animated picture of 9000 frames; send one frame"):
        decode_picture(gif_file(1, 1, 9000 * gif_frame(1, 1)))


def test_truncated_pictures_are_not_filled_up():
    """Pillow's switch for that is off, and nothing that the service imports turns it on."""
    import serving.m3  # noqa: F401

    assert not ImageFile.LOAD_TRUNCATED_IMAGES
