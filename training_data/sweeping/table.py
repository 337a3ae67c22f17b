"""The label table that a sweep adds to: shards that appear whole or not at all, and beside them what has no labels."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from complexity.errors import LabelTableError
from complexity.features import TOWER_FEATURE_VERSION
from complexity.image_features import IMAGE_FEATURE_VERSION
from complexity.labels import LabelMeta, LabelRow, done_samples, read_meta, write_shard
from serving.m3 import M3

FAILURES = "failures"  # folder in a table's folder, of .jsonl files


@dataclass(frozen=True)
class Failure:
    """A question that was set aside, or a row of the data that gives none."""

    sample_id: str  # "" where the row gives none
    file: str  # the data's, or the picture's where that is at fault; "" where it came inside another file
    line: int  # of the data; 0: not known, or not a line's fault
    reason: str


class SweptTable:
    """A folder with a label table and what was set aside; one sweep adds to it, or several of different samples."""

    def __init__(self, folder: Path, meta: LabelMeta):
        """Find what stands there.

        Raises:
            LabelTableError: `folder` holds a table of another model, ladder, sweep or feature version, or a broken one.
        """
        found = read_meta(folder)
        if found not in (None, meta):
            raise LabelTableError(f"{folder} holds {found}; this sweep would add {meta}")
        self.folder, self.meta = folder, meta
        self.done = done_samples(folder)
        """The sample_ids that stand at every scale."""
        self.failures = set(read_failures(folder))
        self._failed = {failure.sample_id for failure in self.failures} - {""}

    def __contains__(self, sample_id: str) -> bool:
        """Whether a sample was labelled or set aside."""
        return sample_id in self.done or sample_id in self._failed

    def add(self, rows: Sequence[LabelRow], failures: Sequence[Failure] = (), name: str | None = None) -> None:
        """Keep what became of a batch; `name` is the shard's, as in `keep`."""
        fresh = [failure for failure in dict.fromkeys(failures) if failure not in self.failures]
        keep(self.folder, self.meta, rows, fresh, name)
        self.done.update(row.sample_id for row in rows)
        self.failures.update(fresh)
        self._failed |= {failure.sample_id for failure in fresh} - {""}


def keep(
    folder: Path, meta: LabelMeta, rows: Sequence[LabelRow], failures: Sequence[Failure], name: str | None = None
) -> None:
    """Write what became of a batch.

    The labels come first: if the sweep dies before the failures are written, they fail again in the next.

    Args:
        name: of the shard; unless given it follows from the samples, so that a batch that is kept again, by whomever,
            takes its own place.
    """
    if rows:
        samples = list(dict.fromkeys(row.sample_id for row in rows))
        write_shard(folder / f"{name or _digest(samples)}.parquet", rows, meta)
    if failures:
        _write_failures(folder / FAILURES, failures)


def table_meta(m3: M3, sweep_version: str) -> LabelMeta:
    """What a table of a model's answers says of itself."""
    return LabelMeta(m3.ladder, IMAGE_FEATURE_VERSION, m3.model_id, sweep_version, TOWER_FEATURE_VERSION)


def read_failures(folder: Path) -> list[Failure]:
    """What was set aside while a table was swept, each once.

    Raises:
        LabelTableError: a file of them is broken.
    """
    found: dict[Failure, None] = {}
    for path in sorted((folder / FAILURES).glob("*.jsonl")):
        try:
            found |= dict.fromkeys(Failure(**json.loads(line)) for line in path.read_text().splitlines())
        except (OSError, ValueError, TypeError) as error:
            raise LabelTableError(f"{path} doesn't hold what a sweep set aside: {error}") from None
    return list(found)


def _write_failures(folder: Path, failures: Sequence[Failure]) -> None:
    lines = [json.dumps(asdict(failure)) for failure in failures]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{_digest(lines)}-{os.getpid()}.tmp"
    try:
        with temporary.open("w") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / f"{_digest(lines)}.jsonl")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _digest(texts: Sequence[str]) -> str:
    return sha256("\0".join(texts).encode()).hexdigest()[:24]
