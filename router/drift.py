"""Whether traffic still asks for the scales that it did at calibration."""

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping

from complexity.errors import InvalidInput, OffLadder

LEAST = 0.5  # of a decision: counted for a scale that wasn't seen, whose logarithm would be infinite


class Drift:
    """Compares the last decisions' mix of scales with the expected one.

    Only what the predictor was free to choose belongs here: no forced scale, no fallback, no floor or ceiling.

    Args:
        expected: share of each scale, which add up to 1.
        window: decisions that are compared. Without any drift the index is about (scales - 1) / window on average,
            so 1000 decisions tell 0.1, a small drift, well from none.

    Raises:
        InvalidInput: shares that are negative or don't add up to 1, or a window below 1.
    """

    def __init__(self, expected: Mapping[int, float], window: int = 1000):
        shares = expected.values()
        if not expected or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-3):
            raise InvalidInput(f"expected shares {dict(expected)} must be at least 0 and add up to 1", "expected")
        if window < 1:
            raise InvalidInput(f"window {window} must be at least 1 decision", "window")
        self._expected = dict(expected)
        self._last: deque[int] = deque(maxlen=window)
        self._counts: Counter[int] = Counter()

    def add(self, tokens: int) -> None:
        """Note a decision; raises OffLadder for a scale that isn't among the expected."""
        if tokens not in self._expected:
            raise OffLadder(tokens, sorted(self._expected))
        if len(self._last) == self._last.maxlen:
            self._counts[self._last[0]] -= 1
        self._last.append(tokens)
        self._counts[tokens] += 1

    def index(self) -> float | None:
        """The population stability index of the last decisions, at least 0; None until the window is full."""
        seen = len(self._last)
        if seen != self._last.maxlen:
            return None
        pairs = ((share, self._counts[tokens] / seen) for tokens, share in self._expected.items())
        return stability_index(pairs, LEAST / seen)


def stability_index(shares: Iterable[tuple[float, float]], least: float) -> float:
    """Sum of (actual - expected) ln(actual / expected) over (expected, actual) shares, none taken below `least`.

    By custom below 0.1 is no change, up to 0.25 a small one, above a large one. Source: N. Siddiqi, Credit Risk
    Scorecards (2006); it is the symmetric Kullback-Leibler divergence of H. Jeffreys (1946).
    """
    floored = ((max(expected, least), max(actual, least)) for expected, actual in shares)
    return math.fsum((actual - expected) * math.log(actual / expected) for expected, actual in floored)
