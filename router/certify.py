"""A certificate: how often the router may spoil an answer that the finest scale would have got right.

A harmful flip is a sample that the finest scale answers right and the chosen scale doesn't. Learn-then-Test
(Angelopoulos et al., arXiv 2110.01052) finds the dearest price whose rate of harmful flips is at most alpha with a
given confidence: prices are tried from the safest on, each by an exact binomial test, and the first that fails ends the
search; so testing many costs nothing, and the rate needn't rise with the price.

The confidence is over draws of the certificate's samples and holds for traffic that is drawn as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, binom

from complexity.errors import InvalidInput
from router.policy import FINEST_ALWAYS, choose_rung

RIGHT = 0.5  # a score from here on counts as right
CONDITIONS = (
    "Holds for questions about pictures drawn as the certificate's rows were, one question a picture, answered by the "
    "same model with the same predictor and features; not for traffic that has shifted."
)


@dataclass(frozen=True)
class Certificate:
    """With probability `confidence` over the draw of `rows` samples, harmful flips are at most `alpha` of all."""

    alpha: float
    confidence: float
    price: float  # the dearest price certified; -1, always the finest scale, when none was
    rows: int  # samples, one a picture
    flips: int  # harmful flips among them at that price
    rows_sha256: str  # of the samples' names
    conditions: str = CONDITIONS

    @property
    def empty(self) -> bool:
        """Whether nothing could be certified but always taking the finest scale."""
        return self.price == FINEST_ALWAYS


def harmful(score: np.ndarray, rungs: np.ndarray) -> np.ndarray:
    """(B,) bool: right at the finest scale, wrong at the chosen one; score: (B, S), rungs: (B,)."""
    return (score[:, -1] >= RIGHT) & (score[np.arange(len(rungs)), rungs] < RIGHT)


def helpful(score: np.ndarray, rungs: np.ndarray) -> np.ndarray:
    """(B,) bool: wrong at the finest scale, right at the chosen one."""
    return (score[:, -1] < RIGHT) & (score[np.arange(len(rungs)), rungs] >= RIGHT)


def certified_price(
    worths: np.ndarray, score: np.ndarray, prices: Sequence[float], alpha: float, confidence: float
) -> tuple[float, int]:
    """The dearest price that is certified, and its harmful flips.

    Args:
        worths: (B, S) of `router.policy.worth`, one row a picture.
        score: (B, S).
        prices: rising, from `FINEST_ALWAYS`, which flips nothing and needs no test.

    Raises:
        InvalidInput: alpha or confidence outside (0, 1).
    """
    check_level(alpha, confidence)
    kept = FINEST_ALWAYS, 0
    for price in prices:
        if price == FINEST_ALWAYS:
            continue
        flips = int(harmful(score, choose_rung(worths, price)).sum())
        if binom.cdf(flips, len(score), alpha) > 1 - confidence:
            break
        kept = price, flips
    return kept


def flip_bound(flips: int, rows: int, confidence: float) -> float:
    """Upper limit of a rate seen `flips` times in `rows` (Clopper and Pearson, 1934).

    >>> round(flip_bound(49, 981, 0.9), 4)
    0.0601
    """
    return 1.0 if flips >= rows else float(beta.ppf(confidence, flips + 1, rows - flips))


def rows_needed(alpha: float, rate: float, confidence: float, power: float = 0.9, most: int = 1_000_000) -> int | None:
    """Samples from which on a price with true flip rate `rate` is certified at `alpha` in `power` of all draws.

    None where more than `most` would be needed. For one test; a sequence needs a little more.

    >>> rows_needed(0.03, 0.015, 0.9)
    707
    """
    rows, step = 1, 1
    while rows <= most and not _enough(rows, alpha, rate, confidence, power):
        rows, step = rows * 2, rows
    if rows > most:
        return None
    low, high = step, rows
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _enough(middle, alpha, rate, confidence, power) else (middle + 1, high)
    return low


def _enough(rows: int, alpha: float, rate: float, confidence: float, power: float) -> bool:
    most = int(binom.ppf(1 - confidence, rows, alpha))
    if binom.cdf(most, rows, alpha) > 1 - confidence:
        most -= 1
    return most >= 0 and bool(binom.cdf(most, rows, rate) >= power)


def one_a_picture(pictures: np.ndarray, seed: int) -> np.ndarray:
    """Indices of one sample of each picture, chosen at random: a picture's samples succeed and fail together."""
    order = np.random.default_rng(seed).permutation(len(pictures))
    return order[np.sort(np.unique(pictures[order], return_index=True)[1])]


def check_level(alpha: float, confidence: float) -> None:
    """Raises InvalidInput unless both lie between 0 and 1."""
    for name, value in (("--certify", alpha), ("--confidence", confidence)):
        if not 0 < value < 1:
            raise InvalidInput(f"{name} {value:g} must lie between 0 and 1")
