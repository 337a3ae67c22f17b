"""The label table: what a model answered to each sample at every scale of its ladder, and how right that was.

On disk: one .parquet file, or a directory of *.parquet shards that agree in their metadata; one row per sample and
scale. In memory: numpy arrays with one entry per sample, B samples by S scales.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from complexity.errors import LabelTableError
from complexity.label_checks import PER_SAMPLE, check_rows, numbers_of, text_of

SCHEMA_VERSION = "2"
PICTURES = "pictures"  # folder in a table's folder that may hold its pictures as <image_sha256>.png


COLUMNS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("dataset", pa.string()),
        ("task", pa.string()),
        ("split", pa.string()),  # one of SPLITS; "" = not assigned
        ("image_sha256", pa.string()),
        ("question", pa.string()),
        ("references", pa.list_(pa.string())),
        ("model", pa.string()),
        ("tokens", pa.int32()),  # visual tokens per grid: a rung of the ladder
        ("visual_tokens", pa.int32()),  # what the language model saw
        ("prediction", pa.string()),
        ("score", pa.float32()),  # in [0, 1]
        ("mean_logprob", pa.float32()),  # natural log, mean over the prediction's tokens; NaN: not known
        ("reference_logprob", pa.float32()),  # the same of the likeliest reference; NaN: not known
        ("generated_tokens", pa.int32()),
        ("image_features", pa.list_(pa.float32())),  # F numbers, the same for all rows of a picture
        ("tower_features", pa.list_(pa.float32())),  # G numbers (perhaps none) from the model's own look at it
        ("latents", pa.list_(pa.float32())),  # L numbers (perhaps none) that only the sample's maker knows
    ]
)
META_TEXTS = (b"m3.feature_version", b"m3.model", b"m3.sweep_version", b"m3.tower_version")
DIGEST = b"m3.sha256"  # of the other metadata
SHOWN_CHARS = 200  # of a reader's complaint
NUMBERS = ("score", "mean_logprob", "reference_logprob", "visual_tokens")
FEATURES = ("image_features", "tower_features", "latents")


@dataclass(frozen=True)
class LabelRow:
    """One answer: a sample at one scale; the fields are the columns of the file."""

    sample_id: str
    dataset: str
    task: str
    split: str
    image_sha256: str
    question: str
    references: Sequence[str]
    model: str
    tokens: int
    visual_tokens: int
    prediction: str
    score: float
    mean_logprob: float
    generated_tokens: int
    image_features: Sequence[float] | np.ndarray
    reference_logprob: float = math.nan
    tower_features: Sequence[float] | np.ndarray = ()
    latents: Sequence[float] | np.ndarray = ()


@dataclass(frozen=True)
class LabelMeta:
    """What all shards of a table share."""

    ladder: tuple[int, ...]
    feature_version: str  # of image_features
    model: str
    sweep_version: str
    tower_version: str = ""  # of tower_features; "" where there are none


@dataclass(frozen=True)
class LabelTable:
    """One entry per sample; string columns are object arrays of str."""

    meta: LabelMeta
    sample_id: np.ndarray  # (B,)
    dataset: np.ndarray  # (B,)
    task: np.ndarray  # (B,)
    split: np.ndarray  # (B,)
    image_sha256: np.ndarray  # (B,)
    question: np.ndarray  # (B,)
    image_features: np.ndarray  # (B, F) float32
    tower_features: np.ndarray  # (B, G) float32
    latents: np.ndarray  # (B, L) float32
    score: np.ndarray  # (B, S) float32
    mean_logprob: np.ndarray  # (B, S) float32, NaN: not known
    reference_logprob: np.ndarray  # (B, S) float32, NaN: not known
    visual_tokens: np.ndarray  # (B, S) int32

    @property
    def ladder(self) -> tuple[int, ...]:
        """Visual tokens of a tile at each of the S scales, the coarsest first."""
        return self.meta.ladder

    def __len__(self) -> int:
        return len(self.sample_id)

    def select(self, which: np.ndarray) -> "LabelTable":
        """The samples picked by an index or boolean array."""
        columns = {f.name: getattr(self, f.name)[which] for f in fields(self) if f.name != "meta"}
        return LabelTable(meta=self.meta, **columns)


@dataclass(frozen=True)
class OracleResult:
    """The cheapest right scale of each sample."""

    tokens: np.ndarray  # (B,) int
    right: np.ndarray  # (B,) bool: some scale answers right


def oracle(
    score: np.ndarray,
    ladder: Sequence[int],
    *,
    unsolved: Literal["coarsest", "finest"],
    threshold: float = 0.5,
) -> OracleResult:
    """Fewest tokens that answer right (M3, arXiv 2405.17430, section 4.4).

    Args:
        score: (B, S) in [0, 1]; right means `score >= threshold`.
        unsolved: what a sample wrong at every scale is charged: "coarsest" (M3's authors) or "finest" (CARES).

    >>> score = np.array([[0, 0, 1, 0, 1], [0, 0, 0, 0, 0]])
    >>> oracle(score, (1, 9, 36, 144, 576), unsolved="coarsest").tokens.tolist()
    [36, 1]
    >>> oracle(score, (1, 9, 36, 144, 576), unsolved="finest").tokens.tolist()
    [36, 576]
    """
    right = np.asarray(np.asarray(score) >= threshold)  # (B, S)
    solved = np.asarray(right.any(axis=1))
    fallback = 0 if unsolved == "coarsest" else len(ladder) - 1
    rung = np.where(solved, right.argmax(axis=1), fallback)
    return OracleResult(tokens=np.asarray(ladder)[rung], right=solved)


def write_shard(path: Path, rows: Sequence[LabelRow], meta: LabelMeta) -> None:
    """Write one Parquet file that appears whole or not at all (temporary file, fsync, rename).

    Raises:
        LabelTableError: a row is off the ladder, from another model, or outside the score's range.
    """
    path = Path(path)
    for row in rows:
        if row.tokens not in meta.ladder:
            raise LabelTableError(f"{path}: sample {row.sample_id} has {row.tokens} tokens, ladder is {meta.ladder}")
        if row.model != meta.model:
            raise LabelTableError(f"{path}: sample {row.sample_id} is of model {row.model!r}, table of {meta.model!r}")
        if not 0.0 <= row.score <= 1.0:
            raise LabelTableError(f"{path}: sample {row.sample_id} has score {row.score}; scores lie in [0, 1]")
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS.names}
    columns["references"] = [list(refs) for refs in columns["references"]]
    for name in FEATURES:
        columns[name] = [np.asarray(values, np.float32) for values in columns[name]]
    table = pa.Table.from_pydict(columns, schema=COLUMNS.with_metadata(_encode(meta)))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_labels(path: Path) -> LabelTable:
    """Read and check a whole label table; samples come back in order of sample_id.

    Raises:
        LabelTableError: no table, a broken file, wrong schema or version, shards that disagree, a score outside
            [0, 1], duplicate rows, a sample without all scales, or rows of a sample that contradict each other.
    """
    shards = _shards(Path(path))
    if not shards:
        raise LabelTableError(f"{path}: no label table here; expected a .parquet file or a folder of them")
    metas = [_read_meta(shard) for shard in shards]
    for shard, meta in zip(shards, metas, strict=True):
        if meta != metas[0]:
            raise LabelTableError(f"{shard} holds {meta}, but {shards[0]} holds {metas[0]}")
    meta = metas[0]
    rows = pa.concat_tables([_read_rows(shard) for shard in shards])
    if rows.num_rows == 0:
        raise LabelTableError(f"{path}: the label table is empty")
    rows = rows.sort_by([("sample_id", "ascending"), ("tokens", "ascending")])
    check_rows(path, rows, meta.ladder, meta.model)
    return _per_sample(path, rows, meta)


def read_meta(path: Path) -> LabelMeta | None:
    """What a label table's first shard says of the table; None when there is no table yet.

    Raises:
        LabelTableError: the shard is broken or of another schema.
    """
    shards = _shards(Path(path))
    return _read_meta(shards[0]) if shards else None


def done_samples(path: Path) -> set[str]:
    """The sample_ids that stand at every scale of the ladder; empty when there is no table yet.

    For resuming a sweep: reads only two columns, and ignores what a killed writer left behind (`.tmp` files).
    """
    shards = _shards(Path(path))
    if not shards:
        return set()
    scales = {_read_meta(shard).ladder for shard in shards}
    if len(scales) > 1:
        raise LabelTableError(f"{path}: shards of different ladders: {sorted(scales)}")
    rungs = len(scales.pop())
    seen = pa.concat_tables([_read_rows(shard, ["sample_id", "tokens"]) for shard in shards])
    counts = seen.group_by("sample_id").aggregate([("tokens", "count_distinct")])
    complete = np.asarray(counts["tokens_count_distinct"]) == rungs
    return set(np.asarray(counts["sample_id"].to_numpy(zero_copy_only=False))[complete])


@dataclass(frozen=True)
class Answers:
    """What was said to one sample."""

    references: tuple[str, ...]
    predictions: tuple[str, ...]  # at each scale


def read_answers(path: Path, sample_ids: Sequence[str]) -> dict[str, Answers]:
    """The texts of some samples of a table that `read_labels` has read, by sample_id."""
    columns = ["sample_id", "tokens", "references", "prediction"]
    wanted = pa.array(sample_ids, pa.string())
    parts = [_read_rows(shard, columns) for shard in _shards(Path(path))]
    rows = pa.concat_tables([part.filter(pc.is_in(part["sample_id"], wanted)) for part in parts])
    found: dict[str, Answers] = {}
    for row in rows.sort_by([("sample_id", "ascending"), ("tokens", "ascending")]).to_pylist():
        said = found[row["sample_id"]].predictions if row["sample_id"] in found else ()
        found[row["sample_id"]] = Answers(tuple(row["references"]), (*said, row["prediction"]))
    return found


def table_sha256(path: Path) -> str:
    """Hex SHA-256 over the contents of a table's files, in order of their names."""
    shards = (hashlib.sha256(shard.read_bytes()).digest() for shard in _shards(Path(path)))
    return hashlib.sha256(b"".join(shards)).hexdigest()


def _shards(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.glob("*.parquet") if not p.name.startswith("."))
    return [path] if path.is_file() else []


def _encode(meta: LabelMeta) -> dict[bytes, bytes]:
    told = {
        b"m3.schema_version": SCHEMA_VERSION.encode(),
        b"m3.ladder": json.dumps(list(meta.ladder)).encode(),
        b"m3.feature_version": meta.feature_version.encode(),
        b"m3.model": meta.model.encode(),
        b"m3.sweep_version": meta.sweep_version.encode(),
        b"m3.tower_version": meta.tower_version.encode(),
    }
    return told | {DIGEST: _digest(told)}


def _digest(told: Mapping[bytes, bytes]) -> bytes:
    """Of what a shard says of itself; its pages have checksums of their own."""
    parts = [told.get(key, b"") for key in (b"m3.schema_version", b"m3.ladder", *META_TEXTS)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest().encode()


def _read_meta(shard: Path) -> LabelMeta:
    try:
        schema = pq.read_schema(shard)
        names = schema.names
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _unreadable(shard, error) from None
    stored = schema.metadata or {}
    version = stored.get(b"m3.schema_version", b"none").decode(errors="replace")[:SHOWN_CHARS]
    if version != SCHEMA_VERSION:
        raise LabelTableError(f"{shard}: label schema version {version}, this code reads version {SCHEMA_VERSION}")
    for column in COLUMNS:
        found = schema.field(column.name).type if names.count(column.name) == 1 else None
        if found != column.type:
            raise LabelTableError(f"{shard}: column {column.name!r} is {found or 'missing'}, expected {column.type}")
    try:
        ladder = tuple(json.loads(stored[b"m3.ladder"]))
        texts = [stored[key].decode() for key in META_TEXTS]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise LabelTableError(f"{shard}: broken metadata ({error!r})") from None
    if (
        not ladder
        or any(type(rung) is not int for rung in ladder)
        or list(ladder) != sorted(set(ladder))
        or ladder[0] < 1
    ):
        raise LabelTableError(f"{shard}: ladder {ladder} is not a rising list of positive whole numbers")
    if DIGEST in stored and stored[DIGEST] != _digest(stored):  # older tables have none
        raise LabelTableError(f"{shard}: its metadata was changed or damaged")
    return LabelMeta(ladder, *texts)


def _read_rows(shard: Path, columns: list[str] | None = None) -> pa.Table:
    """Rows whose texts are UTF-8; pages are held against their checksums where they have any."""
    try:
        rows = pq.ParquetFile(shard, page_checksum_verification=True).read(columns or COLUMNS.names)
        rows.validate(full=True)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _unreadable(shard, error) from None
    return rows.replace_schema_metadata(None)


def _unreadable(shard: Path, error: Exception) -> LabelTableError:
    return LabelTableError(f"{shard}: not a readable Parquet file ({str(error)[:SHOWN_CHARS]})")


def _per_sample(path: Path, rows: pa.Table, meta: LabelMeta) -> LabelTable:
    scales = len(meta.ladder)
    firsts = rows.take(pa.array(np.arange(0, rows.num_rows, scales)))
    numbers: dict[str, Any] = {name: numbers_of(rows, name).reshape(-1, scales) for name in NUMBERS}
    return LabelTable(
        meta=meta,
        sample_id=text_of(firsts, "sample_id"),
        **{name: _features(path, firsts, name) for name in FEATURES},
        **{name: text_of(firsts, name) for name in PER_SAMPLE},
        **numbers,
    )


def _features(path: Path, firsts: pa.Table, name: str) -> np.ndarray:
    """(B, width), one row per sample."""
    lists = firsts[name].combine_chunks()
    widths = np.unique(np.asarray(lists.value_lengths()))
    if len(widths) != 1:
        raise LabelTableError(f"{path}: pictures with {widths.tolist()} {name}; all must have the same number")
    features = np.asarray(lists.flatten()).reshape(len(firsts), int(widths[0]))
    broken = ~np.isfinite(features).all(axis=1)
    if broken.any():
        raise LabelTableError(f"{path}: sample {text_of(firsts, 'sample_id')[broken.argmax()]} has {name} not finite")
    return features
