"""A picture's numbers: what they count can be checked on pictures where the answer is plain."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from complexity.colours import COLOURS, colour_names
from complexity.image_features import IMAGE_FEATURE_NAMES, image_features

SIDE = 192


def described(picture: Image.Image) -> dict[str, float]:
    return dict(zip(IMAGE_FEATURE_NAMES, image_features(picture).tolist(), strict=True))


def discs(count: int, radius: int, fill: str = "red", ground: str = "white") -> Image.Image:
    """`count` discs on a regular grid, apart from each other."""
    picture = Image.new("RGB", (SIDE, SIDE), ground)
    draw = ImageDraw.Draw(picture)
    columns = int(np.ceil(np.sqrt(count)))
    pitch = SIDE / columns
    for number in range(count):
        x, y = (number % columns + 0.5) * pitch, (number // columns + 0.5) * pitch
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
    return picture


def lines_of_bars(lines: int, height: int) -> Image.Image:
    """Dark bars below one another, like lines of writing."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    for line in range(lines):
        top = round((line + 0.25) * SIDE / lines)
        draw.rectangle((10, top, 180, top + height - 1), "black")
    return picture


def test_names_and_numbers_go_together():
    """Every number has one name, names don't repeat, and the type is float32."""
    features = image_features(Image.new("RGB", (10, 20)))
    assert features.dtype == np.float32 and features.shape == (len(IMAGE_FEATURE_NAMES),)
    assert len(set(IMAGE_FEATURE_NAMES)) == len(IMAGE_FEATURE_NAMES)


@settings(max_examples=30)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**32 - 1), st.sampled_from(["noise", "flat", "steps"]))
def test_any_picture_gives_finite_numbers(width: int, height: int, seed: int, kind: str):
    """Noise, one colour or coarse blocks of any size and form are described by finite numbers."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "flat":
        pixels[:] = pixels[0, 0]
    if kind == "steps":
        pixels = pixels // 128 * 255
    assert np.isfinite(image_features(Image.fromarray(pixels))).all()


def test_the_same_pixels_give_the_same_numbers():
    """A picture and its PNG decoded again are described alike, to the last bit."""
    picture, data = discs(7, 11), io.BytesIO()
    picture.save(data, "PNG")
    assert np.array_equal(image_features(picture), image_features(Image.open(data).convert("RGB")))


@pytest.mark.parametrize(("count", "radius"), [(1, 40), (4, 20), (9, 12), (25, 8)])
def test_things_are_counted_and_measured(count: int, radius: int):
    """Separate discs are as many blobs, of their own height, and red ones cover red pixels."""
    told = described(discs(count, radius))
    assert np.expm1(told["figure_blobs"]) == pytest.approx(count)
    assert told["figure_height_50%"] * SIDE == pytest.approx(2 * radius + 1, abs=2)
    assert told["share_blue"] == 0
    assert told["share_red"] == pytest.approx(count * np.pi * radius**2 / SIDE**2, rel=0.25)


@pytest.mark.parametrize("lines", [2, 5, 12])
def test_lines_are_counted(lines: int):
    """Bars below one another are as many lines, one column, of their height."""
    told = described(lines_of_bars(lines, 6))
    assert told["figure_lines"] == lines and told["figure_columns"] == 1
    assert told["figure_height_50%"] * SIDE == pytest.approx(6, abs=1)


def test_thicker_strokes_measure_thicker():
    """The estimate of the strokes' thickness rises with the bars' height."""
    thin, thick = described(lines_of_bars(5, 3)), described(lines_of_bars(5, 15))
    assert thin["figure_stroke"] * SIDE == pytest.approx(3, abs=1)
    assert thick["figure_stroke"] * SIDE == pytest.approx(15, abs=4)


def test_a_flat_picture_loses_nothing():
    """Averaging one colour destroys nothing at any grid."""
    told = described(Image.new("RGB", (SIDE, SIDE), "teal"))
    assert all(told[name] < 0.002 for name in IMAGE_FEATURE_NAMES if name.startswith(("lost", "busy")))


@pytest.mark.parametrize("cell", [4, 8, 16, 32, 64])
def test_a_checkerboard_is_lost_where_its_cells_meet(cell: int):
    """Black and white cells survive grids as fine as they are, and are lost altogether at the next coarser one."""
    rows, columns = np.indices((SIDE, SIDE)) // cell
    pixels = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    told = described(Image.fromarray(pixels))
    for grid in (24, 12, 6, 3):
        lost = told[f"lost_luma_{grid}"]
        assert lost < 0.01 if SIDE // grid <= cell else lost > 0.45


def test_what_is_lost_equals_a_plain_computation():
    """The energy lost at each grid is the mean variance within its cells, of the picture at half the side."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    luma = np.asarray(picture.reduce(2).convert("L"), float) / 255
    told = described(picture)
    for grid in (24, 12, 6, 3, 1):
        cell = SIDE // 2 // grid
        cells = luma.reshape(grid, cell, grid, cell).transpose(0, 2, 1, 3).reshape(-1, cell * cell)
        assert told[f"lost_luma_{grid}"] == pytest.approx(np.sqrt(cells.var(axis=1).mean()), rel=1e-3)


def test_colours_are_told_apart_whatever_is_common():
    """Each colour covers what was drawn in it."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    wanted = {"red": 3, "blue": 1, "green": 2, "yellow": 4, "black": 2}
    places = iter([(x, y) for y in range(10, 180, 36) for x in range(10, 180, 36)])
    for colour, count in wanted.items():
        for _ in range(count):
            x, y = next(places)
            draw.rectangle((x, y, x + 19, y + 19), COLOURS[colour])
    told = described(picture)
    for colour in COLOURS:
        if colour != "white":
            assert told[f"share_{colour}"] == pytest.approx(wanted.get(colour, 0) * 20**2 / SIDE**2)
    assert sum(told[f"share_{colour}"] for colour in COLOURS) == pytest.approx(1)


def test_every_colour_has_its_own_name():
    """The typical pixel of each colour is called by that colour's name."""
    for place, (red, green, blue) in enumerate(COLOURS.values()):
        assert colour_names()[(red >> 5) * 64 + (green >> 5) * 8 + (blue >> 5)] == place


def test_size_and_form_are_told():
    """Width and height of the picture as it came are among the features, in octaves."""
    told = described(Image.new("RGB", (800, 200)))
    assert told["log2_width"] - told["log2_height"] == pytest.approx(2)
    shrunk = image_features(Image.new("RGB", (400, 100)), (800, 200))
    assert np.array_equal(shrunk, image_features(Image.new("RGB", (800, 200))))
