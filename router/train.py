"""The command `train-router`: a label table in, a router artifact and the verdict on it out."""

import argparse
import json
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from complexity.errors import InvalidInput, LabelTableError, M3Error
from complexity.features import FEATURE_VERSION
from complexity.image_features import IMAGE_FEATURE_NAMES, IMAGE_FEATURE_VERSION
from complexity.labels import LabelTable, read_labels, table_sha256
from complexity.predictor import ComplexityPredictor, FitOptions
from router.artifact import FIGURE_FILE, Artifact, check_target, save_artifact
from router.calibrate import Believe, Chooser, tuned
from router.card import write_card
from router.lookup import Lookup, size_classes
from router.report import Report, as_json, as_text, draw, judge
from router.split import Splits, split_table

SIZE = [IMAGE_FEATURE_NAMES.index("log2_width"), IMAGE_FEATURE_NAMES.index("log2_height")]


def train_router(
    labels: Path, out: Path, max_loss: float, options: FitOptions, command: str = "train-router"
) -> tuple[Artifact, dict[str, Report]]:
    """Train on a label table, set the knob, judge on the test rows, write the artifact.

    Args:
        labels: a label table, file or folder.
        out: folder of the artifact.
        max_loss: accuracy that may be lost on the calibration rows against the finest scale, as a share.
        command: what the card says made it.

    Returns:
        The artifact, and a report on the rows of "test" and, when the table has such, on those of "shifted".

    Raises:
        M3Error: the table, the folder or an option can't be used; the message says why.
    """
    if not 0 <= max_loss < 1:
        raise InvalidInput(f"--max-loss {max_loss} must be at least 0 and below 1; 0.01 is one point")
    check_target(out)
    with tqdm(total=5, file=sys.stderr, bar_format="{desc:24}{bar:30} {n_fmt}/{total_fmt} [{elapsed}]") as bar:

        def begin(what: str) -> None:
            bar.set_description_str(what)

        begin("reading labels")
        table = read_labels(labels)
        check_features(labels, table)
        splits = split_table(table)
        bar.update()
        begin("fitting the predictor")
        predictor = fit_predictor(splits, options)
        bar.update()
        begin("setting the price")
        choosers = (
            tuned("router", _predicting(predictor), splits.calibration, max_loss),
            *(tuned(name, believe, splits.calibration, max_loss) for name, believe in _baselines(splits.train).items()),
        )
        bar.update()
        begin("judging")
        parts = {"test": splits.test, "shifted": splits.shifted}
        reports = {name: judge(rows, choosers, options.seed) for name, rows in parts.items() if rows is not None}
        bar.update()
        begin("writing")
        artifact = _artifact(labels, table, predictor, choosers[0], reports, options.seed)
        artifact = replace(artifact, card=write_card(artifact, reports, command))
        figure = draw(reports["test"], f"{table.meta.model}: accuracy over mean visual tokens")
        artifact = save_artifact(out, artifact, figure)
        bar.update()
        begin("done")
    return artifact, reports


def check_features(path: Path, table: LabelTable) -> None:
    """Raises LabelTableError when the table's picture features aren't those that this code computes."""
    version = table.meta.feature_version  # of the pictures' features; the questions' are computed afresh
    if (version, table.image_features.shape[1]) != (IMAGE_FEATURE_VERSION, len(IMAGE_FEATURE_NAMES)):
        raise LabelTableError(
            f"{path}: {table.image_features.shape[1]} picture features of version {version}; "
            f"this code computes {len(IMAGE_FEATURE_NAMES)} of version {IMAGE_FEATURE_VERSION}"
        )


def fit_predictor(splits: Splits, options: FitOptions) -> ComplexityPredictor:
    """Learn from the train rows, calibrate on the calibration rows."""
    train, held_out = splits.train, splits.calibration
    predictor = ComplexityPredictor.fit(
        train.image_features, train.question, train.score, train.image_sha256, train.ladder, options
    )
    return predictor.calibrated(held_out.image_features, held_out.question, held_out.score)


def _predicting(predictor: ComplexityPredictor) -> Believe:
    return lambda rows: predictor.predict_proba(rows.image_features, rows.question)


def _baselines(train: LabelTable) -> dict[str, Believe]:
    """What to beat: mean scores by task, and by the picture's size."""
    by_task = Lookup.fit(train.task, train.score)
    sizes, edges = size_classes(train.image_features[:, SIZE].sum(axis=1))
    by_size = Lookup.fit(sizes, train.score)
    return {
        "lookup": lambda rows: by_task.predict_proba(rows.task),
        "image-size": lambda rows: by_size.predict_proba(
            size_classes(rows.image_features[:, SIZE].sum(axis=1), edges)[0]
        ),
    }


def _artifact(
    labels: Path,
    table: LabelTable,
    predictor: ComplexityPredictor,
    chooser: Chooser,
    reports: dict[str, Report],
    seed: int,
) -> Artifact:
    return Artifact(
        predictor=predictor,
        ladder=table.ladder,
        price=chooser.price,
        feature_version=FEATURE_VERSION,
        model=table.meta.model,
        sweep_version=table.meta.sweep_version,
        labels_sha256=table_sha256(labels),
        seed=seed,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        metrics={name: as_json(report) for name, report in reports.items()},
        curve=chooser.curve,
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point of `train-router`."""
    parser = argparse.ArgumentParser(
        "train-router",
        description="Learn from a label table which scale each sample needs; write a router artifact; judge it against "
        "fixed scales, the per-task lookup, random mixing and the oracle on the table's test rows.",
    )
    parser.add_argument("labels", type=Path, help="label table: a .parquet file or a folder of them")
    parser.add_argument("--out", type=Path, required=True, help="folder of the artifact; an older artifact is replaced")
    parser.add_argument(
        "--max-loss",
        type=float,
        default=0.01,
        help="accuracy the price may lose against the finest scale on the calibration rows, as a share "
        "(default 0.01 = 1 point)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the fit and of the intervals (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="of the fit (default 2)")
    args = parser.parse_args(argv)
    start = time.monotonic()
    command = f"train-router {args.labels.name} --max-loss {args.max_loss:g} --seed {args.seed}"
    try:
        options = FitOptions(seed=args.seed, threads=args.threads)
        artifact, reports = train_router(args.labels, args.out, args.max_loss, options, command)
    except M3Error as error:
        print(f"train-router: {error}", file=sys.stderr)
        return 2
    for name, report in reports.items():
        print(f"# {name}\n{as_text(report)}\n")
    told = {
        **artifact.metrics["test"],
        **{name: artifact.metrics[name] for name in reports if name != "test"},
        "price": artifact.price,
        "artifact": str(args.out),
        "figure": str(args.out / FIGURE_FILE),
        "digest": artifact.digest,
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(told))
    return 0
