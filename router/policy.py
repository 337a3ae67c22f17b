"""Which granularity: the number of visual tokens that is worth its price, given how likely each is to be right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from complexity.errors import InvalidInput, OffLadder

FINEST_ALWAYS = -1.0  # the price at which nothing but the finest rung is taken

Why = Literal["predicted", "cached", "forced", "fallback", "unfamiliar", "unsure"]


@dataclass(frozen=True)
class Wish:
    """What a request asks of a router; nothing, unless given."""

    floor: int | None = None  # fewest and most tokens that may be chosen, rungs of the ladder
    ceiling: int | None = None
    max_loss: float | None = None  # accuracy that may be lost against the finest scale, a share; has a price
    price: float | None = None  # probability of a right answer per unit of cost; None: the router's own
    fresh: bool = False  # predict anew, whatever is remembered; a prediction that is just being made will do
    store: bool = True  # remember what is predicted


FREE = Wish()


@dataclass(frozen=True)
class Decision:
    """How many visual tokens a sample gets, and why."""

    tokens: int  # visual tokens per grid, a rung of the ladder
    ladder: tuple[int, ...]
    probabilities: tuple[float, ...] | None  # P(right answer) at each rung; None when nobody asked the predictor
    why: Why
    price: float  # probability of a right answer per unit of cost
    artifact: str  # digest of the artifact that decided
    latency_ms: float


def choose(
    probabilities: np.ndarray,
    ladder: Sequence[int],
    price: float,
    costs: Sequence[float] | None = None,
    floor: int | None = None,
    ceiling: int | None = None,
) -> np.ndarray:
    """The rung with the highest P(right) - price * cost; of equals the one with fewer tokens.

    `price` is what one unit of cost must bring, in probability of a right answer. With tokens as costs 0.0001 pays up
    to 144 tokens for 1.44 points, 0 takes the rung most likely right, and below 0 finer rungs are preferred at equal
    chances: -1 always takes the finest. A lower price never gives fewer tokens.

    Args:
        probabilities: (S,) or (B, S) in [0, 1].
        ladder: S rising numbers of tokens.
        price: at least -1.
        costs: S rising costs of the rungs; their tokens unless given.
        floor, ceiling: fewest and most tokens that may be chosen, rungs of the ladder.

    Returns:
        Tokens, () or (B,).

    Raises:
        InvalidInput: a senseless price, a floor above the ceiling, or lengths that don't fit the ladder's.
        OffLadder: floor or ceiling isn't a rung.

    >>> chances = np.array([0.03, 0.16, 0.77, 0.89, 0.88])
    >>> [int(choose(chances, (1, 9, 36, 144, 576), price)) for price in (0.01, 0.0004, 0, -1)]
    [36, 144, 144, 576]
    >>> int(choose(chances, (1, 9, 36, 144, 576), 0.0004, ceiling=36))
    36
    """
    check_price(price)
    allowed = check_bounds(ladder, floor, ceiling)
    worths = worth(probabilities, ladder if costs is None else costs)  # checks the lengths
    if allowed != slice(0, len(ladder)):
        costs = ladder if costs is None else costs
        worths = worth(np.asarray(probabilities)[..., allowed], costs[allowed])
    return np.asarray(ladder)[allowed][choose_rung(worths, price)]


def check_bounds(ladder: Sequence[int], floor: int | None, ceiling: int | None) -> slice:
    """The rungs from floor to ceiling, as a slice of the ladder.

    Raises:
        InvalidInput: the floor is above the ceiling.
        OffLadder: one of them isn't a rung.
    """
    for bound, name in ((floor, "floor"), (ceiling, "ceiling")):
        if bound is not None and bound not in ladder:
            raise OffLadder(bound, ladder, name)
    first = 0 if floor is None else ladder.index(floor)
    last = len(ladder) - 1 if ceiling is None else ladder.index(ceiling)
    if first > last:
        raise InvalidInput(f"the floor of {floor} tokens is above the ceiling of {ceiling}", "floor")
    return slice(first, last + 1)


def worth(probabilities: np.ndarray, costs: Sequence[float]) -> np.ndarray:
    """The price below which each rung is better than every coarser one: (..., S); infinite for the coarsest.

    Rung j beats rung i < j as long as the price is under (P_j - P_i) / (cost_j - cost_i), so it beats all of them
    under the smallest of these slopes.

    >>> worth(np.array([0.5, 0.75, 0.75]), (1, 9, 36)).tolist()
    [inf, 0.03125, 0.0]
    """
    p = np.asarray(probabilities, np.float64)
    cost = np.asarray(costs, np.float64)
    if p.shape[-1:] != cost.shape:
        raise InvalidInput(f"{p.shape[-1:]} probabilities for the {len(cost)} rungs of costs {tuple(costs)}")
    worths = np.full(p.shape, np.inf)
    for j in range(1, len(cost)):
        slopes = (p[..., j, None] - p[..., :j]) / (cost[j] - cost[:j])
        worths[..., j] = slopes.min(axis=-1)
    return worths


def finest_for(worths: np.ndarray, strange: np.ndarray | None) -> np.ndarray:
    """The worths (B, S) with which strange samples, (B,) bool, take the finest rung at any price."""
    if strange is None:
        return worths
    return np.where(strange[:, None] & (np.arange(worths.shape[1]) == worths.shape[1] - 1), np.inf, worths)


def choose_rung(worths: np.ndarray, price: float) -> np.ndarray:
    """Index of the best rung at a price: the finest that is worth it.

    Every rung finer than the best loses to the best, so its worth is at most the price. Comparing worths, which don't
    depend on the price, instead of utilities keeps the choice monotone in the price in spite of rounding.
    """
    rungs = worths.shape[-1]
    if price == FINEST_ALWAYS:
        return np.full(worths.shape[:-1], rungs - 1)
    return rungs - 1 - (worths > price)[..., ::-1].argmax(axis=-1)


def check_price(price: float) -> None:
    """Raises InvalidInput unless the price is a finite number of at least -1."""
    if not (np.isfinite(price) and price >= FINEST_ALWAYS):
        raise InvalidInput(f"price {price!r} must be a number of at least -1 (probability per unit of cost)", "price")
