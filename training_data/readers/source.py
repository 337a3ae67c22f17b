"""What every reader works with: where a dataset lies, a row of it with checked columns, and its pictures."""

import base64
import binascii
import math
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from complexity.errors import InvalidInput
from training_data.readers.records import Picture, Problem, Record
from training_data.readers.store import Folder, Store

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SHOWN_CHARS = 60  # of a value in a reason
_Of = TypeVar("_Of")


@dataclass(frozen=True)
class Source:
    """Where a dataset lies and what of it is wanted."""

    path: Path  # the questions: a file, or the folder that the benchmark comes in
    dataset: str  # the records' name of it
    images: Folder  # that pictures are looked for in
    answers: Path | None = None  # where the answers have a file of their own
    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)  # our name of a column -> the file's

    def need_answers(self, example: str) -> Path:
        """The answers' file.

        Raises:
            InvalidInput: there is none; the message gives an example of its name.
        """
        if self.answers is None:
            raise InvalidInput(f"{self.path}: the answers have a file of their own, such as {example}", "answers")
        return self.answers


@dataclass(frozen=True)
class Row:
    """A row of a file, and where it stands."""

    file: Path
    line: int  # as in `Problem`
    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A column's text, without outer blanks; a number is written out.

        Raises:
            InvalidInput: it is missing, empty, not a text, or not one that UTF-8 can hold.
        """
        return as_text(self.values.get(name), name)

    def optional(self, name: str) -> str:
        """A column's text, or "" where it is missing or empty.

        Raises:
            InvalidInput: it is something else than a text or a number.
        """
        value = self.values.get(name)
        return "" if value is None or (isinstance(value, str) and not value.strip()) else as_text(value, name)

    def texts(self, name: str) -> tuple[str, ...]:
        """The texts of a list.

        Raises:
            InvalidInput: it is missing, no list, empty, or an element is no text.
        """
        value = self.values.get(name)
        if not isinstance(value, list) or not value:
            raise InvalidInput(f"{name!r} is {shown(value)}; expected a list of texts")
        return tuple(as_text(each, name) for each in value)

    def people(self, name: str = "answers") -> tuple[str, ...]:
        """The answers of several people, texts or {"answer": text}; who said nothing counts too, but not if all did.

        Raises:
            InvalidInput: it is no such list.
        """
        value = self.values.get(name)
        if not isinstance(value, list) or not value:
            raise InvalidInput(f"{name!r} is {shown(value)}; expected a list of answers")
        said = [each.get("answer") if isinstance(each, dict) else each for each in value]
        if all(each == "" for each in said):
            raise InvalidInput(f"{name!r} are all empty")
        return tuple("" if each == "" else as_text(each, "answer") for each in said)

    def place(self, name: str, count: int) -> int:
        """A whole number from 0 to `count` - 1, written as a number or a text."""
        value = self.values.get(name)
        digits = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
        if not (digits.isascii() and digits.isdigit() and len(digits) < 4 and int(digits) < count):
            raise InvalidInput(f"{name!r} is {shown(value)}; expected a number from 0 to {count - 1}")
        return int(digits)

    def letter(self, name: str, options: Sequence[str]) -> int:
        """The place of the option whose letter this is.

        Raises:
            InvalidInput: it is no letter, or there are fewer options.
        """
        value, letters = self.text(name), LETTERS[: len(options)]
        if len(value) != 1 or value not in letters:
            raise InvalidInput(f"{name!r} is {shown(value)}; expected a letter from {letters[:1]} to {letters[-1:]}")
        return letters.index(value)

    def mapping(self, name: str) -> dict[str, Any]:
        """An object's columns, or none where it is missing."""
        value = self.values.get(name)
        return value if isinstance(value, dict) else {}


