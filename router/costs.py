"""What a scale costs: its visual tokens, or what a deployment measured."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from complexity.errors import InvalidInput


@dataclass(frozen=True)
class Costs:
    """Costs of scales in some unit, rising with the scale."""

    unit: str
    by_tokens: dict[int, float]
    source: str = ""  # name of the file

    @classmethod
    def of_tokens(cls, ladder: Sequence[int]) -> "Costs":
        """A scale costs its visual tokens."""
        return cls("tokens", {tokens: float(tokens) for tokens in ladder})

    @classmethod
    def read(cls, path: Path) -> "Costs":
        """Read {"unit": "ms", "costs": {"1": 5.1, "9": 5.3, ...}}.

        Raises:
            InvalidInput: the file can't be read or isn't such an object.
        """
        try:
            told = json.loads(path.read_text())
            return cls(str(told["unit"]), {int(t): float(cost) for t, cost in told["costs"].items()}, path.name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise InvalidInput(f"{path}: not a table of costs ({error!r})") from None

    def on(self, ladder: Sequence[int]) -> "Costs":
        """The costs of a ladder's rungs.

        Raises:
            InvalidInput: a rung has no cost, or costs don't rise along the ladder.

        >>> Costs("ms", {1: 12.9, 9: 13.1, 36: 16.1}).on((1, 36)).values
        (12.9, 16.1)
        """
        missing = [tokens for tokens in ladder if tokens not in self.by_tokens]
        if missing:
            raise InvalidInput(f"--costs: no cost for {missing} of the ladder {tuple(ladder)}")
        values = [self.by_tokens[tokens] for tokens in ladder]
        if not all(math.isfinite(value) for value in values) or any(
            after <= before for before, after in zip(values, values[1:], strict=False)
        ):
            raise InvalidInput(f"--costs: {values} must be finite and rise along the ladder {tuple(ladder)}")
        return Costs(self.unit, dict(zip(ladder, values, strict=True)), self.source)

    @property
    def values(self) -> tuple[float, ...]:
        """By rising number of tokens."""
        return tuple(self.by_tokens[tokens] for tokens in sorted(self.by_tokens))
