"""What a label table tells of a data set and of each task in it, as the M3 paper analyses a benchmark by its scales.

Right means a score of at least 0.5, as everywhere here: the oracle takes the fewest tokens that answer right, not the
best of soft scores. Intervals are 95% bootstrap intervals over pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from complexity.errors import LabelTableError
from complexity.labels import LabelTable, oracle
from router.calibrate import PRICES
from router.evaluate import INTERVAL, fixed_scales, hull, price_path, resampled_means
from router.lookup import Lookup
from router.report import POINT, Rate, over_budgets
from training_data.analysis.luck import chances_anew

RIGHT = 0.5  # a score of at least this
FOLDS = 5  # of pictures: the lookup's scales for one are learnt on the others
WORTH_IT = [price for price in PRICES if price >= 0]

Method = Literal["second rendering", "threshold model"]  # of telling luck


@dataclass(frozen=True)
class Scale:
    """A fixed scale."""

    tokens: int  # per grid
    visual_tokens: float  # what the language model saw, mean
    score: Rate
    loss: Rate  # against the finest scale, of the same samples


@dataclass(frozen=True)
class Oracle:
    """The cheapest right scale of each sample; samples that are wrong at all scales are charged in both ways."""

    right: Rate  # share of samples that some scale answers right
    score: Rate  # unsolved samples earn what the coarsest scale earns
    score_finest: Rate  # they earn what the finest earns; the same where scores are 0 or 1
    best: Rate  # best score of any scale: above `score` where scores are soft
    tokens: Rate  # unsolved charged the coarsest scale (M3's authors)
    tokens_finest: Rate  # unsolved charged the finest scale (CARES)
    tokens_solved: float | None  # solved samples only; None: there are none


@dataclass(frozen=True)
class Luck:
    """The oracle's choices, judged by another answer to the same question."""

    method: Method
    score: Rate  # that its choices earn anew
    tokens: Rate  # that they take, unsolved charged the coarsest
    lucky: Rate | None  # share of what its right answers earn that they don't earn anew; None: it has none
    lucky_by_model: Rate | None  # the same by the threshold model, also where there was a second rendering
    lead: Rate  # of the oracle over the best fixed scale, which takes more tokens; luck included
    lead_anew: Rate  # the same, both judged anew


@dataclass(frozen=True)
class Fixed:
    """The one scale to take when none is chosen per sample."""

    tokens: int  # the fewest that surely lose no more than allowed against the finest scale
    by_mean: int  # the fewest that lose no more in these samples, by chance or not
    best: int  # the scale with the highest mean score
    max_loss: float  # allowed, a share


@dataclass(frozen=True)
class Group:
    """A data set, or one task of it."""

    dataset: str
    task: str | None  # None: the whole data set
    pairs: int
    pictures: int
    scales: tuple[Scale, ...]
    oracle: Oracle
    luck: Luck
    needed: tuple[float, ...]  # share of samples by smallest sufficient scale, then the share that none suffices for
    finer_hurts: Rate  # share right at a coarser scale and wrong at the finest
    fixed: Fixed


@dataclass(frozen=True)
class Headroom:
    """What choosing scales gains over mixing fixed scales to equal mean tokens, averaged over router.report.budgets."""

    oracle: Rate  # choosing by what came out right, luck included
    repeatable: Rate  # choosing by each answer's chance to come out right anew, judged anew
    lookup: Rate  # one scale a task, learnt on other pictures
    beyond_lookup: Rate  # `repeatable` over `lookup`


@dataclass(frozen=True)
class DataSet:
    """A data set's whole analysis."""

    whole: Group
    tasks: tuple[Group, ...]
    headroom: Headroom


def analyse(
    table: LabelTable, again: LabelTable | None = None, max_loss: float = POINT, seed: int = 0
) -> list[DataSet]:
    """Analyse each data set of a table.

    Args:
        again: another rendering of the same samples, which tells luck where it has a data set's samples.
        max_loss: what a recommended scale may lose against the finest, a share.

    Raises:
        LabelTableError: a ladder of one scale, or `again` has another ladder or some of a data set's samples only.
    """
    if len(table.ladder) < 2:
        raise LabelTableError(
            f"a ladder of one scale, {table.ladder[0]}, leaves nothing to choose; at least 2 are needed"
        )
    return [_data_set(table.select(table.dataset == name), again, max_loss, seed) for name in np.unique(table.dataset)]


