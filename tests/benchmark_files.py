"""What a small benchmark on disk should be read as, and how its files are made."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n, as far as a reader looks"
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
FRUIT = "\nA. apple\nB. pear"


@dataclass(frozen=True)
class Expected:
    """What a row should become."""

    record_id: str
    task: str
    pictures: tuple[str, ...]  # names in the folder
    question: str
    references: tuple[str, ...]
    scorer: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """A benchmark on disk and what reading it should give."""

    path: Path
    expected: list[Expected]
    problems: list[tuple[str, int, str]]  # name of the file, line, part of the reason
    options: dict[str, Any] = field(default_factory=dict)  # of `read`


def pictures(folder: Path, *names: str) -> None:
    """Files that stand for pictures."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PNG)


def text(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def dump(file: Path, content: object) -> Path:
    return text(file, json.dumps(content))


def lines(file: Path, rows: list[Any]) -> Path:
    return text(file, "".join(f"{json.dumps(row)}\n" for row in rows))
