"""Dense labels for the tower's first training stage: what lies under each cell of the grid, known to the renderer.

A tower that has learnt to name the thing under each cell gives the language model something to read; with the
language-model loss alone nothing emerged in the first 7,000 pictures.
"""

import numpy as np

from training_data.drawn.picture import SIDE_PX, Box, Picture
from training_data.drawn.words import COLOURS, GROUNDS, SHAPES

SLOTS = 5  # characters of a text that are labelled
_CHARACTERS = " ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789."
_KINDS = ("object", "word", "number", "code", "bar", "row", "total")
_LAYOUTS = ("shapes", "signs", "list", "bars", "receipt")

# (name, number of classes) of each label of a cell, in the order of the last axis
HEADS: tuple[tuple[str, int], ...] = (
    ("kind", len(_KINDS) + 1),
    ("ground", len(GROUNDS)),
    ("layout", len(_LAYOUTS)),
    ("centre", 2),
    ("colour", len(COLOURS)),
    ("shape", len(SHAPES)),
    ("extreme", 3),  # neither, smallest, largest of its kind in the picture
    ("character", len(_CHARACTERS)),  # the one under the cell's centre
    *((f"text{i}", len(_CHARACTERS)) for i in range(SLOTS)),  # all characters of the text that the cell is part of
)
IGNORE = -1
_INDEX = {name: i for i, (name, _) in enumerate(HEADS)}
_TEXT = slice(_INDEX["text0"], _INDEX["text0"] + SLOTS)
_GROUND_INDEX = {name: i for i, name in enumerate(GROUNDS)}
_COLOUR_INDEX = {name: i for i, name in enumerate(COLOURS)}


def _characters(text: str) -> list[int]:
    return [_CHARACTERS.index(character) for character in text[:SLOTS].ljust(SLOTS)]


def _cells(box: Box, grid: int) -> tuple[slice, slice]:
    """Rows and columns of the cells whose centre is in the box, and at least those under the box's centre."""
    left, top, right, bottom = (min(grid, max(0.0, edge * grid / SIDE_PX)) for edge in box)
    x, y = min(grid - 1, int((left + right) / 2)), min(grid - 1, int((top + bottom) / 2))
    return slice(min(y, round(top)), max(y + 1, round(bottom))), slice(min(x, round(left)), max(x + 1, round(right)))


def dense_targets(picture: Picture, grid: int) -> np.ndarray:
    """Labels of every cell.

    Returns:
        (grid * grid, len(HEADS)) int16; `IGNORE` where a label says nothing about a cell.
    """
    labels = np.full((grid, grid, len(HEADS)), IGNORE, np.int16)
    labels[..., _INDEX["kind"]] = len(_KINDS)
    labels[..., _INDEX["ground"]] = _GROUND_INDEX[picture.ground]
    labels[..., _INDEX["layout"]] = _LAYOUTS.index("list" if picture.layout == "columns" else picture.layout)
    labels[..., _INDEX["centre"]] = 0
    sizes = [thing.height or thing.size_px for thing in picture.things if thing.kind in ("object", "bar")]
    for thing in picture.things:
        rows, columns = _cells(thing.box, grid)
        label = np.full(len(HEADS), IGNORE, np.int16)
        label[_INDEX["kind"]] = _KINDS.index(thing.kind)
        if thing.colour:
            label[_INDEX["colour"]] = _COLOUR_INDEX[thing.colour]
        if thing.shape:
            label[_INDEX["shape"]] = SHAPES.index(thing.shape)
        if thing.kind in ("object", "bar"):
            size = thing.height or thing.size_px
            label[_INDEX["extreme"]] = 2 if size == max(sizes) else int(size == min(sizes))
        if thing.kind in ("word", "number", "code"):
            label[_TEXT] = _characters(thing.name)
        told = np.flatnonzero(label != IGNORE)
        labels[rows, columns][..., told] = label[told]
        x, y = (min(grid - 1, max(0, int(c * grid / SIDE_PX))) for c in thing.centre)
        labels[y, x, _INDEX["centre"]] = 1
        for text, ink in thing.inks:
            rows, columns = _cells(ink, grid)
            places = np.arange(columns.start, columns.stop) + 0.5
            share = (places * SIDE_PX / grid - ink[0]) / (ink[2] - ink[0])
            under = np.clip((share * len(text)).astype(int), 0, len(text) - 1)
            labels[rows, columns, _INDEX["character"]] = [_CHARACTERS.index(text[i]) for i in under]
            labels[rows, columns, _TEXT] = _characters(text)
    return labels.reshape(grid * grid, len(HEADS))
