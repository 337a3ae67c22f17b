"""Feedback as training rows: of each sample one scale's score is known, the one that was served."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from complexity.feedback import Feedback, FeedbackRow, to_line
from complexity.image_features import IMAGE_FEATURE_NAMES, IMAGE_FEATURE_VERSION
from complexity.labels import LabelTable
from router.split import Splits


@dataclass(frozen=True)
class Lessons:
    """Samples that a predictor is taught by."""

    image_features: np.ndarray  # (B, F) float32
    question: np.ndarray  # (B,) object array of str
    score: np.ndarray  # (B, S) float32, NaN: not known
    image_sha256: np.ndarray  # (B,) object array of str

    def and_also(self, more: "Lessons") -> "Lessons":
        """These samples and then more."""
        return Lessons(
            np.concatenate([self.image_features, more.image_features]),
            np.concatenate([self.question, more.question]),
            np.concatenate([self.score, more.score]),
            np.concatenate([self.image_sha256, more.image_sha256]),
        )


@dataclass(frozen=True)
class Used:
    """The feedback that fits a label table, and what became of the rest."""

    lessons: Lessons
    left_out: dict[str, int]  # number of rows by reason
    torn: int  # lines that a crash cut off
    sha256: str  # of the rows that are used

    def as_json(self) -> dict[str, Any]:
        """What the artifact's manifest and the report tell of it."""
        used = len(self.lessons.score)
        rows = used + sum(self.left_out.values())
        return {"rows": rows, "used": used, "left_out": self.left_out, "torn": self.torn, "sha256": self.sha256}


def fitting(feedback: Feedback, table: LabelTable, splits: Splits) -> Used:
    """Choose the feedback that may teach beside a table's training rows.

    Left out are verdicts that were superseded, and rows of another model, another ladder or other features; rows of
    pictures that set the price or give the verdict. So are samples that were unfamiliar, which are answered at the
    finest scale alone: they would teach that the others do as well, and stay unfamiliar until a sweep holds such. And
    rows from a service with second looks, where which answer was sent depends on how it turned out.
    """
    left_out = Counter({"superseded": feedback.superseded})
    held_out = set(table.image_sha256) - set(splits.train.image_sha256)
    used = []
    for row in feedback.rows:
        reason = _unfit(row, table, held_out)
        if reason is None:
            used.append(row)
        else:
            left_out[reason] += 1
    score = np.full((len(used), len(table.ladder)), np.nan, np.float32)
    for at, row in enumerate(used):
        score[at, table.ladder.index(row.answered.tokens)] = row.score
    lessons = Lessons(
        np.array([row.answered.image_features for row in used], np.float32).reshape(-1, len(IMAGE_FEATURE_NAMES)),
        np.array([row.answered.question for row in used], dtype=object),
        score,
        np.array([row.answered.image_sha256 for row in used], dtype=object),
    )
    digest = hashlib.sha256(b"".join(map(to_line, used))).hexdigest()
    return Used(lessons, {reason: count for reason, count in sorted(left_out.items()) if count}, feedback.torn, digest)


def in_words(told: dict[str, Any]) -> str:
    """What `Used.as_json` tells, for people."""
    reasons = [f"{count} {reason.replace('_', ' ')}" for reason, count in told["left_out"].items()]
    if told["torn"]:
        reasons.append(f"{told['torn']} torn")
    return f"{told['used']} of {told['rows']} rows" + (f" (left out: {', '.join(reasons)})" if reasons else "")


def _unfit(row: FeedbackRow, table: LabelTable, held_out: set[str]) -> str | None:
    """Why a row may not teach; None when it may."""
    answered = row.answered
    features = answered.feature_version, len(answered.image_features)
    if answered.model != table.meta.model:
        return "other_model"
    if answered.ladder != table.ladder:
        return "other_ladder"
    if features != (IMAGE_FEATURE_VERSION, len(IMAGE_FEATURE_NAMES)):
        return "other_features"
    if answered.image_sha256 in held_out:
        return "held_out_picture"
    if answered.why == "unfamiliar":
        return "unfamiliar"
    return "second_look" if answered.second_look else None
