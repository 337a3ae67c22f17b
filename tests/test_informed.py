"""The informed bound on made-up worlds: latents that tell are worth much, others nothing."""

import numpy as np

from training_data.drawn.informed import informed_bound

LADDER = (1, 9, 36, 144, 576)


def world(samples: int, tells: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Samples of one family whose needed scale is drawn evenly; the latent is that scale, or noise."""
    rng = np.random.default_rng(0)
    needed = rng.integers(0, len(LADDER), samples)
    score = (np.arange(len(LADDER)) >= needed[:, None]).astype(float)
    latent = needed if tells else rng.integers(0, len(LADDER), samples)
    return score, np.full(samples, "one"), np.arange(samples) // 2, latent[:, None].astype(float)


def test_latents_that_tell_the_needed_scale_are_worth_much():
    """Where the family says nothing and the latents say all, the informed predictor leads by tens of points."""
    score, family, group, latents = world(1000, tells=True)
    bound = informed_bound(score, LADDER, family, group, latents)
    assert bound.gain > 0.15 and 9 <= bound.gain_tokens <= 60


def test_latents_that_tell_nothing_gain_nothing():
    """Cross-fitting keeps noise from looking like knowledge."""
    score, family, group, latents = world(2000, tells=False)
    assert informed_bound(score, LADDER, family, group, latents).mean_gain < 0.02
