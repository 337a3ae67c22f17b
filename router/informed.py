"""The informed bound: what a predictor gains that is given what only the maker of the samples knows.

The raw oracle picks the best of several correlated tries, so most of its lead is luck that nobody can predict. The
informed predictor knows a sample's task and its latents (a drawn picture's number of things, the size of the one asked
for, the answer's length): what a perfect look at the picture and the question would tell.
"""

from collections.abc import Callable

import lightgbm as lgb
import numpy as np

from router.lookup import Lookup

Informed = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (B,) tasks, (B, L) latents -> (B, S) P(right)
LEAST, MOST = 0.005, 0.995  # probabilities that the lookup starts the trees from


def fit_informed(score: np.ndarray, task: np.ndarray, latents: np.ndarray, seed: int = 0) -> Informed:
    """One boosted model over (sample, scale) that starts from the per-task lookup's log-odds.

    Args:
        score: (B, S) of training samples.
        task: (B,) the lookup's key.
        latents: (B, L).
    """
    scales = score.shape[1]
    table = Lookup.fit(task, score)
    codes = {name: float(code) for code, name in enumerate(np.unique(task))}

    def rows(task: np.ndarray, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = np.clip(table.predict_proba(task), LEAST, MOST)  # (B, S)
        own = np.array([codes.get(name, np.nan) for name in task])
        wide = np.column_stack([own, latents]).repeat(scales, 0)
        return np.column_stack([wide, np.tile(np.arange(scales), len(task))]), np.log(known / (1 - known)).ravel()

    settings = {
        "objective": "cross_entropy",
        "learning_rate": 0.05,
        "num_leaves": 15,
        "min_data_in_leaf": 40,
        "feature_fraction": 0.8,
        "lambda_l2": 5.0,
        "seed": seed,
        "num_threads": 2,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    data, start = rows(task, latents)
    taught = lgb.Dataset(data, score.ravel(), init_score=start, categorical_feature=[0])
    trained = lgb.train(settings, taught, num_boost_round=150)

    def predict(task: np.ndarray, latents: np.ndarray) -> np.ndarray:
        data, start = rows(task, latents)
        odds = np.asarray(trained.predict(data, raw_score=True)) + start
        return (1 / (1 + np.exp(-odds))).reshape(-1, scales)

    return predict
