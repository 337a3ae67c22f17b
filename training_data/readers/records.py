"""What a reader of a benchmark gives: questions about pictures with their answers, and rows that it couldn't use.

A reader is a function from files to an iterator of `Record` and `Problem`; it never opens a picture, only checks that
it is there. `training_data/readers/by_name.py` lists the readers; a record names the scorer that its benchmark judges
by.
"""

from dataclasses import dataclass
from pathlib import Path, PurePath

from complexity.errors import InvalidInput
from training_data.readers.store import Store


@dataclass(frozen=True)
class Picture:
    """An encoded picture: a file, one in a store, or bytes that came inside another file."""

    path: PurePath | None = None
    data: bytes | None = None
    store: Store | None = None  # that `path` is a name in

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            InvalidInput: the file is gone or can't be read.
            M3Error: the store that it is in doesn't answer.
        """
        if self.data is not None:
            return self.data
        assert self.path is not None
        if self.store is not None:
            return self.store.read(self.path.as_posix())
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise InvalidInput(f"{self.path} can't be read: {error.strerror}") from None

    @property
    def place(self) -> str:
        """Where it lies; "" where it came inside another file."""
        if self.path is None:
            return ""
        return str(self.path) if self.store is None else f"{self.store}/{self.path}"


@dataclass(frozen=True)
class Record:
    """One question of a benchmark."""

    record_id: str  # unique in its dataset: the benchmark's own id, as results of other tools name it
    dataset: str
    task: str  # what the per-task lookup and the reports group by
    pictures: tuple[Picture, ...]  # one; a video's frames, or those that the question numbers, in order
    question: str  # as it is put to the model, the benchmark's own prompt included
    references: tuple[str, ...]  # right answers, as the scorer wants them
    scorer: str  # a name in scoring.SCORERS
    options: tuple[str, ...] = ()  # of a multiple choice, in the order of their letters

    @property
    def sample_id(self) -> str:
        """The label table's name of it."""
        return f"{self.dataset}/{self.record_id}"


@dataclass(frozen=True)
class Problem:
    """A row that gives no record."""

    file: Path
    line: int  # from 1; of a list in one JSON, the row's place in it; 0: the file as a whole
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"
