"""The procedural corpus: pictures and questions that follow from (split, seed, index) alone."""

import io
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Literal

from training_data.picture import MAX_THINGS, SHIFTED, TRAINED, Picture, draw_picture
from training_data.questions import Question, ask

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


def draw_item(split: Split, seed: int, index: int, questions: int, most_things: int = MAX_THINGS) -> CorpusItem:
    """Draw the `index`-th picture of a split and ask up to `questions` questions about it.

    Splits never share a picture: the split's name is part of every picture's seed. "shifted" has fonts, words, a
    layout and wordings that no other split has. With `most_things` below the default, pictures are emptier: training
    begins with such.
    """
    item_id = f"{split}-{seed}-{index}"
    rng = Random(item_id)
    shifted = split == "shifted"
    picture = draw_picture(rng, replace(SHIFTED if shifted else TRAINED, most_things=most_things))
    return CorpusItem(item_id, picture, tuple(ask(picture, rng, questions, held_out=shifted)))
