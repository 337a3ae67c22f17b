"""Time a sweep of all scales against the plain loop that runs tower and language model once per scale, batch 1.

    python benchmarks/sweep.py

Builds a mid-sized model from a seed (LLaMA 512 x 8 layers, CLIP 256 x 6 layers, 33 M parameters, 63 text tokens, 8
answer tokens) and times, in turns in one run: the loop with transformers' generate; references judged by one forward
pass, which is what `sweep-m3` does; and answers of all scales decoded together, as `sweep-m3 --generate` does. Checks
that the decoded answers are the loop's. Prints medians per sample and one JSON line; `ours_ms` is of judging.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Sequence
from random import Random
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM

from serving.m3 import M3, Encoded
from serving.m3.clip import ClipTower
from serving.m3.images import Vision, cut, pixels_of
from serving.m3.model import M3Model
from serving.m3.prompt import BOS, IMAGE, prompt_ids

BEFORE, AFTER, ANSWER = 35, 28, 8  # tokens: text before the picture, behind it, answer with its end
VOCABULARY = 2048
GREY = (0.5, 0.5, 0.5)


class MadeUpPrompt:
    """Texts as random token ids of fixed lengths; the text is the ids' seed."""

    tokenizer = None
    stops: frozenset[int] = frozenset()

    def head(self, pictures: int = 1) -> list[int]:
        return [BOS, *_ids("head", BEFORE - 1), *[IMAGE] * pictures]

    def question_ids(self, question: str, pictures: int = 1) -> list[int]:
        return _ids(question, AFTER)

    def answer_ids(self, answer: str) -> list[int]:
        return _ids(answer, ANSWER)

    def text(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def _ids(text: str, count: int) -> list[int]:
    draw = Random(text)
    return [draw.randrange(3, VOCABULARY) for _ in range(count)]


def build_mid(seed: int) -> M3:
    """The mid-sized model with random weights."""
    torch.manual_seed(seed)
    clip = CLIPVisionConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=336,
        patch_size=14,
    )
    llama = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=2048,
    )
    projector = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 512))
    vision = Vision(336, 24, GREY, GREY)
    model = M3Model(ClipTower(clip, -2, "patch"), projector, LlamaForCausalLM(llama), vision)
    return M3(model.eval().requires_grad_(False), MadeUpPrompt(), f"mid@{seed}")


@torch.inference_mode()
def plain_loop(m3: M3, picture: Image.Image, questions: Sequence[str]) -> list[list[str]]:
    """The answers [question][scale]: tower and language model run for each, as in the original's evaluation."""
    answers = []
    for question in questions:
        pixels = pixels_of(cut(picture, m3.model.vision).tiles, m3.model.vision)
        ids = prompt_ids(m3.prompt, question, 1)
        answers.append([_alone(m3, Encoded(m3.model.encode(pixels)), ids, tokens) for tokens in m3.ladder])
    return answers


def _alone(m3: M3, picture: Encoded, ids: Sequence[int], tokens: int) -> str:
    embeds = m3.embed([picture], ids, tokens)[None]
    said = m3.model.language_model.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
        max_new_tokens=ANSWER,
        min_new_tokens=ANSWER,
        do_sample=False,
        pad_token_id=0,
    )
    return m3.prompt.text(said[0].tolist())


def measure(m3: M3, questions: int, repeats: int, seed: int) -> dict[str, float]:
    """Median milliseconds per sample (a question at all scales) of each way, timed in turns on fresh pictures.

    Raises:
        RuntimeError: a decoded answer differs from the plain loop's.
    """
    noise = np.random.default_rng(seed)
    took: dict[str, list[float]] = {"naive": [], "judged": [], "generated": []}
    for turn in range(repeats + 1):  # the first warms up
        picture = Image.fromarray(noise.integers(0, 256, (336, 336, 3), dtype=np.uint8))
        asked = [f"{turn} {k}" for k in range(questions)]
        start = perf_counter()
        naive = plain_loop(m3, picture, asked)
        looped = perf_counter()
        m3.score_at_scales(m3.encode([picture]), [[(question, f"answer {question}") for question in asked]])
        judged = perf_counter()
        (generated,) = m3.answer_at_scales(m3.encode([picture]), [asked], None, ANSWER)
        end = perf_counter()
        if naive != [[said.text for said in scales] for scales in generated]:
            raise RuntimeError("the decoded answers differ from the plain loop's")
        if turn:
            for way, seconds in (("naive", looped - start), ("judged", judged - looped), ("generated", end - judged)):
                took[way].append(1000 * seconds / questions)
    return {way: statistics.median(each) for way, each in took.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time a sweep of all scales against the plain loop.")
    parser.add_argument("--repeats", type=int, default=5, help="timed pictures (5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and pictures (0)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    m3 = build_mid(args.seed)
    count = sum(weight.numel() for weight in m3.model.parameters())
    print(f"{count / 1e6:.1f} M parameters, {args.threads} thread(s), {platform.processor() or platform.machine()}")
    print(f"{'questions':>9s} {'naive':>8s} {'judged':>8s} {'generated':>9s}  ms per sample")
    one, four = (measure(m3, questions, args.repeats, args.seed) for questions in (1, 4))
    for questions, each in ((1, one), (4, four)):
        print(f"{questions:9d} {each['naive']:8.0f} {each['judged']:8.0f} {each['generated']:9.0f}")
    report = {
        "naive_ms": round(one["naive"], 1),
        "ours_ms": round(one["judged"], 1),
        "ratio": round(one["naive"] / one["judged"], 2),
        "ratio_4_questions": round(four["naive"] / four["judged"], 2),
        "generated_ms": round(one["generated"], 1),
        "generated_ratio": round(one["naive"] / one["generated"], 2),
        "generated_ratio_4_questions": round(four["naive"] / four["generated"], 2),
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
