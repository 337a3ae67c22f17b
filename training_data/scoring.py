"""How right is an answer? Per sample, in [0, 1]."""

from collections.abc import Sequence


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 where the prediction is one of the references, case and outer blanks aside; else 0.0.

    >>> exact_match(" Exit", ["EXIT"])
    1.0
    """
    said = prediction.strip().casefold()
    return float(any(said == reference.strip().casefold() for reference in references))
