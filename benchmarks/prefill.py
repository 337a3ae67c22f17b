"""Reading prompts of several scales: each scale by itself, all padded to the longest, packed into one row, one by one.

    python benchmarks/prefill.py [--threads 1]

Prompts of m3-tiny with 30 tokens of text, in mixes as they wait in a routed service. Prints milliseconds, medians.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from serving.m3 import load

TEXT = 30
MIXES = ([9] * 8, [36] * 4, [144] * 4, [576] * 2, [36, 36, 144], [1, 9, 9, 36, 36, 36, 36, 144], [576, 9, 36, 36])
ROUNDS = 12


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure ways to read prompts together.")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    torch.set_num_threads(parser.parse_args().threads)
    language = load().model.language_model
    width = language.config.hidden_size

    def padded(lengths: Sequence[int]) -> None:
        language.model(inputs_embeds=torch.randn(len(lengths), max(lengths), width), use_cache=True)

    def packed(lengths: Sequence[int]) -> None:
        """One row, in which a token sees those before it in its own prompt."""
        prompt = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        language.model(
            inputs_embeds=torch.randn(1, sum(lengths), width),
            attention_mask=(prompt[:, None] == prompt).tril()[None, None],
            position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
            use_cache=True,
        )

    def by_scale(lengths: Sequence[int]) -> None:
        for length in set(lengths):
            padded([length] * lengths.count(length))

    def one_by_one(lengths: Sequence[int]) -> None:
        for length in lengths:
            padded([length])

    ways: tuple[Callable[[Sequence[int]], None], ...] = (by_scale, padded, packed, one_by_one)
    told = []
    print(f"{'visual tokens':40}" + "".join(f"{way.__name__:>12}" for way in ways))
    for mix in MIXES:
        lengths = [tokens + TEXT for tokens in mix]
        times: dict[str, list[float]] = {way.__name__: [] for way in ways}
        for _ in range(ROUNDS):  # in turn, so that a slow moment of the machine is shared
            for way in ways:
                start_s = time.perf_counter()
                with torch.inference_mode():
                    way(lengths)
                times[way.__name__].append(1000 * (time.perf_counter() - start_s))
        medians = {name: float(np.median(each)) for name, each in times.items()}
        print(f"{' '.join(map(str, mix)):40}" + "".join(f"{value:12.1f}" for value in medians.values()))
        told.append({"mix": mix, "ms": {name: round(value, 2) for name, value in medians.items()}})
    print(json.dumps({"mixes": told}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
