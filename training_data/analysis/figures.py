"""An analysis's figures as PNGs, narrow enough for a phone."""

from collections.abc import Sequence
from typing import Any

from router.figures import canvas, png
from training_data.analysis.analysis import DataSet
from training_data.analysis.sample_complexity import Correlation
from training_data.analysis.score_table import ScoredSet

WIDTH = 4.8  # inches
BLUE, RED, GREEN, GREY = "#1857b8", "#c0392b", "#1d7d4f", "#c9ccd1"
RUNGS = "YlGnBu"  # light: few tokens
FEATURES = 16  # shown


def draw_scales(data: DataSet) -> bytes:
    """Score over tokens: fixed scales with intervals, the oracle in both conventions, and its choices judged anew."""
    own = data.whole
    figure, axes = canvas(WIDTH, 4.0)
    tokens = [scale.tokens for scale in own.scales]
    rates = [scale.score for scale in own.scales]
    low, high = ([100 * rate.ci[end] for rate in rates] for end in (0, 1))
    axes.fill_between(tokens, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(tokens, [100 * rate.value for rate in rates], "s-", color=BLUE, markersize=5, label="fixed scales")
    oracle = own.oracle
    for taken, earned, mark, said in (
        (oracle.tokens, oracle.score, "*", f"unsolved charged {tokens[0]}"),
        (oracle.tokens_finest, oracle.score_finest, "P", f"unsolved charged {tokens[-1]}"),
    ):
        axes.plot(taken.value, 100 * earned.value, mark, color=RED, markersize=11, label=f"oracle, {said}")
    axes.plot(own.luck.tokens.value, 100 * own.luck.score.value, "D", color=GREEN, markersize=7)
    axes.plot([], [], "D", color=GREEN, label=f"its choices anew ({own.luck.method})")
    _log_tokens(axes, tokens)
    axes.set(xlabel="mean visual tokens per grid", ylabel="score, %", title=plain(own.dataset))
    axes.legend(fontsize=9, loc="lower right")
    return png(figure)


def draw_needed(data: DataSet) -> bytes:
    """Share of samples by smallest sufficient scale, each task a bar, those that need least on top."""
    from matplotlib import colormaps

    groups = sorted(data.tasks, key=lambda group: group.oracle.tokens_finest.value)
    groups = [data.whole, *groups] if len(groups) > 1 else [data.whole]
    figure, axes = canvas(WIDTH, 1.6 + 0.23 * len(groups))
    tokens = [scale.tokens for scale in data.whole.scales]
    colours = [*colormaps[RUNGS]([0.12 + 0.83 * i / max(1, len(tokens) - 1) for i in range(len(tokens))]), GREY]
    left = [0.0] * len(groups)
    for kind, (name, colour) in enumerate(zip([*map(str, tokens), "none"], colours, strict=True)):
        widths = [100 * group.needed[kind] for group in groups]
        axes.barh(range(len(groups)), widths, left=left, color=colour, label=name, height=0.8)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(groups)), [plain(group.task or "all") for group in groups], fontsize=9)
    axes.set(xlim=(0, 100), ylim=(len(groups) - 0.5, -0.5), xlabel="share of samples, %")
    axes.grid(visible=False)
    figure.legend(
        title="fewest tokens that answer right",
        loc="outside upper center",
        ncols=6,
        fontsize=8,
        columnspacing=1.0,
        handlelength=1.4,
    )
    return png(figure)


def draw_complexity(correlations: Sequence[Correlation]) -> bytes:
    """Rank correlations of pictures' needs with their strongest features, raw and within tasks."""
    shown = list(reversed(correlations[:FEATURES]))
    figure, axes = canvas(WIDTH, 1.4 + 0.26 * len(shown))
    for shift, colour, said, rates in (
        (0.15, BLUE, "as asked", [each.raw for each in shown]),
        (-0.15, GREEN, "within tasks", [each.within_tasks for each in shown]),
    ):
        for place, rate in enumerate(rates):
            axes.plot(rate.ci, [place + shift] * 2, color=colour, linewidth=1.5)
        axes.plot([rate.value for rate in rates], [i + shift for i in range(len(shown))], "o", color=colour, label=said)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_yticks(range(len(shown)), [each.feature for each in shown], fontsize=9)
    axes.set(xlabel="Spearman correlation with the tokens needed")
    axes.legend(fontsize=9)
    return png(figure)


def draw_scored(sets: Sequence[ScoredSet]) -> bytes:
    """Score over tokens of each data set of a table of scores, with its oracle."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(sets) // 2)
    figure = Figure(figsize=(WIDTH, 0.4 + 2.1 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, own in zip(panels, sets, strict=False):
        axes.plot(own.tokens, own.scores, "s-", color=BLUE, markersize=3.5, label="fixed scales")
        axes.plot(own.tokens[own.recommended], own.scores[own.recommended], "o", color=GREEN, markersize=9, alpha=0.6)
        if own.oracle is not None:
            axes.plot(own.oracle.tokens, own.oracle.score, "*", color=RED, markersize=9)
            axes.plot(own.oracle.tokens_finest, own.oracle.score, "P", color=RED, markersize=6)
        axes.grid(alpha=0.3)
        axes.set_title(plain(own.dataset), fontsize=10)
        axes.tick_params(labelsize=7)
        _log_tokens(axes, own.tokens)
    for axes in panels[len(sets) :]:
        axes.set_axis_off()
    figure.supxlabel("mean visual tokens", fontsize=9)
    figure.supylabel("score, %", fontsize=9)
    return png(figure)


def plain(text: str) -> str:
    """A text that matplotlib takes as it is, not as a formula."""
    return text.replace("$", r"\$")


def _log_tokens(axes: Any, tokens: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(tokens, [f"{each:g}" for each in tokens])
    axes.minorticks_off()
