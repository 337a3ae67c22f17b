"""Measure m3-tiny on freshly drawn pictures: accuracy per scale and question family, oracle, informed bound.

    python benchmarks/tiny.py --pairs 2000 --seed 1

Prints a table and, as its last line, one JSON object.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from complexity.errors import M3Error
from complexity.labels import oracle
from serving.m3 import M3, M3_TINY, load
from training_data.drawn.corpus import SPLITS, CorpusItem, Split
from training_data.drawn.informed import informed_bound
from training_data.scoring import exact_match
from training_data.sweep import BATCH, MAX_NEW_TOKENS, draw_items

QUESTIONS = 5


def measure(m3: M3, items: list[CorpusItem]) -> np.ndarray:
    """Scores (B, S) of all the items' questions, in order."""
    rows = []
    for start in tqdm(range(0, len(items), BATCH), desc="pictures", unit="batch"):
        batch = items[start : start + BATCH]
        encoded = m3.encode([item.picture.image for item in batch])
        asked = [[question.text for question in item.questions] for item in batch]
        answers = m3.answer_at_scales(encoded, asked, None, MAX_NEW_TOKENS)
        for item, each in zip(batch, answers, strict=True):
            for question, scales in zip(item.questions, each, strict=True):
                rows.append([exact_match(said.text, [question.answer]) for said in scales])
    return np.array(rows)


def report(m3: M3, split: Split, pairs: int, seed: int) -> dict:
    """Draw, measure, print the table; what the JSON line says."""
    items = list(draw_items(split, seed, pairs, QUESTIONS))
    score = measure(m3, items)[:pairs]
    questions = [(question, item.item_id) for item in items for question in item.questions][:pairs]
    family = np.array([question.family for question, _ in questions])
    latents = np.array([question.latents for question, _ in questions])
    group = np.unique([item_id for _, item_id in questions], return_inverse=True)[1]
    by_family = {name: score[family == name].mean(0) for name in sorted(set(family))}
    print(f"{'family':18s} {'pairs':>6s} " + " ".join(f"{tokens:>6d}" for tokens in m3.ladder))
    for name, accuracy in [*by_family.items(), ("all", score.mean(0))]:
        count = len(score) if name == "all" else (family == name).sum()
        print(f"{name:18s} {count:6d} " + " ".join(f"{100 * value:6.1f}" for value in accuracy))
    coarsest = oracle(score, m3.ladder, unsolved="coarsest")
    finest = oracle(score, m3.ladder, unsolved="finest")
    bound = informed_bound(score, m3.ladder, family, group, latents)

    def per_scale(accuracy: np.ndarray) -> dict[str, float]:
        return {str(tokens): round(float(value), 4) for tokens, value in zip(m3.ladder, accuracy, strict=True)}

    return {
        "pairs": len(score),
        "model": m3.model_id,
        "split": split,
        "seed": seed,
        "accuracy": per_scale(score.mean(0)),
        "families": {name: per_scale(accuracy) for name, accuracy in by_family.items()},
        "oracle_accuracy": round(float(coarsest.right.mean()), 4),
        "oracle_tokens": round(float(coarsest.tokens.mean()), 2),
        "oracle_tokens_unsolved_finest": round(float(finest.tokens.mean()), 2),
        "informed_gain": round(bound.gain, 4),
        "informed_gain_tokens": bound.gain_tokens,
        "informed_gain_mean": round(bound.mean_gain, 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure m3-tiny on freshly drawn pictures.")
    parser.add_argument("--pairs", type=int, default=2000, help="image-question pairs (2000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the pictures (1); the shipped sweep used 0")
    parser.add_argument(
        "--split", choices=SPLITS, default="test", help="test, or shifted: unseen fonts, words, wordings"
    )
    parser.add_argument("--model", type=Path, default=M3_TINY, help="model folder (the shipped m3-tiny)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    try:
        m3 = load(args.model, args.device)
    except M3Error as error:
        print(f"tiny.py: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report(m3, args.split, args.pairs, args.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
