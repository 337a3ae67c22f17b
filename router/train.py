"""The command `train-router`: a label table in, a router artifact and the verdict on it out."""

import argparse
import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from complexity.errors import InvalidInput, LabelTableError, M3Error
from complexity.familiarity import Familiarity
from complexity.features import FEATURE_VERSIONS, TOWER_FEATURE_VERSION, TOWER_FEATURES, Place
from complexity.feedback import read_feedback
from complexity.image_features import IMAGE_FEATURE_NAMES, IMAGE_FEATURE_VERSION
from complexity.labels import LabelTable, read_labels, table_sha256
from complexity.predictor import ComplexityPredictor, FitOptions
from router.artifact import Artifact, check_target, save_artifact
from router.calibrate import PRICES, Chooser, Target
from router.card import write_card
from router.cascade import FIRST_PRICE, cascade_path
from router.choosers import baselines, certificate_of, looks, predicting, priced_for, scale_shares, second_look_of
from router.costs import Costs
from router.feedback import Lessons, fitting, in_words
from router.figures import draw_all
from router.informed import fit_informed
from router.page import certificate_sentence, page
from router.report import Extras, Report, judge
from router.split import Splits, split_table
from router.tables import as_json, as_text

DEFAULT_LOSS = 0.01


@dataclass(frozen=True)
class Options:
    """How a router is trained; the fields are train-router's options."""

    target: Target
    fit: FitOptions = FitOptions()
    costs: Costs | None = None  # None: a scale costs its tokens
    again: Path | None = None  # label table of another rendering of the test samples
    place: Place = "light"
    feedback: tuple[Path, ...] = ()  # journals of verdicts from service, files or folders

    def __post_init__(self) -> None:
        if self.feedback and self.place == "tower":
            raise InvalidInput(
                "--feedback can't teach with --place tower: it holds features of pixels, not the tower's"
            )

    def __str__(self) -> str:
        costs = "" if self.costs is None else f" --costs {self.costs.source}"
        place = " --place tower" if self.place == "tower" else ""
        feedback = "".join(f" --feedback {path.name}" for path in self.feedback)
        return f"{self.target} --seed {self.fit.seed}{costs}{place}{feedback}"


@dataclass(frozen=True)
class Trained:
    """What training leaves."""

    artifact: Artifact
    reports: dict[str, Report]  # by name of the rows: "test", and "shifted" when the table has such
    figures: dict[str, bytes]  # PNGs by file name
    command: str


