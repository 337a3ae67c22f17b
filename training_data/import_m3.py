"""The command `import-m3`: results of other evaluation tools, one run a scale, as a label table for `train-router`.

Who evaluated an elastic model at its scales has the labels already; what a router needs beside them are the pictures'
features, and pictures are in no log. So the benchmark is read too, by the readers of `training_data/readers.py`.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic

import numpy as np
from tqdm import tqdm

from complexity.errors import InvalidInput, LabelTableError, M3Error
from complexity.image_features import IMAGE_FEATURE_VERSION
from complexity.label_checks import SPLITS
from complexity.labels import LabelMeta, LabelRow, done_samples, read_meta, write_shard
from training_data.eval_logs import FORMATS, Result
from training_data.join import Joined, LeftOut, join
from training_data.readers import READERS, read
from training_data.records import Picture, Problem, Record
from training_data.scoring import SCORERS
from training_data.showing import LAYOUTS, Layout, item_of

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

    Decoders and numpy let other threads run meanwhile, so that all cores have pictures to look at.
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

    with ThreadPoolExecutor(os.cpu_count()) as pool:
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


def _runs(told: Sequence[str], read: Callable[[Path, str | None], list[Result]], metric: str | None) -> dict[int, list]:
    """Each scale's results, from arguments like 36=logs/36."""
    paths: dict[int, Path] = {}
    for each in told:
        tokens, equals, path = each.partition("=")
        if not equals or not tokens.isdecimal() or int(tokens) < 1:
            raise InvalidInput(f"--run {each} is not of the form 36=PATH, visual tokens = a run's log")
        if int(tokens) in paths:
            raise InvalidInput(f"--run {tokens} is given twice")
        paths[int(tokens)] = Path(path)
    if len(paths) < 2:
        raise InvalidInput("a router chooses among scales; give --run for two of them at least")
    runs = {}
    with tqdm(sorted(paths), "runs", unit="run") as bar:
        for tokens in bar:
            runs[tokens] = read(paths[tokens], metric)
    return runs


def main(argv: list[str] | None = None) -> int:
    """Entry point of `import-m3`."""
    parser = argparse.ArgumentParser(
        "import-m3",
        description="Make a label table for train-router of what another evaluation tool logged at each scale.",
    )
    parser.add_argument("--from", dest="tool", choices=FORMATS, required=True, help="the tool that wrote the logs")
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="TOKENS=PATH",
        help="the run at that many visual tokens: its log, or the folder that holds it; once for each scale",
    )
    parser.add_argument(
        "--read", required=True, choices=READERS, metavar="READER", help=f"the benchmark: {', '.join(READERS)}"
    )
    parser.add_argument("--data", type=Path, required=True, help="its questions: a file or folder, as the reader takes")
    parser.add_argument("--images", type=Path, help="folder of its pictures (where the data are)")
    parser.add_argument("--answers", type=Path, help="its answers, where they have a file of their own")
    parser.add_argument("--data-split", help="its split, where a file has several")
    parser.add_argument("--model", required=True, help="name of the model, as the service has it, with its version")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the label table; other datasets may be there"
    )
    parser.add_argument(
        "--metric", help="the tool's metric or column of scores to take (the only one, or if all agree)"
    )
    parser.add_argument(
        "--rescore", action="store_true", help="judge predictions by the benchmark's scorer, not the tool's scores"
    )
    parser.add_argument("--score-scale", type=float, default=1.0, help="what the tool gives a right answer (1)")
    parser.add_argument("--partial", action="store_true", help="leave out what doesn't fit together; otherwise refused")
    parser.add_argument(
        "--split", choices=[s for s in SPLITS if s], default="", help="of the table (parted by picture)"
    )
    parser.add_argument(
        "--image-px",
        type=int,
        default=IMAGE_PX,
        help=f"pixels of a picture's shorter side that the model makes use of ({IMAGE_PX}; LLaVA-NeXT 672)",
    )
    parser.add_argument(
        "--several",
        choices=LAYOUTS,
        default="grid",
        help="how several pictures of a record were shown: in one, as in M3's paper (grid), or each by itself (apart)",
    )
    args = parser.parse_args(argv)
    start = monotonic()
    wish = Wish(args.model, args.split, args.partial, args.rescore, args.score_scale, args.image_px, args.several)
    try:
        if not args.score_scale > 0 or args.image_px < 1:
            raise InvalidInput(f"--score-scale {args.score_scale} and --image-px {args.image_px} must be above 0")
        rows = read(args.read, args.data, args.images, answers=args.answers, split=args.data_split)
        runs = _runs(args.run, FORMATS[args.tool], args.metric)
        with tqdm(rows, "records", unit="record", mininterval=2.0) as bar:
            records = list(bar)
        imported = import_results(runs, records, judge, wish)
        write_table(imported, args.model, args.out)
    except M3Error as error:
        print(f"import-m3: {error}", file=sys.stderr)
        return 2
    for each in imported.left_out:
        print(f"left out: {each}", file=sys.stderr)
    print(json.dumps({"out": str(args.out), **_report(imported), "seconds": round(monotonic() - start, 1)}))
    return 0


def judge(prediction: str, record: Record) -> float:
    """The score by the benchmark's own measure."""
    return SCORERS[record.scorer](prediction, record.references, record.options)


def _report(imported: Imported) -> dict[str, object]:
    scores = np.array([row.score for row in imported.rows]).reshape(-1, len(imported.ladder))
    return {
        "samples": len(scores),
        "pictures": len({row.image_sha256 for row in imported.rows}),
        "scales": imported.ladder,
        "mean_score": dict(zip(map(str, imported.ladder), scores.mean(0).round(4).tolist(), strict=True)),
        "scored_by": imported.scored_by,
        "matched_by": imported.matched_by,
        "left_out": {each.what: len(each.names) for each in imported.left_out},
    }


if __name__ == "__main__":
    sys.exit(main())
