"""The verdict on a router: its figures as text, as JSON and as a picture."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from complexity.labels import LabelTable
from router.calibrate import Chooser
from router.evaluate import (
    Lead,
    Measured,
    calibration_error,
    fixed_scales,
    hull,
    leads,
    measure,
    mixed_to,
    oracles,
    price_path,
    priced,
)


@dataclass(frozen=True)
class Report:
    """What policies are worth on one set of samples."""

    pairs: int
    pictures: int
    policies: tuple[Measured, ...]
    equal_tokens: tuple[Lead, ...]  # of the first belief over the second
    curves: dict[str, list[tuple[float, float]]]  # name -> (mean tokens, accuracy) at all prices
    calibration_error: float  # of the first chooser's probabilities


def judge(rows: LabelTable, choosers: Sequence[Chooser], seed: int) -> Report:
    """Measure choosers, the first against the second, beside the fixed scales, their random mix and the oracles."""
    ladder, score, pictures = rows.ladder, rows.score.astype(float), rows.image_sha256
    beliefs = [chooser.believe(rows) for chooser in choosers]
    chosen = [
        priced(chooser.name, belief, score, ladder, chooser.price)
        for chooser, belief in zip(choosers, beliefs, strict=True)
    ]
    paths = {
        chooser.name: price_path(chooser.name, belief, score, ladder)
        for chooser, belief in zip(choosers, beliefs, strict=True)
    }
    fixed = fixed_scales(score, ladder)
    mixing = mixed_to("random-mixing", hull(fixed), chosen[0].mean_tokens)
    policies = [*fixed, *([mixing] if mixing else []), *reversed(chosen), *oracles(score, ladder)]
    ours, theirs = list(paths.values())[:2]
    return Report(
        pairs=len(rows),
        pictures=len(np.unique(pictures)),
        policies=tuple(measure(policies, pictures, seed)),
        equal_tokens=tuple(leads(ours, theirs, _targets(ladder, chosen[0].mean_tokens), pictures, seed)),
        curves={name: [(o.mean_tokens, o.accuracy) for o in path] for name, path in paths.items()},
        calibration_error=calibration_error(beliefs[0], score),
    )


def _targets(ladder: Sequence[int], own: float) -> list[float]:
    """Mean tokens at which policies are compared: the router's own, the inner rungs and the middles between rungs."""
    middles = [math.sqrt(one * other) for one, other in zip(ladder, ladder[1:], strict=False)]
    return sorted({round(tokens, 1) for tokens in (*ladder[1:-1], *middles, own)})


def as_text(report: Report) -> str:
    """The report as two tables for people."""
    lines = [
        f"{report.pairs} pairs of {report.pictures} pictures that nobody learnt from; 95% intervals by picture",
        f"{'policy':26}{'accuracy':>9}   {'interval':15}{'mean tokens':>12}",
    ]
    for row in report.policies:
        low, high = row.accuracy_ci
        lines.append(f"{row.name:26}{row.accuracy:9.4f}   {low:.4f}-{high:.4f}  {row.tokens:12.1f}")
    lines += ["", "at equal mean tokens", f"{'tokens':>8}{'router':>9}{'lookup':>9}{'gain':>9}   interval"]
    for lead in report.equal_tokens:
        low, high = lead.gain_ci
        figures = f"{lead.tokens:8.1f}{lead.accuracy:9.4f}{lead.other_accuracy:9.4f}{lead.gain:+9.4f}"
        lines.append(f"{figures}   {low:+.4f} to {high:+.4f}")
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, Any]:
    """The report's figures, rounded, for machines."""
    return {
        "pairs": report.pairs,
        "pictures": report.pictures,
        "policies": [
            {
                "name": row.name,
                "accuracy": round(row.accuracy, 5),
                "tokens": round(row.tokens, 2),
                "accuracy_ci": [round(end, 5) for end in row.accuracy_ci],
            }
            for row in report.policies
        ],
        "equal_tokens": [
            {
                "tokens": lead.tokens,
                "router": round(lead.accuracy, 5),
                "lookup": round(lead.other_accuracy, 5),
                "gain": round(lead.gain, 5),
                "gain_ci": [round(end, 5) for end in lead.gain_ci],
            }
            for lead in report.equal_tokens
        ],
        "calibration_error": round(report.calibration_error, 5),
    }


def draw(report: Report, title: str) -> bytes:
    """Accuracy over mean tokens (logarithmic) as a PNG: lines over all prices, dots at the prices chosen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    by_name = {row.name: row for row in report.policies}
    for name, points in report.curves.items():
        (line,) = axes.plot(*zip(*points, strict=True), label=name, linewidth=2.2 if name == "router" else 1.3)
        axes.plot(by_name[name].tokens, by_name[name].accuracy, "o", color=line.get_color(), markersize=7)
    fixed = [row for row in report.policies if row.name.startswith("fixed-")]
    axes.plot([row.tokens for row in fixed], [row.accuracy for row in fixed], "s--k", label="fixed", markersize=4)
    for name, mark in (("oracle-unsolved-coarsest", "*"), ("oracle-unsolved-finest", "P")):
        axes.plot(by_name[name].tokens, by_name[name].accuracy, mark, color="tab:red", label=name, markersize=9)
    axes.set(xscale="log", xlabel="mean visual tokens", ylabel="accuracy", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()
