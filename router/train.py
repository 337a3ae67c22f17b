"""The command `train-router`: a label table in, a router artifact, the verdict on it and a report out."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from complexity.errors import M3Error
from complexity.predictor import FitOptions
from router.calibrate import Target
from router.costs import Costs
from router.fit import Options, Trained, train_router
from router.page import certificate_sentence, page
from router.tables import as_text

DEFAULT_LOSS = 0.01


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
