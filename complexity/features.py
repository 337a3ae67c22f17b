"""What the predictor sees of a sample: the picture's features, the question's, and what both say together."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from complexity.colours import COLOURS
from complexity.image_features import IMAGE_FEATURE_NAMES, IMAGE_FEATURE_VERSION
from complexity.question_features import (
    QUESTION_FEATURE_NAMES,
    QUESTION_FEATURE_VERSION,
    colours_named,
    question_features,
)

Place = Literal["light", "tower"]  # where is decided: before dispatch from pixels, or after the model's tower
TOWER_FEATURE_VERSION, TOWER_FEATURES = "tower-1", 108  # of serving/m3/tower_features.py
FEATURE_VERSIONS: dict[str, str] = {
    "light": f"{IMAGE_FEATURE_VERSION}+{QUESTION_FEATURE_VERSION}",
    "tower": f"{TOWER_FEATURE_VERSION}+{QUESTION_FEATURE_VERSION}",
}

ASKED_NAMES = ("asked_share",)
FEATURE_NAMES: tuple[str, ...] = (*IMAGE_FEATURE_NAMES, *ASKED_NAMES, *QUESTION_FEATURE_NAMES)
TOWER_NAMES: tuple[str, ...] = (*(f"tower_{i}" for i in range(TOWER_FEATURES)), *QUESTION_FEATURE_NAMES)
NAMES: dict[str, tuple[str, ...]] = {"light": FEATURE_NAMES, "tower": TOWER_NAMES}

_SHARES = np.array([IMAGE_FEATURE_NAMES.index(f"share_{colour}") for colour in COLOURS])


def joint_features(
    image_features: np.ndarray, questions: Sequence[str] | np.ndarray, place: Place = "light"
) -> np.ndarray:
    """One row per sample, with the columns `NAMES[place]`.

    "What is on the red sign?" is about the red part of the picture: asked_share is the share of the colour that the
    question names (the smallest of several; NaN when it names none).

    Args:
        image_features: (B, F), one row per sample; the tower's (B, G) at that place, which have no asked_share.
        questions: B questions.

    Returns:
        (B, F + 1 + Q) or (B, G + Q) float32.
    """
    if len(image_features) != len(questions):
        raise ValueError(f"{len(image_features)} pictures for {len(questions)} questions")
    if place == "tower":
        return np.hstack([image_features, _of_questions(questions)]).astype(np.float32)
    asked = np.full((len(questions), len(ASKED_NAMES)), np.nan, np.float32)
    for row, question in enumerate(questions):
        named = np.flatnonzero(colours_named(question))
        if len(named):
            asked[row] = image_features[row, _SHARES[named]].min()
    return np.hstack([image_features, asked, _of_questions(questions)])


def _of_questions(questions: Sequence[str] | np.ndarray) -> np.ndarray:
    """(B, Q); a question that many samples share is looked at once."""
    unique = {question: question_features(question) for question in set(questions)}
    return np.stack([unique[question] for question in questions])
