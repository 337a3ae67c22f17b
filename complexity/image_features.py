"""A picture in numbers: how much of it each token grid would lose, and how many small things it holds.

A model that averages its picture to 24, 12, 6, 3 or 1 cells a side keeps the cells' means and loses what varies within
them. So one part of the features says how much varies within the cells of each grid; the other estimates what is
there to be asked for: how many blobs, of what size, how thick their strokes are, how many lines, how many colours.

All lengths are fractions of the picture's side, so that they compare to a grid's cells and not to pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from complexity.colours import COLOURS, colour_names

IMAGE_FEATURE_VERSION = "image-4"

SIDE_PX = 96  # of the square that is looked at; twice as many predicted no better
FINEST_GRID = 24  # cells on a side
MIN_BLOB_PX = 2  # smaller blobs are noise of compression and anti-aliasing
BUSY_STD = 20.4  # a cell with more luminance deviation than this, of 255, holds something that its mean can't tell
GROUND_DISTANCE = 30, 20, 20  # in luminance, blue and red chroma; colours this near to the commonest are background
QUANTILES = (0.1, 0.5, 0.9, 1.0)
ANY_NEIGHBOUR = np.ones((3, 3))


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
        "ground_luma": view.ground_luma,
        **_lost_in_pooling(view.planes),
        **_blobs("figure", view.figure),
        **_strokes("figure", view.figure),
        **_colours(view.counts),
    }


@dataclass(frozen=True)
class _View:
    """A square look at the picture, P pixels a side, in small arrays: large ones cost more to get than to fill."""

    planes: np.ndarray  # (3, P, P) float32, whole numbers: luminance, blue and red chroma, of 255
    counts: np.ndarray  # (512,) pixels of each colour, in 512 steps
    figure: np.ndarray  # (P, P) bool: not of the commonest colour
    ground_luma: float  # of the commonest colour, of 1


def _look(picture: Image.Image) -> _View:
    square = picture
    if picture.size != (SIDE_PX, SIDE_PX):
        square = picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX, reducing_gap=1.0)
    steps = np.asarray(square) >> 5
    codes = (steps[..., 0].astype(np.uint16) << 6) | (steps[..., 1] << 3) | steps[..., 2]
    counts = np.bincount(codes.ravel(), minlength=512)
    commonest = int(counts.argmax())
    planes = np.asarray(square.convert("YCbCr")).transpose(2, 0, 1).astype(np.float32, order="C")
    ground = planes.reshape(3, -1) @ (codes.ravel() == commonest) / counts[commonest]
    figure = np.zeros((SIDE_PX, SIDE_PX), bool)
    for plane, usual, distance in zip(planes, ground, GROUND_DISTANCE, strict=True):
        figure |= np.abs(plane - usual) > distance
    return _View(planes, counts, figure, ground[0] / 255)


def _lost_in_pooling(planes: np.ndarray) -> dict[str, float]:
    """What averaging to each grid destroys, and how many cells it hurts.

    The energy lost is the pixels' energy less the means'. Sums are exact, so that their order can't matter.
    """
    squares = planes * planes
    squares[1] += squares[2]
    cells = np.concatenate([_finest_cells(planes), _finest_cells(squares[:2])]).astype(np.float64)  # (5, 24, 24)
    luma, colour = cells[3:].sum(axis=(1, 2)) / FINEST_GRID**2
    lost = {"luma_mean": float(cells[0].sum()) / FINEST_GRID**2 / 255}
    while True:
        grid = cells.shape[-1]
        kept = [float(plane.ravel() @ plane.ravel()) / plane.size for plane in cells[:3]]
        lost[f"lost_luma_{grid}"] = math.sqrt(max(luma - kept[0], 0.0)) / 255
        lost[f"lost_colour_{grid}"] = math.sqrt(max(colour - kept[1] - kept[2], 0.0)) / 255
        lost[f"busy_{grid}"] = _share(cells[3] - cells[0] * cells[0] > BUSY_STD**2)
        if grid == 1:
            return lost
        cells = _halved(cells) if grid % 2 == 0 else cells.mean(axis=(1, 2), keepdims=True)


def _finest_cells(planes: np.ndarray) -> np.ndarray:
    """(N, P, P) -> (N, G, G) means of cells; rows first, since sums over them run along memory."""
    cell = SIDE_PX // FINEST_GRID
    rows = planes.reshape(len(planes), FINEST_GRID, cell, SIDE_PX).sum(axis=2)
    return sum(rows[..., column::cell] for column in range(cell)) / cell**2


def _halved(cells: np.ndarray) -> np.ndarray:
    """Averages of 2x2 neighbours; sums of slices, since numpy's mean over such short axes takes ten times as long."""
    rows = cells[:, ::2] + cells[:, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def _blobs(name: str, mask: np.ndarray) -> dict[str, float]:
    """Number, size and fullness of a mask's connected blobs."""
    labels, _ = ndimage.label(mask, structure=ANY_NEIGHBOUR)
    area = np.bincount(labels.ravel())[1:]
    boxes = ndimage.find_objects(labels)
    spans = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in boxes]
    table = np.column_stack([np.array(spans).reshape(-1, 2), area])[area >= MIN_BLOB_PX].T  # (3, blobs)
    height, width, area = table
    measured = np.stack([height / len(mask), width / len(mask), area / (height * width)])
    return {
        f"{name}_blobs": math.log1p(measured.shape[1]),
        **_quantiles([f"{name}_{what}" for what in ("height", "width", "fullness")], measured),
    }


