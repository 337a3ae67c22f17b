"""Which granularity: the number of visual tokens that is worth its price, given how likely each is to be right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from complexity.errors import InvalidInput

Why = Literal["predicted", "cached", "forced", "fallback"]


@dataclass(frozen=True)
class Decision:
    """How many visual tokens a sample gets, and why."""

    tokens: int  # visual tokens per grid, a rung of the ladder
    ladder: tuple[int, ...]
    probabilities: tuple[float, ...] | None  # P(right answer) at each rung; None when nobody asked the predictor
    why: Why
    price: float  # probability of a right answer per visual token
    artifact: str  # digest of the artifact that decided
    latency_ms: float


def choose(probabilities: np.ndarray, ladder: Sequence[int], price: float) -> np.ndarray:
    """The rung with the highest P(right) - price * tokens; of equals the one with fewer tokens.

    `price` is what one visual token must bring, in probability of a right answer: 0 takes the rung most likely right,
    0.0001 pays up to 144 tokens for 1.44 points. A lower price never gives fewer tokens.

    Args:
        probabilities: (S,) or (B, S) in [0, 1].
        ladder: S rising numbers of tokens.
        price: at least 0.

    Returns:
        Tokens, () or (B,).

    Raises:
        InvalidInput: a negative price, or probabilities of another length than the ladder.
    """
    check_price(price)
    return np.asarray(ladder)[choose_rung(worth(probabilities, ladder), price)]


def worth(probabilities: np.ndarray, ladder: Sequence[int]) -> np.ndarray:
    """The price below which each rung is better than every coarser one: (..., S); infinite for the coarsest.

    Rung j beats rung i < j as long as the price is under (P_j - P_i) / (tokens_j - tokens_i), so it beats all of them
    under the smallest of these slopes.
    """
    p = np.asarray(probabilities, np.float64)
    tokens = np.asarray(ladder, np.float64)
    if p.shape[-1:] != tokens.shape:
        raise InvalidInput(f"{p.shape[-1:]} probabilities for the {len(tokens)} rungs of the ladder {tuple(ladder)}")
    worths = np.full(p.shape, np.inf)
    for j in range(1, len(tokens)):
        slopes = (p[..., j, None] - p[..., :j]) / (tokens[j] - tokens[:j])
        worths[..., j] = slopes.min(axis=-1)
    return worths


def choose_rung(worths: np.ndarray, price: float) -> np.ndarray:
    """Index of the best rung at a price: the finest that is worth it.

    Every rung finer than the best loses to the best, so its worth is at most the price. Comparing worths, which don't
    depend on the price, instead of utilities keeps the choice monotone in the price in spite of rounding.
    """
    rungs = worths.shape[-1]
    return rungs - 1 - (worths > price)[..., ::-1].argmax(axis=-1)


def check_price(price: float) -> None:
    """Raises InvalidInput unless the price is a finite number of at least 0."""
    if not (np.isfinite(price) and price >= 0):
        raise InvalidInput(f"price {price!r} must be a number of at least 0 (probability per visual token)", "price")
