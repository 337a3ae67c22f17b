"""One's own data: a table or JSON lines of pictures, questions and answers, or a Hugging Face dataset of them."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from complexity.errors import InvalidInput
from serving.m3.formats import multiple_choice, short_answer
from training_data.readers.records import Picture, Problem, Record
from training_data.readers.row_files import arrow_rows, json_lines, table
from training_data.readers.source import (
    LETTERS,
    Row,
    Source,
    as_text,
    decoded_picture,
    find_picture,
    records,
    shown,
)
from training_data.readers.store import Folder, Store
from training_data.scoring import SCORERS

COLUMNS = ("picture", "question", "answer", "answers", "task", "id", "options", "scorer")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENCODED = ("iVBOR", "/9j/", "R0lGOD", "UklGR", "Qk0", "Qk1")  # how PNG, JPEG, GIF, WebP and BMP begin in base64
MMMU_PICTURES = 7
_NAMED = re.compile(r"<image (\d)>")
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+%?")


def own(source: Source) -> Iterator[Record | Problem]:
    """One's own data: .csv, .tsv or .jsonl with the columns picture, question, and answer or answers.

    "picture" is a file's name, in the pictures' folder or beside the table, or the picture itself in base64; "answer"
    is one right answer, "answers" several: a list, in a table "a|b". Optional are "task", "id" (otherwise the line),
    "options" (as "answers") and "scorer": "choice" where there are options, otherwise "exact". A choice's answer is
    a letter or an option's text, and its question gets the options and the instruction to name a letter. Others are
    put as they stand, as they come in service: a router learns from the questions that it will see.
    Of columns with other names, each is a problem once.
    """
    yield from records(source, _known(source, _rows(source.path)), lambda row: _own(source, row))


def saved_dataset(source: Source) -> Iterator[Record | Problem]:
    """A Hugging Face dataset on disk: a folder that `save_to_disk` wrote, Parquet files, or a folder of them.

    `columns` says which column is which of `own`'s ("picture" -> "image"); those not named have our own names.
    Pictures are the library's image columns, or names of files.
    """
    rows = arrow_rows(source.path, source.split)

    def renamed() -> Iterator[Row | Problem]:
        for row in rows:
            if isinstance(row, Row):
                values = row.values
                missing = [theirs for theirs in source.columns.values() if theirs not in values]
                if missing:
                    raise InvalidInput(
                        f"{row.file} has no column {missing[0]!r}; its columns are {shown(', '.join(values))}",
                        "columns",
                    )
                ours = {name: values.get(source.columns.get(name, name)) for name in COLUMNS}
                row = replace(row, values=ours)
            yield row

    yield from records(source, renamed(), lambda row: _own(source, row))


def mmmu(source: Source) -> Iterator[Record | Problem]:
    """MMMU: the hub's Parquet files or saved datasets, one or a folder of subjects; task: the subject.

    {"id", "question", "options", "answer", "question_type", "image_1".."image_7"}; options are a list as Python
    writes it. A question about several pictures has them all, in the order of their numbers, and keeps its
    "<image 1>" in the text, as lmms-eval puts it to LLaVA (`lmms_eval/tasks/mmmu`). Open answers are scored as the
    original does: a number exactly, a text where the answer contains it. The split is "validation" unless given.
    Format: MMMU-Benchmark/MMMU and the dataset MMMU/MMMU.
    """
    split = source.split or "validation"

    def make(row: Row) -> Record:
        name, question = row.text("id"), row.text("question")
        task = "_".join(name.split("_")[1:-1]) or source.dataset
        if row.values.get("question_type") == "multiple-choice":
            options = tuple(as_text(each, "options") for each in _listed(row, "options"))
            right = LETTERS[row.letter("answer", options)]
            put = multiple_choice(question, options)
            pictures = _numbered_pictures(row, put)
            return Record(name, source.dataset, task, pictures, put, (right,), "choice", options)
        answer = row.text("answer")
        listed = _listed(row, "answer") if answer.startswith("[") else [answer]
        references = tuple(as_text(each, "answer") for each in listed)
        scorer = "exact" if all(_NUMBER.fullmatch(each) for each in references) else "contains"
        put = short_answer(question)
        return Record(name, source.dataset, task, _numbered_pictures(row, put), put, references, scorer)

    yield from records(source, arrow_rows(source.path, split), make)


def _listed(row: Row, name: str) -> list[Any]:
    """A list that stands in a text as Python writes it."""
    value = row.values.get(name)
    try:
        value = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = row.values.get(name)
    if not isinstance(value, list) or not value:
        raise InvalidInput(f"{name!r} is {shown(value)}; expected a list")
    return value


def _numbered_pictures(row: Row, put: str) -> tuple[Picture, ...]:
    """The pictures that a question names, or the first where it names none."""
    numbers = sorted({int(number) for number in _NAMED.findall(put)}) or [1]
    return tuple(_picture_of(row.values.get(f"image_{k}"), f"image_{k}", row.file.parent) for k in numbers)


def _picture_of(value: object, name: str, folder: Folder) -> Picture:
    """The picture of a column of `datasets`: {"bytes", "path"}, where one of the two may be missing."""
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes) and value["bytes"]:
            return Picture(data=value["bytes"])
        value = value.get("path")
    if isinstance(value, bytes) and value:
        return Picture(data=value)
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{name!r} holds no picture")
    (picture,) = find_picture(folder, value)
    return picture


def _rows(path: Path) -> Iterator[Row | Problem]:
    ending = path.suffix.lower()
    if ending == ".jsonl":
        yield from json_lines(path)
    elif ending in SEPARATORS:
        for row in table(path, ("picture", "question"), SEPARATORS[ending]):
            yield _parted(row) if isinstance(row, Row) else row
    else:
        raise InvalidInput(f"{path}: own data is a .csv, .tsv or .jsonl file")


def _parted(row: Row) -> Row:
    """A table's row with lists where its texts have several parts."""
    parts = {name: row.values[name].split("|") for name in ("answers", "options") if row.values.get(name)}
    return replace(row, values={**row.values, **parts})