def _strokes(name: str, mask: np.ndarray) -> dict[str, float]:
    """How much a mask covers, how thick its strokes are, its lines and columns of marks with gaps between them, and
    how many strokes a row crosses."""
    side = len(mask)
    share = _share(mask)
    crossings = np.count_nonzero(mask[:, 1:] > mask[:, :-1], axis=1)  # where a row enters a stroke
    rim = (2 * int(crossings.sum()) + np.count_nonzero(mask[1:] != mask[:-1])) / (side * (side - 1))
    found = {
        f"{name}_share": share,
        f"{name}_stroke": 2 * share / (rim + 1e-3) / side,  # a stroke's area is half its rim times its width
    }
    for what, axis in (("lines", 1), ("columns", 0)):
        marked = np.count_nonzero(mask, axis=axis) > 0.01 * side
        found[f"{name}_{what}"] = float(np.count_nonzero(marked[1:] > marked[:-1]) + marked[0])
    return found | _quantiles([f"{name}_crossings"], crossings[None])


def _colours(counts: np.ndarray) -> dict[str, float]:
    """How much of the picture each named colour covers, and how many colours there are."""
    shares = counts / counts.sum()
    covered = np.bincount(colour_names(), weights=shares, minlength=len(COLOURS))
    seen = shares[counts > 0]
    return {
        "ground_share": float(seen.max()),
        "colours": float(np.count_nonzero(seen >= 1e-3)),
        "colour_entropy": -float(seen @ np.log2(seen)),  # bits
        **{f"share_{colour}": share for colour, share in zip(COLOURS, covered.tolist(), strict=True)},
    }


def _share(mask: np.ndarray) -> float:
    return np.count_nonzero(mask) / mask.size


def _quantiles(names: list[str], values: np.ndarray) -> dict[str, float]:
    """The values of each row (N, V) at `QUANTILES`, zeros when there are none; np.quantile takes 0.1 ms a row."""
    ranked = np.sort(values, axis=1) if values.size else np.zeros((len(names), 1))
    at = [round(q * (ranked.shape[1] - 1)) for q in QUANTILES]
    told = ranked[:, at].tolist()
    return {f"{name}_{q:.0%}": told[i][j] for i, name in enumerate(names) for j, q in enumerate(QUANTILES)}


IMAGE_FEATURE_NAMES: tuple[str, ...] = tuple(_measure(Image.new("RGB", (SIDE_PX, SIDE_PX)), (SIDE_PX, SIDE_PX)))
