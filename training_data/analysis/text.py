"""An analysis in words, in tables for terminals and in numbers for machines."""

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from router.report import POINT, Rate
from training_data.analysis.analysis import DataSet, Group
from training_data.analysis.score_table import Mean, ScoredSet

DIGITS = 5


def verdict(data: DataSet) -> str:
    """Whether a data set needs a router at all, in one sentence."""
    own, room = data.whole, data.headroom
    gain = (
        f"once luck is taken off, choosing perfectly would gain {points(room.repeatable)} over the best mix of fixed "
        "scales at equal tokens"
    )
    lookup = f"one scale per task gains {points(room.lookup)}"
    if room.repeatable.ci[1] < POINT:
        return f"{own.dataset} needs no router: {gain}, so always {in_words(own.fixed.tokens)} will do."
    if room.repeatable.ci[0] < POINT:
        return f"Whether {own.dataset} needs a router can't be told from {own.pictures} pictures: {gain}."
    if len(data.tasks) > 1 and room.beyond_lookup.ci[1] < POINT:
        return f"A table of one scale per task is enough for {own.dataset}: {gain}, and {lookup}."
    left = f"{lookup} of it, and {points(room.beyond_lookup)} more are left for choosing by sample"
    if len(data.tasks) == 1:
        left = "it has one task, so a table of tasks gains none of it"
    if room.beyond_lookup.ci[0] > 0:
        return f"{own.dataset} can use a router: {gain}; {left}."
    return f"{own.dataset} can use a table of one scale per task, and perhaps a router: {gain}; {left}."


def recommendation(own: Group) -> str:
    """The fixed scale to take, in one sentence."""
    fixed = own.fixed
    loss = next(scale.loss for scale in own.scales if scale.tokens == fixed.tokens)
    gained = Rate(-loss.value, (-loss.ci[1], -loss.ci[0]))
    lost = f"it loses {points(loss)}" if loss.value >= 0 else f"it gains {points(gained)}"
    if fixed.tokens == own.scales[-1].tokens:
        lost = "the finest scale"
    said = f"Fixed scale that loses at most {allowed(fixed.max_loss)}: {in_words(fixed.tokens)} ({lost})"
    if fixed.by_mean < fixed.tokens:
        said += f"; by the mean alone {in_words(fixed.by_mean)}, which these {own.pictures} pictures don't make sure"
    return f"{said}; best by the mean: {in_words(fixed.best)}."


def points(rate: Rate) -> str:
    """A share in points with its interval."""
    low, high = rate.ci
    return f"{100 * rate.value:.1f} points ({100 * low:.1f} to {100 * high:.1f})"


def allowed(max_loss: float) -> str:
    """A share that may be lost, in points."""
    return f"{100 * max_loss:g} point" + ("" if max_loss == POINT else "s")


def in_words(tokens: float) -> str:
    """A number of tokens, or a mean of such."""
    told = f"{tokens:.0f}" if tokens >= 100 or tokens == int(tokens) else f"{tokens:.2g}"
    return f"{told} token" + ("" if told == "1" else "s")


def percent(rate: Rate) -> str:
    """A share in percent with its interval."""
    low, high = rate.ci
    return f"{100 * rate.value:.1f}% ({100 * low:.1f} to {100 * high:.1f})"


def as_text(found: Sequence[DataSet]) -> str:
    """Analyses as tables for people."""
    lines = []
    for data in found:
        own, oracle = data.whole, data.whole.oracle
        tokens = [scale.tokens for scale in own.scales]
        lines += [
            f"{own.dataset}: {own.pairs} pairs of {own.pictures} pictures; 95% intervals by picture",
            f"{'tokens':>8}{'seen':>9}{'score':>9}   interval",
            *(
                f"{s.tokens:8}{s.visual_tokens:9.1f}{s.score.value:9.4f}   {s.score.ci[0]:.4f} to {s.score.ci[1]:.4f}"
                for s in own.scales
            ),
            f"oracle {oracle.score.value:.4f} with {oracle.tokens.value:.1f} tokens (unsolved charged {tokens[0]}) or "
            f"{oracle.tokens_finest.value:.1f} (charged {tokens[-1]})",
            f"its choices judged anew ({own.luck.method}) {own.luck.score.value:.4f}"
            + (f"; of its right answers {percent(own.luck.lucky)} are luck" if own.luck.lucky else ""),
            f"right at a coarser scale, wrong at the finest: {percent(own.finer_hurts)}",
            recommendation(own),
            verdict(data),
            "",
            f"{'task':24}{'pairs':>6}"
            + "".join(f"{t:>7}" for t in tokens)
            + f"{'oracle':>9}{'anew':>8}{'hurts':>8}{'take':>6}{'by mean':>9}",
        ]
        for task in data.tasks:
            scores = "".join(f"{100 * scale.score.value:7.1f}" for scale in task.scales)
            lines.append(
                f"{task.task:24}{task.pairs:6}{scores}{100 * task.oracle.score.value:9.1f}"
                f"{100 * task.luck.score.value:8.1f}{100 * task.finer_hurts.value:8.1f}"
                f"{task.fixed.tokens:6}{task.fixed.by_mean:9}"
            )
        lines.append("")
    return "\n".join(lines)


def scores_verdict(own: ScoredSet) -> str:
    """A data set of a table of scores in one sentence."""
    take, score = own.tokens[own.recommended], own.scores[own.recommended]
    said = f"{own.dataset}: {in_words(take)} at {score - own.scores[-1]:+.2f} points against the finest"
    if own.oracle is None:
        return f"{said}."
    return f"{said}; the oracle stands {own.oracle.over_best:.2f} points above the best fixed scale, luck included."


def scores_as_text(sets: Sequence[ScoredSet], means: Sequence[Mean], max_loss: float) -> str:
    """A table of scores, analysed, as tables for people."""
    lines = [
        f"the coarsest scale that loses at most {allowed(max_loss)}; oracle tokens: unsolved charged the "
        "coarsest, left out, charged the finest",
        f"{'dataset':20}{'take':>6}{'score':>8}{'best':>6}{'oracle':>8}{'over best':>11}{'tokens':>17}",
    ]
    for own in sets:
        line = f"{own.dataset:20}{own.tokens[own.recommended]:6g}{own.scores[own.recommended]:8.2f}"
        line += f"{own.tokens[own.best]:6g}"
        if own.oracle is not None:
            given = own.oracle
            line += f"{given.score:8.2f}{given.over_best:11.2f}"
            line += f"{given.tokens:7.1f}{given.tokens_solved:7.1f}{given.tokens_finest:7.1f}"
        lines.append(line)
    lines += ["", f"{'mean over data sets':44}{'tokens':>8}{'score':>8}"]
    lines += [f"{mean.name:44}{mean.tokens:8.1f}{mean.score:8.2f}" for mean in means]
    return "\n".join(lines)


def as_json(value: Any) -> Any:
    """Dataclasses, tuples and numbers as JSON has them, rounded."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return round(value, DIGITS) if isinstance(value, float) else value
