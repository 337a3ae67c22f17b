"""Files as rows: JSON, JSON lines, tables, lines of text, Parquet and folders of Hugging Face datasets.

All but whole JSON files are streamed. What is wrong with a row is a `Problem` in its place, and the next row follows;
a file that can't be used at all is an `InvalidInput`.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from complexity.errors import InvalidInput, M3Error
from training_data.readers.records import Problem
from training_data.readers.source import Row, shown

MOST_CHARS = 1 << 27  # of a line of JSON or a table's field: a picture of 100 MB in base64
BATCH = 16  # rows of a Parquet file or dataset in memory at once


def load_json(file: Path) -> Any:
    """A whole JSON file.

    Raises:
        InvalidInput: it can't be read or isn't JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(file, error) from None


def json_list(file: Path, key: str | None = None) -> Iterator[Row | Problem]:
    """The objects of a list, which is the whole file or stands at `key` of its object.

    Raises:
        InvalidInput: there is no such list.
    """
    yield from listed(file, load_json(file), key)


def listed(file: Path, value: object, key: str | None = None) -> Iterator[Row | Problem]:
    """The same of a file that is loaded."""
    if key is not None:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, list):
        raise InvalidInput(f"{file} holds no list" + (f" {key!r}" if key else ""))
    for line, each in enumerate(value, 1):
        yield as_row(file, line, each)


def json_entries(file: Path, key_name: str) -> Iterator[Row | Problem]:
    """The objects that are a whole file's values, each with its key as the column `key_name`.

    Raises:
        InvalidInput: the file is no JSON object.
    """
    value = load_json(file)
    if not isinstance(value, dict):
        raise InvalidInput(f"{file} holds no object")
    for line, (key, each) in enumerate(value.items(), 1):
        yield as_row(file, line, {**each, key_name: key} if isinstance(each, dict) else each)


def as_row(file: Path, line: int, value: object) -> Row | Problem:
    """An object as a row, anything else as a problem."""
    return Row(file, line, value) if isinstance(value, dict) else Problem(file, line, f"{shown(value)} is no object")


def json_lines(file: Path, most_bytes: int = MOST_CHARS) -> Iterator[Row | Problem]:
    """The objects of a file that has one a line; blank lines are passed over, and a line that is too long is told.

    Raises:
        InvalidInput: the file can't be read.
    """
    for line, text in _lines(file, most_bytes):
        if isinstance(text, Problem):
            yield text
            continue
        try:
            yield as_row(file, line, json.loads(text))
        except (ValueError, RecursionError) as error:
            yield Problem(file, line, f"not JSON: {error}")


def text_lines(file: Path) -> Iterator[tuple[int, str] | Problem]:
    """The lines of a text, without blank ones, and their numbers.

    Raises:
        InvalidInput: the file can't be read.
    """
    for line, text in _lines(file):
        if isinstance(text, Problem):
            yield text
            continue
        try:
            yield line, text.decode().strip()
        except UnicodeDecodeError:
            yield Problem(file, line, "not UTF-8")


def _lines(file: Path, most_bytes: int = MOST_CHARS) -> Iterator[tuple[int, bytes | Problem]]:
    number = 0
    try:
        with file.open("rb") as lines:
            while text := lines.readline(most_bytes):
                number += 1
                if number == 1:
                    text = text.removeprefix(b"\xef\xbb\xbf")
                if len(text) == most_bytes and not text.endswith(b"\n"):
                    yield number, Problem(file, number, f"the line is longer than {most_bytes} bytes")
                    while (rest := lines.readline(most_bytes)) and not rest.endswith(b"\n"):
                        continue
                elif text.strip():
                    yield number, text
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from None


def table(file: Path, needed: Iterable[str], separator: str = ",") -> Iterator[Row | Problem]:
    """The rows of a table whose first row names the columns; blank rows are passed over.

    Raises:
        InvalidInput: the file can't be read, or has no column of a name that is needed, or two of the same name.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MOST_CHARS))  # Python's 128 KB are less than a picture
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
            rows = csv.reader(lines, delimiter=separator)
            try:
                header = [name.strip() for name in next(rows, [])]
            except csv.Error as error:
                raise unreadable(file, error) from None
            _check_header(file, header, needed)
            while True:
                line = rows.line_num + 1
                try:
                    values = next(rows)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield Problem(file, line, str(error))
                    continue
                if len(values) == len(header):
                    yield Row(file, line, dict(zip(header, values, strict=True)))
                elif values:
                    yield Problem(file, line, f"{len(values)} fields; expected {len(header)}")
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise unreadable(file, error) from None


def _check_header(file: Path, header: list[str], needed: Iterable[str]) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise InvalidInput(f"{file} has no column {missing[0]!r}; its columns are {shown(', '.join(header))}")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise InvalidInput(f"{file} has two columns {shown(twice[0])}")


def arrow_rows(path: Path, split: str | None) -> Iterator[Row | Problem]:
    """The rows of a Parquet file, of a folder of them, or of a folder that `datasets` saved.

    Pictures stay encoded, as {"bytes", "path"}. Of a folder of Parquet files, those are read whose names begin with
    the split, as the Hugging Face hub names them (test-00000-of-00001.parquet); of saved datasets, the split's.

    Raises:
        InvalidInput: there is nothing of that kind, or of that split; or it is broken.
        M3Error: `datasets`, which reads what it saved, isn't installed.
    """
    if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
        yield from _saved(path, split)
        return
    files = sorted(path.rglob(f"{split}-*.parquet" if split else "*.parquet")) if path.is_dir() else [path]
    if not files:
        wanted = f" of the split {split!r}" if split else ""
        raise InvalidInput(f"{path} holds no Parquet files{wanted} and no saved dataset")
    for file in files:
        try:
            with pq.ParquetFile(file) as parquet:
                yield from _numbered(file, parquet.iter_batches(BATCH))
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise unreadable(file, error) from None


def _saved(path: Path, split: str | None) -> Iterator[Row | Problem]:
    try:
        import datasets
    except ImportError:
        raise M3Error("saved datasets need the library datasets: pip install 'm3-router[data]'") from None
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # of a damaged folder the library raises whatever it stumbles over
        raise unreadable(path, error) from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise InvalidInput(f"{path} has no split {split!r}; choose one of {', '.join(map(str, found))}", "split")
        found = found[split]
    try:
        yield from _numbered(path, found.with_format("arrow").iter(BATCH))
    except Exception as error:
        raise unreadable(path, error) from None


def _numbered(file: Path, batches: Iterable[pa.RecordBatch | pa.Table]) -> Iterator[Row]:
    line = 0
    for batch in batches:
        for values in batch.to_pylist():
            line += 1
            yield Row(file, line, values)


def unreadable(file: Path, error: Exception) -> InvalidInput:
    """What a file is that no row can be had from."""
    return InvalidInput(f"{file} can't be read: {error.strerror if isinstance(error, OSError) else shown(str(error))}")
