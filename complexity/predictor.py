"""P(right answer) at every scale of a ladder, from a picture's features and the question."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from sklearn.linear_model import LogisticRegression

from complexity.errors import ArtifactError
from complexity.features import FEATURE_VERSIONS, NAMES, Place, joint_features
from complexity.trees import checked_trees

PREDICTOR_FILE, TREES_FILE = "predictor.json", "predictor.txt"
Texts = Sequence[str] | np.ndarray
SHOWN_CHARS = 200  # of what is wrong with a file
MOST_CERTAIN = 1e-4  # no probability lies nearer to 0 or 1


@dataclass(frozen=True)
class FitOptions:
    """How a predictor is fitted."""

    seed: int = 0
    threads: int = 2
    rounds: int = 600  # trees at most; held-out pictures say when to stop
    patience: int = 30  # rounds without progress on them
    held_out: float = 0.15  # share of the pictures
    learning_rate: float = 0.08
    leaves: int = 31
    samples_per_leaf: int = 40


@dataclass(frozen=True)
class ComplexityPredictor:
    """One LightGBM model with the scale as a feature, and a logistic calibration of each scale; immutable, usable from
    several threads.

    What the scales have in common is learnt once: a model for each was a point worse at 16 to 25 tokens.
    """

    ladder: tuple[int, ...]
    booster: lgb.Booster
    calibration: np.ndarray  # (S, 2) slope (positive) and offset on the log-odds
    place: Place = "light"  # whose features of the picture it takes

    @classmethod
    def fit(
        cls,
        image_features: np.ndarray,
        questions: Texts,
        score: np.ndarray,
        pictures: Texts,
        ladder: Sequence[int],
        options: FitOptions | None = None,
        place: Place = "light",
    ) -> "ComplexityPredictor":
        """Learn from what a model scored at every scale, or at those that are known; the same for the same arguments.

        A share of the pictures teaches no trees: it says when to stop, and calibrates (Platt scaling, 1999).

        Args:
            image_features: (B, F), of the pixels or of the tower as `place` says.
            questions: B questions.
            score: (B, S) in [0, 1]; NaN: not known, which teaches nothing.
            pictures: B names of the pictures.
            ladder: S numbers of tokens.
        """
        options = options or FitOptions()
        columns = _at_every_scale(joint_features(image_features, questions, place), len(ladder))  # (B * S, F + Q + 1)
        score = np.asarray(score)
        known = ~np.isnan(score)  # (B, S)
        held_out = _held_out(pictures, options)  # (B,) bool
        watched = (held_out[:, None] & known).ravel()
        booster = _boost(columns, score.ravel(), (~held_out[:, None] & known).ravel(), watched, options)
        fresh = cls(tuple(ladder), booster, np.tile([1.0, 0.0], (len(ladder), 1)), place)
        odds = fresh._log_odds(image_features[held_out], np.asarray(questions, object)[held_out])
        calm = [_platt(odds[told, scale], score[held_out, scale][told]) for scale, told in enumerate(known[held_out].T)]
        return replace(fresh, calibration=np.array(calm))

    def predict_proba(self, image_features: np.ndarray, questions: Texts) -> np.ndarray:
        """(B, F) features and B questions -> (B, S) P(right answer) at each rung of the ladder."""
        odds = self._log_odds(image_features, questions) * self.calibration[:, 0] + self.calibration[:, 1]
        return np.clip(1 / (1 + np.exp(-odds)), MOST_CERTAIN, 1 - MOST_CERTAIN)

    def _log_odds(self, image_features: np.ndarray, questions: Texts) -> np.ndarray:
        columns = _at_every_scale(joint_features(image_features, questions, self.place), len(self.ladder))
        odds = np.asarray(self.booster.predict(columns, raw_score=True, num_threads=1))
        return odds.reshape(-1, len(self.ladder))  # (B, S)

    def importance(self, most: int = 20) -> list[tuple[str, float]]:
        """The features that the trees gain most by, with their shares of the gain."""
        gains = self.booster.feature_importance("gain")
        names = [*NAMES[self.place], "scale"]
        best = np.argsort(-gains, kind="stable")[:most]
        return [(names[i], float(gains[i] / max(gains.sum(), 1e-12))) for i in best]

    def contributions(
        self, image_features: np.ndarray, question: str, tokens: int, most: int = 5
    ) -> list[tuple[str, float]]:
        """The features that moved a sample's prediction at one rung most, with what each adds to its log-odds.

        TreeSHAP (Lundberg et al., 2020), after the calibration: all of them and a number that every sample has in
        common at that rung add up to the log-odds of P(right answer). The scale itself counts as a feature.

        Args:
            image_features: (F,) of the sample's picture.
            tokens: a rung of the ladder.
            most: how many are told, by falling size.
        """
        rung = self.ladder.index(tokens)
        columns = _at_every_scale(joint_features(image_features[None], [question], self.place), len(self.ladder))
        told = np.asarray(self.booster.predict(columns[rung : rung + 1], pred_contrib=True, num_threads=1))[0]
        moved = told[:-1] * self.calibration[rung, 0]  # the last one is what all samples share
        names = [*NAMES[self.place], "scale"]
        best = np.argsort(-np.abs(moved), kind="stable")[:most]
        return [(names[i], float(moved[i])) for i in best]

    def save(self, folder: Path) -> None:
        """Write the trees in LightGBM's text format and the rest as JSON."""
        self.booster.save_model(folder / TREES_FILE)
        said = {
            "ladder": self.ladder,
            "place": self.place,
            "feature_version": FEATURE_VERSIONS[self.place],
            "features": len(NAMES[self.place]),
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
            place, version, features = said["place"], said["feature_version"], said["features"]
            wanted = FEATURE_VERSIONS[place], len(NAMES[place])
            trees = (folder / TREES_FILE).read_text()
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ArtifactError(f"{folder}: the predictor can't be read ({repr(error)[:SHOWN_CHARS]})") from None
        if (version, features) != wanted:
            raise ArtifactError(
                f"{folder}: made for {str(features)[:SHOWN_CHARS]} features of version {str(version)[:SHOWN_CHARS]}; "
                f"this code computes {wanted[1]} of version {wanted[0]}"
            )
        if any(type(rung) is not int or rung < 1 for rung in ladder) or list(ladder) != sorted(set(ladder)):
            raise ArtifactError(f"{folder / PREDICTOR_FILE}: the ladder is no rising list of positive whole numbers")
        fits = (
            calibration.shape == (len(ladder), 2) and np.isfinite(calibration).all() and (calibration[:, 0] > 0).all()
        )
        if not ladder or not fits:
            raise ArtifactError(f"{folder / PREDICTOR_FILE}: the calibration isn't a rising line for each rung")
        try:
            booster = lgb.Booster(model_str=checked_trees(trees, wanted[1] + 1))  # and the scale
        except (ValueError, lgb.basic.LightGBMError) as error:
            raise ArtifactError(f"{folder}: {TREES_FILE} can't be read ({str(error)[:SHOWN_CHARS]})") from None
        return cls(ladder, booster, calibration, place)


def _at_every_scale(columns: np.ndarray, scales: int) -> np.ndarray:
    """Each sample's row (B, C) once for each scale, with the scale's index behind it: (B * S, C + 1)."""
    index = np.tile(np.arange(scales, dtype=columns.dtype), len(columns))
    return np.column_stack([columns.repeat(scales, 0), index])


def _held_out(pictures: Texts, options: FitOptions) -> np.ndarray:
    names, codes = np.unique(np.asarray(pictures, dtype=str), return_inverse=True)
    chosen = np.random.default_rng(options.seed).random(len(names)) < options.held_out
    return chosen[codes]


def boosting(options: FitOptions) -> dict[str, Any]:
    """LightGBM's settings; its cross-entropy takes scores between 0 and 1 as they are."""
    return {
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


def _boost(
    columns: np.ndarray, score: np.ndarray, teach: np.ndarray, watch: np.ndarray, options: FitOptions
) -> lgb.Booster:
    taught = lgb.Dataset(columns[teach], score[teach])
    watched = lgb.Dataset(columns[watch], score[watch], reference=taught)
    stop = lgb.early_stopping(options.patience, verbose=False)
    return lgb.train(boosting(options), taught, options.rounds, valid_sets=[watched], callbacks=[stop])


def _platt(odds: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Slope and offset that make the log-odds fit the scores; a soft score counts as partly right, partly wrong."""
    if len(score) == 0:  # nobody knows how a scale scored: the trees are believed as they are
        return 1.0, 0.0
    mean = np.clip(score.mean(), MOST_CERTAIN, 1 - MOST_CERTAIN)
    average = 1e-6, float(np.log(mean / (1 - mean)))  # the best guess where the predictor knows nothing of a scale
    right, weight = np.repeat([1, 0], len(score)), np.concatenate([score, 1 - score])
    if weight[right == 1].sum() == 0 or weight[right == 0].sum() == 0:
        return average
    fitted = LogisticRegression(C=1e6).fit(np.tile(odds, 2)[:, None], right, sample_weight=weight)
    slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return (slope, offset) if slope > 0 else average
