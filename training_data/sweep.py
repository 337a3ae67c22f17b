"""The command `sweep-m3`: answer a corpus at every scale of a model and write the label table.

Each picture is encoded once for all scales and questions. Each batch of pictures becomes one shard that appears whole
or not at all; a sweep that was killed and is started again loses at most the batch in flight and repeats nothing.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic

import torch
from tqdm import tqdm

from complexity.errors import LabelTableError, M3Error
from complexity.image_features import IMAGE_FEATURE_VERSION, image_features
from complexity.labels import LabelMeta, LabelRow, done_samples, read_meta, write_shard
from complexity.sample import Sample
from serving.m3 import M3, M3_TINY, load
from serving.m3.pool import REDUCTIONS
from training_data.corpus import SPLITS, CorpusItem, Split, draw_item
from training_data.scoring import exact_match

BATCH = 16  # pictures; the cache of the finest scale for all their questions takes half a gigabyte
SWEEP_VERSION = "drawn-1"
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


def label_rows(m3: M3, items: Sequence[CorpusItem]) -> list[LabelRow]:
    """Answer all questions of a batch of items at every scale."""
    encoded = m3.encode([item.picture.image for item in items])
    asked = [[question.text for question in item.questions] for item in items]
    pictures = [image_features(Sample(item.png, "-").picture) for item in items]
    digests = [Sample(item.png, "-").image_sha256 for item in items]
    rows = []
    for tokens in m3.ladder:
        answers = m3.answer(encoded, asked, tokens, MAX_NEW_TOKENS)
        for item, picture, digest, generations in zip(items, pictures, digests, answers, strict=True):
            split = item.item_id.split("-")[0]
            for k, (question, said) in enumerate(zip(item.questions, generations, strict=True)):
                rows.append(
                    LabelRow(
                        sample_id=sample_id(item, k),
                        dataset="drawn-shifted" if split == "shifted" else "drawn",
                        task=question.family,
                        split="test" if split == "shifted" else split,
                        image_sha256=digest,
                        question=question.text,
                        references=[question.answer],
                        model=m3.model_id,
                        tokens=tokens,
                        visual_tokens=said.visual_tokens,
                        prediction=said.text,
                        score=exact_match(said.text, [question.answer]),
                        mean_logprob=said.mean_logprob,
                        generated_tokens=said.completion_tokens,
                        image_features=picture,
                    )
                )
    return rows


def sweep(m3: M3, split: Split, seed: int, pairs: int, questions: int, out: Path) -> int:
    """Sweep a split into the label table `out`, skipping what stands there; the number of new pairs.

    Raises:
        LabelTableError: `out` holds a table of another model, ladder or feature version.
    """
    meta = LabelMeta(m3.ladder, IMAGE_FEATURE_VERSION, m3.model_id, SWEEP_VERSION)
    found = read_meta(out)
    if found not in (None, meta):
        raise LabelTableError(f"{out} holds {found}; this sweep would add {meta}")
    done = done_samples(out)
    new = 0
    batch: list[CorpusItem] = []
    with tqdm(total=pairs, desc=f"{split} x {len(m3.ladder)} scales", unit="pair", mininterval=2.0) as bar:

        def flush() -> None:
            nonlocal new
            if batch:
                write_shard(out / f"{sample_id(batch[0], 0)}.parquet", label_rows(m3, batch), meta)
                count = sum(len(item.questions) for item in batch)
                new += count
                bar.update(count)
                batch.clear()

        for item in draw_items(split, seed, pairs, questions):
            if sample_id(item, 0) in done:  # a shard has all of a picture's questions or none
                bar.update(len(item.questions))
                continue
            batch.append(item)
            if len(batch) == BATCH:
                flush()
        flush()
    return new


def main(argv: list[str] | None = None) -> int:
    """Entry point of `sweep-m3`."""
    parser = argparse.ArgumentParser(
        "sweep-m3", description="Run a model over the drawn corpus at every scale; goes on where it was stopped."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the label table")
    parser.add_argument("--model", default=str(M3_TINY), help="folder or hub name of the model (the shipped m3-tiny)")
    parser.add_argument(
        "--reduction",
        choices=REDUCTIONS,
        default="average",
        help="how visual tokens become fewer: as M3 is trained (average), or sampled, as the paper tries on others",
    )
    parser.add_argument("--split", choices=SPLITS, default="train", help="pictures of which split (train)")
    parser.add_argument("--pairs", type=int, default=1000, help="image-question pairs (1000)")
    parser.add_argument("--questions", type=int, default=5, help="most questions about a picture (5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the corpus (0)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    args = parser.parse_args(argv)
    start = monotonic()
    try:
        if args.pairs < 1 or args.questions < 1:
            raise M3Error(f"--pairs {args.pairs} and --questions {args.questions} must be at least 1")
        torch.set_flush_denormal(True)
        m3 = load(args.model, args.device, reduction=args.reduction)
        new = sweep(m3, args.split, args.seed, args.pairs, args.questions, args.out)
    except M3Error as error:
        print(f"sweep-m3: {error}", file=sys.stderr)
        return 2
    report = {"out": str(args.out), "pairs": args.pairs, "new": new, "model": m3.model_id}
    print(json.dumps({**report, "seconds": round(monotonic() - start, 1)}))
    return 0