def _known(source: Source, rows: Iterable[Row | Problem]) -> Iterator[Row | Problem]:
    """The rows, and once for each column that isn't ours, a problem."""
    told: set[str] = set()
    for row in rows:
        for name in row.values if isinstance(row, Row) else ():
            if name not in COLUMNS and name not in told:
                told.add(name)
                what = f"{shown(name)} is no column of own data; choose from {', '.join(COLUMNS)}"
                yield Problem(source.path, row.line if source.path.suffix.lower() == ".jsonl" else 1, what)
        yield row


def _own(source: Source, row: Row) -> Record:
    name = row.optional("id") or str(row.line)
    question, task = row.text("question"), row.optional("task") or source.dataset
    pictures = _own_pictures(source, row)
    references = _several(row, "answers") or _several(row, "answer")
    if not references:
        raise InvalidInput("there is neither an 'answer' nor 'answers'")
    put, options = question, _several(row, "options")
    scorer = row.optional("scorer") or ("choice" if options else "exact")
    if scorer not in SCORERS:
        raise InvalidInput(f"there is no scorer {shown(scorer)}; choose one of {', '.join(SCORERS)}")
    if (scorer == "choice") != bool(options):
        raise InvalidInput(f"the scorer is {scorer!r}, and there are {len(options)} options; only a choice has some")
    if options:
        put = multiple_choice(question, options)
        references = tuple(_letter(each, options) for each in references)
    return Record(name, source.dataset, task, pictures, put, references, scorer, options)


def _several(row: Row, name: str) -> tuple[str, ...]:
    """The texts of a column that holds a list or one text, or none where it is missing."""
    if isinstance(row.values.get(name), list):
        return row.texts(name)
    text = row.optional(name)
    return (text,) if text else ()


def _letter(answer: str, options: tuple[str, ...]) -> str:
    """The letter of the option that an answer names by its letter or its text."""
    folded = [option.casefold() for option in options]
    by_text = [k for k, option in enumerate(folded) if option == answer.casefold()]
    bare = answer.strip(" ().").upper()
    by_letter = [LETTERS.index(bare)] if len(bare) == 1 and bare in LETTERS[: len(options)] else []
    found = set(by_text + by_letter)
    if len(found) != 1:
        what = "names several of the options" if found else "is no letter and no text of an option"
        raise InvalidInput(f"the answer {shown(answer)} {what}")
    return LETTERS[found.pop()]


def _own_pictures(source: Source, row: Row) -> tuple[Picture, ...]:
    value = row.values.get("picture")
    if not isinstance(value, str):
        several = value if isinstance(value, list) and value else [value]
        return tuple(_picture_of(each, "picture", source.images) for each in several)
    text = row.text("picture")
    if text.startswith("data:"):
        return decoded_picture(text.partition("base64,")[2], "picture")
    beside = [] if isinstance(source.images, Store) else [source.path.parent]
    problems = []
    for folder in dict.fromkeys([source.images, *beside]):
        try:
            return find_picture(folder, text)
        except InvalidInput as problem:
            problems.append(problem)
    if text.startswith(ENCODED):
        return decoded_picture(text, "picture")
    raise problems[0]
