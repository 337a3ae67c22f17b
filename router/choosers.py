"""Ways to choose scales that a router is judged among, and their prices for a target."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from complexity.features import Place
from complexity.image_features import IMAGE_FEATURE_NAMES
from complexity.labels import LabelTable
from complexity.predictor import ComplexityPredictor, FitOptions
from router.calibrate import PRICES, Believe, Chooser, Target, tuned
from router.cascade import SecondLook
from router.certify import Certificate, certified_price, flip_bound, harmful, one_a_picture
from router.lookup import Lookup, size_classes
from router.policy import choose_rung, finest_for, worth
from router.split import halves

SIZE = [IMAGE_FEATURE_NAMES.index("log2_width"), IMAGE_FEATURE_NAMES.index("log2_height")]
Strange = Callable[[LabelTable], np.ndarray]  # rows -> (B,) bool: unlike the training data


def looks(rows: LabelTable, place: Place) -> np.ndarray:
    """The rows' features of the picture at a place: (B, F)."""
    return rows.tower_features if place == "tower" else rows.image_features


def predicting(predictor: ComplexityPredictor) -> Believe:
    """The predictor as a belief about rows: P(right) at every scale, (B, S)."""
    return lambda rows: predictor.predict_proba(looks(rows, predictor.place), rows.question)


def baselines(train: LabelTable, options: FitOptions) -> dict[str, Believe]:
    """What to beat: mean scores by task, and by the picture's size; and the predictor without the picture."""
    by_task = Lookup.fit(train.task, train.score)
    sizes, edges = size_classes(train.image_features[:, SIZE].sum(axis=1))
    by_size = Lookup.fit(sizes, train.score)
    unseen = np.full_like(train.image_features, np.nan)
    blind = ComplexityPredictor.fit(unseen, train.question, train.score, train.image_sha256, train.ladder, options)
    return {
        "lookup": lambda rows: by_task.predict_proba(rows.task),
        "image-size": lambda rows: by_size.predict_proba(
            size_classes(rows.image_features[:, SIZE].sum(axis=1), edges)[0]
        ),
        "question": lambda rows: blind.predict_proba(np.full_like(rows.image_features, np.nan), rows.question),
    }


def priced_for(
    name: str,
    believe: Believe,
    calibration: LabelTable,
    target: Target,
    costs: Sequence[float],
    seed: int,
    strange: Strange | None = None,
) -> Chooser:
    """A chooser whose price meets the target: on one half of the calibration pictures, or by a certificate on all."""
    if target.certify is None:
        rows = halves(calibration)[0]
        return tuned(name, believe, rows, target, costs, strange and strange(rows))
    rows = calibration.select(one_a_picture(calibration.image_sha256, seed))
    worths = finest_for(worth(believe(rows), costs), strange and strange(rows))
    price, _ = certified_price(worths, rows.score.astype(float), PRICES, target.certify, target.confidence)
    whole = tuned(name, believe, calibration, Target(max_loss=0.0), costs, strange and strange(calibration))
    return replace(whole, price=price)


def certificate_of(
    chooser: Chooser, calibration: LabelTable, target: Target, costs: Sequence[float], seed: int, strange: Strange
) -> Certificate:
    """What is certain of the price: the target's own rate, or else a limit from rows that didn't set the price."""
    rows = calibration if target.certify is not None else halves(calibration)[1]
    rows = rows.select(one_a_picture(rows.image_sha256, seed))
    worths = finest_for(worth(chooser.believe(rows), costs), strange(rows))
    flips = int(harmful(rows.score, choose_rung(worths, chooser.price)).sum())
    limit = flip_bound(flips, len(rows), target.confidence)
    alpha = limit if target.certify is None else target.certify
    names = hashlib.sha256("\n".join(rows.sample_id).encode()).hexdigest()
    return Certificate(alpha, target.confidence, chooser.price, len(rows), flips, names)


def second_look_of(believe: Believe, calibration: LabelTable) -> SecondLook | None:
    """How sure an answer must be; None when the table doesn't say how sure answers were."""
    if not np.isfinite(calibration.mean_logprob).all():
        return None
    return SecondLook.fit(believe(calibration), calibration.mean_logprob, calibration.score)


def scale_shares(router: Chooser, rows: LabelTable, costs: Sequence[float], familiar: np.ndarray) -> tuple[float, ...]:
    """Shares of the rungs (S,) that a router chooses on familiar rows: what traffic like them would ask for."""
    rungs = choose_rung(worth(router.believe(rows)[familiar], costs), router.price)
    counts = np.bincount(rungs, minlength=len(rows.ladder))
    return tuple((counts / max(1, counts.sum())).tolist())
