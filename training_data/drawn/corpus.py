"""The procedural corpus: pictures and questions that follow from (split, seed, index) alone."""

import io
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Literal

import numpy as np
from PIL import Image

from training_data.drawn.picture import SHIFTED, TRAINED, Picture, World, draw_picture
from training_data.drawn.questions import Question, ask

Split = Literal["train", "calibration", "test", "shifted"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test", "shifted")


@dataclass(frozen=True)
class CorpusItem:
    """One drawn picture and the questions about it."""

    item_id: str
    picture: Picture
    questions: tuple[Question, ...]

    @cached_property
    def png(self) -> bytes:
        """The picture as a PNG file's bytes."""
        buffer = io.BytesIO()
        self.picture.image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def draw_item(split: Split, seed: int, index: int, questions: int, world: World | None = None) -> CorpusItem:
    """Draw the `index`-th picture of a split and ask up to `questions` questions about it.

    Splits never share a picture: the split's name is part of every picture's seed. "shifted" has fonts, words, a
    layout and wordings that no other split has. Training draws from a `world` of its own where that teaches more.
    """
    item_id = f"{split}-{seed}-{index}"
    rng = Random(item_id)
    shifted = split == "shifted"
    picture = draw_picture(rng, world or (SHIFTED if shifted else TRAINED))
    return CorpusItem(item_id, picture, tuple(ask(picture, rng, questions, held_out=shifted)))


def nudged(item: CorpusItem, again: int) -> CorpusItem:
    """The item with its picture moved by up to two pixels each way, another way for each `again`; 0 leaves it.

    Nothing that a question asks changes; what changes of a model's answer was luck.
    """
    if not again:
        return item
    rng = Random(f"{item.item_id}-nudged-{again}")
    moves = [(right, down) for right in range(-2, 3) for down in range(-2, 3) if right or down]
    right, down = rng.choice(moves)
    pixels = np.pad(np.asarray(item.picture.image), ((2, 2), (2, 2), (0, 0)), mode="edge")
    high, wide = pixels.shape[0] - 4, pixels.shape[1] - 4
    image = Image.fromarray(pixels[2 - down : 2 - down + high, 2 - right : 2 - right + wide])
    return replace(item, picture=replace(item.picture, image=image))
