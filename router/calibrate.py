"""Held-out samples -> the knob: accuracy and mean tokens at every price, and the price to ship."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from complexity.labels import LabelTable
from router.policy import choose_rung, worth

PRICES: tuple[float, ...] = (0.0, *np.geomspace(1e-6, 1.0, 181).tolist())  # probability per visual token

Believe = Callable[[LabelTable], np.ndarray]  # rows -> (B, S) P(right)


@dataclass(frozen=True)
class CurvePoint:
    """What a price costs and brings on some set of samples."""

    price: float  # probability of a right answer per visual token
    accuracy: float  # mean score
    tokens: float  # mean visual tokens


def price_curve(
    probabilities: np.ndarray, score: np.ndarray, ladder: Sequence[int], prices: Sequence[float] = PRICES
) -> tuple[CurvePoint, ...]:
    """Follow the policy at rising prices.

    Args:
        probabilities: (B, S) predicted P(right).
        score: (B, S) what each scale really scored.

    Returns:
        One point per price; tokens never rise from one to the next. Prices that change no sample's scale are left out.
    """
    worths = worth(probabilities, ladder)
    tokens = np.asarray(ladder)
    points: list[CurvePoint] = []
    before = None
    for price in prices:
        rungs = choose_rung(worths, price)
        if before is not None and np.array_equal(rungs, before):
            continue
        before = rungs
        scored = score[np.arange(len(rungs)), rungs]
        points.append(CurvePoint(float(price), float(scored.mean()), float(tokens[rungs].mean())))
    return tuple(points)


def pick_price(curve: Sequence[CurvePoint], finest_accuracy: float, max_loss: float) -> CurvePoint:
    """The point with the fewest tokens that loses at most `max_loss` of accuracy against always taking the finest
    scale; when no point is that good, the most accurate one.
    """
    good = [point for point in curve if point.accuracy >= finest_accuracy - max_loss]
    if good:
        return min(good, key=lambda point: (point.tokens, point.price))
    return max(curve, key=lambda point: (point.accuracy, -point.tokens))


@dataclass(frozen=True)
class Chooser:
    """A way to choose scales: what it believes of samples, and the price it pays by."""

    name: str
    believe: Believe
    price: float
    curve: tuple[CurvePoint, ...]  # on the rows that set the price


def tuned(name: str, believe: Believe, held_out: LabelTable, max_loss: float) -> Chooser:
    """Set a chooser's price on held-out rows by the rule of `pick_price`."""
    score = held_out.score.astype(float)
    curve = price_curve(believe(held_out), score, held_out.ladder)
    price = pick_price(curve, float(score[:, -1].mean()), max_loss).price
    return Chooser(name, believe, price, curve)
