"""How much could any router gain? The informed bound: a predictor that is given what only the renderer knows.

The raw oracle picks the best of five correlated tries, so most of its lead is luck that nobody can predict. The
informed predictor sees the family, the number of things, the asked thing's size, the answer's length: what a perfect
look at the picture and the question would tell. It is set against the per-family lookup at equal mean tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from sklearn.model_selection import GroupKFold

from router.evaluate import mixed_to, price_path
from router.lookup import Lookup

BUDGETS = np.arange(9, 61)  # mean tokens at which policies are compared
FOLDS = 5


@dataclass(frozen=True)
class InformedBound:
    """Accuracies at equal mean tokens, cross-fitted by picture."""

    gain: float  # largest lead of the informed predictor over the lookup, at 9 to 60 mean tokens
    gain_tokens: int  # where it stands
    mean_gain: float  # mean lead over 9 to 60 mean tokens
    lookup: tuple[float, ...]  # accuracy at each of BUDGETS
    informed: tuple[float, ...]


def informed_bound(
    score: np.ndarray, ladder: Sequence[int], family: np.ndarray, group: np.ndarray, latents: np.ndarray, seed: int = 0
) -> InformedBound:
    """Compare lookup and informed predictor on the same samples, each predicted from the others' pictures.

    Args:
        score: (B, S) of the samples at each rung of the ladder.
        family: (B,) the lookup's key.
        group: (B,) the picture of each sample.
        latents: (B, L) what the renderer knows.
    """
    codes = np.unique(family, return_inverse=True)[1]
    lookup, informed = np.empty(score.shape), np.empty(score.shape)
    for train, test in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(score, groups=group):
        table = Lookup.fit(codes[train], score[train])
        known = np.clip(table.predict_proba(codes), 0.005, 0.995)  # (B, S)
        lookup[test] = known[test]
        informed[test] = _informed(score[train], known, codes, latents, train, test, seed)
    by_lookup = accuracy_at(lookup, score, ladder)
    by_informed = accuracy_at(informed, score, ladder)
    gain = by_informed - by_lookup
    best = int(gain.argmax())
    return InformedBound(
        float(gain[best]),
        int(BUDGETS[best]),
        float(gain.mean()),
        tuple(by_lookup.tolist()),
        tuple(by_informed.tolist()),
    )


def accuracy_at(probabilities: np.ndarray, score: np.ndarray, ladder: Sequence[int]) -> np.ndarray:
    """Mean score at each of `BUDGETS` mean tokens, of choosing by price and mixing two prices at random.

    Args:
        probabilities: (B, S) what the choice is made from.
        score: (B, S) what the choice earns.
    """
    path = price_path("", probabilities, score, ladder)
    mixed = [mixed_to("", path, float(tokens)) for tokens in BUDGETS]
    return np.array([path[0].accuracy if outcome is None else outcome.accuracy for outcome in mixed])


def _informed(
    score: np.ndarray,
    known: np.ndarray,
    codes: np.ndarray,
    latents: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> np.ndarray:
    """P(right) (len(test), S): one boosted model over (sample, scale), starting from the lookup's log-odds."""
    scales = score.shape[1]

    def rows(which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        start = np.log(known[which] / (1 - known[which])).ravel()
        wide = np.column_stack([codes[which], latents[which]]).repeat(scales, 0)
        return np.column_stack([wide, np.tile(np.arange(scales), len(which))]), start

    data, start = rows(train)
    settings = {
        "objective": "cross_entropy",
        "learning_rate": 0.05,
        "num_leaves": 15,
        "min_data_in_leaf": 40,
        "feature_fraction": 0.8,
        "lambda_l2": 5.0,
        "seed": seed,
        "num_threads": 2,
        "verbose": -1,
    }
    taught = lgb.Dataset(data, score.ravel(), init_score=start, categorical_feature=[0])
    trained = lgb.train(settings, taught, num_boost_round=150)
    data, start = rows(test)
    return (1 / (1 + np.exp(-(trained.predict(data, raw_score=True) + start)))).reshape(-1, scales)
