"""What a scale costs on this machine: time to encode a picture, read the prompt and decode a short answer.

    python benchmarks/costs.py [--model DIR] [--batch 8] > costs.json
    train-router LABELS --out DIR --costs costs.json

Scales take turns, so that a slow moment of the machine hits all of them alike; medians are told, made to rise along
the ladder. Prints a table on stderr and one JSON object, as `train-router --costs` reads it.
"""

import argparse
import json
import statistics
import sys
import time

import torch
from tqdm import tqdm

from complexity.errors import M3Error
from serving.m3 import M3_TINY, GenerateRequest, load
from training_data.drawn.corpus import draw_item

ANSWER_TOKENS = 4
LEAST_RISE = 1e-3  # of a scale's cost over the one before, as a share: costs must rise


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure each scale's cost in milliseconds per request.")
    parser.add_argument("--model", default=str(M3_TINY), help="folder or hub name of the model (the shipped m3-tiny)")
    parser.add_argument("--batch", type=int, default=1, help="requests answered together (1)")
    parser.add_argument("--rounds", type=int, default=30, help="times that each scale is measured (30)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    try:
        m3 = load(args.model, args.device)
    except M3Error as error:
        print(f"costs.py: {error}", file=sys.stderr)
        return 2
    pictures = [draw_item("test", 5, index, 0).picture.image for index in range(args.batch)]
    times: dict[int, list[float]] = {tokens: [] for tokens in m3.ladder}
    for turn in tqdm(range(args.rounds + 1), file=sys.stderr):
        for tokens in m3.ladder:
            start = time.perf_counter()
            encoded = m3.encode(pictures)
            asks = [GenerateRequest("What does the red sign say?", (each,), tokens, ANSWER_TOKENS) for each in encoded]
            m3.generate(asks)
            if turn:  # the first sets up what is set up lazily
                times[tokens].append(1000 * (time.perf_counter() - start) / args.batch)
    costs: dict[str, float] = {}
    before = 0.0
    for tokens, taken in times.items():
        before = max(statistics.median(taken), before * (1 + LEAST_RISE))
        costs[str(tokens)] = round(before, 4)
        print(f"{tokens:6} tokens {before:9.2f} ms a request", file=sys.stderr)
    print(json.dumps({"unit": "ms", "costs": costs}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
