"""What choosing scales is worth: policies' accuracy and mean tokens on samples that nobody learnt from.

A policy's outcome is, for each sample, the score it is expected to earn and the tokens it is expected to take; a
policy that mixes two others at random earns and takes the weighted mean. Intervals are 95% bootstrap intervals over
pictures, since a picture's questions succeed and fail together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from complexity.labels import oracle
from router.calibrate import PRICES
from router.policy import choose_rung, worth

RESAMPLES = 1000
INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Outcome:
    """What a policy earns and takes."""

    name: str
    score: np.ndarray  # (B,) expected score of each sample
    tokens: np.ndarray  # (B,) expected visual tokens of each sample
    cost: np.ndarray  # (B,) expected cost of each sample; its tokens unless costs are given

    @property
    def accuracy(self) -> float:
        """Mean expected score."""
        return float(self.score.mean())

    @property
    def mean_tokens(self) -> float:
        """Mean expected visual tokens."""
        return float(self.tokens.mean())

    @property
    def mean_cost(self) -> float:
        """Mean expected cost."""
        return float(self.cost.mean())


@dataclass(frozen=True)
class Measured:
    """A policy in the table."""

    name: str
    accuracy: float
    accuracy_ci: tuple[float, float]
    tokens: float  # mean
    cost: float  # mean


@dataclass(frozen=True)
class Lead:
    """One policy over another when both take the same mean tokens."""

    tokens: float
    accuracy: float
    other_accuracy: float
    gain: float
    gain_ci: tuple[float, float]


def taken(
    name: str, rungs: np.ndarray, score: np.ndarray, ladder: Sequence[int], costs: Sequence[float] | None = None
) -> Outcome:
    """The outcome of taking these (B,) rungs; score: (B, S)."""
    cost = np.asarray(ladder if costs is None else costs, float)
    return Outcome(name, score[np.arange(len(rungs)), rungs], np.asarray(ladder, float)[rungs], cost[rungs])


def fixed_scales(score: np.ndarray, ladder: Sequence[int], costs: Sequence[float] | None = None) -> list[Outcome]:
    """Always the same rung, for each rung; score: (B, S)."""
    return [
        taken(f"fixed-{tokens}", np.full(len(score), rung), score, ladder, costs) for rung, tokens in enumerate(ladder)
    ]


def priced(
    name: str,
    probabilities: np.ndarray,
    score: np.ndarray,
    ladder: Sequence[int],
    price: float,
    costs: Sequence[float] | None = None,
) -> Outcome:
    """The policy of router.policy at a price, on (B, S) believed probabilities and (B, S) true scores."""
    rungs = choose_rung(worth(probabilities, ladder if costs is None else costs), price)
    return taken(name, rungs, score, ladder, costs)


def price_path(
    name: str,
    probabilities: np.ndarray,
    score: np.ndarray,
    ladder: Sequence[int],
    costs: Sequence[float] | None = None,
    prices: Sequence[float] = PRICES,
) -> list[Outcome]:
    """The policy at every price, from many tokens to few."""
    worths = worth(probabilities, ladder if costs is None else costs)
    return [taken(name, choose_rung(worths, price), score, ladder, costs) for price in prices]


def oracles(score: np.ndarray, ladder: Sequence[int], costs: Sequence[float] | None = None) -> list[Outcome]:
    """The cheapest right rung of each sample, with both conventions for samples that no rung gets right."""
    found = []
    for unsolved in ("coarsest", "finest"):
        tokens = oracle(score, ladder, unsolved=unsolved).tokens
        rungs = np.searchsorted(np.asarray(ladder), tokens)
        found.append(taken(f"oracle-unsolved-{unsolved}", rungs, score, ladder, costs))
    return found


def hull(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those on the upper concave hull of accuracy over mean tokens, from few tokens to many.

    Any point of the hull can be had by mixing its neighbours at random.
    """
    kept: list[Outcome] = []
    for new in sorted(outcomes, key=lambda outcome: (outcome.mean_tokens, -outcome.accuracy)):
        if kept and new.accuracy <= kept[-1].accuracy:
            continue
        while len(kept) > 1 and _slope(kept[-2], kept[-1]) <= _slope(kept[-2], new):
            kept.pop()
        kept.append(new)
    return kept


