"""What any router could gain on the drawn corpus: the informed predictor against the per-family lookup.

Both at equal mean tokens and cross-fitted by picture; router/informed.py has the predictor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupKFold

from router.evaluate import mixed_to, price_path
from router.informed import fit_informed
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
    lookup, informed = np.empty(score.shape), np.empty(score.shape)
    for train, test in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(score, groups=group):
        lookup[test] = Lookup.fit(family[train], score[train]).predict_proba(family[test])
        predict = fit_informed(score[train], family[train], latents[train], seed)
        informed[test] = predict(family[test], latents[test])
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
