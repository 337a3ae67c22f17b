"""Records in the order that a sweep takes them: parted among sweeps, and with a picture's questions together."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from training_data.readers.records import Problem, Record

WINDOW_RECORDS = 4096  # that are looked through for questions about the same picture
WINDOW_BYTES = 64_000_000  # of pictures that came inside another file
BATCH_PICTURES = 16  # of a shard, and those that the tower takes at once
BATCH_QUESTIONS = 64  # of a shard: what a killed sweep loses, at most, but for a picture that has more

Told = Record | Problem


def part_of(told: Iterable[Told], limit: int | None, shard: tuple[int, int], root: Path) -> Iterator[Told]:
    """What one of several sweeps takes; the parts make up the whole, and a picture's questions stay together.

    The parts don't depend on where the pictures lie, only on their places within `root`: machines may mount them
    differently.

    Args:
        limit: the first so many records, of all sweeps together.
        shard: (i, n), i from 1: the i-th of n parts.
        root: folder of the pictures.
    """
    mine, parts = shard
    records = 0
    for each in told:
        if isinstance(each, Problem):
            if each.line % parts == mine - 1:
                yield each
            continue
        if records == limit:
            return
        records += 1
        if parts == 1 or int(sha256(picture_key(each, root).encode()).hexdigest(), 16) % parts == mine - 1:
            yield each


def distinct(told: Iterable[Told], data: Path) -> Iterator[Told]:
    """The same, with a Problem in the place of a record whose sample_id came before."""
    seen: set[str] = set()
    for each in told:
        if isinstance(each, Record):
            if each.sample_id in seen:
                yield Problem(data, 0, f"{each.sample_id} came before; only the first is taken")
                continue
            seen.add(each.sample_id)
        yield each


def by_picture(records: Iterable[Record], root: Path) -> Iterator[list[Record]]:
    """Records about the same picture as far as they stand near each other, in the order of their first.

    At most WINDOW_RECORDS records are held, or WINDOW_BYTES of pictures.
    """
    window: dict[str, list[Record]] = {}
    held = size = 0
    for record in records:
        group = window.setdefault(picture_key(record, root), [])
        if not group:
            size += sum(len(picture.data or b"") for picture in record.pictures)
        group.append(record)
        held += 1
        if held == WINDOW_RECORDS or size >= WINDOW_BYTES:
            yield from window.values()
            window = {}
            held = size = 0
    yield from window.values()


def batches(groups: Iterable[Sequence[Record]]) -> Iterator[list[Sequence[Record]]]:
    """Pictures with their questions that are answered together and make a shard; one with many questions is parted."""
    batch: list[Sequence[Record]] = []
    asked = 0
    for whole in groups:
        for start in range(0, len(whole), BATCH_QUESTIONS):
            group = whole[start : start + BATCH_QUESTIONS]
            if batch and (len(batch) == BATCH_PICTURES or asked + len(group) > BATCH_QUESTIONS):
                yield batch
                batch, asked = [], 0
            batch.append(group)
            asked += len(group)
    if batch:
        yield batch


def picture_key(record: Record, root: Path) -> str:
    """What the records about the same pictures have in common."""
    keys = []
    for picture in record.pictures:
        if picture.data is not None:
            keys.append(sha256(picture.data).hexdigest())
        else:
            assert picture.path is not None
            inside = picture.store is None and picture.path.is_relative_to(root)
            keys.append((picture.path.relative_to(root) if inside else picture.path).as_posix())
    return "\0".join(keys)
