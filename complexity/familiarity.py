"""Does a sample resemble what the predictor learnt from? What doesn't is no case for its probabilities.

A picture is strange when its features lie further from the training pictures' mean than all but a few of the held-out
ones do (Mahalanobis distance, covariance shrunk after Ledoit and Wolf, 2004); a question is strange when more of its
words were never seen in training than in all but a few of the held-out questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.covariance import LedoitWolf

from complexity.question_features import kinds_of_words

STRANGE_SHARE = 0.005  # of the held-out samples that may be called strange, by picture and by question each
LEAST_NEW_WORDS = 0.25  # a share of new words up to this one is never strange: one typing error is not another language
MOST_DEVIATIONS = 20.0  # features are cut off here, so that one of them alone doesn't decide by thousands


@dataclass(frozen=True)
class Familiarity:
    """What training looked like, and how far from it is too far."""

    mean: np.ndarray  # (F,) of the pictures' features
    scale: np.ndarray  # (F,) their deviation; infinite where training had one value only and can't judge others
    precision: np.ndarray  # (F, F) of the standardised features
    words: frozenset[str]  # kinds of words of the questions
    picture_limit: float  # squared distance per feature
    question_limit: float  # share of new words

    @classmethod
    def fit(
        cls,
        image_features: np.ndarray,
        questions: Sequence[str] | np.ndarray,
        held_out_features: np.ndarray,
        held_out_questions: Sequence[str] | np.ndarray,
    ) -> "Familiarity":
        """Learn what is usual from (B, F) features and B questions, and the limits from held-out ones."""
        mean, scale = image_features.mean(0), image_features.std(0)
        scale = np.where(scale > 1e-6, scale, np.inf)
        precision = LedoitWolf(assume_centered=True).fit(_standard(image_features, mean, scale)).precision_
        words = frozenset(kind for question in set(questions) for kind in kinds_of_words(question))
        free = cls(mean, scale, precision, words, np.inf, np.inf)
        distances = free.distance(held_out_features)
        news = np.array([free.new_words(question) for question in held_out_questions])
        return cls(
            mean,
            scale,
            precision,
            words,
            float(np.quantile(distances, 1 - STRANGE_SHARE)),
            max(LEAST_NEW_WORDS, float(np.quantile(news, 1 - STRANGE_SHARE))),
        )

    def distance(self, image_features: np.ndarray) -> np.ndarray:
        """(B, F) -> (B,) squared Mahalanobis distance per feature."""
        z = _standard(np.asarray(image_features, np.float64), self.mean, self.scale)
        return ((z @ self.precision) * z).sum(axis=1) / len(self.mean)

    def new_words(self, question: str) -> float:
        """Share of the question's words that training never saw."""
        kinds = kinds_of_words(question)
        return sum(kind not in self.words for kind in kinds) / max(1, len(kinds))

    def knows(self, image_features: np.ndarray, questions: Sequence[str] | np.ndarray) -> np.ndarray:
        """(B, F) features and B questions -> (B,) bool."""
        unique = {question: self.new_words(question) <= self.question_limit for question in set(questions)}
        asked = np.array([unique[question] for question in questions], bool)
        return asked & (self.distance(image_features) <= self.picture_limit)

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "mean": self.mean.tolist(),
            "scale": [None if np.isinf(value) else value for value in self.scale.tolist()],
            "precision": self.precision.tolist(),
            "words": sorted(self.words),
            "picture_limit": self.picture_limit,
            "question_limit": self.question_limit,
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Familiarity":
        """Raises KeyError, TypeError, ValueError or OverflowError when `told` isn't what `as_json` gives."""
        mean = np.array(told["mean"], float)
        scale = np.array([np.inf if value is None else value for value in told["scale"]], float)
        precision = np.array(told["precision"], float)
        if mean.ndim != 1 or scale.shape != mean.shape or precision.shape != (len(mean), len(mean)):
            raise ValueError("familiarity: mean, scale and precision don't fit each other")
        if not (np.isfinite(mean).all() and np.isfinite(precision).all() and (scale > 0).all()):
            raise ValueError("familiarity: mean and precision must be finite, the scale positive")
        limits = float(told["picture_limit"]), float(told["question_limit"])
        if not all(limit >= 0 for limit in limits):
            raise ValueError(f"familiarity: limits of {limits}; they must be at least 0")
        words = told["words"]
        if type(words) is not list or any(type(word) is not str for word in words):
            raise ValueError("familiarity: words must be a list of texts")
        return cls(mean, scale, precision, frozenset(words), *limits)


def _standard(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip((features - mean) / scale, -MOST_DEVIATIONS, MOST_DEVIATIONS)
