"""A label table in, a trained router and the verdict on it out: fit, set the price, certify, judge."""

import hashlib
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from complexity.errors import InvalidInput, LabelTableError
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
from router.report import Extras, Report, judge
from router.split import Splits, split_table
from router.tables import as_json


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
        lessons, labels_sha256, heard = _taught(labels, table, splits, options)
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


def _taught(labels: Path, table: LabelTable, splits: Splits, options: Options) -> tuple[Lessons, str, dict[str, Any]]:
    """What the predictor learns from, the digest of all of it, and what feedback adds, for the artifact."""
    train, sha256 = splits.train, table_sha256(labels)
    lessons = Lessons(looks(train, options.place), train.question, train.score, train.image_sha256)
    if not options.feedback:
        return lessons, sha256, {}
    used = fitting(read_feedback(*options.feedback), table, splits)
    heard = {**used.as_json(), "swept_sha256": sha256}
    tqdm.write(f"train-router: feedback: {in_words(heard)}", file=sys.stderr)
    both = hashlib.sha256(f"{sha256} {used.sha256}".encode()).hexdigest()
    return lessons.and_also(used.lessons), both, {"feedback": heard}


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
