"""How an answer's tokens are chosen: the likeliest, or by chance."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Greedy at temperature 0."""

    temperature: float = 0.0
    top_p: float = 1.0  # choose from the likeliest tokens that together have this probability
    seed: int = 0

    def generator(self) -> torch.Generator | None:
        """A source of chance of its own, so that company in a batch doesn't change the answer; None when greedy."""
        return torch.Generator().manual_seed(self.seed) if self.temperature > 0 else None


def sample(logprobs: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One token by chance, of log-probabilities (V,)."""
    chances = (logprobs.cpu() / sampling.temperature).softmax(-1)
    ranked, order = chances.sort(descending=True)
    ranked[ranked.cumsum(0) - ranked >= sampling.top_p] = 0
    return int(order[ranked.multinomial(1, generator=generator)])
