"""What the router's predictor owes to each of its parts: features, model, targets, place.

    python benchmarks/ablate.py LABELS

Every variant is fitted and judged by cross-validation over the pictures of the train and calibration rows; the test
rows are never touched. Prints a table and, as its last line, one JSON object. Gains are points of accuracy over the
per-task lookup at equal mean tokens, averaged over 9 to 60 tokens; their spread is over folds and seeds.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, GroupShuffleSplit
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from complexity.errors import M3Error
from complexity.features import ASKED_NAMES, FEATURE_NAMES, joint_features
from complexity.image_features import IMAGE_FEATURE_NAMES
from complexity.labels import LabelTable, read_labels
from complexity.predictor import FitOptions, boosting
from router.evaluate import mixed_to, price_path
from router.informed import fit_informed
from router.lookup import Lookup
from router.report import budgets
from router.split import split_table

FOLDS = 3
F, A = len(IMAGE_FEATURE_NAMES), len(ASKED_NAMES)
BLOCKS = {  # name -> columns of joint_features
    "picture": range(F),
    "asked": range(F, F + A),
    "cues": [i for i, name in enumerate(FEATURE_NAMES) if i >= F + A and not name.startswith("hash_")],
    "words": [i for i, name in enumerate(FEATURE_NAMES) if name.startswith("hash_")],
}
ALL = ("picture", "asked", "cues", "words")


@dataclass(frozen=True)
class Variant:
    """One way to predict."""

    name: str
    blocks: tuple[str, ...] = ALL  # of BLOCKS, and "tower"
    model: str = "trees"
    soft: float = 0.0  # weight of the references' likelihood in the target
    seed: int = 0


VARIANTS = [
    Variant("as shipped"),
    Variant("as shipped, seed 1", seed=1),
    Variant("as shipped, seed 2", seed=2),
    Variant("without the picture", ("cues", "words")),
    Variant("without the question", ("picture",)),
    Variant("without what the question asks of the picture", ("picture", "cues", "words")),
    Variant("without words, cues only", ("picture", "asked", "cues")),
    Variant("without cues, words only", ("picture", "asked", "words")),
    Variant("tower instead of pixels", ("tower", "cues", "words")),
    Variant("tower beside pixels", (*ALL, "tower")),
    Variant("trees, monotone in the scale", model="monotone"),
    Variant("trees, one model per scale", model="per scale"),
    Variant("logistic regression per scale", model="logistic"),
    Variant("multi-layer perceptron, all scales at once", model="mlp"),
    Variant("targets 0.3 likelihood", soft=0.3),
    Variant("targets 0.6 likelihood", soft=0.6),
    Variant("targets likelihood alone", soft=1.0),
]


def columns_of(rows: LabelTable, blocks: tuple[str, ...]) -> np.ndarray:
    """(B, C)"""
    joint = joint_features(rows.image_features, rows.question)
    parts = [rows.tower_features if block == "tower" else joint[:, list(BLOCKS[block])] for block in blocks]
    return np.hstack(parts)


def fit_predict(variant: Variant, train: LabelTable, test: LabelTable, threads: int) -> np.ndarray:
    """(B, S) P(right) of the test rows."""
    target = train.score.astype(float)
    if variant.soft:
        likely = np.exp(train.reference_logprob)
        target = np.where(np.isfinite(likely), (1 - variant.soft) * target + variant.soft * likely, target)
    data, asked = columns_of(train, variant.blocks), columns_of(test, variant.blocks)
    parts = GroupShuffleSplit(1, test_size=0.15, random_state=variant.seed)
    learn, watch = next(parts.split(data, groups=train.image_sha256))
    options = replace(FitOptions(), seed=variant.seed, threads=threads)
    fitted = MODELS[variant.model](data, target, train.score, learn, watch, options)
    odds, held = fitted(asked), fitted(data[watch])
    return np.stack([_platt(held[:, s], train.score[watch, s], odds[:, s]) for s in range(odds.shape[1])], axis=1)


Fitted = Callable[[np.ndarray], np.ndarray]  # (B, C) -> (B, S) log-odds


def _with_scale(data: np.ndarray, scales: int) -> np.ndarray:
    return np.column_stack([data.repeat(scales, 0), np.tile(np.arange(scales, dtype=data.dtype), len(data))])


def _trees(data, target, score, learn, watch, options, monotone=False) -> Fitted:
    scales = target.shape[1]
    settings = boosting(options)
    if monotone:
        settings["monotone_constraints"] = [0] * data.shape[1] + [1]
    taught = lgb.Dataset(_with_scale(data[learn], scales), target[learn].ravel())
    watched = lgb.Dataset(_with_scale(data[watch], scales), score[watch].ravel(), reference=taught)
    stop = lgb.early_stopping(options.patience, verbose=False)
    booster = lgb.train(settings, taught, options.rounds, valid_sets=[watched], callbacks=[stop])
    return lambda rows: booster.predict(_with_scale(rows, scales), raw_score=True).reshape(-1, scales)


def _monotone(data, target, score, learn, watch, options) -> Fitted:
    return _trees(data, target, score, learn, watch, options, monotone=True)


def _per_scale(data, target, score, learn, watch, options) -> Fitted:
    boosters = []
    for scale in range(target.shape[1]):
        taught = lgb.Dataset(data[learn], target[learn, scale])
        watched = lgb.Dataset(data[watch], score[watch, scale], reference=taught)
        stop = lgb.early_stopping(options.patience, verbose=False)
        boosters.append(lgb.train(boosting(options), taught, options.rounds, valid_sets=[watched], callbacks=[stop]))
    return lambda rows: np.stack([booster.predict(rows, raw_score=True) for booster in boosters], axis=1)


def _logistic(data, target, score, learn, watch, options) -> Fitted:
    scaler = StandardScaler().fit(np.nan_to_num(data[learn]))

    def scaled(rows: np.ndarray) -> np.ndarray:
        return np.clip(scaler.transform(np.nan_to_num(rows)), -10, 10)

    told = scaled(data[learn])
    models = [LogisticRegression(C=0.1, max_iter=300).fit(told, score[learn, s] > 0.5) for s in range(score.shape[1])]
    return lambda rows: np.stack([model.decision_function(scaled(rows)) for model in models], axis=1)


def _mlp(data, target, score, learn, watch, options) -> Fitted:
    scaler = StandardScaler().fit(np.nan_to_num(data[learn]))

    def scaled(rows: np.ndarray) -> np.ndarray:
        return np.clip(scaler.transform(np.nan_to_num(rows)), -10, 10)

    model = MLPClassifier(
        (128, 64), alpha=1e-2, batch_size=256, early_stopping=True, n_iter_no_change=5, random_state=options.seed
    )
    model.fit(scaled(data[learn]), (score[learn] > 0.5).astype(int))

    def odds(rows: np.ndarray) -> np.ndarray:
        p = np.clip(model.predict_proba(scaled(rows)), 1e-6, 1 - 1e-6)
        return np.log(p / (1 - p))

    return odds


MODELS = {"trees": _trees, "monotone": _monotone, "per scale": _per_scale, "logistic": _logistic, "mlp": _mlp}


def _platt(held: np.ndarray, score: np.ndarray, odds: np.ndarray) -> np.ndarray:
    fitted = LogisticRegression(C=1e6).fit(held[:, None], score > 0.5)
    return fitted.predict_proba(odds[:, None])[:, 1]


def path_accuracy(probabilities: np.ndarray, rows: LabelTable) -> float:
    """Mean accuracy over `budgets` of choosing by price."""
    path = price_path("", probabilities, rows.score.astype(float), rows.ladder)
    mixed = [mixed_to("", path, tokens) for tokens in budgets(rows.ladder)]
    return float(np.mean([outcome.accuracy for outcome in mixed if outcome is not None]))


def measure(rows: LabelTable, threads: int, only: str) -> list[dict[str, object]]:
    """Every variant with `only` in its name, over all folds."""
    folds = list(GroupKFold(FOLDS, shuffle=True, random_state=0).split(rows.score, groups=rows.image_sha256))
    base = []
    for learn, judge in folds:
        train, test = rows.select(learn), rows.select(judge)
        lookup = Lookup.fit(train.task, train.score).predict_proba(test.task)
        predict = fit_informed(train.score, train.task, train.latents) if train.latents.shape[1] else None
        informed = None if predict is None else path_accuracy(predict(test.task, test.latents), test)
        base.append((path_accuracy(lookup, test), informed))
    found: list[dict[str, object]] = []
    for variant in tqdm([each for each in VARIANTS if only in each.name], file=sys.stderr):
        if "tower" in variant.blocks and not rows.tower_features.shape[1]:
            continue
        if variant.soft and not np.isfinite(rows.reference_logprob).any():
            continue
        gains, losses, start = [], [], time.perf_counter()
        for (learn, judge), (lookup, _) in zip(folds, base, strict=True):
            test = rows.select(judge)
            p = np.clip(fit_predict(variant, rows.select(learn), test, threads), 1e-4, 1 - 1e-4)
            gains.append(100 * (path_accuracy(p, test) - lookup))
            losses.append(float(-(test.score * np.log(p) + (1 - test.score) * np.log(1 - p)).mean()))
        seconds = (time.perf_counter() - start) / FOLDS
        found.append(
            {
                "variant": variant.name,
                "gain": round(float(np.mean(gains)), 3),
                "spread": round(float(np.std(gains)), 3),
                "log_loss": round(float(np.mean(losses)), 4),
                "seconds": round(seconds, 1),
            }
        )
        print("{variant:48}{gain:+7.2f} ± {spread:4.2f}{log_loss:9.4f}{seconds:8.1f} s".format(**found[-1]), flush=True)
    if base[0][1] is not None:
        informed = [100 * (bound - lookup) for lookup, bound in base if bound is not None]
        spread = float(np.std(informed))
        found.append(
            {"variant": "informed bound", "gain": round(float(np.mean(informed)), 3), "spread": round(spread, 3)}
        )
        print(f"{'informed bound':48}{np.mean(informed):+7.2f} ± {spread:4.2f}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Cross-validate variants of the router's predictor.")
    parser.add_argument("labels", type=Path, help="label table: a .parquet file or a folder of them")
    parser.add_argument("--threads", type=int, default=2, help="of the fits (2)")
    parser.add_argument("--only", default="", metavar="TEXT", help="variants with this in their names (all)")
    args = parser.parse_args()
    try:
        table = read_labels(args.labels)
        splits = split_table(table)
    except M3Error as error:
        print(f"ablate.py: {error}", file=sys.stderr)
        return 2
    known = np.isin(table.sample_id, np.concatenate([splits.train.sample_id, splits.calibration.sample_id]))
    rows = table.select(known)
    print(f"{len(rows)} pairs of {len(set(rows.image_sha256))} pictures of {args.labels}, {FOLDS} folds")
    print(f"{'variant':48}{'gain':>7}   spread log loss    fit")
    print(json.dumps({"pairs": len(rows), "variants": measure(rows, args.threads, args.only)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