def train_router(labels: Path, out: Path, options: Options) -> Trained:
    """Train on a label table, set the knob, judge on the test rows, write the artifact.

    Args:
        labels: a label table, file or folder.
        out: folder of the artifact.

    Raises:
        M3Error: the table, the folder or an option can't be used; the message says why.
    """
    seed = options.fit.seed
    check_target(out)
    with tqdm(total=5, file=sys.stderr, bar_format="{desc:24}{bar:30} {n_fmt}/{total_fmt} [{elapsed}]") as bar:

        def begin(what: str) -> None:
            bar.update(bar.n < bar.total and what != "reading labels")
            bar.set_description_str(what)

        begin("reading labels")
        table = read_labels(labels)
        check_features(labels, table, options.place)
        splits = split_table(table)
        costs = (options.costs or Costs.of_tokens(table.ladder)).on(table.ladder)
        train = splits.train
        lessons = Lessons(looks(train, options.place), train.question, train.score, train.image_sha256)
        labels_sha256 = table_sha256(labels)
        heard: dict[str, Any] = {}
        if options.feedback:
            used = fitting(read_feedback(*options.feedback), table, splits)
            lessons = lessons.and_also(used.lessons)
            heard = {"feedback": {**used.as_json(), "swept_sha256": labels_sha256}}
            tqdm.write(f"train-router: feedback: {in_words(heard['feedback'])}", file=sys.stderr)
            labels_sha256 = hashlib.sha256(f"{labels_sha256} {used.sha256}".encode()).hexdigest()
        begin("fitting the predictor")
        predictor = ComplexityPredictor.fit(
            lessons.image_features,
            lessons.question,
            lessons.score,
            lessons.image_sha256,
            train.ladder,
            options.fit,
            options.place,
        )
        begin("setting the price")
        believe = predicting(predictor)
        held_out = splits.calibration
        familiarity = Familiarity.fit(
            looks(train, options.place), train.question, looks(held_out, options.place), held_out.question
        )

        def strange(rows: LabelTable) -> np.ndarray:
            return ~familiarity.knows(looks(rows, options.place), rows.question)

        router = priced_for("router", believe, held_out, options.target, costs.values, seed, strange)
        simple = [
            priced_for(name, each, held_out, options.target, costs.values, seed)
            for name, each in baselines(train, options.fit).items()
        ]
        certificate = certificate_of(router, held_out, options.target, costs.values, seed, strange)
        begin("judging")
        parts = {"test": splits.test, **({"shifted": splits.shifted} if splits.shifted is not None else {})}
        reports = {
            name: judge(
                rows,
                [router, *simple],
                seed,
                costs.values,
                replace(_extras(rows, splits, router, costs, options), strange=strange(rows)),
            )
            for name, rows in parts.items()
        }
        begin("writing")
        artifact = Artifact(
            predictor=predictor,
            ladder=table.ladder,
            price=router.price,
            costs=costs.values,
            cost_unit=costs.unit,
            target=str(options.target),
            certificate=certificate,
            familiarity=familiarity,
            second_look=second_look_of(believe, held_out),
            place=options.place,
            feature_version=FEATURE_VERSIONS[options.place],
            model=table.meta.model,
            sweep_version=table.meta.sweep_version,
            labels_sha256=labels_sha256,
            seed=seed,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            metrics={name: as_json(report) for name, report in reports.items()} | heard,
            curve=router.curve,
            scale_shares=scale_shares(router, held_out, costs.values, ~strange(held_out)),
        )
        for name, rows in parts.items():
            artifact.metrics[name]["unfamiliar"] = round(float(strange(rows).mean()), 5)
        command = f"train-router {labels.name} {options}"
        artifact = replace(artifact, card=write_card(artifact, reports, command))
        figures = draw_all(reports["test"], predictor.importance(), f"{table.meta.model}", costs.unit)
        artifact = save_artifact(out, artifact, figures["accuracy.png"])
        begin("done")
    return Trained(artifact, reports, figures, command)


def check_features(path: Path, table: LabelTable, place: Place) -> None:
    """Raises LabelTableError when the table's picture features aren't those that this code computes."""
    found = table.meta.tower_version, table.tower_features.shape[1]
    if place == "tower" and found != (TOWER_FEATURE_VERSION, TOWER_FEATURES):
        raise LabelTableError(
            f"{path}: {found[1]} features of the tower, version {found[0] or 'none'}; this code computes "
            f"{TOWER_FEATURES} of version {TOWER_FEATURE_VERSION}"
        )
    version = table.meta.feature_version  # of the pictures' features; the questions' are computed afresh
    if (version, table.image_features.shape[1]) != (IMAGE_FEATURE_VERSION, len(IMAGE_FEATURE_NAMES)):
        raise LabelTableError(
            f"{path}: {table.image_features.shape[1]} picture features of version {version}; "
            f"this code computes {len(IMAGE_FEATURE_NAMES)} of version {IMAGE_FEATURE_VERSION}"
        )


def _extras(rows: LabelTable, splits: Splits, ours: Chooser, costs: Costs, options: Options) -> Extras:
    """What this table allows to compare with."""
    extras = Extras()
    train = splits.train
    if train.latents.shape[1]:
        predict = fit_informed(train.score, train.task, train.latents, options.fit.seed)
        extras = replace(extras, informed=lambda rows: predict(rows.task, rows.latents))
    look = second_look_of(ours.believe, splits.calibration)
    if look is not None and np.isfinite(rows.mean_logprob).all():
        told = ours.believe(rows), rows.mean_logprob, rows.score.astype(float), rows.ladder
        path = cascade_path("cascade", FIRST_PRICE, look, *told, PRICES, costs.values)
        at_price = cascade_path("cascade", FIRST_PRICE, look, *told, [ours.price], costs.values)
        extras = replace(extras, cascade=path, cascade_chosen=at_price[0])
    if options.again is not None:
        again = read_labels(options.again)
        place = {name: i for i, name in enumerate(again.sample_id)}
        missing = [name for name in rows.sample_id if name not in place]
        if not missing:
            extras = replace(extras, again=again.score[[place[name] for name in rows.sample_id]].astype(float))
        elif rows is splits.test:  # shifted samples needn't be rendered again
            raise LabelTableError(f"{options.again}: {len(missing)} test samples are missing, such as {missing[0]}")
    return extras


