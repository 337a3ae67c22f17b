"""Made-up answers and verdicts on them, also from the made-up label table's world."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from label_world import LADDER, META, made_up_rows

from complexity.feedback import AnsweredRecord, FeedbackRow, decimals, to_line


def answered(name: str = "m3-0", **changes: Any) -> AnsweredRecord:
    """A record of an answer at 36 tokens."""
    made = AnsweredRecord(
        decision_id=name,
        image_sha256="f" * 64,
        question="How many?",
        model=META.model,
        ladder=LADDER,
        tokens=36,
        visual_tokens=36,
        prediction="three",
        mean_logprob=-0.25,
        generated_tokens=2,
        feature_version=META.feature_version,
        image_features=(0.5, 2.0),
        artifact="a" * 64,
        why="predicted",
        probabilities=(0.1, 0.2, 0.5, 0.6, 0.6),
        price=0.001,
    )
    return replace(made, **changes)


def verdict(name: str = "m3-0", key: str | None = None, score: float = 1.0, **changes: Any) -> FeedbackRow:
    """A verdict on it."""
    return replace(FeedbackRow(answered(name), score, ("three",), 1000.0, key), **changes)


def heard(pictures: int, seed: int, task: str | None = None) -> list[FeedbackRow]:
    """Verdicts on made-up samples, of a task or of all; each at one scale, drawn at random as if callers named it."""
    rng = np.random.default_rng(seed)
    rows = [row for row in made_up_rows(pictures, seed, split="train") if task in (None, row.task)]
    given = []
    for at in range(0, len(rows), len(LADDER)):
        row = rows[at + int(rng.integers(len(LADDER)))]
        record = answered(
            row.sample_id,
            image_sha256=row.image_sha256,
            question=row.question,
            tokens=row.tokens,
            image_features=decimals(np.asarray(row.image_features)),
            why="forced",
        )
        given.append(FeedbackRow(record, row.score, (), float(at)))
    return given


def write_journal(path: Path, rows: Sequence[FeedbackRow]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(to_line, rows)))
    return path
