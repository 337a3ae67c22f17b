"""Sweep records, of a benchmark or of one's own, into the label table; answers are decoded and scored by the record.

Records are streamed: however many there are, a window of them is held. What can't be asked is set aside with the
reason.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import TypeVar

from tqdm import tqdm

from complexity.errors import InvalidInput
from complexity.labels import LabelRow
from serving.m3 import M3
from training_data.readers.records import Problem, Record
from training_data.readers.store import Folder
from training_data.scoring import SCORERS
from training_data.sweeping.by_picture import Told, batches, by_picture, distinct, part_of
from training_data.sweeping.labelling import Asked, Item, Looked, Manner, label, look
from training_data.sweeping.showing import Layout, faulty_file, item_of
from training_data.sweeping.table import Failure, SweptTable, table_meta

SWEEP_VERSION = "records-2"
COUNT_S = 30.0  # spent on counting the records first, which tells the time left; readers of large files take longer
READ_AT_ONCE = 8  # pictures of a batch
PROBLEMS_AT_ONCE = 1000  # rows without a record that are kept in one file

T = TypeVar("T")


@dataclass(frozen=True)
class RecordStream:
    """Records, and which of them are wanted."""

    read: Callable[[], Iterable[Told]]  # from the beginning, each time it is called
    data: Path
    images: Folder | None = None  # of the pictures; None: that of `data`
    limit: int | None = None  # the first so many
    shard: tuple[int, int] = (1, 1)  # (i, n): of these the i-th of n parts

    @property
    def root(self) -> Path:
        """The folder by whose names pictures are parted; those in a store have no others."""
        return self.images if isinstance(self.images, Path) else self.data if self.data.is_dir() else self.data.parent

    def told(self) -> Iterator[Told]:
        """The records of this shard, in their order."""
        return part_of(distinct(self.read(), self.data), self.limit, self.shard, self.root)


@dataclass(frozen=True)
class Showing:
    """How records are put to the model."""

    manner: Manner = field(default_factory=lambda: Manner(max_new_tokens=32))
    layout: Layout = "grid"

    @property
    def version(self) -> str:
        """Of a table's answers: those that were got otherwise don't go into it."""
        short = "-short" if self.manner.short else ""
        apart = "-apart" if self.layout == "apart" else ""
        return f"{SWEEP_VERSION}-{self.manner.max_new_tokens}{short}{apart}"


@dataclass(frozen=True)
class Batch:
    """Pictures that can be shown, and the questions that can't be asked."""

    items: list[Item]
    failures: list[Failure]


@dataclass(frozen=True)
class Swept:
    """What a sweep did."""

    records: int  # that were read
    new: int  # of them that were labelled now
    failed: int  # that were set aside now, rows without a record among them
    failures: int  # that stand in the table's folder


def sweep_records(m3: M3, source: RecordStream, out: Path, showing: Showing) -> Swept:
    """Sweep records into the label table `out`, skipping what stands there or was set aside.

    Raises:
        LabelTableError: `out` holds a table of another model, ladder, version or manner of asking.
        InvalidInput: the data hold no record at all.
    """
    table = SweptTable(out, table_meta(m3, showing.version))
    before = len(table.failures)
    new = 0
    todo = Todo(source, table)
    loaded = ahead(load_batch(groups, m3, showing.layout) for groups in todo)
    with progress(source, table) as bar:
        for batch in loaded:
            rows, failures = label_batch(m3, batch, showing.manner)
            table.add(rows, failures)
            labelled = len(rows) // len(m3.ladder)
            new += labelled
            bar.set_postfix({"set aside": len(table.failures) - before}, refresh=False)
            bar.update(labelled + len(failures))
    check_some(source, todo.records + todo.problems)
    return Swept(todo.records, new, len(table.failures) - before, len(table.failures))


