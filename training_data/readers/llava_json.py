"""Conversations about pictures in LLaVA's JSON, as rows to tune on: several turns, several pictures or none."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from complexity.errors import InvalidInput
from complexity.picture import decode_picture
from serving.m3.formats import PLACE
from serving.m3.prompt import Prompt, Turn
from serving.m3.tuning import TuningRow

SHOWN_CHARS = 200  # of a name in a message


@dataclass(frozen=True)
class Conversation:
    """A row of the file."""

    name: str
    turns: tuple[Turn, ...]
    pictures: tuple[Path, ...]


def read_conversations(file: Path, images: Path) -> list[Conversation]:
    """Read a list of {"id", "image", "conversations"}; "image" is a name in the folder `images`, a list, or missing.

    Raises:
        InvalidInput: the file or a row is wrong, or a picture is missing; the row is named.
    """
    try:
        rows = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{file} can't be read: {error}") from None
    if not isinstance(rows, list) or not rows:
        raise InvalidInput(f"{file} holds no list of conversations")
    return [_conversation(row, f"{file}, row {index}", images) for index, row in enumerate(rows)]


def _conversation(row: Any, place: str, images: Path) -> Conversation:
    if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
        raise InvalidInput(f'{place}: expected an object with "conversations"')
    name = f"{place} (id {str(row['id'])[:SHOWN_CHARS]})" if "id" in row else place
    named = row.get("image") or []
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise InvalidInput(f'{name}: "image" is neither a name nor a list of names')
    pictures = tuple(images / each for each in named)
    missing = [str(picture)[:SHOWN_CHARS] for picture in pictures if not _is_file(picture)]
    if missing:
        raise InvalidInput(f"{name}: there is no picture {missing[0]}")
    said = [_said(each, name) for each in row["conversations"]]
    while said and said[0][0] != "human":  # as the original: what comes before the first question isn't learnt
        said = said[1:]
    if not said or len(said) % 2 or [who for who, _ in said] != ["human", "gpt"] * (len(said) // 2):
        raise InvalidInput(f'{name}: expected turns from "human" and "gpt" by turns, ending with "gpt"')
    turns = tuple(Turn(_first(asked), told) for (_, asked), (_, told) in zip(said[::2], said[1::2], strict=True))
    places = sum(turn.question.count(PLACE) for turn in turns)
    if places != len(pictures):
        raise InvalidInput(f"{name}: {places} times {PLACE} for {len(pictures)} pictures")
    return Conversation(name, turns, pictures)


def _said(turn: Any, name: str) -> tuple[str, str]:
    """Who says what."""
    who, what = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
    if not isinstance(who, str) or not isinstance(what, str) or not _is_text(what):
        raise InvalidInput(f'{name}: a turn is not an object of two texts, "from" and "value"')
    return who, what


def _is_text(part: str) -> bool:
    """Whether it can be written in UTF-8: JSON can spell halves of characters."""
    return part.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in part)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or of letters that no file has
        return False


def _first(question: str) -> str:
    """A question's only picture comes before its text, as the original puts it; several stay where they are."""
    if question.count(PLACE) != 1:
        return question
    return f"{PLACE}\n{question.replace(PLACE, '').strip()}"


class Conversations(Dataset[TuningRow]):
    """Conversations with their pictures, read when they are needed."""

    def __init__(self, conversations: list[Conversation], prompt: Prompt):
        self.conversations, self.prompt = conversations, prompt

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, index: int) -> TuningRow:
        conversation = self.conversations[index]
        ids, labels = self.prompt.conversation(conversation.turns)
        try:
            pictures = tuple(decode_picture(file.read_bytes()).picture for file in conversation.pictures)
        except (OSError, InvalidInput) as error:
            raise InvalidInput(f"{conversation.name}: {error}") from None
        return TuningRow(ids, labels, pictures)