def write_report(folder: Path, trained: Trained, labels: Path) -> dict[str, Any]:
    """Write routing.html, routing.json and the figures; returns what the JSON holds."""
    folder.mkdir(parents=True, exist_ok=True)
    artifact, test = trained.artifact, trained.artifact.metrics["test"]
    told = {
        **test,
        "certified_alpha": round(artifact.certificate.alpha, 5),
        "certificate": asdict(artifact.certificate),
        **{name: figures for name, figures in artifact.metrics.items() if name != "test"},
        "target": artifact.target,
        "price": artifact.price,
        "cost_unit": artifact.cost_unit,
        "model": artifact.model,
        "labels_sha256": artifact.labels_sha256,
        "digest": artifact.digest,
    }
    for name, png in trained.figures.items():
        (folder / f"routing-{name}").write_bytes(png)
    (folder / "routing.html").write_text(page(artifact, trained.reports, trained.figures, labels, trained.command))
    (folder / "routing.json").write_text(json.dumps(told, indent=1) + "\n")
    return told


def main(argv: list[str] | None = None) -> int:
    """Entry point of `train-router`."""
    parser = argparse.ArgumentParser(
        "train-router",
        description="Learn from a label table which scale each sample needs; write a router artifact; judge it against "
        "fixed scales, the per-task lookup, random mixing and the oracle on the table's test rows.",
    )
    parser.add_argument("labels", type=Path, help="label table: a .parquet file or a folder of them")
    parser.add_argument("--out", type=Path, required=True, help="folder of the artifact; an older artifact is replaced")
    wish = parser.add_mutually_exclusive_group()
    wish.add_argument(
        "--max-loss",
        type=float,
        metavar="SHARE",
        help="accuracy that may be lost against the finest scale, as a share (default 0.01 = 1 point)",
    )
    wish.add_argument("--budget", type=float, metavar="COST", help="mean cost per sample: visual tokens, or as --costs")
    wish.add_argument(
        "--certify",
        type=float,
        metavar="SHARE",
        help="share of all answers that may be spoilt by routing, held with --confidence; the finest scale is always "
        "taken when nothing can be certified",
    )
    parser.add_argument("--confidence", type=float, default=0.9, help="of the certificate (default 0.9)")
    parser.add_argument(
        "--costs",
        type=Path,
        metavar="FILE",
        help='measured costs of the scales instead of their tokens, JSON such as {"unit": "ms", "costs": {"1": 5.1, '
        '"9": 5.3}}',
    )
    parser.add_argument(
        "--again",
        type=Path,
        metavar="TABLE",
        help="label table of another rendering of the same test samples (sweep-m3 --again 1): tells the oracle's skill "
        "from its luck",
    )
    parser.add_argument(
        "--place",
        choices=("light", "tower"),
        default="light",
        help="where the router decides: before dispatch from pixels (light, the default), or from what the model's "
        "tower sees anyway",
    )
    parser.add_argument(
        "--feedback",
        type=Path,
        metavar="PATH",
        action="append",
        default=[],
        help="journals of feedback from service, a .jsonl file or a folder of them; may be given again: verdicts on "
        "pictures that neither set the price nor give the verdict teach beside the training rows",
    )
    parser.add_argument("--report", type=Path, metavar="DIR", help="folder of the report (default OUT-report)")
    parser.add_argument("--seed", type=int, default=0, help="of the fit and of the intervals (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="of the fit (default 2)")
    args = parser.parse_args(argv)
    start = time.monotonic()
    max_loss = DEFAULT_LOSS if args.max_loss is args.budget is args.certify is None else args.max_loss
    report = args.report or args.out.parent / f"{args.out.name}-report"
    try:
        target = Target(max_loss, args.budget, args.certify, args.confidence)
        costs = None if args.costs is None else Costs.read(args.costs)
        fit = FitOptions(seed=args.seed, threads=args.threads)
        options = Options(target, fit, costs, args.again, args.place, tuple(args.feedback))
        trained = train_router(args.labels, args.out, options)
        told = write_report(report, trained, args.labels)
    except M3Error as error:
        print(f"train-router: {error}", file=sys.stderr)
        return 2
    for name, verdict in trained.reports.items():
        print(f"# {name}\n{as_text(verdict)}\n")
    print(certificate_sentence(trained.artifact))
    paths = {"artifact": str(args.out), "report": str(report / "routing.html")}
    print(json.dumps({**told, **paths, "seconds": round(time.monotonic() - start, 1)}))
    return 0
