"""The verdict on a router: what it earns and takes beside simple rules, the informed bound and the oracle."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from complexity.labels import LabelTable
from router.calibrate import PRICES, Believe, Chooser
from router.certify import harmful, helpful
from router.evaluate import (
    INTERVAL,
    Lead,
    Measured,
    Outcome,
    bootstrap,
    calibration_bins,
    calibration_error,
    fixed_scales,
    hull,
    leads,
    measure,
    mixed_to,
    oracles,
    price_path,
    priced,
    resampled_means,
    taken,
)
from router.policy import choose_rung, finest_for, worth

WORST = 10  # decisions shown
STEPS = 12  # budgets over which gains are averaged
POINT = 0.01
WORTH_IT = [price for price in PRICES if price >= 0]  # who knows the scores pays for nothing else


@dataclass(frozen=True)
class Rate:
    """A share or a difference of means, with its 95% interval."""

    value: float
    ci: tuple[float, float]


@dataclass(frozen=True)
class FamilyVerdict:
    """The router on one task, against mixing that task's own fixed scales to the same tokens."""

    task: str
    pairs: int
    finest: float  # accuracy of the finest scale
    accuracy: float
    tokens: float
    gain: Rate


@dataclass(frozen=True)
class Decided:
    """One decision of the test rows, for people to look at."""

    sample_id: str
    task: str
    question: str
    image_sha256: str
    tokens: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """What policies are worth on one set of samples."""

    ladder: tuple[int, ...]
    pairs: int
    pictures: int
    policies: tuple[Measured, ...]
    equal_tokens: tuple[Lead, ...]  # of the first belief over the second
    curves: dict[str, list[tuple[float, float, float]]]  # name -> (mean tokens, accuracy, mean cost) at all prices
    calibration_error: float  # of the first chooser's probabilities
    reliability: tuple[tuple[float, list[tuple[float, float]]], ...]  # of each scale: error, (predicted, scored) bins
    summary: dict[str, Rate]
    tokens_at_1pt: float | None  # mean tokens at which the router's curve stands a point below the finest scale
    families: tuple[FamilyVerdict, ...]
    worst: tuple[Decided, ...]  # harmful flips that the router was surest of


@dataclass(frozen=True)
class Extras:
    """What not every table allows to compare with."""

    informed: Believe | None = None
    cascade: Sequence[Outcome] = ()  # at every price
    cascade_chosen: Outcome | None = None
    again: np.ndarray | None = None  # (B, S) scores of another rendering of the same samples
    strange: np.ndarray | None = None  # (B,) bool: unlike the training data, so the first chooser takes the finest


