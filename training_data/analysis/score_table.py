"""What can be told of a model's scales from mean scores alone, as papers tabulate them: no sample is known.

The table is a CSV with the columns dataset, policy (`fixed` or `oracle`), tokens and score, in percent; lines that
begin with # are left out. An oracle's row gives its mean tokens, with samples that no scale answers charged the
coarsest scale.
`training_data/published/` holds two of the M3 paper's.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from complexity.errors import InvalidInput

COLUMNS = ("dataset", "policy", "tokens", "score")
POLICIES = ("fixed", "oracle")


@dataclass(frozen=True)
class ScoreRow:
    """A line of the table."""

    dataset: str
    policy: str
    tokens: float
    score: float  # percent


@dataclass(frozen=True)
class GivenOracle:
    """A published oracle, its mean tokens in both conventions.

    Both follow from the share of solved samples, which is the oracle's score where scores are 0 or 1; with soft scores
    they are approximate.
    """

    score: float  # percent
    tokens: float  # unsolved charged the coarsest scale (M3's authors)
    tokens_solved: float  # solved samples only
    tokens_finest: float  # unsolved charged the finest scale (CARES)
    over_best: float  # points over the best fixed scale
    over_finest: float  # points over the finest scale


@dataclass(frozen=True)
class ScoredSet:
    """A data set's scales, from the coarsest."""

    dataset: str
    tokens: tuple[float, ...]
    scores: tuple[float, ...]  # percent
    recommended: int  # index of the coarsest scale within the allowed loss of the finest
    best: int  # index of the best scale
    oracle: GivenOracle | None


@dataclass(frozen=True)
class Mean:
    """One way to choose, over all data sets alike."""

    name: str
    tokens: float
    score: float  # percent


