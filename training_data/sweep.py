"""The command `sweep-m3`: answer a corpus at every scale of a model and write the label table.

The corpus is drawn, or read: records of a benchmark or of one's own (`sweeping/recorded.py`). Each batch of pictures
becomes one shard that appears whole or not at all; a sweep that was killed and is started again loses at most the batch
in flight and repeats nothing.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic

import torch
from tqdm import tqdm

from complexity.errors import M3Error
from complexity.labels import PICTURES, LabelRow
from complexity.sample import Sample
from serving.m3 import M3, M3_TINY, load
from serving.m3.pool import REDUCTIONS
from serving.m3.prompt import WORDINGS
from training_data.drawn.corpus import SPLITS, CorpusItem, Split, draw_item, nudged
from training_data.readers import by_name as readers
from training_data.readers.store import Store, folder_at, is_uri
from training_data.sweeping.by_picture import Told
from training_data.sweeping.cluster import Cluster, sweep_on_cluster
from training_data.sweeping.labelling import Asked, Item, Manner, label, look
from training_data.sweeping.recorded import RecordStream, Showing, sweep_records
from training_data.sweeping.showing import LAYOUTS
from training_data.sweeping.table import FAILURES, SweptTable, table_meta

BATCH = 16  # pictures of a shard, and those that the tower takes at once
SWEEP_VERSION = "drawn-3"
MAX_NEW_TOKENS = 12


def draw_items(split: Split, seed: int, pairs: int, questions: int) -> Iterator[CorpusItem]:
    """Pictures of a split that can be asked about, in order, until they hold at least `pairs` questions."""
    drawn = index = 0
    while drawn < pairs:
        item = draw_item(split, seed, index, questions)
        drawn += len(item.questions)
        index += 1
        if item.questions:
            yield item


def sample_id(item: CorpusItem, question: int) -> str:
    """The label table's name of an item's question."""
    return f"{item.item_id}-{question}"


def label_rows(m3: M3, items: Sequence[CorpusItem], generate: bool = False, short: bool = False) -> list[LabelRow]:
    """Judge or answer all questions of a batch of items at every scale."""
    return label(m3, look(m3, [_shown(m3, item) for item in items]), Manner(generate, short, MAX_NEW_TOKENS))


def sweep(
    m3: M3,
    split: Split,
    seed: int,
    pairs: int,
    questions: int,
    out: Path,
    generate: bool = False,
    short: bool = False,
    again: int = 0,
    pictures: bool = False,
) -> int:
    """Sweep a split into the label table `out`, skipping what stands there; the number of new pairs.

    Args:
        generate: decode the answers; otherwise the references are judged, which gives the same scores.
        short: ask with LLaVA's instruction to answer in a word or phrase; the table keeps the bare questions.
        again: another rendering of the same pictures (`nudged`), which tells skill from luck.
        pictures: keep the pictures too, for reports.

    Raises:
        LabelTableError: `out` holds a table of another model, ladder or feature version.
    """
    version = SWEEP_VERSION + ("-short" if short else "") + (f"-again-{again}" if again else "")
    table = SweptTable(out, table_meta(m3, version))
    new = 0
    batch: list[CorpusItem] = []
    with tqdm(total=pairs, desc=f"{split} x {len(m3.ladder)} scales", unit="pair", mininterval=2.0) as bar:

        def flush() -> None:
            nonlocal new
            if batch:
                if pictures:
                    _keep_pictures(out / PICTURES, batch)
                table.add(label_rows(m3, batch, generate, short), name=sample_id(batch[0], 0))
                count = sum(len(item.questions) for item in batch)
                new += count
                bar.update(count)
                batch.clear()

        for item in draw_items(split, seed, pairs, questions):
            if sample_id(item, 0) in table:  # a shard has all of a picture's questions or none
                bar.update(len(item.questions))
                continue
            batch.append(nudged(item, again))
            if len(batch) == BATCH:
                flush()
        flush()
    return new


def _shown(m3: M3, item: CorpusItem) -> Item:
    sample = Sample(item.png, "-", m3.image_px)
    split = item.item_id.split("-")[0]
    asked = tuple(
        Asked(
            sample_id=sample_id(item, k),
            dataset="drawn-shifted" if split == "shifted" else "drawn",
            task=question.family,
            split="test" if split == "shifted" else split,
            question=question.text,
            references=(question.answer,),
            latents=tuple(question.latents),
        )
        for k, question in enumerate(item.questions)
    )
    return Item((item.picture.image,), sample.image_sha256, sample.image_features, asked)


def _keep_pictures(folder: Path, items: Sequence[CorpusItem]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        (folder / f"{Sample(item.png, '-').image_sha256}.png").write_bytes(item.png)


def main(argv: list[str] | None = None, read: Callable[..., Iterable[Told]] = readers.read) -> int:
    """Entry point of `sweep-m3`; `read` gives the records, called as `readers.read`."""
    args = _parser().parse_args(argv)
    start = monotonic()
    try:
        report = _swept_drawn(args) if args.read is None else _swept_records(args, read)
    except M3Error as error:
        print(f"sweep-m3: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"out": str(args.out), **report, "seconds": round(monotonic() - start, 1)}))
    return 0


def _swept_drawn(args: argparse.Namespace) -> dict[str, object]:
    if args.pairs < 1 or args.questions < 1:
        raise M3Error(f"--pairs {args.pairs} and --questions {args.questions} must be at least 1")
    m3 = _model(args)
    wanted = (args.split, args.seed, args.pairs, args.questions, args.out)
    new = sweep(m3, *wanted, args.generate, args.short, args.again, args.pictures)
    return {"pairs": args.pairs, "new": new, "model": m3.model_id}


def _swept_records(args: argparse.Namespace, read: Callable[..., Iterable[Told]]) -> dict[str, object]:
    if args.data is None:
        raise M3Error(f"--read {args.read} needs --data, the file or folder that it reads")
    for name in ("limit", "max_new_tokens", "visual_tokens", "actors"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise M3Error(f"--{name.replace('_', '-')} {value} must be at least 1")
    for name in ("data", "images", "answers", "out"):  # actors have working directories of their own
        place = getattr(args, name)
        setattr(args, name, place.absolute() if isinstance(place, Path) else place)
    if isinstance(args.images, Store):
        print(f"sweep-m3: listing {args.images}", file=sys.stderr)
    told = {"answers": args.answers, "split": args.data_split, "columns": dict(args.column), "dataset": args.dataset}
    given = {name: value for name, value in told.items() if value}
    source = RecordStream(
        lambda: read(args.read, args.data, args.images, **given), args.data, args.images, args.limit, _part(args.shard)
    )
    source.read()  # a wrong name is told before the model is loaded
    showing = Showing(Manner(True, args.short, args.max_new_tokens, args.visual_tokens), args.several)
    if args.gpus_per_actor and args.device == "cpu":
        raise M3Error(f"--gpus-per-actor {args.gpus_per_actor:g} needs --device cuda; the actors would leave them idle")
    if Path(args.model).is_dir():
        args.model = str(Path(args.model).absolute())
    if args.actors is None:
        m3 = _model(args)
        swept, model = sweep_records(m3, source, args.out, showing), m3.model_id
    else:
        cluster = Cluster(args.actors, args.gpus_per_actor, args.address)
        swept, model = sweep_on_cluster(lambda: _model(args), source, args.out, showing, cluster)
    if swept.failures:
        where = args.out / FAILURES
        print(f"sweep-m3: {swept.failed} set aside now, {swept.failures} in all: see {where}", file=sys.stderr)
    return {**asdict(swept), "model": model}


def _model(args: argparse.Namespace) -> M3:
    torch.set_flush_denormal(True)
    return load(args.model, args.device, reduction=args.reduction, wording=args.wording)


def _part(told: str) -> tuple[int, int]:
    """The part that "2/8" names."""
    mine, _, parts = told.partition("/")
    if not (mine.isdecimal() and parts.isdecimal() and 1 <= int(mine) <= int(parts)):
        raise M3Error(f"--shard {told!r} is not a part such as 2/8, from 1/8 to 8/8")
    return int(mine), int(parts)


def _on_disk(told: str) -> Path:
    if is_uri(told):
        raise argparse.ArgumentTypeError(
            f"{told!r} is in a store, where only --images may be: questions are looked up in place and shards renamed "
            "into place; copy it"
        )
    return Path(told)


def _column(told: str) -> tuple[str, str]:
    ours, equals, theirs = told.partition("=")
    if not (ours and equals and theirs):
        raise argparse.ArgumentTypeError(f"{told!r} is not like question=caption")
    return ours, theirs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sweep-m3",
        description="Run a model at every scale over the drawn corpus, or with --read over records of a benchmark or "
        "of your own; goes on where it was stopped.",
    )
    parser.add_argument("--out", type=_on_disk, required=True, help="folder of the label table")
    parser.add_argument("--model", default=str(M3_TINY), help="folder or hub name of the model (the shipped m3-tiny)")
    parser.add_argument(
        "--reduction",
        choices=REDUCTIONS,
        default="average",
        help="how visual tokens become fewer: as M3 is trained (average), or sampled, as the paper tries on others",
    )
    parser.add_argument("--short", action="store_true", help="add LLaVA's instruction to answer in a word or phrase")
    parser.add_argument("--wording", choices=WORDINGS, help="of the conversation (as the checkpoint has it)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    drawn = parser.add_argument_group("the drawn corpus")
    drawn.add_argument("--split", choices=SPLITS, default="train", help="pictures of which split (train)")
    drawn.add_argument("--pairs", type=int, default=1000, help="image-question pairs (1000)")
    drawn.add_argument("--questions", type=int, default=5, help="most questions about a picture (5)")
    drawn.add_argument("--seed", type=int, default=0, help="seed of the corpus (0)")
    drawn.add_argument(
        "--generate",
        action="store_true",
        help="decode and keep what the model says and how sure it was; otherwise references are judged, in half the "
        "time, with the same scores but neither text nor certainty where the model is wrong",
    )
    drawn.add_argument(
        "--again", type=int, default=0, help="another rendering of the same pictures, moved by a pixel or two (0: none)"
    )
    drawn.add_argument("--pictures", action="store_true", help=f"keep the pictures in OUT/{PICTURES}, for reports")
    records = parser.add_argument_group("records")
    records.add_argument("--read", metavar="READER", help=f"what the data are: {', '.join(readers.READERS)}")
    records.add_argument("--data", type=_on_disk, help="file or folder that is read")
    records.add_argument(
        "--images",
        type=folder_at,
        help="folder of the pictures, or s3://, gs://, hdfs://, file:// (where the data are)",
    )
    records.add_argument("--answers", type=_on_disk, help="the answers' file of benchmarks that have them apart")
    records.add_argument("--data-split", help="of data that come with all their splits in one")
    records.add_argument(
        "--column",
        type=_column,
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="of a saved dataset: which of its columns is the question, the picture, the answer; may be given often",
    )
    records.add_argument("--dataset", help="name of the data in the table (the reader's or the file's)")
    records.add_argument("--limit", type=int, help="the first so many records (all)")
    records.add_argument("--shard", default="1/1", metavar="I/N", help="the I-th of N parts, by picture (1/1)")
    records.add_argument(
        "--several",
        choices=LAYOUTS,
        default="grid",
        help="several pictures of a record: six frames of a video in one picture, as in M3's paper (grid), or each as "
        "a picture of its own, for models that read so many (apart)",
    )
    records.add_argument("--max-new-tokens", type=int, default=32, help="longest answer (32)")
    records.add_argument(
        "--visual-tokens",
        type=int,
        default=Manner.visual_tokens,
        help=f"that the language model takes at once, of all scales; fewer need less memory ({Manner.visual_tokens})",
    )
    cluster = parser.add_argument_group("records on a Ray cluster (pip install 'm3-router[cluster]')")
    cluster.add_argument(
        "--actors", type=int, help="so many processes with the model, by Ray Data (none: this process)"
    )
    cluster.add_argument("--gpus-per-actor", type=float, default=0.0, help="GPUs of each, or a part of one (0)")
    cluster.add_argument("--address", help="of a running Ray cluster (one of this machine alone, for this sweep)")
    return parser
