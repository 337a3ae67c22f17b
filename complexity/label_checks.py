"""Whether the rows of a label table make a whole: nulls, ranges, duplicates, all scales, agreement."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from complexity.errors import LabelTableError

SPLITS = ("train", "calibration", "test", "")
PER_SAMPLE = ("dataset", "task", "split", "image_sha256", "question")  # must not change between a sample's rows


def check_rows(path: Path, rows: pa.Table, ladder: Sequence[int], model: str) -> None:
    """Whole-column checks on rows sorted by sample and tokens: nulls, ranges, duplicates, all scales, agreement."""
    for name in rows.column_names:
        if rows[name].null_count:
            raise LabelTableError(f"{path}: column {name!r} has {rows[name].null_count} missing values")
    ids, tokens = text_of(rows, "sample_id"), numbers_of(rows, "tokens")
    score = numbers_of(rows, "score")
    wrong_score = ~((score >= 0) & (score <= 1))  # also catches NaN
    if wrong_score.any():
        at = int(wrong_score.argmax())
        raise LabelTableError(f"{path}: sample {ids[at]} has score {score[at]}; scores lie in [0, 1]")
    off = ~np.isin(tokens, ladder)
    if off.any():
        at = int(off.argmax())
        raise LabelTableError(f"{path}: sample {ids[at]} has {tokens[at]} tokens, ladder is {ladder}")
    models = set(rows["model"].unique().to_pylist())
    if models != {model}:
        raise LabelTableError(f"{path}: rows of models {sorted(models)}, metadata says {model!r}")
    unknown = set(rows["split"].unique().to_pylist()) - set(SPLITS)
    if unknown:
        raise LabelTableError(f"{path}: unknown split {sorted(unknown)[0]!r}; allowed are {SPLITS}")
    twice = (ids[1:] == ids[:-1]) & (tokens[1:] == tokens[:-1])
    if twice.any():
        at = int(twice.argmax())
        raise LabelTableError(f"{path}: sample {ids[at]} appears twice at {tokens[at]} tokens")
    names, counts = np.unique(ids, return_counts=True)
    short = counts != len(ladder)
    if short.any():
        name = names[short.argmax()]
        missing = sorted(set(ladder) - set(tokens[ids == name].tolist()))
        raise LabelTableError(f"{path}: sample {name} lacks scale(s) {missing} of the ladder {ladder}")
    for column in PER_SAMPLE:
        values = text_of(rows, column).reshape(-1, len(ladder))
        uneven = (values != values[:, :1]).any(axis=1)
        if uneven.any():
            raise LabelTableError(f"{path}: sample {names[uneven.argmax()]} has more than one {column}")


def text_of(rows: pa.Table, column: str) -> np.ndarray:
    """A column of texts: (R,) of objects."""
    return np.asarray(rows[column].to_numpy(zero_copy_only=False), dtype=object)


def numbers_of(rows: pa.Table, column: str) -> np.ndarray:
    """A column of numbers: (R,)."""
    return np.asarray(rows[column].to_numpy(zero_copy_only=False))
