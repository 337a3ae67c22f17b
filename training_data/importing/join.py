"""An evaluation tool's runs, one a scale, joined to each other and to a benchmark's records; the rest is named."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from complexity.errors import InvalidInput
from training_data.importing.logs import Result
from training_data.readers.records import Problem, Record

SHOWN = 3  # names in a message
SHOWN_CHARS = 200  # of a name in a message
FEW = 4  # questions, of which can't be told what they share
MOST_DISPUTED = 0.1  # of the results that found a record: more are no odd ones, but the wrong data
PLACE, QUESTION = "place", "question"  # kinds of id: where a row stands in the benchmark; what it asks, with the answer
_WORD = re.compile(r"\w+")
_COUNTED = re.compile(r"-\d+$")  # MME's reader numbers the questions about a picture, its logs don't
_ENDING = re.compile(r"\.(jpe?g|png)$", re.IGNORECASE)


@dataclass(frozen=True)
class Joined:
    """A sample that stands in every run and in the benchmark."""

    record: Record
    results: tuple[Result, ...]  # one a scale, coarsest first


@dataclass(frozen=True)
class LeftOut:
    """What can't be used, and why."""

    what: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(name[:SHOWN_CHARS] for name in self.names[:SHOWN])
        return f"{len(self.names)} {self.what}: {shown}{', ...' if len(self.names) > SHOWN else ''}"


@dataclass(frozen=True)
class Join:
    """The samples, in the runs' order, and what was left out."""

    samples: tuple[Joined, ...]
    by: str  # kind of id by which the benchmark knows the samples
    left_out: tuple[LeftOut, ...]


def join(runs: Mapping[int, Sequence[Result]], rows: Iterable[Record | Problem]) -> Join:
    """The samples that stand in every run and among the records, asked the same everywhere.

    Tools and benchmarks don't agree on ids, and a wrong one would give a picture another's labels. So of the kinds of
    id that a log has, the one counts by which the most results find a record with their own question.

    Args:
        runs: results by their scale's visual tokens.
        rows: a reader's records and problems, in the benchmark's order.

    Raises:
        InvalidInput: a run is empty or has a sample twice, or many questions aren't the records'.
    """
    scales = sorted(runs)
    whole, apart, incomplete = _across_scales(scales, [_by_key(tokens, runs[tokens]) for tokens in scales])
    rows = list(rows)
    by, found = _find([*(results[0] for results in whole), *incomplete], rows)
    samples, strangers, disputed = [], [], []
    for results, (record, agrees) in zip(whole, found, strict=False):  # what is incomplete comes after
        if record is None:
            strangers.append(results[0].key)
        elif not agrees:
            disputed.append(f"{results[0].key} {results[0].question!r}, not {record.question!r}")
        else:
            samples.append(Joined(record, results))
    if len(disputed) > MOST_DISPUTED * (len(disputed) + len(samples)):
        raise InvalidInput(f"the logs are of other data: {LeftOut('questions differ', tuple(disputed))}")
    used = {id(record) for record, _ in found}
    unused = (row.record_id for row in rows if isinstance(row, Record) and id(row) not in used)
    others = (
        LeftOut("results without a record", tuple(strangers)),
        LeftOut("results that ask something else than their record", tuple(disputed)),
        LeftOut("records without a result", tuple(unused)),
        LeftOut("rows that the reader can't use", tuple(str(row) for row in rows if isinstance(row, Problem))),
    )
    return Join(tuple(samples), by, tuple(each for each in (*apart, *others) if each.names))


def _by_key(tokens: int, results: Sequence[Result]) -> dict[str, Result]:
    if not results:
        raise InvalidInput(f"the run of {tokens} tokens holds no results")
    counts = Counter(result.key for result in results)
    twice = tuple(key for key, count in counts.items() if count > 1)
    if twice:
        raise InvalidInput(f"the run of {tokens} tokens holds {LeftOut('samples more than once', twice)}")
    return {result.key: result for result in results}