def read_scores(path: Path) -> list[ScoreRow]:
    """Read and check a table of scores.

    Raises:
        InvalidInput: it can't be read, or a line doesn't hold what it must.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: not a readable table of scores ({error})") from None
    numbered = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    cells = list(csv.reader([line for _, line in numbered]))
    if not cells or tuple(cell.strip() for cell in cells[0]) != COLUMNS:
        found = ",".join(cells[0]) if cells else "nothing"
        raise InvalidInput(f"{path}: the first line is {found[:80]!r}, expected {','.join(COLUMNS)!r}")
    rows = [_row(f"{path}, line {number}", found) for (number, _), found in zip(numbered[1:], cells[1:], strict=True)]
    if not rows:
        raise InvalidInput(f"{path}: no scores below the first line")
    if all(row.score <= 1 for row in rows):
        raise InvalidInput(f"{path}: no score is above 1; scores are in percent, such as 65.4")
    return rows


def _row(where: str, cells: Sequence[str]) -> ScoreRow:
    if len(cells) != len(COLUMNS):
        raise InvalidInput(f"{where}: {len(cells)} cells, expected {len(COLUMNS)}")
    dataset, policy, *numbers = (cell.strip() for cell in cells)
    if not dataset:
        raise InvalidInput(f"{where}: the dataset has no name")
    if policy not in POLICIES:
        raise InvalidInput(f"{where}: policy {policy!r}, expected one of {', '.join(POLICIES)}")
    try:
        tokens, score = map(float, numbers)
    except ValueError:
        raise InvalidInput(f"{where}: tokens {numbers[0]!r} and score {numbers[1]!r} must be numbers") from None
    if not (math.isfinite(tokens) and tokens > 0):
        raise InvalidInput(f"{where}: {tokens} tokens; a positive number is expected")
    if not 0 <= score <= 100:
        raise InvalidInput(f"{where}: score {score}; percents from 0 to 100 are expected")
    return ScoreRow(dataset, policy, tokens, score)


def analyse_scores(rows: Sequence[ScoreRow], max_loss: float) -> list[ScoredSet]:
    """Each data set's recommended scale, and its oracle in both conventions, in the table's order.

    Args:
        max_loss: what the recommended scale may lose against the finest, a share (0.01: 1 point).

    Raises:
        InvalidInput: a data set without scales, with a scale or an oracle twice, or an oracle that can't be one.
    """
    return [
        _set(name, [row for row in rows if row.dataset == name], max_loss)
        for name in dict.fromkeys(row.dataset for row in rows)
    ]


def _set(name: str, rows: Sequence[ScoreRow], max_loss: float) -> ScoredSet:
    fixed = sorted((row for row in rows if row.policy == "fixed"), key=lambda row: row.tokens)
    tokens = tuple(row.tokens for row in fixed)
    scores = tuple(row.score for row in fixed)
    if not fixed:
        raise InvalidInput(f"dataset {name!r} has no row of a fixed scale")
    if len(set(tokens)) < len(tokens):
        raise InvalidInput(f"dataset {name!r} has a scale twice among {', '.join(f'{each:g}' for each in tokens)}")
    given = [row for row in rows if row.policy == "oracle"]
    if len(given) > 1:
        raise InvalidInput(f"dataset {name!r} has {len(given)} oracles, expected one at most")
    return ScoredSet(
        dataset=name,
        tokens=tokens,
        scores=scores,
        recommended=_within(scores, max_loss),
        best=max(range(len(scores)), key=scores.__getitem__),
        oracle=_oracle(given[0], tokens, scores) if given else None,
    )


def _within(scores: Sequence[float], loss: float) -> int:
    """Index of the coarsest scale that loses at most this share against the finest."""
    return next(i for i, score in enumerate(scores) if score >= scores[-1] - 100 * loss - 1e-9)


def _oracle(row: ScoreRow, tokens: Sequence[float], scores: Sequence[float]) -> GivenOracle:
    """Mean = solved x mean of the solved + unsolved x what those are charged; so one convention gives the other."""
    solved = row.score / 100
    charged = (1 - solved) * tokens[0]
    of_solved = row.tokens - charged  # tokens of the solved, per sample
    possible = solved * tokens[0] - 1e-9 <= of_solved <= solved * tokens[-1] + 1e-9
    if solved == 0 or row.score < max(scores) or not possible:
        raise InvalidInput(
            f"dataset {row.dataset!r}: an oracle with {row.score:g}% at {row.tokens:g} mean tokens can't be; it must "
            "score above 0 and no less than each scale, and its tokens lie between the coarsest scale's and the "
            "finest's"
        )
    return GivenOracle(
        score=row.score,
        tokens=row.tokens,
        tokens_solved=of_solved / solved,
        tokens_finest=of_solved + (1 - solved) * tokens[-1],
        over_best=row.score - max(scores),
        over_finest=row.score - scores[-1],
    )


def means(sets: Sequence[ScoredSet], losses: Sequence[float]) -> list[Mean]:
    """Unweighted means over data sets: each scale that all have, a scale per data set at each loss, and the oracle.

    Args:
        losses: what a data set's scale may lose against its finest, shares.
    """

    def mean(name: str, chosen: Sequence[tuple[float, float]]) -> Mean:
        return Mean(name, *(sum(column) / len(chosen) for column in zip(*chosen, strict=True)))

    shared = [tokens for tokens in sets[0].tokens if all(tokens in each.tokens for each in sets)]
    found = [
        mean(f"always {tokens:g}", [(tokens, each.scores[each.tokens.index(tokens)]) for each in sets])
        for tokens in shared
    ]
    for loss in losses:
        rungs = [_within(each.scores, loss) for each in sets]
        name = f"per data set, within {100 * loss:g} of the finest"
        found.append(mean(name, [(s.tokens[rung], s.scores[rung]) for s, rung in zip(sets, rungs, strict=True)]))
    found.append(mean("per data set, its best", [(each.tokens[each.best], each.scores[each.best]) for each in sets]))
    oracles = [each.oracle for each in sets if each.oracle is not None]
    if len(oracles) == len(sets):
        found.append(mean("oracle, unsolved charged the coarsest", [(o.tokens, o.score) for o in oracles]))
        found.append(mean("oracle, unsolved charged the finest", [(o.tokens_finest, o.score) for o in oracles]))
    return found
