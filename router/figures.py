"""A report's figures as PNGs."""

import io
from typing import Any

from router.report import Report

LINES = {  # name -> (label, colour, width, style), in the legend's order
    "router": ("router", "#1857b8", 2.4, "-"),
    "cascade": ("router with a second look", "#7a3ea8", 1.8, "-"),
    "question": ("question alone", "#2a9d8f", 1.3, "-"),
    "lookup": ("per-task lookup (is told the task)", "#e07a1f", 1.5, "-"),
    "image-size": ("image size", "#8a8a8a", 1.2, "-"),
    "informed": ("informed bound", "#444444", 1.4, "--"),
    "oracle-budgeted": ("oracle at every budget", "#c0392b", 1.4, "--"),
}


def draw_all(report: Report, importance: list[tuple[str, float]], title: str, cost_unit: str) -> dict[str, bytes]:
    """PNGs by file name."""
    figures = {
        "accuracy.png": draw_curves(report, title),
        "reliability.png": _reliability(report),
        "families.png": _families(report),
        "features.png": _importance(importance),
    }
    if cost_unit != "tokens":
        figures["cost.png"] = draw_curves(report, title, cost_unit)
    return figures


def draw_curves(report: Report, title: str, cost_unit: str | None = None) -> bytes:
    """Accuracy over mean tokens, or over mean cost when its unit is given: lines over all prices, dots as chosen."""
    figure, axes = canvas(8.4, 5.2)
    by_name = {row.name: row for row in report.policies}

    def at(row: Any) -> float:
        return row.tokens if cost_unit is None else row.cost

    for name, (label, colour, width, style) in LINES.items():
        if name not in report.curves:
            continue
        points = [(tokens if cost_unit is None else cost, acc) for tokens, acc, cost in report.curves[name]]
        axes.plot(*zip(*sorted(points), strict=True), style, label=label, color=colour, linewidth=width)
        if name in by_name:
            axes.plot(at(by_name[name]), by_name[name].accuracy, "o", color=colour, markersize=7)
    fixed = [row for row in report.policies if row.name.startswith("fixed-")]
    axes.plot([at(row) for row in fixed], [row.accuracy for row in fixed], "s--k", label="fixed scales", markersize=4)
    for name, mark, said in (("coarsest", "*", "charged the coarsest"), ("finest", "P", "charged the finest")):
        row = by_name[f"oracle-unsolved-{name}"]
        axes.plot(at(row), row.accuracy, mark, color="#c0392b", label=f"oracle, unsolved {said}", markersize=9)
    if cost_unit is None:
        axes.set(xscale="log", xlabel="mean visual tokens")
        axes.set_xticks(report.ladder, list(map(str, report.ladder)))
        axes.minorticks_off()
    else:
        axes.set(xlabel=f"mean cost, {cost_unit}")
    axes.set(ylabel="accuracy", title=title)
    axes.legend(fontsize=8)
    return png(figure)


def _reliability(report: Report) -> bytes:
    figure, axes = canvas(5.6, 5.2)
    axes.plot([0, 1], [0, 1], ":", color="#888888")
    for tokens, (error, bins) in zip(report.ladder, report.reliability, strict=True):
        axes.plot(*zip(*bins, strict=True), "o-", markersize=3.5, label=f"{tokens} tokens, error {error:.3f}")
    axes.set(xlabel="predicted P(right)", ylabel="share right", title="Reliability per scale")
    axes.legend(fontsize=8)
    return png(figure)


def _families(report: Report) -> bytes:
    ordered = sorted(report.families, key=lambda each: each.gain.value)
    figure, axes = canvas(7.2, 1.2 + 0.24 * len(ordered))
    for place, each in enumerate(ordered):
        low, high = (100 * end for end in each.gain.ci)
        sure = low > 0 or high < 0
        colour = "#1857b8" if sure else "#9db4d3"
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(100 * each.gain.value, place, "o", color=colour, markersize=5)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_yticks(range(len(ordered)), [f"{each.task} ({each.tokens:.0f} tokens)" for each in ordered], fontsize=8)
    axes.set(xlabel="points gained over mixing the task's own fixed scales at equal tokens", title="Within each task")
    return png(figure)


def _importance(importance: list[tuple[str, float]]) -> bytes:
    figure, axes = canvas(6.4, 0.9 + 0.24 * len(importance))
    names, shares = zip(*reversed(importance), strict=True)
    axes.barh(names, [100 * share for share in shares], color="#1857b8")
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel="share of the trees' gain, %", title="Features that decide")
    return png(figure)


def canvas(width: float, height: float) -> tuple[Any, Any]:
    """A figure of so many inches and its axes, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def png(figure: Any) -> bytes:
    """A figure as a file that is the same whenever it is drawn again."""
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    return image.getvalue()
