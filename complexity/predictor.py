"""P(right answer) at every scale of a ladder, from a picture's features and the question."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
from sklearn.linear_model import LogisticRegression

from complexity.errors import ArtifactError
from complexity.features import FEATURE_NAMES, FEATURE_VERSION, joint_features

PREDICTOR_FILE = "predictor.json"
Texts = Sequence[str] | np.ndarray
MOST_CERTAIN = 1e-4  # no probability lies nearer to 0 or 1


@dataclass(frozen=True)
class FitOptions:
    """How a predictor is fitted."""

    seed: int = 0
    threads: int = 2
    rounds: int = 400  # trees per scale at most; held-out pictures say when to stop
    patience: int = 30  # rounds without progress on them
    held_out: float = 0.15  # share of the pictures
    learning_rate: float = 0.05
    leaves: int = 15
    samples_per_leaf: int = 40


@dataclass(frozen=True)
class ComplexityPredictor:
    """One LightGBM model per scale and a logistic calibration of each; immutable, usable from several threads."""

    ladder: tuple[int, ...]
    boosters: tuple[lgb.Booster, ...]  # S
    calibration: np.ndarray  # (S, 2) slope (positive) and offset on the log-odds

    @classmethod
    def fit(
        cls,
        image_features: np.ndarray,
        questions: Texts,
        score: np.ndarray,
        pictures: Texts,
        ladder: Sequence[int],
        options: FitOptions | None = None,
    ) -> "ComplexityPredictor":
        """Learn from what a model scored at every scale; the same for the same arguments.

        Args:
            image_features: (B, F).
            questions: B questions.
            score: (B, S) in [0, 1].
            pictures: B names of the pictures, so that none both teaches and says when to stop.
            ladder: S numbers of tokens.
        """
        options = options or FitOptions()
        columns = joint_features(image_features, questions)  # (B, F + Q)
        held_out = _held_out(pictures, options)  # (B,) bool
        boosters = tuple(_boost(columns, score[:, scale], held_out, options) for scale in range(len(ladder)))
        return cls(tuple(ladder), boosters, np.tile([1.0, 0.0], (len(ladder), 1)))

    def calibrated(self, image_features: np.ndarray, questions: Texts, score: np.ndarray) -> "ComplexityPredictor":
        """The same predictor with its probabilities fitted to pictures it hasn't seen (Platt scaling, 1999)."""
        odds = self._log_odds(image_features, questions)
        fitted = [_platt(odds[:, scale], score[:, scale]) for scale in range(len(self.ladder))]
        return replace(self, calibration=np.array(fitted))

    def predict_proba(self, image_features: np.ndarray, questions: Texts) -> np.ndarray:
        """(B, F) features and B questions -> (B, S) P(right answer) at each rung of the ladder."""
        odds = self._log_odds(image_features, questions) * self.calibration[:, 0] + self.calibration[:, 1]
        return np.clip(1 / (1 + np.exp(-odds)), MOST_CERTAIN, 1 - MOST_CERTAIN)

    def _log_odds(self, image_features: np.ndarray, questions: Texts) -> np.ndarray:
        columns = joint_features(image_features, questions)
        return np.stack([b.predict(columns, raw_score=True, num_threads=1) for b in self.boosters], axis=1)

    def save(self, folder: Path) -> None:
        """Write LightGBM's text format, a file per scale, and the rest as JSON."""
        for tokens, booster in zip(self.ladder, self.boosters, strict=True):
            booster.save_model(folder / _booster_file(tokens))
        said = {
            "ladder": self.ladder,
            "feature_version": FEATURE_VERSION,
            "features": len(FEATURE_NAMES),
            "calibration": self.calibration.tolist(),
        }
        (folder / PREDICTOR_FILE).write_text(json.dumps(said, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "ComplexityPredictor":
        """Read what `save` wrote; nothing in it is executed.

        Raises:
            ArtifactError: a file is missing or broken, or was made for another version of the features.
        """
        try:
            said = json.loads((folder / PREDICTOR_FILE).read_text())
            ladder, calibration = tuple(said["ladder"]), np.array(said["calibration"], float)
            version, features = said["feature_version"], said["features"]
            texts = [(folder / _booster_file(tokens)).read_text() for tokens in ladder]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{folder}: the predictor can't be read ({error!r})") from None
        if (version, features) != (FEATURE_VERSION, len(FEATURE_NAMES)):
            raise ArtifactError(
                f"{folder}: made for {features} features of version {version}; "
                f"this code computes {len(FEATURE_NAMES)} of version {FEATURE_VERSION}"
            )
        try:
            boosters = tuple(lgb.Booster(model_str=text) for text in texts)
        except lgb.basic.LightGBMError as error:
            raise ArtifactError(f"{folder}: a scale's model can't be read ({error})") from None
        if calibration.shape != (len(ladder), 2) or any(b.num_feature() != features for b in boosters):
            raise ArtifactError(f"{folder}: the predictor's files don't fit each other")
        return cls(ladder, boosters, calibration)


def _booster_file(tokens: int) -> str:
    return f"scale-{tokens}.txt"


def _held_out(pictures: Texts, options: FitOptions) -> np.ndarray:
    names, codes = np.unique(np.asarray(pictures, dtype=str), return_inverse=True)
    chosen = np.random.default_rng(options.seed).random(len(names)) < options.held_out
    return chosen[codes]


def _boost(columns: np.ndarray, score: np.ndarray, held_out: np.ndarray, options: FitOptions) -> lgb.Booster:
    """Boosted trees for one scale; cross-entropy takes scores between 0 and 1 as they are."""
    settings = {
        "objective": "cross_entropy",
        "learning_rate": options.learning_rate,
        "num_leaves": options.leaves,
        "min_data_in_leaf": options.samples_per_leaf,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "seed": options.seed,
        "num_threads": options.threads,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    taught = lgb.Dataset(columns[~held_out], score[~held_out])
    watched = lgb.Dataset(columns[held_out], score[held_out], reference=taught)
    stop = lgb.early_stopping(options.patience, verbose=False)
    return lgb.train(settings, taught, options.rounds, valid_sets=[watched], callbacks=[stop])


def _platt(odds: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Slope and offset that make the log-odds fit the scores; a soft score counts as partly right, partly wrong."""
    right, weight = np.repeat([1, 0], len(score)), np.concatenate([score, 1 - score])
    if weight[right == 1].sum() == 0 or weight[right == 0].sum() == 0:
        return 1.0, 0.0
    fitted = LogisticRegression(C=1e6).fit(np.tile(odds, 2)[:, None], right, sample_weight=weight)
    slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope <= 0:  # the predictor knows nothing of this scale: its average is the best guess
        mean = np.clip(score.mean(), MOST_CERTAIN, 1 - MOST_CERTAIN)
        return 1e-6, float(np.log(mean / (1 - mean)))
    return slope, offset
