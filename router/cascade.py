"""Answer, look at how sure the answer is, and perhaps answer again with more tokens.

All scales come from one pass of the tower, so a second answer costs its prefill and decoding only; but it costs them on
top of the first. Whether the first answer is right is told by its own log-probability, which sees more than any
prediction made before. One logistic model gives P(right) of a scale after an answer at a coarser one, from the
predictor's log-odds of both and the answer's log-probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from router.evaluate import Outcome
from router.policy import choose_rung, worth

LEAST_LOGPROB = -5.0  # of an answer; below, unsure is unsure
FIRST_PRICE = 2.0  # the first answer's price, as a multiple of the second's: what it spares may be spent on a second


@dataclass(frozen=True)
class SecondLook:
    """P(right) after an answer; one logistic model for each pair of a first and a second rung."""

    weights: (
        np.ndarray
    )  # (S, S, 4): offset, log-odds of the first rung, of the second, certainty; first == second: stay

    @classmethod
    def fit(cls, probabilities: np.ndarray, logprob: np.ndarray, score: np.ndarray) -> "SecondLook":
        """Learn from held-out samples answered at every scale.

        Args:
            probabilities: (B, S) predicted before answering.
            logprob: (B, S) mean log-probability of the answer given at each scale.
            score: (B, S).
        """
        scales = score.shape[1]
        weights = np.zeros((scales, scales, 4))
        for first in range(scales):
            for second in range(first, scales):
                columns = _columns(probabilities, logprob[:, first], first, second)
                right = score[:, second] >= 0.5
                if right.all() or not right.any():
                    weights[first, second, 0] = np.log((right.sum() + 0.5) / ((~right).sum() + 0.5))
                    continue
                fitted = LogisticRegression(C=10.0).fit(columns, right)
                weights[first, second] = [float(fitted.intercept_[0]), *fitted.coef_[0]]
        return cls(weights)

    def predict(self, probabilities: np.ndarray, logprob: np.ndarray, first: int) -> np.ndarray:
        """P(right) of each rung from `first` on, after answers at `first`: (B, S - first).

        Args:
            probabilities: (B, S) predicted before answering.
            logprob: (B,) of the answers at `first`.
        """
        odds = []
        for second in range(first, probabilities.shape[1]):
            offset, *slopes = self.weights[first, second]
            odds.append(_columns(probabilities, logprob, first, second) @ np.array(slopes) + offset)
        return 1 / (1 + np.exp(-np.stack(odds, axis=1)))


def _columns(probabilities: np.ndarray, logprob: np.ndarray, first: int, second: int) -> np.ndarray:
    p = np.clip(probabilities, 1e-4, 1 - 1e-4)
    odds = np.log(p / (1 - p))
    sure = np.clip(logprob, LEAST_LOGPROB, 0.0)
    return np.stack([odds[:, first], odds[:, second], sure], axis=1)


def cascaded(
    name: str,
    first: np.ndarray,
    look: SecondLook,
    probabilities: np.ndarray,
    logprob: np.ndarray,
    score: np.ndarray,
    ladder: Sequence[int],
    price: float,
    costs: Sequence[float] | None = None,
) -> Outcome:
    """Answer at the rungs `first` (B,), then once more where a finer rung is worth its whole cost."""
    cost = np.asarray(ladder if costs is None else costs, float)
    tokens = np.asarray(ladder, float)
    last = first.copy()
    for rung in range(len(ladder) - 1):
        at = np.flatnonzero(first == rung)
        if not len(at):
            continue
        chances = look.predict(probabilities[at], logprob[at, rung], rung)
        extra = [0.0, *cost[rung + 1 :].tolist()]  # staying costs nothing more, going on costs all of the finer
        last[at] = rung + choose_rung(worth(chances, extra), price)
    again = last != first
    at = np.arange(len(first))
    return Outcome(
        name,
        score[at, last],
        tokens[first] + np.where(again, tokens[last], 0.0),
        cost[first] + np.where(again, cost[last], 0.0),
    )


def cascade_path(
    name: str,
    multiple: float,
    look: SecondLook,
    probabilities: np.ndarray,
    logprob: np.ndarray,
    score: np.ndarray,
    ladder: Sequence[int],
    prices: Sequence[float],
    costs: Sequence[float] | None = None,
) -> list[Outcome]:
    """The cascade at every price; the first answer pays `multiple` times as much for a token as the second."""
    worths = worth(probabilities, ladder if costs is None else costs)
    return [
        cascaded(name, choose_rung(worths, price * multiple), look, probabilities, logprob, score, ladder, price, costs)
        for price in prices
    ]