def judge(
    rows: LabelTable,
    choosers: Sequence[Chooser],
    seed: int,
    costs: Sequence[float] | None = None,
    extras: Extras | None = None,
) -> Report:
    """Measure choosers, the first against the second, beside the fixed scales, their random mix and the oracles.

    Strange samples count at the finest scale in the first chooser's own row and flips, and not in the curves, which
    compare what choosers believe.
    """
    extras = extras or Extras()
    ladder, score, pictures = rows.ladder, rows.score.astype(float), rows.image_sha256
    beliefs = [chooser.believe(rows) for chooser in choosers]
    chosen = [
        priced(chooser.name, belief, score, ladder, chooser.price, costs)
        for chooser, belief in zip(choosers, beliefs, strict=True)
    ]
    worths = finest_for(worth(beliefs[0], ladder if costs is None else costs), extras.strange)
    rungs = choose_rung(worths, choosers[0].price)
    chosen[0] = taken(choosers[0].name, rungs, score, ladder, costs)
    paths = {
        chooser.name: price_path(chooser.name, belief, score, ladder, costs)
        for chooser, belief in zip(choosers, beliefs, strict=True)
    }
    fixed = fixed_scales(score, ladder, costs)
    hulled = hull(fixed)
    mixing = mixed_to("random-mixing", hulled, chosen[0].mean_tokens)
    bests = oracles(score, ladder, costs)
    ours, theirs = list(paths.values())[:2]
    paths["oracle-budgeted"] = price_path("oracle-budgeted", score, score, ladder, costs, WORTH_IT)
    if extras.informed is not None:
        paths["informed"] = price_path("informed", extras.informed(rows), score, ladder, costs)
    if extras.cascade:
        paths["cascade"] = list(extras.cascade)
    policies = [*fixed, *([mixing] if mixing else []), *reversed(chosen), *bests]
    policies += [extras.cascade_chosen] if extras.cascade_chosen else []
    return Report(
        ladder=ladder,
        pairs=len(rows),
        pictures=len(np.unique(pictures)),
        policies=tuple(measure(policies, pictures, seed)),
        equal_tokens=tuple(leads(ours, theirs, _targets(ladder, chosen[0].mean_tokens), pictures, seed)),
        curves={name: [(o.mean_tokens, o.accuracy, o.mean_cost) for o in path] for name, path in paths.items()},
        calibration_error=calibration_error(beliefs[0], score),
        reliability=tuple(
            (calibration_error(beliefs[0][:, [s]], score[:, [s]]), calibration_bins(beliefs[0][:, s], score[:, s]))
            for s in range(len(ladder))
        ),
        summary=_summary(rows, paths, hulled, rungs, extras, seed, costs),
        tokens_at_1pt=_tokens_at(ours, fixed[-1].accuracy - POINT),
        families=tuple(_families(rows, chosen[0], seed)),
        worst=tuple(_worst(rows, beliefs[0], rungs)),
    )


