"""What other evaluation tools log about each sample: lmms-eval, VLMEvalKit, and LLaVA's scripts, which M3's are.

A run is the log of one scale: a file, or a folder with one such file in it. `FORMATS` reads each tool's to a list of
`Result`, in the log's order, with the scores that the tool gave and no pictures, for none of them logs those.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from complexity.errors import InvalidInput
from training_data.readers.records import Problem
from training_data.readers.row_files import json_lines, json_list, table
from training_data.readers.source import Row, shown
from training_data.readers.workbook import workbook

SHOWN_FILES = 3  # in a message
NOT_METRICS = frozenset(  # of lmms-eval's fields
    "doc_id doc target input arguments resps filtered_resps doc_hash prompt_hash target_hash token_counts input_media "
    "filter metrics submission".split()
)
ID_FIELDS = ("question_id", "questionId", "index", "id")  # of benchmarks, in what lmms-eval's tasks log
SCORE_COLUMNS = ("hit", "score")  # of VLMEvalKit's; not eval_score, see read_vlmevalkit
FAILED = "Failed to obtain answer"  # VLMEvalKit's prediction where its model or an API gave none
TABLES: dict[str, Callable[[Path], Iterable[Row | Problem]]] = {
    "xlsx": workbook,
    "csv": lambda file: table(file, ["index"]),
    "tsv": lambda file: table(file, ["index"], "\t"),
    "json": json_list,
}


@dataclass(frozen=True)
class Result:
    """What a tool logged about one sample at one scale."""

    key: str  # the tool's name of the sample, unique in a run
    ids: tuple[tuple[str, str], ...]  # (kind, value): by which the benchmark may know it, the likeliest first
    question: str  # as it was asked, or bare; "": not logged
    target: str  # right answer; "": not logged
    prediction: str | None  # None: the tool got none
    score: float | None  # None: the tool gave none
    doc_hash: str = ""  # of the benchmark's row; "": not logged


def read_lmms_eval(path: Path, metric: str | None = None) -> list[Result]:
    """lmms-eval's per-sample logs, as `--log_samples --output_path DIR` writes them: `*samples_TASK*.jsonl`.

    A line has doc_id (the row's place in the split), doc_hash, target, input, filtered_resps ([text], or text since
    pull request 1103), resps where they differ, and each metric of the task: a number, or an object with a score in
    it (MME, POPE, OCRBench), or with the choice and the answer (SEED-Bench, MMMU). Fields of the row itself are
    dropped, except for the ids in such objects.

    Source: EvolvingLMMs-Lab/lmms-eval, lmms_eval/evaluator.py and lmms_eval/loggers/evaluation_tracker.py
    (save_results_samples); lmms_eval/tasks/*/utils.py for the metrics.

    Args:
        metric: which to take where a sample has several that differ.

    Raises:
        InvalidInput: no such file, more than one, a broken line, or metrics among which to choose.
    """
    file = _one_file(path, r"samples_.*\.jsonl$")
    return [_of_lmms_eval(row, metric) for row in _sound(json_lines(file))]


def read_vlmevalkit(path: Path, metric: str | None = None) -> list[Result]:
    """VLMEvalKit's tables: judged, MODEL_DATASET_*_result.xlsx, _results or _auxmatch, or the predictions alone.

    A row has index, question, answer, prediction and, where it was judged, hit (multiple choice) or score (yes or no).
    For VQA `_results` have eval_score, the mean of what was measured, which for DocVQA and InfographicVQA is the
    distance from the right answers: so it is taken only where it is asked for, and such tables count as predictions.
    Tables are .xlsx, .tsv or .json, by the tool's PRED_FORMAT, or .csv.

    Source: open-compass/VLMEvalKit, vlmeval/smp/file.py (dump, get_pred_file_path), vlmeval/inference.py,
    vlmeval/dataset/image_yorn.py and image_vqa.py, vlmeval/dataset/utils/multiple_choice.py and vqa_eval.py.

    Args:
        metric: the column of scores, where it isn't one of those.

    Raises:
        InvalidInput: no such table, more than one, one that can't be read or lacks a column, or scores among which to
            choose.
    """
    kinds = "|".join(TABLES)
    file = _one_file(path, rf"_(result|results|auxmatch)\.({kinds})$", rf"(?<!_acc)(?<!_score)\.({kinds})$")
    suffix = file.suffix.removeprefix(".").lower()
    if suffix not in TABLES:
        raise InvalidInput(f"{file}: tables are read from .{', .'.join(TABLES)}")
    return [_of_vlmevalkit(row, number, metric) for number, row in enumerate(_sound(TABLES[suffix](file)))]


def read_llava(path: Path, metric: str | None = None) -> list[Result]:
    """The answers of LLaVA's evaluation scripts, which M3's are with a scale added; they hold no scores.

    A line has question_id, prompt, text, answer_id, model_id and metadata, and for MMBench round_id, where rounds after
    the first ask the same with the options rotated, and are left out. MME and TextVQA ask several questions under an
    id, which is the picture's. Of a folder merge.jsonl is read, or all .jsonl files, which are a run's chunks.

    Source: haotian-liu/LLaVA and mu-cai/matryoshka-mm, llava/eval/model_vqa_loader.py, model_vqa_science.py and
    model_vqa_mmbench.py; scripts/v1_5/eval/*.sh.

    Args:
        metric: refused, since there are none.

    Raises:
        InvalidInput: no such file, or a broken line.
    """
    if metric is not None:
        raise InvalidInput(f"--metric {metric}: LLaVA's answers hold no scores")
    files = [path] if path.is_file() else sorted(path.rglob("merge.jsonl")) or sorted(path.rglob("*.jsonl"))
    if not files:
        raise InvalidInput(f"there is no file or folder with .jsonl files {path}")
    rows = [row for file in files for row in _sound(json_lines(file)) if row.values.get("round_id", 0) == 0]
    results = [_of_llava(row, number) for number, row in enumerate(rows)]
    asked = Counter(result.key for result in results)
    return [
        replace(result, key=f"{result.key} {result.question}") if asked[result.key] > 1 else result
        for result in results
    ]


FORMATS: dict[str, Callable[[Path, str | None], list[Result]]] = {
    "lmms-eval": read_lmms_eval,
    "vlmevalkit": read_vlmevalkit,
    "llava": read_llava,
}


def _one_file(path: Path, *kinds: str) -> Path:
    """`path` itself, or the one file below it that a pattern fits; the first pattern that any file fits counts."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise InvalidInput(f"there is no file or folder {path}")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    for kind in kinds:
        found = [file for file in files if re.search(kind, file.name)]
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(str(file.relative_to(path)) for file in found[:SHOWN_FILES])
            raise InvalidInput(f"{path} holds {len(found)} logs, such as {shown}; name one of them")
    raise InvalidInput(f"{path} holds no log: no file's name fits {' or '.join(kinds)}")


def _sound(rows: Iterable[Row | Problem]) -> Iterator[Row]:
    """The rows, if there is nothing wrong with any: a torn log is no run."""
    for row in rows:
        if isinstance(row, Problem):
            raise InvalidInput(str(row))
        yield row


def _field(row: Row, name: str) -> Any:
    if row.values.get(name) is None:
        raise InvalidInput(f"{_place(row)}: has no {name!r}, only {shown(', '.join(row.values))}")
    return row.values[name]


def _place(row: Row) -> str:
    return f"{row.file}:{row.line}"


def _of_lmms_eval(row: Row, metric: str | None) -> Result:
    values = row.values
    key = _sayable(str(_field(row, "doc_id")))
    said = values["filtered_resps"] if "filtered_resps" in values else _field(row, "resps")
    objects = [value for value in values.values() if isinstance(value, dict)]
    named = {kind: str(each[kind]) for kind in ID_FIELDS for each in reversed(objects) if kind in each}
    return Result(
        key,
        (*named.items(), ("doc_id", key), ("place", key)),
        _text(values.get("input", values.get("arguments"))),
        _sayable(str(values.get("target", ""))),
        _text(said),
        _score(row, {name: value for name, value in values.items() if name not in NOT_METRICS}, metric),
        str(values.get("doc_hash", "")),
    )


def _of_vlmevalkit(row: Row, number: int, metric: str | None) -> Result:
    # Judged tables have all names but the options' letters in small letters.
    values = {name if len(name) == 1 else name.lower(): value for name, value in row.values.items()}
    key = _cell(_field(row, "index"))
    if "prediction" not in values:
        _field(row, "prediction")
    said = _cell(values["prediction"])
    named = {kind: _cell(values[kind.lower()]) for kind in ID_FIELDS if kind.lower() in values}
    columns = [metric.lower()] if metric else SCORE_COLUMNS
    return Result(
        key,
        (("index", key), *named.items(), ("place", str(number))),
        _cell(values.get("question")),
        _cell(values.get("answer")),
        None if said.startswith(FAILED) else said,
        _score(row, {name: values[name] for name in columns if name in values}, metric and metric.lower()),
    )


def _of_llava(row: Row, number: int) -> Result:
    key = _sayable(str(_field(row, "question_id")))
    asked, said = _sayable(str(row.values.get("prompt", ""))), _sayable(str(_field(row, "text")))
    return Result(key, (("question_id", key), ("place", str(number))), asked, "", said, None)


def _score(row: Row, metrics: Mapping[str, Any], wanted: str | None) -> float | None:
    """Of the metric that is wanted, or of all that can be read, if they agree."""
    if wanted is not None and wanted not in metrics:
        raise InvalidInput(f"{_place(row)}: has no metric {wanted!r}, only {shown(', '.join(metrics or row.values))}")
    scores = {name: score for name, value in metrics.items() if (score := _judged(value)) is not None}
    if wanted is not None:
        if wanted not in scores:
            raise InvalidInput(f"{_place(row)}: there is no score in {wanted} = {shown(metrics[wanted])}")
        return scores[wanted]
    if len(set(scores.values())) > 1:
        told = ", ".join(f"{name} = {score:g}" for name, score in scores.items())
        raise InvalidInput(f"{_place(row)}: {told}; choose by --metric")
    return next(iter(scores.values()), None)


def _judged(value: Any) -> float | None:
    """The score in a metric's value, if it is of a known shape."""
    if isinstance(value, dict):
        if "score" in value:
            return _number(value["score"])
        chosen, answer = _text(value.get("pred", value.get("parsed_pred"))), value.get("answer")
        if chosen and isinstance(answer, str) and value.get("question_type", "multiple-choice") == "multiple-choice":
            return float(chosen == answer)  # as SEED-Bench and MMMU's choices are counted in their tasks
        return None
    return _number(value)


def _number(value: Any) -> float | None:
    """Also of lists of one, and of texts, as tables and language models that judge give them."""
    while isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        truth = {"true": 1.0, "false": 0.0}.get(value.strip().lower())
        if truth is not None:
            return truth
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool | int | float) and not math.isnan(value):
        return float(value)
    return None


def _text(value: Any) -> str:
    """The first text in nested lists; "" if there is none, as in log-likelihoods of choices."""
    while isinstance(value, list) and value:
        value = value[0]
    return _sayable(value) if isinstance(value, str) else ""


def _sayable(text: str) -> str:
    """A text without the halves of characters that JSON can spell and no file can hold: answers are cut anywhere."""
    return text.encode(errors="replace").decode()


def _cell(value: Any) -> str:
    """A table's cell as text; whole numbers have no decimals, whatever a spreadsheet made of them."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _sayable(str(value))