def records(source: Source, rows: Iterable[Row | Problem], make: Callable[[Row], Record]) -> Iterator[Record | Problem]:
    """What `make` gives for each row, and a problem for each that it refuses or whose id was there before.

    Raises:
        InvalidInput: there is no row at all.
    """
    seen: set[str] = set()
    anything = False
    for row in rows:
        anything = True
        if isinstance(row, Problem):
            yield row
            continue
        try:
            record = make(row)
            if record.record_id in seen:
                raise InvalidInput(f"the id {shown(record.record_id)} was there before")
        except InvalidInput as error:
            yield Problem(row.file, row.line, str(error))
            continue
        seen.add(record.record_id)
        yield record
    if not anything:
        wanted = f" of the split {source.split!r}" if source.split else ""
        raise InvalidInput(f"{source.path} holds no questions{wanted}")


def as_text(value: object, name: str) -> str:
    """A text, or a number as one; see `Row.text`."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(f"{name!r} is {shown(value)}; expected a text")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{name!r} is {shown(value)}; expected a text")
    text = str(value).strip()
    if not text:
        raise InvalidInput(f"{name!r} is empty")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidInput(f"{name!r} is {shown(text)}, which is not UTF-8")
    return text


def shown(value: object) -> str:
    """A value for a message: of a long one the beginning, and nothing that can't be printed."""
    if value is None:
        return "missing"
    text = ascii(value[: SHOWN_CHARS + 1] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def find_picture(folder: Folder, *names: str) -> tuple[Picture, ...]:
    """The one picture that has the first of these names that is in the folder.

    Raises:
        InvalidInput: there is none of them, or a name leads out of the folder.
    """
    for name in names:
        inside = _inside(folder, name)
        if isinstance(folder, Store) and folder.holds(inside):
            return (Picture(path=PurePosixPath(inside), store=folder),)
        if isinstance(folder, Path) and is_file(folder / inside):
            return (Picture(path=folder / inside),)
    raise InvalidInput(f"there is no picture {shown(names[0])} in {folder}")


def files_in(folder: Folder, name: str) -> list[Picture]:
    """The files of a folder within the pictures' one, in no order; none where there is no such folder."""
    inside = _inside(folder, name)
    if isinstance(folder, Store):
        return [Picture(path=PurePosixPath(inside, file), store=folder) for file in folder.files(inside)]
    try:
        return [Picture(path=file) for file in (folder / inside).iterdir()]
    except (OSError, ValueError):
        return []


def _inside(folder: Folder, name: str) -> str:
    """A picture's name without detours; who made a benchmark doesn't say what else of the disk is read."""
    plain = posixpath.normpath(name)
    if isinstance(folder, Path) and plain.startswith("/") and Path(plain).is_relative_to(folder.absolute()):
        return Path(plain).relative_to(folder.absolute()).as_posix()
    if plain.startswith("/") or plain.split("/")[0] == "..":
        raise InvalidInput(f"the picture's name {shown(name)} leads out of {folder}; --images names the folder")
    return "" if plain == "." else plain


def decoded_picture(value: str, name: str) -> tuple[Picture, ...]:
    """A picture that stands in the file itself, in base64.

    Raises:
        InvalidInput: it isn't base64, or empty.
    """
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"{name!r} is {shown(value)}, which is not base64") from None
    if not data:
        raise InvalidInput(f"{name!r} is empty")
    return (Picture(data=data),)


def first(row: Row, name: str, otherwise: str) -> str:
    """The first text of a list in a column, or `otherwise` where there is none."""
    value = row.values.get(name)
    return as_text(value[0], name) if isinstance(value, list) and value else otherwise


def by_id(rows: Iterable[Row | Problem], name: str) -> tuple[dict[str, Row], list[Problem]]:
    """The rows of an answers' file by a column, and what is wrong with the others."""
    found: dict[str, Row] = {}
    problems: list[Problem] = []
    for row in rows:
        if isinstance(row, Problem):
            problems.append(row)
            continue
        try:
            key = row.text(name)
            if key in found:
                raise InvalidInput(f"the id {shown(key)} was there before")
        except InvalidInput as error:
            problems.append(Problem(row.file, row.line, str(error)))
            continue
        found[key] = row
    return found, problems


def looked_up(found: Mapping[str, _Of], key: str, what: str) -> _Of:
    """An entry of a file that goes with another.

    Raises:
        InvalidInput: it isn't there.
    """
    if key not in found:
        raise InvalidInput(f"there is no {what} for {shown(key)}")
    return found[key]