def mixed_to(name: str, path: Sequence[Outcome], tokens: float) -> Outcome | None:
    """The mix of two neighbours on a path that takes `tokens` on average; None where the path doesn't reach.

    Which neighbours is decided by tokens alone, never by what they turn out to earn.
    """
    ordered = sorted(path, key=lambda outcome: outcome.mean_tokens)
    if not ordered[0].mean_tokens <= tokens <= ordered[-1].mean_tokens:
        return None
    above = next(i for i, outcome in enumerate(ordered) if outcome.mean_tokens >= tokens)
    more, less = ordered[above], ordered[max(0, above - 1)]
    span = more.mean_tokens - less.mean_tokens
    share = (tokens - less.mean_tokens) / span if span > 0 else 1.0

    def mix(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return share * one + (1 - share) * other

    return Outcome(name, mix(more.score, less.score), mix(more.tokens, less.tokens), mix(more.cost, less.cost))


def measure(outcomes: Sequence[Outcome], pictures: np.ndarray, seed: int) -> list[Measured]:
    """Accuracy with its interval, and mean tokens, of each policy; pictures: (B,) picture of each sample."""
    intervals = bootstrap(np.stack([outcome.score for outcome in outcomes], axis=1), pictures, seed)
    return [
        Measured(outcome.name, outcome.accuracy, interval, outcome.mean_tokens, outcome.mean_cost)
        for outcome, interval in zip(outcomes, intervals, strict=True)
    ]


def leads(
    path: Sequence[Outcome], other: Sequence[Outcome], targets: Sequence[float], pictures: np.ndarray, seed: int
) -> list[Lead]:
    """How far one policy leads another at equal mean tokens, at each target that both reach."""
    pairs = [(mixed_to("", path, tokens), mixed_to("", other, tokens), tokens) for tokens in targets]
    found = [(one, two, tokens) for one, two, tokens in pairs if one is not None and two is not None]
    if not found:
        return []
    gains = np.stack([one.score - two.score for one, two, _ in found], axis=1)
    intervals = bootstrap(gains, pictures, seed)
    return [
        Lead(tokens, one.accuracy, two.accuracy, one.accuracy - two.accuracy, interval)
        for (one, two, tokens), interval in zip(found, intervals, strict=True)
    ]


def bootstrap(values: np.ndarray, pictures: np.ndarray, seed: int) -> list[tuple[float, float]]:
    """95% intervals of the means of (B, K) values, drawing whole pictures with replacement."""
    low, high = np.percentile(resampled_means(values, pictures, seed), INTERVAL, axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def resampled_means(values: np.ndarray, pictures: np.ndarray, seed: int) -> np.ndarray:
    """Means of (B, K) values over `RESAMPLES` draws of whole pictures with replacement: (RESAMPLES, K).

    Each picture's number of draws is Poisson with mean 1, which for many pictures is the same as drawing as many
    pictures as there are.
    """
    _, codes = np.unique(pictures, return_inverse=True)
    sums = np.zeros((codes.max() + 1, values.shape[1]))
    np.add.at(sums, codes, values)
    counts = np.bincount(codes).astype(float)
    rng = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, values.shape[1]))
    for draw in range(RESAMPLES):
        weights = rng.poisson(1.0, len(counts)).astype(float)
        means[draw] = weights @ sums / max(weights @ counts, 1.0)
    return means


def calibration_bins(probabilities: np.ndarray, score: np.ndarray, bins: int = 15) -> list[tuple[float, float]]:
    """Mean predicted and mean scored in equally filled bins, by rising prediction; (B,) each."""
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [(float(probabilities[part].mean()), float(score[part].mean())) for part in parts]


def calibration_error(probabilities: np.ndarray, score: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over all scales: mean |predicted - scored| in equally filled bins; (B, S) each."""
    pairs = calibration_bins(probabilities.ravel(), score.ravel(), bins)
    sizes = [len(part) for part in np.array_split(np.empty(probabilities.size), bins) if len(part)]
    gaps = [abs(predicted - scored) * size for (predicted, scored), size in zip(pairs, sizes, strict=True)]
    return float(sum(gaps) / probabilities.size)


def _slope(one: Outcome, two: Outcome) -> float:
    return (two.accuracy - one.accuracy) / max(two.mean_tokens - one.mean_tokens, 1e-12)
