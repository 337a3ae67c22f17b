"""What the predictor sees of a sample: the picture's features, the question's, and what both say together."""

from collections.abc import Sequence

import numpy as np

from complexity.colours import COLOURS
from complexity.image_features import IMAGE_FEATURE_NAMES, IMAGE_FEATURE_VERSION
from complexity.question_features import (
    QUESTION_FEATURE_NAMES,
    QUESTION_FEATURE_VERSION,
    colours_named,
    question_features,
)

FEATURE_VERSION = f"{IMAGE_FEATURE_VERSION}+{QUESTION_FEATURE_VERSION}"

ASKED_NAMES = ("asked_share",)
FEATURE_NAMES: tuple[str, ...] = (*IMAGE_FEATURE_NAMES, *ASKED_NAMES, *QUESTION_FEATURE_NAMES)

_SHARES = np.array([IMAGE_FEATURE_NAMES.index(f"share_{colour}") for colour in COLOURS])


def joint_features(image_features: np.ndarray, questions: Sequence[str] | np.ndarray) -> np.ndarray:
    """One row per sample, with the columns `FEATURE_NAMES`.

    "What is on the red sign?" is about the red part of the picture: asked_share is the share of the colour that the
    question names (the smallest of several; NaN when it names none).

    Args:
        image_features: (B, F), one row per sample.
        questions: B questions.

    Returns:
        (B, F + 1 + Q) float32.
    """
    if len(image_features) != len(questions):
        raise ValueError(f"{len(image_features)} pictures for {len(questions)} questions")
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
