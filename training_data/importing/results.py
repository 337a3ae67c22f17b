"""Results of an evaluation tool as rows of the label table, with the pictures' features, which no log has."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from tqdm import tqdm

from complexity.errors import InvalidInput, LabelTableError
from complexity.image_features import IMAGE_FEATURE_VERSION
from complexity.labels import LabelMeta, LabelRow, done_samples, read_meta, write_shard
from training_data.importing.join import Joined, LeftOut, join
from training_data.importing.logs import Result
from training_data.readers.records import Picture, Problem, Record
from training_data.sweeping.recorded import READ_AT_ONCE
from training_data.sweeping.showing import Layout, item_of

IMPORT_VERSION = "import-1"
IMAGE_PX = 336  # of a picture's shorter side that M3's tower makes use of: CLIP ViT-L/14 at 336
Judge = Callable[[str, Record], float]
"""(prediction, record) -> score in [0, 1]."""


@dataclass(frozen=True)
class Wish:
    """How results become labels."""

    model: str  # who answered, with its version
    split: str = ""  # of all samples; "": parted later, by picture
    partial: bool = False  # leave out what doesn't fit, instead of refusing all
    rescore: bool = False  # judge predictions anew, whatever the tool gave
    score_scale: float = 1.0  # the tool's score of a right answer
    image_px: int = IMAGE_PX
    several: Layout = "grid"  # how several pictures of a record were shown


@dataclass(frozen=True)
class Imported:
    """A table's rows, sample by sample, and what to tell of them."""

    rows: tuple[LabelRow, ...]
    ladder: tuple[int, ...]
    matched_by: str
    scored_by: str  # "log", or "benchmark": its scorer
    left_out: tuple[LeftOut, ...]


def import_results(
    runs: Mapping[int, Sequence[Result]], rows: Iterable[Record | Problem], judge: Judge, wish: Wish
) -> Imported:
    """Label a benchmark's records by what a tool logged about them at each scale.

    Args:
        runs: results by their scale's visual tokens.
        rows: a reader's records and problems, in the benchmark's order.
        judge: by which predictions are scored where the tool gave no scores.

    Raises:
        InvalidInput: the logs and the records don't fit together, or a score is outside [0, 1]; each message names the
            first of what it complains of.
    """
    joined = join(runs, rows)
    _allow(joined.left_out, wish)
    ladder = tuple(sorted(runs))
    logged = not wish.rescore and _has_scores(joined.samples, ladder)
    scores = [_scores(sample, ladder, None if logged else judge, wish) for sample in joined.samples]
    looks, blind = _look([sample.record for sample in joined.samples], wish)
    left_out = (*joined.left_out, *([blind] if blind.names else []))
    _allow(left_out, wish)
    labelled = [
        row
        for sample, each in zip(joined.samples, scores, strict=True)
        if (look := looks.get(sample.record.pictures)) is not None
        for row in _label_rows(sample, ladder, each, look, wish)
    ]
    if not labelled:
        raise InvalidInput(f"no sample is left: {'; '.join(map(str, left_out))}")
    return Imported(tuple(labelled), ladder, joined.by, "log" if logged else "benchmark", left_out)


def _allow(left_out: Sequence[LeftOut], wish: Wish) -> None:
    if left_out and not wish.partial:
        raise InvalidInput(f"{'; '.join(map(str, left_out))}; --partial leaves them out")


@dataclass(frozen=True)
class _Look:
    """What a table says of a record's pictures."""

    sha256: str
    features: np.ndarray  # (F,)


def _look(records: Sequence[Record], wish: Wish) -> tuple[dict[tuple[Picture, ...], _Look], LeftOut]:
    """The features of each distinct picture, and the records that have none.

    Decoders and numpy let other threads run meanwhile, so that all cores have pictures to look at; a store is asked for
    some at once, whatever the cores.
    """
    first = {record.pictures: record for record in reversed(records)}
    reasons: dict[tuple[Picture, ...], str] = {}

    def look(record: Record) -> _Look | None:
        try:
            item = item_of([record], wish.image_px, wish.several, None)
        except InvalidInput as error:
            reasons[record.pictures] = str(error)
            return None
        return _Look(item.image_sha256, item.image_features)

    with ThreadPoolExecutor(max(os.cpu_count() or 1, READ_AT_ONCE)) as pool:
        looks = tqdm(pool.map(look, first.values()), "features", len(first), unit="picture", mininterval=2.0)
        seen = {pictures: each for pictures, each in zip(first, looks, strict=True) if each is not None}
    blind = (f"{record.record_id} ({reasons[record.pictures]})" for record in records if record.pictures in reasons)
    return seen, LeftOut("records whose picture can't be used", tuple(blind))


def _has_scores(samples: Sequence[Joined], ladder: Sequence[int]) -> bool:
    """Whether the tool scored its results: all or none, for two judges would not judge alike."""
    without = [
        f"{result.key} (at {tokens})"
        for sample in samples
        for tokens, result in zip(ladder, sample.results, strict=True)
        if result.score is None
    ]
    if without and len(without) < len(samples) * len(ladder):
        raise InvalidInput(f"{LeftOut('results have no score', tuple(without))}; --rescore judges all of them anew")
    return not without


def _scores(sample: Joined, ladder: Sequence[int], judge: Judge | None, wish: Wish) -> list[float]:
    """(S,) of a sample's results; `judge` None: the tool's."""
    if judge is not None:
        return [judge(result.prediction or "", sample.record) for result in sample.results]
    scores = [(result.score or 0.0) / wish.score_scale for result in sample.results]
    for tokens, result, score in zip(ladder, sample.results, scores, strict=True):
        if not 0 <= score <= 1:
            raise InvalidInput(
                f"sample {result.key} has score {result.score:g} at {tokens} tokens; scores lie in [0, "
                f"{wish.score_scale:g}]: --score-scale says what a right answer gets, --rescore judges anew"
            )
    return scores


def _label_rows(
    sample: Joined, ladder: Sequence[int], scores: Sequence[float], look: _Look, wish: Wish
) -> list[LabelRow]:
    record = sample.record
    return [
        LabelRow(
            sample_id=record.sample_id,
            dataset=record.dataset,
            task=record.task,
            split=wish.split,
            image_sha256=look.sha256,
            question=record.question,
            references=record.references or [result.target],
            model=wish.model,
            tokens=tokens,
            visual_tokens=tokens,
            prediction=result.prediction or "",
            score=score,
            mean_logprob=math.nan,
            generated_tokens=0,
            image_features=look.features,
        )
        for tokens, result, score in zip(ladder, sample.results, scores, strict=True)
    ]


def write_table(imported: Imported, model: str, out: Path) -> None:
    """Add a table's rows to the folder `out` as one shard, whole or not at all.

    Raises:
        LabelTableError: a table of something else is there, or one that has some of the samples.
    """
    meta = LabelMeta(imported.ladder, IMAGE_FEATURE_VERSION, model, IMPORT_VERSION)
    found = read_meta(out)
    if found not in (None, meta):
        raise LabelTableError(f"{out} holds {found}; this import would add {meta}")
    names = sorted({row.sample_id for row in imported.rows})
    done = done_samples(out)
    there = tuple(name for name in names if name in done)
    if there:
        raise LabelTableError(f"{out} holds {LeftOut('of these samples', there)}; give another --out")
    digest = sha256("\n".join(names).encode()).hexdigest()[:12]  # another part of a dataset gets a file of its own
    write_shard(out / f"{imported.rows[0].dataset}-{digest}.parquet", imported.rows, meta)
