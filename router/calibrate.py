"""Held-out samples -> the knob: accuracy and mean tokens at every price, and the price to ship."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from complexity.errors import InvalidInput
from complexity.labels import LabelTable
from router.certify import check_level
from router.policy import FINEST_ALWAYS, choose_rung, finest_for, worth

PRICES: tuple[float, ...] = (  # probability per unit of cost, from always the finest to always the coarsest
    FINEST_ALWAYS,
    *(-np.geomspace(1e-2, 1e-6, 41)).tolist(),
    0.0,
    *np.geomspace(1e-6, 1.0, 181).tolist(),
)

ROUNDING = 1e-12

Believe = Callable[[LabelTable], np.ndarray]  # rows -> (B, S) P(right)


@dataclass(frozen=True)
class CurvePoint:
    """What a price costs and brings on some set of samples."""

    price: float  # probability of a right answer per unit of cost
    accuracy: float  # mean score
    tokens: float  # mean visual tokens
    cost: float  # mean cost; the tokens unless other costs are given
    loss_error: float = 0.0  # standard error, over pictures, of what it loses against the finest scale


@dataclass(frozen=True)
class Target:
    """What the user wants of the router; exactly one of the three."""

    max_loss: float | None = None  # accuracy that may be lost against the finest scale, as a share
    budget: float | None = None  # mean cost per sample, in the costs' unit
    certify: float | None = None  # share of all samples that may be spoilt (router/certify.py)
    confidence: float = 0.9  # of the certificate

    def __post_init__(self) -> None:
        if sum(wish is not None for wish in (self.max_loss, self.budget, self.certify)) != 1:
            raise InvalidInput("one of --max-loss, --budget and --certify is needed")
        if self.max_loss is not None and not 0 <= self.max_loss < 1:
            raise InvalidInput(f"--max-loss {self.max_loss:g} must be at least 0 and below 1; 0.01 is one point")
        if self.budget is not None and not self.budget > 0:
            raise InvalidInput(f"--budget {self.budget:g} must be above 0")
        check_level(0.5 if self.certify is None else self.certify, self.confidence)

    def __str__(self) -> str:
        if self.max_loss is not None:
            return f"--max-loss {self.max_loss:g}"
        if self.budget is not None:
            return f"--budget {self.budget:g}"
        return f"--certify {self.certify:g} --confidence {self.confidence:g}"


def price_curve(
    probabilities: np.ndarray,
    score: np.ndarray,
    ladder: Sequence[int],
    costs: Sequence[float] | None = None,
    prices: Sequence[float] = PRICES,
    pictures: np.ndarray | None = None,
    strange: np.ndarray | None = None,
) -> tuple[CurvePoint, ...]:
    """Follow the policy at rising prices.

    Args:
        probabilities: (B, S) predicted P(right).
        score: (B, S) what each scale really scored.
        costs: S costs of the rungs; their tokens unless given.
        pictures: (B,) whose samples succeed and fail together; each sample's own unless given.
        strange: (B,) bool, samples that take the finest rung at any price; none unless given.

    Returns:
        One point per price; tokens never rise from one to the next. Prices that change no sample's scale are left out.
    """
    tokens = np.asarray(ladder)
    cost = np.asarray(ladder if costs is None else costs, float)
    codes = np.arange(len(score)) if pictures is None else np.unique(pictures, return_inverse=True)[1]
    worths = finest_for(worth(probabilities, cost.tolist()), strange)
    points: list[CurvePoint] = []
    before = None
    for price in prices:
        rungs = choose_rung(worths, price)
        if before is not None and np.array_equal(rungs, before):
            continue
        before = rungs
        scored = score[np.arange(len(rungs)), rungs]
        means = float(scored.mean()), float(tokens[rungs].mean()), float(cost[rungs].mean())
        points.append(CurvePoint(float(price), *means, _error(score[:, -1] - scored, codes)))
    return tuple(points)


def _error(values: np.ndarray, codes: np.ndarray) -> float:
    """Standard error of the mean of (B,) values that come in groups, by their (B,) codes."""
    return float(np.sqrt(np.square(np.bincount(codes, weights=values - values.mean())).sum()) / len(values))


def pick_price(curve: Sequence[CurvePoint], finest_accuracy: float, target: Target) -> CurvePoint:
    """The point that meets a target at the least cost.

    With `max_loss` the cheapest that loses at most so much against always taking the finest scale, by a margin of one
    standard error: without it the loss is exceeded on half of all other samples. With `budget` the most accurate that
    costs at most so much on average.

    Raises:
        InvalidInput: the budget is below the coarsest scale's cost.
    """
    if target.budget is not None:
        within = [point for point in curve if point.cost <= target.budget]
        if not within:
            raise InvalidInput(
                f"--budget {target.budget:g} is below {curve[-1].cost:g}, the cost of the coarsest scale"
            )
        return max(within, key=lambda point: (point.accuracy, -point.cost))
    allowed = 0.0 if target.max_loss is None else target.max_loss
    good = [point for point in curve if finest_accuracy - point.accuracy + point.loss_error <= allowed + ROUNDING]
    return min(good, key=lambda point: (point.cost, point.price))


@dataclass(frozen=True)
class Chooser:
    """A way to choose scales: what it believes of samples, and the price it pays by."""

    name: str
    believe: Believe
    price: float
    curve: tuple[CurvePoint, ...]  # on the rows that set the price


def tuned(
    name: str,
    believe: Believe,
    held_out: LabelTable,
    target: Target,
    costs: Sequence[float] | None = None,
    strange: np.ndarray | None = None,
) -> Chooser:
    """Set a chooser's price on held-out rows by the rule of `pick_price`."""
    score = held_out.score.astype(float)
    curve = price_curve(
        believe(held_out), score, held_out.ladder, costs, pictures=held_out.image_sha256, strange=strange
    )
    return Chooser(name, believe, pick_price(curve, float(score[:, -1].mean()), target).price, curve)