def _across_scales(
    scales: Sequence[int], runs: Sequence[Mapping[str, Result]]
) -> tuple[list[tuple[Result, ...]], tuple[LeftOut, ...], list[Result]]:
    """The samples that every run has answered; the others' names, and a result of each of them."""
    keys = dict.fromkeys(key for run in runs for key in run)
    found = {key: tuple(run[key] for run in runs if key in run) for key in keys}
    everywhere = [results for results in found.values() if len(results) == len(runs)]
    # A row that holds its picture is hashed by where that lay in memory: such hashes agree for no sample.
    hashed = any(len({result.doc_hash for result in results}) == 1 for results in everywhere)
    missing, failed, changed = [], [], []
    whole, incomplete = [], []
    for key, results in found.items():
        if len(results) < len(runs):
            lacks = (str(tokens) for tokens, run in zip(scales, runs, strict=True) if key not in run)
            missing.append(f"{key} (at {' and '.join(lacks)})")
        elif any(result.prediction is None for result in results):
            failed.append(key)
        elif len({(result.doc_hash if hashed else "", result.question, result.target) for result in results}) > 1:
            changed.append(key)
        else:
            whole.append(results)
            continue
        incomplete.append(results[0])
    apart = (
        LeftOut("samples missing at some scale", tuple(missing)),
        LeftOut("samples without an answer at some scale", tuple(failed)),
        LeftOut("samples whose row, question or right answer differs between scales", tuple(changed)),
    )
    return whole, apart, incomplete


def _find(results: Sequence[Result], rows: Sequence[Record | Problem]) -> tuple[str, list[tuple[Record | None, bool]]]:
    """The kind of id that fits best, and each result's record by it, with whether that asks the same."""
    records = [row for row in rows if isinstance(row, Record)]
    logged, asked = bare([each.question for each in results]), bare([each.question for each in records])
    bare_of = {id(record): question for record, question in zip(records, asked, strict=True)}
    by_id: dict[str, list[Record]] = defaultdict(list)
    by_picture: dict[str, list[Record]] = defaultdict(list)
    by_question: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        by_id[record.record_id].append(record)
        for name in _names_of_pictures(record):
            by_picture[name].append(record)
        by_question[bare_of[id(record)]].append(record)
    by_place = {str(place): [row] for place, row in enumerate(rows) if isinstance(row, Record)}
    alike = Counter((question, result.target) for question, result in zip(logged, results, strict=True))

    def candidates(kind: str, result: Result, question: tuple[str, ...]) -> list[Record]:
        if kind == QUESTION:
            those = [each for each in by_question.get(question, []) if not result.target or _is_right(result, each)]
            return those if len(those) == alike[question, result.target] == 1 else []
        value = dict(result.ids).get(kind, "")
        if kind == PLACE:
            return by_place.get(value, [])
        bare_name = _ENDING.sub("", value)
        return by_id.get(value) or by_id.get(bare_name) or by_picture.get(bare_name, [])

    best, by, chosen = (-1, -1), "", []
    for kind in (*dict.fromkeys(kind for result in results for kind, _ in result.ids), QUESTION):
        taken: set[int] = set()
        found: list[tuple[Record | None, bool]] = []
        for result, question in zip(results, logged, strict=True):
            left = [record for record in candidates(kind, result, question) if id(record) not in taken]
            blind = kind != PLACE and not question  # not logged
            right = next((each for each in left if blind or same_question(question, bare_of[id(each)])), None)
            if right is not None:
                taken.add(id(right))
            found.append((right or next(iter(left), None), right is not None))
        # Where all questions are alike, the right answers tell which ids are off.
        answers = sum(
            right and _is_right(result, record) for result, (record, right) in zip(results, found, strict=True)
        )
        if (count := (sum(right for _, right in found), answers)) > best:
            best, by, chosen = count, kind, found
    return by, chosen


def _names_of_pictures(record: Record) -> set[str]:
    """By which MME's logs, and LLaVA's for TextVQA, call the questions about a picture: its name, without an ending."""
    stems = {picture.path.stem for picture in record.pictures if picture.path is not None}
    return stems | {_COUNTED.sub("", record.record_id)}


def _is_right(result: Result, record: Record | None) -> bool:
    """Whether the log's right answer is one of the record's; several are logged as a list in text."""
    return record is not None and any(
        result.target == right or repr(right) in result.target for right in record.references
    )


def same_question(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether every line of one question is part of the other: tools add options, or what was read from the picture."""
    return _within(one, other) or _within(other, one)


def _within(lines: Sequence[str], whole: Sequence[str]) -> bool:
    text = f" {' '.join(whole)} "
    return all(f" {line} " in text for line in lines)


def bare(questions: Sequence[str]) -> list[tuple[str, ...]]:
    """The words of each question's lines, without the lines that most share, by which answers' form is asked for.

    Capitals, punctuation and blanks are left out too; each tool writes them as it likes.
    """
    split = [_lines(question) for question in questions]
    counts = Counter(line for lines in split for line in set(lines))
    enough = len(questions) / 2 if len(questions) >= FEW else len(questions)
    return [tuple(line for line in lines if counts[line] <= enough) or lines for lines in split]


def _lines(question: str) -> tuple[str, ...]:
    lines = (" ".join(_WORD.findall(line.casefold())) for line in question.replace("<image>", "\n").splitlines())
    return tuple(line for line in lines if line)
