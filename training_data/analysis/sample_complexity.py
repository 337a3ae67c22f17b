"""M3 as a measure of how complex a picture is: the granularity that its questions need (M3, section 4.4).

A picture's need is the geometric mean of the fewest tokens that answer each of its questions right; questions that no
scale answers say nothing of granularity and are left out.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from complexity.image_features import IMAGE_FEATURE_NAMES, IMAGE_FEATURE_VERSION
from complexity.labels import LabelTable, oracle
from router.evaluate import INTERVAL, resampled_means
from router.report import Rate

FEWEST = 10  # pictures that a correlation takes


@dataclass(frozen=True)
class PictureNeed:
    """A picture and the granularity it needs."""

    image_sha256: str
    tokens: float  # geometric mean over its solved questions
    questions: int  # solved
    unsolved: int


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of pictures' needs with one of their features."""

    feature: str
    raw: Rate
    within_tasks: Rate  # needs less the mean of each question's task: which questions were asked is taken off


@dataclass(frozen=True)
class Complexity:
    """A data set's pictures, from those that need least to those that need most."""

    pictures: tuple[PictureNeed, ...]
    correlations: tuple[Correlation, ...]  # the strongest first; none where features are of another version


def picture_complexity(rows: LabelTable, seed: int) -> Complexity:
    """Order a data set's pictures by the granularity they need, and rank their features by correlation with it."""
    found = oracle(rows.score, rows.ladder, unsolved="finest")
    names, first, which = np.unique(rows.image_sha256, return_index=True, return_inverse=True)
    solved = np.bincount(which[found.right], minlength=len(names))
    asked = np.bincount(which, minlength=len(names))
    log_need = np.log(found.tokens)
    known = solved > 0
    needs = _means(log_need, found.right, which, solved)
    tokens = np.exp(needs)
    order = [i for i in np.lexsort((names, tokens)) if known[i]]
    correlations: list[Correlation] = []
    version = rows.meta.feature_version, rows.image_features.shape[1]
    if version == (IMAGE_FEATURE_VERSION, len(IMAGE_FEATURE_NAMES)) and known.sum() >= FEWEST:
        within = _means(_less_task(log_need, rows.task, found.right), found.right, which, solved)
        correlations = _correlations(rows.image_features[first][known], needs[known], within[known], seed)
    return Complexity(
        tuple(PictureNeed(str(names[i]), float(tokens[i]), int(solved[i]), int(asked[i] - solved[i])) for i in order),
        tuple(correlations),
    )


def spearman(one: np.ndarray, others: np.ndarray, seed: int) -> list[Rate | None]:
    """Rank correlations of (N,) with each column of (N, F), with intervals; None where either is constant.

    Ranks are those among all N; a draw weighs them by how often each is drawn.
    """
    x = rankdata(one) - (len(one) + 1) / 2  # about 0, so that sums of products lose no digits
    y = rankdata(others, axis=0) - (len(one) + 1) / 2
    features = y.shape[1]
    columns = np.concatenate([x[:, None], (x * x)[:, None], y, y * y, x[:, None] * y], axis=1)
    whole = _correlate(columns.mean(axis=0)[None], features)[0]
    drawn = _correlate(resampled_means(columns, np.arange(len(one)), seed), features)
    rates: list[Rate | None] = []
    for value, draws in zip(whole, drawn.T, strict=True):
        draws = draws[np.isfinite(draws)]
        low, high = np.percentile(draws, INTERVAL) if len(draws) else (np.nan, np.nan)
        rates.append(Rate(float(value), (float(low), float(high))) if np.isfinite(value) else None)
    return rates


def _correlate(means: np.ndarray, features: int) -> np.ndarray:
    """(R, 2 + 3F) means of x, x², y, y², xy -> (R, F) Pearson correlations; NaN where nothing varies."""
    x, xx = means[:, :1], means[:, 1:2]
    y, yy, xy = np.split(means[:, 2:], [features, 2 * features], axis=1)
    varied = (xx - x * x) * (yy - y * y)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(varied > 1e-9, (xy - x * y) / np.sqrt(varied), np.nan)


def _correlations(features: np.ndarray, needs: np.ndarray, within: np.ndarray, seed: int) -> list[Correlation]:
    pairs = zip(IMAGE_FEATURE_NAMES, spearman(needs, features, seed), spearman(within, features, seed), strict=True)
    found = [Correlation(name, raw, own) for name, raw, own in pairs if raw is not None and own is not None]
    return sorted(found, key=lambda each: -abs(each.raw.value))


def _less_task(values: np.ndarray, task: np.ndarray, which: np.ndarray) -> np.ndarray:
    """(B,) values less the mean of their task's picked ones."""
    left = values.astype(float)
    for name in np.unique(task[which]):
        own = which & (task == name)
        left[own] -= values[own].mean()
    return left


def _means(values: np.ndarray, picked: np.ndarray, which: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(N,) mean of each picture's picked values; 0 where it has none."""
    return np.bincount(which[picked], weights=values[picked], minlength=len(counts)) / np.maximum(counts, 1)
