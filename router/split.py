"""A label table's rows for learning, for setting the knob and for the verdict; no picture in two of them."""

import hashlib
from dataclasses import dataclass

import numpy as np

from complexity.errors import LabelTableError
from complexity.labels import LabelTable

SHARES = (0.6, 0.2)  # of the pictures to train and to calibration, the rest to test, when the table doesn't say
NAMES = ("train", "calibration", "test")


@dataclass(frozen=True)
class Splits:
    """A table's parts; `shifted` are test rows of datasets that training never saw, None if there are none."""

    train: LabelTable
    calibration: LabelTable
    test: LabelTable
    shifted: LabelTable | None


def split_table(table: LabelTable) -> Splits:
    """Part a table by its split column, or by a hash of each picture's digest when the column is empty throughout.

    Raises:
        LabelTableError: a picture stands in two parts, a part is empty, or only some rows say where they belong.
    """
    names = table.split
    unassigned = int((names == "").sum())
    if unassigned == len(table):
        names = _by_picture(table.image_sha256)
    elif unassigned:
        raise LabelTableError(f"{unassigned} of {len(table)} samples have no split; give all of them one, or none")
    pictures = {name: set(table.image_sha256[names == name]) for name in NAMES}
    for name in NAMES:
        if not pictures[name]:
            raise LabelTableError(f"no samples in split {name!r}; needed are {', '.join(NAMES)}")
    for one, other in (("train", "calibration"), ("train", "test"), ("calibration", "test")):
        if both := pictures[one] & pictures[other]:
            raise LabelTableError(f"{len(both)} pictures are in both {one} and {other}, such as {min(both)}")
    known = np.isin(table.dataset, np.unique(table.dataset[names == "train"]))
    test, shifted = (names == "test") & known, (names == "test") & ~known
    if not test.any():
        raise LabelTableError("no test samples of a dataset that is also in train")
    return Splits(
        train=table.select(names == "train"),
        calibration=table.select(names == "calibration"),
        test=table.select(test),
        shifted=table.select(shifted) if shifted.any() else None,
    )


def halves(table: LabelTable) -> tuple[LabelTable, LabelTable]:
    """Part a table's pictures in two, by a hash of each.

    Raises:
        LabelTableError: one half is empty, since there are too few pictures.
    """
    first = _place(table.image_sha256, "halves") < 0.5
    if first.all() or not first.any():
        count = len(set(table.image_sha256))
        raise LabelTableError(f"{count} calibration pictures are too few to set a price and to certify it; give more")
    return table.select(first), table.select(~first)


def _place(image_sha256: np.ndarray, salt: str = "") -> np.ndarray:
    """(B,) places of pictures in [0, 1); digests are hashed once more, so that any text does as a picture's name."""
    place = {
        picture: int.from_bytes(hashlib.sha256((salt + picture).encode()).digest()[:8]) / 2**64
        for picture in set(image_sha256)
    }
    return np.array([place[picture] for picture in image_sha256])


def _by_picture(image_sha256: np.ndarray) -> np.ndarray:
    """(B,) names of splits."""
    at = _place(image_sha256)
    return np.array(NAMES, dtype=object)[np.searchsorted(np.cumsum(SHARES), at, side="right")]