def _data_set(rows: LabelTable, again: LabelTable | None, max_loss: float, seed: int) -> DataSet:
    redone = None if again is None else same_samples(rows, again)
    method: Method = "threshold model" if redone is None else "second rendering"
    chances = chances_anew(rows.score.astype(float), rows.task)
    anew = chances if redone is None else redone
    tasks = []
    for task in np.unique(rows.task):
        own = rows.task == task
        tasks.append(_group(rows.select(own), str(task), chances[own], anew[own], method, max_loss, seed))
    return DataSet(
        _group(rows, None, chances, anew, method, max_loss, seed), tuple(tasks), _headroom(rows, chances, anew, seed)
    )


def same_samples(rows: LabelTable, again: LabelTable) -> np.ndarray | None:
    """Scores (B, S) of the rows' samples in another table; None when it has none of them.

    Raises:
        LabelTableError: it has another ladder, or only some of the samples.
    """
    if again.ladder != rows.ladder:
        raise LabelTableError(f"the second rendering has the ladder {again.ladder}, the labels have {rows.ladder}")
    place = {name: i for i, name in enumerate(again.sample_id)}
    missing = [name for name in rows.sample_id if name not in place]
    if len(missing) == len(rows):
        return None
    if missing:
        raise LabelTableError(
            f"{len(missing)} of {len(rows)} samples of {rows.dataset[0]!r} are missing in the second rendering, such "
            f"as {missing[0]}"
        )
    return again.score[[place[name] for name in rows.sample_id]].astype(float)


def _group(
    rows: LabelTable,
    task: str | None,
    chances: np.ndarray,
    anew: np.ndarray,
    method: Method,
    max_loss: float,
    seed: int,
) -> Group:
    score, ladder, pictures = rows.score.astype(float), rows.ladder, rows.image_sha256
    every = np.arange(len(rows))
    coarse, fine = (oracle(score, ladder, unsolved=unsolved) for unsolved in ("coarsest", "finest"))
    coarse_rung, fine_rung = (np.searchsorted(ladder, found.tokens) for found in (coarse, fine))
    best = int(score.mean(axis=0).argmax())
    losses = score[:, -1:] - score
    rates = _Rates(
        {
            **{f"score-{tokens}": score[:, rung] for rung, tokens in enumerate(ladder)},
            **{f"loss-{tokens}": losses[:, rung] for rung, tokens in enumerate(ladder)},
            "right": coarse.right,
            "oracle": score[every, coarse_rung],
            "oracle-finest": score[every, fine_rung],
            "best": score.max(axis=1),
            "tokens": coarse.tokens,
            "tokens-finest": fine.tokens,
            "anew": anew[every, coarse_rung],
            "earned": coarse.right * score[every, coarse_rung],
            "earned-anew": coarse.right * anew[every, coarse_rung],
            "earned-by-model": coarse.right * chances[every, coarse_rung],
            "lead": score[every, coarse_rung] - score[:, best],
            "lead-anew": anew[every, coarse_rung] - anew[:, best],
            "finer-hurts": coarse.right & (score[:, -1] < RIGHT),
        },
        pictures,
        seed,
    )
    solved = int(coarse.right.sum())
    shares = np.bincount(np.where(coarse.right, coarse_rung, len(ladder)), minlength=len(ladder) + 1) / len(rows)
    return Group(
        dataset=str(rows.dataset[0]),
        task=task,
        pairs=len(rows),
        pictures=len(np.unique(pictures)),
        scales=tuple(
            Scale(tokens, float(seen), rates[f"score-{tokens}"], rates[f"loss-{tokens}"])
            for tokens, seen in zip(ladder, rows.visual_tokens.mean(axis=0), strict=True)
        ),
        oracle=Oracle(
            right=rates["right"],
            score=rates["oracle"],
            score_finest=rates["oracle-finest"],
            best=rates["best"],
            tokens=rates["tokens"],
            tokens_finest=rates["tokens-finest"],
            tokens_solved=float(coarse.tokens[coarse.right].mean()) if solved else None,
        ),
        luck=Luck(
            method=method,
            score=rates["anew"],
            tokens=rates["tokens"],
            lucky=rates.lost("earned-anew", "earned") if solved else None,
            lucky_by_model=rates.lost("earned-by-model", "earned") if solved else None,
            lead=rates["lead"],
            lead_anew=rates["lead-anew"],
        ),
        needed=tuple(shares.tolist()),
        finer_hurts=rates["finer-hurts"],
        fixed=recommend(losses, score.mean(axis=0), ladder, pictures, max_loss, seed),
    )


