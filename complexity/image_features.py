"""A picture in numbers: how much of it each token grid would lose, and how many small things it holds.

A model that averages its picture to 24, 12, 6, 3 or 1 cells a side keeps the cells' means and loses what varies within
them. So one part of the features says how much varies within the cells of each grid; the other estimates what is
there to be asked for: how many blobs, of what size, how thick their strokes are, how many lines, how many colours.

All lengths are fractions of the picture's side, so that they compare to a grid's cells and not to pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from complexity.colours import COLOURS, colour_names

IMAGE_FEATURE_VERSION = "image-3"

SIDE_PX = 192  # strokes are looked at in a square of this side, all else in one of half of it
MIN_BLOB_PX = 2  # of half the side; smaller blobs are noise of compression and anti-aliasing
BUSY_STD = 20.4  # a cell with more luminance deviation than this, of 255, holds something that its mean can't tell
SURROUNDINGS_PX = 16  # side of the squares whose means, smoothed, are a pixel's surroundings
CONTRAST = 30  # ink is more than this darker or lighter than its surroundings, of a luminance range of 255
GROUND_DISTANCE = 30.6  # a colour this near to the commonest one, in luminance and chroma, is background
QUANTILES = (0.1, 0.5, 0.9, 1.0)


def image_features(picture: Image.Image, size: tuple[int, int] | None = None) -> np.ndarray:
    """Describe an RGB picture by the numbers in `IMAGE_FEATURE_NAMES`.

    Args:
        picture: of any size.
        size: its width and height in pixels as it came, where it was shrunk since.

    Returns:
        (F,) float32, all finite; the same pixels always give the same numbers.
    """
    return np.fromiter(_measure(picture, size or picture.size).values(), np.float32)


def _measure(picture: Image.Image, size: tuple[int, int]) -> dict[str, float]:
    width, height = size
    view = _look(picture)
    return {
        "log2_width": math.log2(width),
        "log2_height": math.log2(height),
        "luma_mean": float(view.planes[0].mean(dtype=np.float64)) / 255,
        "ground_luma": view.ground_luma,
        "ground_share": view.ground_share,
        "colours": view.colours,
        "colour_entropy": view.colour_entropy,
        **_lost_in_pooling(view),
        **_blobs("figure", _any_of_four(view.figure)),
        **_strokes("figure", view.figure),
        **_strokes("ink", view.ink),
        **_colours(view.counts),
    }


@dataclass(frozen=True)
class _View:
    """A square look at the picture, P pixels a side, in small arrays: large ones cost more to get than to fill."""

    planes: tuple[np.ndarray, ...]  # (P / 2, P / 2) int16 each: luminance of 255, red and blue less luminance
    counts: np.ndarray  # (512,) pixels of each colour, in 512 steps, of (P / 2, P / 2)
    figure: np.ndarray  # (P, P) bool: not of the commonest colour
    ink: np.ndarray  # (P, P) bool: darker or lighter than the surroundings
    ground_luma: float
    ground_share: float
    colours: float  # codes that cover a thousandth of the picture
    colour_entropy: float  # bits


def _look(picture: Image.Image) -> _View:
    square = picture
    if picture.size != (SIDE_PX, SIDE_PX):
        square = picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    grey = square.convert("L")
    smooth = np.asarray(grey.reduce(SURROUNDINGS_PX).resize(grey.size, Image.Resampling.BILINEAR))
    fine, coarse = _planes(np.asarray(square), np.asarray(grey)), square.reduce(2)
    pixels = np.asarray(coarse)  # (P / 2, P / 2, 3) uint8
    planes = _planes(pixels, np.asarray(coarse.convert("L")))
    steps = pixels >> 5
    codes = (steps[..., 0].astype(np.uint16) << 6) | (steps[..., 1] << 3) | steps[..., 2]
    counts = np.bincount(codes.ravel(), minlength=512)
    commonest = int(counts.argmax())
    shares = counts[counts > 0] / codes.size
    grounded = codes == commonest
    figure = np.zeros((SIDE_PX, SIDE_PX), bool)
    grounds = []
    for plane, seen in zip(planes, fine, strict=True):
        ground = int(plane[grounded].sum(dtype=np.int64)) / int(counts[commonest])
        grounds.append(ground)
        figure |= seen > math.floor(ground + GROUND_DISTANCE)
        figure |= seen < math.ceil(ground - GROUND_DISTANCE)
    return _View(
        planes=planes,
        counts=counts,
        figure=figure,
        ink=np.abs(fine[0] - smooth) > CONTRAST,
        ground_luma=grounds[0] / 255,
        ground_share=float(counts[commonest] / codes.size),
        colours=float(np.count_nonzero(counts * 1000 >= codes.size)),
        colour_entropy=float(-(shares * np.log2(shares)).sum()),
    )


def _planes(pixels: np.ndarray, luma: np.ndarray) -> tuple[np.ndarray, ...]:
    """Luminance, red less luminance, blue less luminance: (P, P) int16 each."""
    grey = luma.astype(np.int16)
    return grey, pixels[..., 0] - grey, pixels[..., 2] - grey


def _lost_in_pooling(view: _View) -> dict[str, float]:
    """What averaging to each grid destroys, in all and against the next finer grid, and how many cells it hurts."""
    means, squares = zip(*map(_pairs, view.planes), strict=True)
    cells = np.stack([*means, squares[0], squares[1] + squares[2]])  # (5, P / 4, P / 4)
    lost: dict[str, float] = {}
    before = dict.fromkeys(("luma", "colour"), 0.0)
    while True:
        grid = cells.shape[-1]
        within = {"luma": cells[3] - cells[0] ** 2, "colour": cells[4] - cells[1] ** 2 - cells[2] ** 2}
        for part, variance in within.items():
            energy = max(float(variance.mean()), 0.0) / 255**2
            lost[f"lost_{part}_{grid}"] = math.sqrt(energy)
            lost[f"step_{part}_{grid}"] = math.sqrt(max(energy - before[part], 0.0))
            before[part] = energy
        lost[f"busy_{grid}"] = _share(within["luma"] > BUSY_STD**2)
        if grid == 1:
            return lost
        cells = _halved(cells) if grid % 2 == 0 else cells.mean(axis=(1, 2), keepdims=True)


def _pairs(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of 2x2 neighbours and of their squares, (P / 2, P / 2) float32 each; exact, since all are whole numbers."""
    corners = [plane[down::2, right::2].astype(np.float32) for down in (0, 1) for right in (0, 1)]
    one, two, three, four = corners
    return (one + two + three + four) / 4, (one * one + two * two + three * three + four * four) / 4