def budgets(ladder: Sequence[int]) -> np.ndarray:
    """Mean tokens over which gains are averaged, evenly in their logarithm: 9 to 60 on M3's ladder."""
    return np.geomspace(ladder[(len(ladder) - 1) // 4], ladder[len(ladder) // 2] * 5 / 3, STEPS)


def over_budgets(path: Sequence[Outcome], ladder: Sequence[int]) -> np.ndarray:
    """(B,) score of each sample averaged over the budgets; beyond a path's ends its end."""
    ends = sorted(path, key=lambda outcome: outcome.mean_tokens)
    found = [mixed_to("", path, t) or (ends[0] if t < ends[0].mean_tokens else ends[-1]) for t in budgets(ladder)]
    return np.asarray(np.mean([outcome.score for outcome in found], axis=0))


def _summary(
    rows: LabelTable,
    paths: dict[str, list[Outcome]],
    hulled: Sequence[Outcome],
    rungs: np.ndarray,
    extras: Extras,
    seed: int,
    costs: Sequence[float] | None,
) -> dict[str, Rate]:
    """Gains averaged over `budgets`, and the gaps that they close."""
    score, ladder = rows.score.astype(float), rows.ladder
    simple = {name: path for name, path in paths.items() if name in ("lookup", "image-size", "question")}
    columns = {name: over_budgets(path, ladder) for name, path in paths.items()}
    columns["hull"] = over_budgets(hulled, ladder)
    best = max([*simple, "hull"], key=lambda name: columns[name].mean())
    columns["simple"] = columns[best]
    columns["harmful"] = harmful(score, rungs).astype(float)
    columns["helpful"] = helpful(score, rungs).astype(float)
    columns["loss"] = score[:, -1] - score[np.arange(len(rows)), rungs]
    if extras.again is not None:
        worths = worth(score, ladder if costs is None else costs)
        again = [
            Outcome("", extras.again[np.arange(len(rows)), outcome_rungs], tokens, tokens)
            for outcome_rungs, tokens in _oracle_rungs(worths, ladder)
        ]
        columns["oracle-repeated"] = over_budgets(again, ladder)
    names = list(columns)
    draws = resampled_means(np.stack([columns[name] for name in names], axis=1), rows.image_sha256, seed)
    drawn = {name: draws[:, i] for i, name in enumerate(names)}
    means = {name: columns[name].mean() for name in names}

    def gain(one: str, other: str) -> Rate:
        return _rate(means[one] - means[other], drawn[one] - drawn[other])

    def closed(bound: str, base: str) -> Rate:
        """Share of the way from `base` to `bound` that the router goes."""
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = (drawn["router"] - drawn[base]) / (drawn[bound] - drawn[base])
            share = (means["router"] - means[base]) / (means[bound] - means[base])
        return _rate(share, shares[np.isfinite(shares)])

    summary = {
        "gain_over_hull": gain("router", "hull"),
        "oracle_gain_over_hull": gain("oracle-budgeted", "hull"),
        "oracle_gap_closed": closed("oracle-budgeted", "hull"),
        "loss_against_finest": _rate(means["loss"], drawn["loss"]),
        "harmful_flips": _rate(means["harmful"], drawn["harmful"]),
        "helpful_flips": _rate(means["helpful"], drawn["helpful"]),
    }
    summary |= {f"vs_{name}": gain("router", name) for name in simple}
    if "informed" in paths:
        summary["informed_gain"] = gain("informed", "simple")
        summary["informed_gain_closed"] = closed("informed", "simple")
    if "cascade" in paths:
        summary["cascade_gain"] = gain("cascade", "router")
    if extras.again is not None:
        summary["oracle_gain_over_hull_repeated"] = gain("oracle-repeated", "hull")
        summary["oracle_gap_closed_repeated"] = closed("oracle-repeated", "hull")
    return summary


def _oracle_rungs(worths: np.ndarray, ladder: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rungs (B,) and tokens (B,) at every price worth paying."""
    tokens = np.asarray(ladder, float)
    return [(rungs, tokens[rungs]) for rungs in (choose_rung(worths, price) for price in WORTH_IT)]


def _rate(value: float, draws: np.ndarray) -> Rate:
    low, high = np.percentile(draws, INTERVAL) if len(draws) else (math.nan, math.nan)
    return Rate(float(value), (float(low), float(high)))


def _tokens_at(path: Sequence[Outcome], accuracy: float) -> float | None:
    """Fewest mean tokens from which on a path stays at or above an accuracy; None if its dearest end is below."""
    reached = None
    for outcome in sorted(path, key=lambda each: -each.mean_tokens):
        if outcome.accuracy < accuracy:
            break
        reached = outcome.mean_tokens
    return reached


def _families(rows: LabelTable, ours: Outcome, seed: int) -> list[FamilyVerdict]:
    verdicts = []
    for task in np.unique(rows.task):
        own = np.flatnonzero(rows.task == task)
        score = rows.score[own].astype(float)
        tokens = float(ours.tokens[own].mean())
        mixed = mixed_to("", hull(fixed_scales(score, rows.ladder)), tokens)
        best = mixed.score if mixed is not None else score[:, score.mean(0).argmax()]  # beyond the hull's end
        gains = ours.score[own] - best
        (interval,) = bootstrap(gains[:, None], rows.image_sha256[own], seed)
        verdicts.append(
            FamilyVerdict(
                str(task),
                len(own),
                float(score[:, -1].mean()),
                float(ours.score[own].mean()),
                tokens,
                Rate(float(gains.mean()), interval),
            )
        )
    return verdicts


def _worst(rows: LabelTable, belief: np.ndarray, rungs: np.ndarray) -> list[Decided]:
    """The harmful flips whose chosen scale the router was surest of."""
    flipped = np.flatnonzero(harmful(rows.score, rungs))
    surest = flipped[np.argsort(-belief[flipped, rungs[flipped]], kind="stable")][:WORST]
    return [
        Decided(
            str(rows.sample_id[i]),
            str(rows.task[i]),
            str(rows.question[i]),
            str(rows.image_sha256[i]),
            rows.ladder[rungs[i]],
            tuple(float(p) for p in belief[i]),
        )
        for i in surest
    ]


def _targets(ladder: Sequence[int], own: float) -> list[float]:
    """Mean tokens at which policies are compared: the router's own, the inner rungs and the middles between rungs."""
    middles = [math.sqrt(one * other) for one, other in zip(ladder, ladder[1:], strict=False)]
    return sorted({round(tokens, 1) for tokens in (*ladder[1:-1], *middles, own)})