def recommend(
    losses: np.ndarray, means: np.ndarray, ladder: Sequence[int], pictures: np.ndarray, max_loss: float, seed: int
) -> Fixed:
    """The fixed scale to take when `max_loss` may be lost against the finest.

    Surely: where the upper end of the loss's interval is no more. For that end two made-up pictures are added, one lost
    and one won at every scale, since few pictures without a loss don't show that there is none (after Agresti and Min's
    interval for matched pairs, Statistics in Medicine 24, 2005): 1 point takes some 300 pictures.

    Args:
        losses: (B, S) what each scale loses against the finest.
        means: (S,) mean scores.
        pictures: (B,) picture of each sample.
    """
    scales = len(ladder)
    padded = np.concatenate([losses, np.ones((1, scales)), -np.ones((1, scales))])
    names = np.concatenate([np.unique(pictures, return_inverse=True)[1], [len(pictures), len(pictures) + 1]])
    upper = np.percentile(resampled_means(padded, names, seed), INTERVAL[1], axis=0)
    upper[-1] = 0.0  # the finest loses nothing against itself
    slack = max_loss + 1e-9
    return Fixed(
        tokens=ladder[int((upper <= slack).argmax())],
        by_mean=ladder[int((losses.mean(axis=0) <= slack).argmax())],
        best=ladder[int(means.argmax())],
        max_loss=max_loss,
    )


def _headroom(rows: LabelTable, chances: np.ndarray, anew: np.ndarray, seed: int) -> Headroom:
    score, ladder = rows.score.astype(float), rows.ladder
    path = {
        "hull": hull(fixed_scales(score, ladder)),
        "lookup": price_path("lookup", _looked_up(rows, seed), score, ladder),
        "oracle": price_path("oracle", score, score, ladder, prices=WORTH_IT),
        "repeatable": price_path("repeatable", chances, anew, ladder, prices=WORTH_IT),
    }
    earned = {name: over_budgets(outcomes, ladder) for name, outcomes in path.items()}
    rates = _Rates(
        {name: earned[name] - earned["hull"] for name in ("oracle", "repeatable", "lookup")}
        | {"beyond": earned["repeatable"] - earned["lookup"]},
        rows.image_sha256,
        seed,
    )
    return Headroom(rates["oracle"], rates["repeatable"], rates["lookup"], rates["beyond"])


def _looked_up(rows: LabelTable, seed: int) -> np.ndarray:
    """(B, S) mean scores of each sample's task in the other folds of pictures."""
    score = rows.score.astype(float)
    pictures, which = np.unique(rows.image_sha256, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(pictures)) % FOLDS)[which.ravel()]
    belief = np.empty(score.shape)
    for own in (fold == number for number in np.unique(fold)):
        others = ~own if not own.all() else own  # a single picture
        belief[own] = Lookup.fit(rows.task[others], score[others]).predict_proba(rows.task[own])
    return belief


class _Rates:
    """Means of columns with their intervals, from one set of draws."""

    def __init__(self, columns: Mapping[str, np.ndarray], pictures: np.ndarray, seed: int):
        self._names = list(columns)
        values = np.stack([np.asarray(column, float) for column in columns.values()], axis=1)
        self._means = values.mean(axis=0)
        self._draws = resampled_means(values, pictures, seed)

    def __getitem__(self, name: str) -> Rate:
        at = self._names.index(name)
        return _rate(self._means[at], self._draws[:, at])

    def lost(self, kept: str, of: str) -> Rate:
        """The share of one column's sum that isn't in the other's."""
        one, whole = self._names.index(kept), self._names.index(of)
        drawn = self._draws[self._draws[:, whole] > 0]
        return _rate(1 - self._means[one] / self._means[whole], 1 - drawn[:, one] / drawn[:, whole])


def _rate(value: float, draws: np.ndarray) -> Rate:
    low, high = np.percentile(draws, INTERVAL)
    return Rate(float(value), (float(low), float(high)))