def _halved(cells: np.ndarray) -> np.ndarray:
    """Averages of 2x2 neighbours; sums of slices, since numpy's mean over such short axes takes ten times as long."""
    rows = cells[:, ::2] + cells[:, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def _any_of_four(mask: np.ndarray) -> np.ndarray:
    """(P, P) bool -> (P / 2, P / 2): blobs are found in a quarter of the time, and predict as well."""
    rows = mask[::2] | mask[1::2]
    return rows[:, ::2] | rows[:, 1::2]


def _blobs(name: str, mask: np.ndarray) -> dict[str, float]:
    """Number, size and fullness of a mask's connected blobs."""
    side = mask.shape[0]
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    area = np.bincount(labels.ravel())[1:]
    boxes = ndimage.find_objects(labels)
    spans = np.array([(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in boxes])
    spans = spans.reshape(-1, 2)[area >= MIN_BLOB_PX]  # (blobs, 2) pixels
    area = area[area >= MIN_BLOB_PX]
    return {
        f"{name}_blobs": math.log1p(len(area)),
        **_quantiles(f"{name}_height", spans[:, 0] / side),
        **_quantiles(f"{name}_width", spans[:, 1] / side),
        **_quantiles(f"{name}_fullness", area / spans.prod(axis=1)),
    }


def _strokes(name: str, mask: np.ndarray) -> dict[str, float]:
    """How much a mask covers, how thick its strokes are, its lines and columns of marks with gaps between them, and
    how many strokes a row crosses."""
    side = len(mask)
    share = _share(mask)
    starts = mask[:, 1:] > mask[:, :-1]  # where a row enters a stroke
    rim = 2 * _share(starts) + _share(mask[1:] != mask[:-1])
    found = {
        f"{name}_share": share,
        f"{name}_stroke": 2 * share / (rim + 1e-3) / side,  # a stroke's area is half its rim times its width
    }
    for what, sums in (("lines", np.count_nonzero(mask, axis=1)), ("columns", np.count_nonzero(mask, axis=0))):
        marked = sums > 0.01 * side
        found[f"{name}_{what}"] = float(np.count_nonzero(marked[1:] & ~marked[:-1]) + marked[0])
    return found | _quantiles(f"{name}_crossings", np.count_nonzero(starts, axis=1))


def _colours(counts: np.ndarray) -> dict[str, float]:
    """How much of the picture each named colour covers."""
    covered = np.bincount(colour_names(), weights=counts, minlength=len(COLOURS)) / counts.sum()
    return {f"share_{colour}": float(share) for colour, share in zip(COLOURS, covered, strict=False)}


def _share(mask: np.ndarray) -> float:
    return np.count_nonzero(mask) / mask.size


def _quantiles(name: str, values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """The values at `QUANTILES`, zeros when there are none (a sort and four look-ups; np.quantile takes 0.1 ms)."""
    ranked = np.sort(values) if len(values) else np.zeros(1)
    return {f"{name}_{q:.0%}": float(ranked[round(q * (len(ranked) - 1))]) for q in QUANTILES}


IMAGE_FEATURE_NAMES: tuple[str, ...] = tuple(_measure(Image.new("RGB", (SIDE_PX, SIDE_PX)), (SIDE_PX, SIDE_PX)))
