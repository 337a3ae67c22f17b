"""The command `sweep-m3`: answer a corpus at every scale of a model and write the label table.

Each picture is encoded once, and its questions are put at all scales together. Each batch of pictures becomes one
shard that appears whole or not at all; a sweep that was killed and is started again loses at most the batch in flight
and repeats nothing.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch
from tqdm import tqdm

from complexity.errors import LabelTableError, M3Error
from complexity.features import TOWER_FEATURE_VERSION
from complexity.image_features import IMAGE_FEATURE_VERSION, image_features
from complexity.labels import PICTURES, LabelMeta, LabelRow, done_samples, read_meta, write_shard
from complexity.sample import Sample
from serving.m3 import M3, M3_TINY, Encoded, load, short_answer
from serving.m3.pool import REDUCTIONS
from serving.m3.prompt import WORDINGS
from serving.m3.tower_features import tower_features
from training_data.corpus import SPLITS, CorpusItem, Split, draw_item, nudged
from training_data.scoring import exact_match

BATCH = 16  # pictures of a shard, and those that the tower takes at once
AT_ONCE = {"cpu": 2}  # pictures that the language model takes at once: 16 take a CPU 1.3 times as long
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
    encoded = m3.encode([item.picture.image for item in items])
    word = short_answer if short else str
    asked = [[word(question.text) for question in item.questions] for item in items]
    judge = _generated if generate else _judged
    step = AT_ONCE.get(m3.model.language_model.device.type, BATCH)
    parts = [slice(start, start + step) for start in range(0, len(items), step)]
    outcomes = [outcome for part in parts for outcome in judge(m3, encoded[part], items[part], asked[part])]
    rows = []
    for item, look, outcome_rows in zip(items, encoded, outcomes, strict=True):
        picture = Sample(item.png, "-", m3.image_px)
        features = image_features(picture.picture, picture.decoded.size)
        seen = tower_features(look.tiles, m3.ladder)
        split = item.item_id.split("-")[0]
        for k, (question, scales) in enumerate(zip(item.questions, outcome_rows, strict=True)):
            rows += [
                LabelRow(
                    sample_id=sample_id(item, k),
                    dataset="drawn-shifted" if split == "shifted" else "drawn",
                    task=question.family,
                    split="test" if split == "shifted" else split,
                    image_sha256=picture.image_sha256,
                    question=question.text,
                    references=[question.answer],
                    model=m3.model_id,
                    tokens=tokens,
                    visual_tokens=outcome.visual_tokens,
                    prediction=outcome.prediction,
                    score=outcome.score,
                    mean_logprob=outcome.mean_logprob,
                    reference_logprob=outcome.reference_logprob,
                    generated_tokens=outcome.generated_tokens,
                    image_features=features,
                    tower_features=seen,
                    latents=question.latents,
                )
                for tokens, outcome in zip(m3.ladder, scales, strict=True)
            ]
    return rows


@dataclass(frozen=True)
class _Outcome:
    """What a model made of a question at one scale."""

    visual_tokens: int
    prediction: str
    score: float
    mean_logprob: float  # of the prediction; NaN when it isn't known
    reference_logprob: float  # NaN when it isn't known
    generated_tokens: int


def _judged(
    m3: M3, encoded: Sequence[Encoded], items: Sequence[CorpusItem], asked: list[list[str]]
) -> list[list[list[_Outcome]]]:
    """Exact match with one reference needs no decoding: greedy decoding gives it where each token is the likeliest."""
    pairs = [
        [(text, question.answer) for text, question in zip(texts, item.questions, strict=True)]
        for texts, item in zip(asked, items, strict=True)
    ]
    return [
        [
            [
                _Outcome(
                    said.visual_tokens,
                    question.answer if said.greedy else "",
                    float(said.greedy),
                    said.logprob / len(said.logprobs) if said.greedy else math.nan,
                    said.logprob / len(said.logprobs),
                    len(said.logprobs) if said.greedy else 0,
                )
                for said in scales
            ]
            for question, scales in zip(item.questions, judged, strict=True)
        ]
        for item, judged in zip(items, m3.score_at_scales(encoded, pairs), strict=True)
    ]


def _generated(
    m3: M3, encoded: Sequence[Encoded], items: Sequence[CorpusItem], asked: list[list[str]]
) -> list[list[list[_Outcome]]]:
    return [
        [
            [
                _Outcome(
                    said.visual_tokens,
                    said.text,
                    exact_match(said.text, [question.answer]),
                    said.mean_logprob,
                    math.nan,
                    said.completion_tokens,
                )
                for said in scales
            ]
            for question, scales in zip(item.questions, answers, strict=True)
        ]
        for item, answers in zip(items, m3.answer_at_scales(encoded, asked, None, MAX_NEW_TOKENS), strict=True)
    ]


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
    meta = LabelMeta(m3.ladder, IMAGE_FEATURE_VERSION, m3.model_id, version, TOWER_FEATURE_VERSION)
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
                rows = label_rows(m3, batch, generate, short)
                if pictures:
                    _keep_pictures(out / PICTURES, batch)
                write_shard(out / f"{sample_id(batch[0], 0)}.parquet", rows, meta)
                count = sum(len(item.questions) for item in batch)
                new += count
                bar.update(count)
                batch.clear()

        for item in draw_items(split, seed, pairs, questions):
            if sample_id(item, 0) in done:  # a shard has all of a picture's questions or none
                bar.update(len(item.questions))
                continue
            batch.append(nudged(item, again))
            if len(batch) == BATCH:
                flush()
        flush()
    return new


def _keep_pictures(folder: Path, items: Sequence[CorpusItem]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        (folder / f"{Sample(item.png, '-').image_sha256}.png").write_bytes(item.png)


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
    parser.add_argument("--short", action="store_true", help="add LLaVA's instruction to answer in a word or phrase")
    parser.add_argument("--wording", choices=WORDINGS, help="of the conversation (as the checkpoint has it)")
    parser.add_argument("--split", choices=SPLITS, default="train", help="pictures of which split (train)")
    parser.add_argument("--pairs", type=int, default=1000, help="image-question pairs (1000)")
    parser.add_argument("--questions", type=int, default=5, help="most questions about a picture (5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the corpus (0)")
    parser.add_argument(
        "--generate",
        action="store_true",
        help="decode and keep what the model says and how sure it was; otherwise references are judged, in half the "
        "time, with the same scores but neither text nor certainty where the model is wrong",
    )
    parser.add_argument(
        "--again", type=int, default=0, help="another rendering of the same pictures, moved by a pixel or two (0: none)"
    )
    parser.add_argument("--pictures", action="store_true", help=f"keep the pictures in OUT/{PICTURES}, for reports")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    args = parser.parse_args(argv)
    start = monotonic()
    try:
        if args.pairs < 1 or args.questions < 1:
            raise M3Error(f"--pairs {args.pairs} and --questions {args.questions} must be at least 1")
        torch.set_flush_denormal(True)
        m3 = load(args.model, args.device, reduction=args.reduction, wording=args.wording)
        wanted = (args.split, args.seed, args.pairs, args.questions, args.out)
        new = sweep(m3, *wanted, args.generate, args.short, args.again, args.pictures)
    except M3Error as error:
        print(f"sweep-m3: {error}", file=sys.stderr)
        return 2
    report = {"out": str(args.out), "pairs": args.pairs, "new": new, "model": m3.model_id}
    print(json.dumps({**report, "seconds": round(monotonic() - start, 1)}))
    return 0