class Todo:
    """Batches of records that a table doesn't know, each a list of pictures with their questions.

    Batches are cut before what is known is left out, so they are the same in every run over the same data. Rows that
    give no record go to the table at once.
    """

    def __init__(self, source: RecordStream, table: SweptTable):
        self._source, self._table = source, table
        self.records = 0
        """Those that were read, known ones too."""
        self._kept_back: list[Failure] = []
        self.problems = 0
        """Rows that gave none."""

    def __iter__(self) -> Iterator[list[list[Record]]]:
        for batch in batches(by_picture(self._records(), self._source.root)):
            fresh = [[record for record in group if record.sample_id not in self._table] for group in batch]
            if any(fresh):
                yield [group for group in fresh if group]
        self._keep_problems()

    def _records(self) -> Iterator[Record]:
        for each in self._source.told():
            if isinstance(each, Problem):
                self.problems += 1
                self._kept_back.append(Failure("", str(each.file), each.line, each.reason))
                if len(self._kept_back) == PROBLEMS_AT_ONCE:
                    self._keep_problems()
            else:
                self.records += 1
                yield each

    def _keep_problems(self) -> None:
        self._table.add([], self._kept_back)
        self._kept_back = []


def load_batch(groups: Iterable[Sequence[Record]], m3: M3, layout: Layout) -> Batch:
    """Read and decode the pictures of a batch, some at once: a store far away must not be waited for one by one.

    Raises:
        M3Error: a store doesn't answer any more, or a library is missing.
    """

    def shown(group: Sequence[Record]) -> tuple[Item | None, list[Failure]]:
        reasons = [(record, _unaskable(record)) for record in group]
        failures = [Failure(record.sample_id, "", 0, reason) for record, reason in reasons if reason]
        asked = [record for record, reason in reasons if not reason]
        if not asked:
            return None, failures
        try:
            return item_of(asked, m3.image_px, layout, m3.prompt.reads.pictures), failures
        except InvalidInput as error:
            file = faulty_file(asked)
            return None, failures + [Failure(record.sample_id, file, 0, str(error)) for record in asked]

    with ThreadPoolExecutor(READ_AT_ONCE) as threads:
        made = list(threads.map(shown, groups))
    return Batch([item for item, _ in made if item is not None], [each for _, failures in made for each in failures])


def label_batch(m3: M3, batch: Batch, manner: Manner) -> tuple[list[LabelRow], list[Failure]]:
    """Answer a batch at every scale; what doesn't fit the model is set aside with what couldn't be shown."""
    failures = list(batch.failures)

    def set_aside(asked: Asked, reason: str) -> None:
        failures.append(Failure(asked.sample_id, "", 0, reason))

    fitting = []
    for looked in look(m3, batch.items, set_aside) if batch.items else []:
        kept = []
        for asked in looked.item.asked:
            reason = _unfitting(m3, looked, asked, manner)
            if reason:
                set_aside(asked, reason)
            else:
                kept.append(asked)
        if kept:
            fitting.append(replace(looked, item=replace(looked.item, asked=tuple(kept))))
    rows = label(m3, fitting, manner, set_aside) if fitting else []
    return rows, failures


def check_some(source: RecordStream, read: int) -> None:
    """Refuse data that held nothing; a part of them may be empty.

    Raises:
        InvalidInput: there was neither a record nor a row that should have been one.
    """
    if not read and source.shard == (1, 1):
        raise InvalidInput(f"{source.data} holds no record")


def progress(source: RecordStream, table: SweptTable, seconds: float = COUNT_S) -> tqdm:
    """A bar over what is to be done, with the time left if the records can be counted in so many seconds."""
    start = monotonic()
    count = 0
    total: int | None = None
    for each in source.told():
        if monotonic() - start > seconds:
            break
        count += isinstance(each, Record) and each.sample_id not in table
    else:
        total = count
    desc = f"{source.data.name} x {len(table.meta.ladder)} scales"
    return tqdm(total=total, desc=desc, unit="record", mininterval=2.0)


def ahead(made: Iterator[T]) -> Iterator[T]:
    """The same, the next one made by a thread while the last is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(lambda: list(islice(made, 1)))
        while got := coming.result():
            coming = thread.submit(lambda: list(islice(made, 1)))
            yield got[0]


def _unaskable(record: Record) -> str:
    if not record.question.strip():
        return "the question is empty"
    if not record.references:
        return "there is no right answer to judge by"
    if record.scorer not in SCORERS:
        return f"there is no scorer {record.scorer!r}; choose one of {', '.join(SCORERS)}"
    return ""


def _unfitting(m3: M3, looked: Looked, asked: Asked, manner: Manner) -> str:
    """Why the model can't be asked; the finest scale is the longest prompt."""
    try:
        m3.prepare(manner.worded(asked.question), looked.encoded, m3.ladder[-1], manner.max_new_tokens)
    except InvalidInput as error:
        return str(error)
    return ""
