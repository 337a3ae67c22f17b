"""How much of "right at some scale" is luck? The chance that an answer comes out right if it were asked anew.

The oracle picks the best of several tries, so it keeps every lucky guess. A second rendering of the same pictures
(`sweep-m3 --again 1`) asks anew and is believed where there is one. Where there is none, a model of thresholds stands
in: within a task each sample needs some rung, or none will do; from that rung on it is right but for slips, below it
wrong but for guesses (a Guttman scale with errors: Proctor, Psychometrika 35, 1970). The task's rates of slips and of
guesses and the shares of the needed rungs are fitted to how often each pattern of rights and wrongs occurs.

What it can't see: a guess that is right at many scales alike looks like skill, in the model as in a second rendering,
so luck is rather under- than overestimated; and a finer scale that harms for a reason looks like a slip. A second
rendering that is moved by a pixel hardly differs at coarse scales, whose guesses it repeats: it finds less luck there.
"""

import numpy as np

ROUNDS = 300
# answers and samples that are believed before any is seen, so that tasks with few samples stay finite
GUESSES = 1.0, 3.0  # right, wrong
SLIPS = 0.5, 9.5  # wrong, right
EACH_RUNG = 0.5


def chances_anew(score: np.ndarray, task: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The score that each answer is expected to earn when asked anew, by the threshold model: (B, S).

    Args:
        score: (B, S) in [0, 1]; right means `score >= threshold`. Soft scores are expected at their task's and scale's
            mean among right and among wrong answers.
        task: (B,); slips and guesses are a task's own.
    """
    anew = np.empty(score.shape)
    for name in np.unique(task):
        own = task == name
        right = score[own] >= threshold
        patterns, which = np.unique(right, axis=0, return_inverse=True)
        counts = np.bincount(which.ravel(), minlength=len(patterns)).astype(float)
        chance = fit_thresholds(patterns, counts)[which.ravel()]  # of being right
        earned = [_mean_where(score[own], right == side, 1.0 if side else 0.0) for side in (True, False)]
        anew[own] = chance * earned[0] + (1 - chance) * earned[1]
    return anew


def fit_thresholds(patterns: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """P(right anew) at each scale for each pattern of rights: (P, S) bool, (P,) -> (P, S); by "
    "expectation-maximisation."""
    scales = patterns.shape[1]
    able = np.arange(scales) >= np.arange(scales + 1)[:, None]  # (K, S): at which rungs who needs the k-th is able
    right, wrong = patterns.astype(float), 1.0 - patterns
    kept, slipped = right @ able.T, wrong @ able.T  # (P, K) answers of the able
    guessed, failed = right @ ~able.T, wrong @ ~able.T  # and of the others
    shares, slip, guess = np.full(scales + 1, 1 / (scales + 1)), 0.05, 0.25
    for _ in range(ROUNDS):
        likelihood = slip**slipped * (1 - slip) ** kept * guess**guessed * (1 - guess) ** failed
        needs = shares * likelihood
        needs /= needs.sum(axis=1, keepdims=True)  # (P, K): P(needs the k-th rung)
        weight = counts[:, None] * needs
        slips, keeps = (weight * slipped).sum() + SLIPS[0], (weight * kept).sum() + SLIPS[1]
        guesses, fails = (weight * guessed).sum() + GUESSES[0], (weight * failed).sum() + GUESSES[1]
        slip, guess = slips / (slips + keeps), guesses / (guesses + fails)
        shares = weight.sum(axis=0) + EACH_RUNG
        shares /= shares.sum()
    return np.asarray(needs @ np.where(able, 1 - slip, guess))


def _mean_where(score: np.ndarray, which: np.ndarray, otherwise: float) -> np.ndarray:
    """(S,) means of the scores that are picked, per scale; `otherwise` where none is."""
    counts = which.sum(axis=0)
    return np.where(counts > 0, (score * which).sum(axis=0) / np.maximum(counts, 1), otherwise)
