"""Samples to look at, by the granularity they need: pictures with the answers at every scale side by side."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from complexity.errors import InvalidInput
from complexity.labels import PICTURES, LabelTable, oracle, read_answers
from complexity.picture import decode_picture
from training_data.analysis.sample_complexity import PictureNeed

SHOWN_PX = 288  # longest side of a picture in a page
LARGEST_PNG = 40_000  # bytes; larger ones become JPEG
STRIP = 10  # pictures from the simplest to the most complex


@dataclass(frozen=True)
class Thumbnail:
    """A picture made small for a page."""

    data: bytes
    kind: str  # png or jpeg


@dataclass(frozen=True)
class Shown:
    """A sample with what was said to it."""

    question: str
    task: str
    references: tuple[str, ...]
    predictions: tuple[str, ...]  # at each scale; "" where only the reference was judged
    scores: tuple[float, ...]  # at each scale
    needed: int | None  # fewest tokens that answer right; None: no scale does
    picture: Thumbnail | None  # None: not kept


@dataclass(frozen=True)
class Gallery:
    """A data set's pictures for people."""

    strip: tuple[tuple[PictureNeed, Thumbnail], ...]  # from the least that is needed to the most
    samples: tuple[Shown, ...]  # by what they need, the unsolved last


def make_gallery(labels: Path, rows: LabelTable, pictures: Sequence[PictureNeed], per_scale: int, seed: int) -> Gallery:
    """Draw samples of each granularity at random, of different tasks as far as there are.

    Args:
        labels: where the rows were read, a file or a folder; its pictures stand in the folder's `pictures/`.
        rows: a data set's.
        pictures: what its pictures need, in order.
        per_scale: samples of each granularity.
    """
    folder = (labels if labels.is_dir() else labels.parent) / PICTURES
    kept = {path.stem for path in folder.glob("*.png")}
    found = oracle(rows.score, rows.ladder, unsolved="coarsest")
    chosen: list[int] = []
    rng = np.random.default_rng(seed)
    for needed in (*rows.ladder, None):
        same = found.right & (found.tokens == needed) if needed is not None else ~found.right
        chosen += _varied(rng.permutation(np.flatnonzero(same)), rows, kept, per_scale)
    said = read_answers(labels, [str(rows.sample_id[i]) for i in chosen])
    samples = tuple(
        Shown(
            question=str(rows.question[i]),
            task=str(rows.task[i]),
            references=said[rows.sample_id[i]].references,
            predictions=said[rows.sample_id[i]].predictions,
            scores=tuple(rows.score[i].tolist()),
            needed=int(found.tokens[i]) if found.right[i] else None,
            picture=thumbnail(folder / f"{rows.image_sha256[i]}.png"),
        )
        for i in chosen
    )
    return Gallery(tuple(_strip(folder, [each for each in pictures if each.image_sha256 in kept])), samples)


def _varied(order: np.ndarray, rows: LabelTable, kept: set[str], most: int) -> list[int]:
    """The first of an order, each of another picture: with pictures that were kept and other tasks before others."""
    taken: list[int] = []
    for wanted in ("kept, another task", "kept", "any"):
        for i in order.tolist():
            tasks = {rows.task[j] for j in taken}
            seen = {rows.image_sha256[j] for j in taken}
            fits = wanted == "any" or rows.image_sha256[i] in kept
            if wanted == "kept, another task":
                fits = fits and rows.task[i] not in tasks
            if len(taken) < most and fits and rows.image_sha256[i] not in seen:
                taken.append(i)
    return taken


def _strip(folder: Path, pictures: Sequence[PictureNeed]) -> list[tuple[PictureNeed, Thumbnail]]:
    at = sorted({round(place) for place in np.linspace(0, len(pictures) - 1, min(STRIP, len(pictures)))})
    looked = [(pictures[i], thumbnail(folder / f"{pictures[i].image_sha256}.png")) for i in at]
    return [(need, small) for need, small in looked if small is not None]


def thumbnail(path: Path) -> Thumbnail | None:
    """A picture's file made small; None where there is none, or none that can be decoded."""
    if not path.is_file():
        return None
    try:
        picture = decode_picture(path.read_bytes(), SHOWN_PX).picture
    except InvalidInput:
        return None
    picture.thumbnail((SHOWN_PX, SHOWN_PX))
    for kind in ("png", "jpeg"):
        data = io.BytesIO()
        picture.save(data, kind, optimize=True, **({"quality": 85} if kind == "jpeg" else {}))
        if kind == "jpeg" or data.tell() <= LARGEST_PNG:
            break
    return Thumbnail(data.getvalue(), kind)
