"""Feedback: verdicts on answers that were given in service, as journals of JSON lines.

A verdict knows the one scale that was served, where a label table knows all of them; the rest of a row is what a label
table's row holds. The journals are written by serving/journal.py and learnt from by `train-router --feedback`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from complexity.errors import InvalidInput, LabelTableError, OffLadder

VERSION: Literal[1] = 1  # of a record and of a line
JOURNALS = "*.jsonl"

T = TypeVar("T")


@dataclass(frozen=True)
class AnsweredRecord:
    """An answered request: what a label row holds but the verdict, and how its scale was decided.

    Raises:
        OffLadder: its tokens are no rung of its ladder.
    """

    decision_id: str
    image_sha256: str
    question: str
    model: str
    ladder: tuple[int, ...]
    tokens: int  # visual tokens per grid, a rung of the ladder
    visual_tokens: int  # what the language model saw
    prediction: str
    mean_logprob: float | None  # natural log, mean over the prediction's tokens; None: not known
    generated_tokens: int
    feature_version: str  # of image_features
    image_features: tuple[FiniteFloat, ...]  # F numbers
    artifact: str  # digest of the artifact that decided
    why: str
    probabilities: tuple[float, ...] | None  # P(right answer) at each rung; None: nobody predicted
    price: float  # probability of a right answer per unit of cost
    second_look: bool = False  # an answer that wasn't sure enough would have been given again
    shadow_tokens: int | None = None  # what another router would have chosen
    version: Literal[1] = VERSION

    def __post_init__(self) -> None:
        if self.tokens not in self.ladder:
            raise OffLadder(self.tokens, self.ladder)


@dataclass(frozen=True)
class FeedbackRow:
    """A verdict on an answered request.

    Raises:
        InvalidInput: the score isn't in [0, 1].
    """

    answered: AnsweredRecord
    score: float  # in [0, 1]
    references: tuple[str, ...]  # right answers, as far as they were told
    at: FiniteFloat  # Unix seconds
    idempotency_key: str | None = None
    version: Literal[1] = VERSION

    def __post_init__(self) -> None:
        if not 0.0 <= self.score <= 1.0:
            raise InvalidInput(f"score {self.score:g} must lie in [0, 1]", "score")


@dataclass(frozen=True)
class Feedback:
    """What journals hold."""

    rows: tuple[FeedbackRow, ...]  # the last verdict on each decision, in order of decision_id
    superseded: int  # verdicts that a later one on the same decision replaces
    torn: int  # last lines that a crash cut off; nobody was told that they were stored


_RECORD = TypeAdapter(AnsweredRecord)
_ROW = TypeAdapter(FeedbackRow)


def decimals(features: np.ndarray) -> tuple[float, ...]:
    """(F,) float32 -> the shortest decimals that give the same float32 again: half as long in JSON."""
    return tuple(float(str(value)) for value in np.asarray(features, np.float32))


def to_line(row: FeedbackRow) -> bytes:
    """A row as one line of JSON, UTF-8, with its newline."""
    return _ROW.dump_json(row) + b"\n"


def from_line(line: bytes) -> FeedbackRow:
    """Raises ValueError, which says what is wrong, when `line` isn't what `to_line` writes."""
    return _parsed(_ROW, line)


def to_value(answered: AnsweredRecord) -> bytes:
    """A record as JSON, UTF-8."""
    return _RECORD.dump_json(answered)


def from_value(value: bytes) -> AnsweredRecord:
    """Raises ValueError, which says what is wrong, when `value` isn't what `to_value` writes."""
    return _parsed(_RECORD, value)


def read_feedback(*paths: Path) -> Feedback:
    """Read journals: files of JSON lines, or folders of *.jsonl; the last verdict on each decision counts.

    Raises:
        LabelTableError: there is no journal, it can't be read, or a line of it is broken; the file and the line are
            named.
    """
    rows: list[FeedbackRow] = []
    torn = 0
    for path in paths:
        for journal in _journals(Path(path)):
            *whole, rest = _read(journal).split(b"\n")
            torn += bool(rest)
            rows += _rows(journal, whole)
    last = {row.answered.decision_id: row for row in sorted(rows, key=lambda row: row.at)}  # stable: equals in order
    return Feedback(tuple(last[name] for name in sorted(last)), len(rows) - len(last), torn)


def _rows(journal: Path, lines: list[bytes]) -> Iterator[FeedbackRow]:
    for number, line in enumerate(lines, start=1):
        try:
            yield from_line(line)
        except ValueError as error:
            raise LabelTableError(f"{journal}, line {number}: not a line of feedback ({error})") from None


def _journals(path: Path) -> list[Path]:
    found = sorted(path.glob(JOURNALS)) if path.is_dir() else [path] if path.is_file() else []
    if not found:
        raise LabelTableError(f"{path}: no feedback here; expected a .jsonl file or a folder of them")
    return found


def _read(journal: Path) -> bytes:
    try:
        return journal.read_bytes()
    except OSError as error:
        raise LabelTableError(f"{journal}: can't be read ({error.strerror})") from None


def _parsed(kind: TypeAdapter[T], text: bytes) -> T:
    try:
        return kind.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]  # the input may be somebody's question
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
