"""The command `train-router`: a label table in, a router artifact and its verdict out."""

import argparse
import hashlib
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from complexity.errors import InvalidInput, LabelTableError, M3Error
from complexity.features import FEATURE_VERSION
from complexity.image_features import IMAGE_FEATURE_NAMES, IMAGE_FEATURE_VERSION
from complexity.labels import LabelTable, read_labels
from complexity.predictor import ComplexityPredictor, FitOptions
from router.artifact import CARD_FILE, FIGURE_FILE, Artifact, check_target, save_artifact
from router.calibrate import CurvePoint, pick_price, price_curve
from router.card import write_card
from router.lookup import Lookup, size_classes
from router.report import Belief, Report, as_json, as_text, draw, judge
from router.split import Splits, split_table

PIXELS = [IMAGE_FEATURE_NAMES.index("log2_width"), IMAGE_FEATURE_NAMES.index("log2_height")]


def train_router(
    labels: Path, out: Path, max_loss: float = 0.01, options: FitOptions | None = None
) -> tuple[Artifact, dict[str, Report]]:
    """Train on a label table, set the knob, judge on the test rows, and write the artifact.

    Args:
        labels: a label table (file or folder).
        out: folder of the artifact.
        max_loss: accuracy that may be lost on the calibration rows against the finest scale, as a share (0.01 = 1
            point).

    Returns:
        The artifact and the reports by name: "test", and "shifted" when the table has such rows.

    Raises:
        M3Error: the table or the folder can't be used; the message says why.
    """
    if not 0 <= max_loss < 1:
        raise InvalidInput(f"--max-loss {max_loss} must be at least 0 and below 1 (0.01 = 1 point)")
    options = options or FitOptions()
    check_target(out)
    with tqdm(total=5, desc="reading labels", file=sys.stderr) as bar:

        def step(what: str) -> None:
            bar.update()
            bar.set_description(what)

        table = read_labels(labels)
        _check_features(table)
        splits = split_table(table)
        step("fitting the predictor")
        train = splits.train
        predictor = ComplexityPredictor.fit(
            train.image_features, train.question, train.score, train.image_sha256, train.ladder, options
        )
        step("calibrating")
        predictor = predictor.calibrated(*_seen(splits.calibration), splits.calibration.score)
        beliefs, curve = _beliefs(predictor, splits, max_loss)
        step("judging")
        parts = {"test": splits.test} | ({"shifted": splits.shifted} if splits.shifted else {})
        reports = {name: judge(rows, beliefs(rows), options.seed) for name, rows in parts.items()}
        step("writing")
        figure = draw(reports["test"], f"{table.meta.model}: accuracy over mean visual tokens")
        artifact = Artifact(
            predictor=predictor,
            ladder=table.ladder,
            price=beliefs(splits.test)[0].price,
            feature_version=FEATURE_VERSION,
            model=table.meta.model,
            sweep_version=table.meta.sweep_version,
            labels_sha256=_digest(labels),
            seed=options.seed,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            metrics={name: as_json(report) for name, report in reports.items()},
            curve=curve,
        )
    return artifact, reports
