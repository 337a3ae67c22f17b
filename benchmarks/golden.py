"""Compare this implementation with recorded outputs of the original M3 code.

    python benchmarks/golden.py DIR

DIR holds ckpt/<model>/ (checkpoints in the original format), images/*.png, <model>.golden.safetensors and notes.json,
whose input_ids and labels are the prompt. Prints the worst differences of each model and one JSON line; exit 1 beyond
tolerance: input embeddings 1e-4 (relative to the largest, at least 1), logits 1e-3, losses and gradient norms 1e-4,
and greedy tokens equal wherever the recorded margin exceeds 1e-3.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from complexity.errors import M3Error
from serving.m3 import M3, load
from serving.m3.images import cut, pixels_of
from serving.m3.loss import m3_losses
from serving.m3.model import Encoded
from serving.m3.packing import pack
from serving.m3.prompt import IMAGE

TOLERANCE = {"embeds": 1e-4, "logits": 1e-3, "loss": 1e-4, "grad_norm": 1e-4, "greedy_mismatches": 0, "count": 0}
MARGIN = 1e-3  # of the best over the second logit; below it a greedy step is a tie
SUFFIX = ".golden.safetensors"


@dataclass
class Worst:
    """The largest difference of each kind, and how many cases were compared."""

    cases: int = 0
    found: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, difference: float) -> None:
        self.found[kind] = max(self.found[kind], difference)


def compare(m3: M3, golden: dict[str, Tensor], image: Path, input_ids: list[int], labels: list[int]) -> Worst:
    """One picture at every scale."""
    worst = Worst()
    name = image.stem
    opened = Image.open(image).convert("RGB")
    (picture,) = m3.encode([opened])
    for tokens in m3.ladder:
        worst.cases += 1
        key = f"{name}.s{tokens}"
        embeds = m3.embed([picture], input_ids, tokens)  # (L, D)
        worst.add("count", abs(len(embeds) - int(golden[f"{key}.n_embeds"])))
        if worst.found["count"]:
            continue
        expected = golden[f"{key}.embeds"]
        kept = embeds if len(expected) == len(embeds) else torch.cat([embeds[:24], embeds[-24:]])
        worst.add("embeds", float((kept - expected).abs().max() / expected.abs().max().clamp(min=1)))
        with torch.inference_mode():
            logits = m3.model.language_model(inputs_embeds=embeds[None]).logits[0]
        tail = golden[f"{key}.logits_tail"].reshape(-1, logits.shape[-1])
        worst.add("logits", float((logits[-len(tail) :] - tail).abs().max()))
        if f"{key}.logits_all" in golden:
            whole = golden[f"{key}.logits_all"].reshape(logits.shape)
            worst.add("logits", float((logits - whole).abs().max()))
        worst.found["greedy_mismatches"] += _mismatches(m3, embeds, golden[f"{key}.gen"], golden[f"{key}.gen_margin"])
    if f"{name}.train_loss" in golden:
        _compare_training(m3, opened, golden, name, input_ids, labels, worst)
    return worst


def _mismatches(m3: M3, embeds: Tensor, recorded: Tensor, margins: Tensor) -> int:
    """1 if greedy decoding leaves the recorded tokens before a step that is a tie."""
    expected = recorded.flatten().tolist()[1:]  # the original puts <s> first
    ids = m3.model.language_model.generate(
        inputs_embeds=embeds[None],
        attention_mask=torch.ones(1, len(embeds), dtype=torch.long),
        max_new_tokens=len(expected),
        do_sample=False,
    )[0].tolist()
    for said, wanted, margin in zip(ids, expected, margins.flatten().tolist(), strict=False):
        if margin < MARGIN:
            return 0
        if said != wanted:
            return 1
    return int(len(ids) != len(expected))


def _compare_training(
    m3: M3, image: Image.Image, golden: dict[str, Tensor], name: str, ids: list[int], labels: list[int], worst: Worst
) -> None:
    """The loss at every scale, their mean, and the projector's gradient norms."""
    model = m3.model
    model.projector.requires_grad_(True)
    answer = next(i for i, label in enumerate(labels) if label >= 0)
    place = ids.index(IMAGE)
    whole = cut(image, model.vision)
    with torch.no_grad():
        features = model.tower(pixels_of(whole.tiles, model.vision))
    encoded = Encoded(model.projector(features), whole.grid, image.size)
    text = pack([[(ids[place + 1 : answer], ids[answer:])]])
    losses = m3_losses(model, lambda tokens: model.embed(ids[: place + 1], [encoded], tokens)[None], text, m3.ladder)
    losses.mean().backward()
    for tokens, loss in zip(m3.ladder, losses.tolist(), strict=True):
        worst.add("loss", abs(loss - float(golden[f"{name}.loss_s{tokens}"])))
    worst.add("loss", abs(float(losses.mean()) - float(golden[f"{name}.train_loss"])))
    norms = torch.stack([weight.grad.norm() for weight in model.projector.parameters() if weight.grad is not None])
    worst.add("grad_norm", float((norms - golden[f"{name}.grad_norm_proj"]).abs().max()))
    model.projector.zero_grad(set_to_none=True)
    model.projector.requires_grad_(False)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare with recorded outputs of the original M3 code.")
    parser.add_argument("folder", type=Path, help="folder of the recordings")
    args = parser.parse_args()
    torch.set_num_threads(1)
    notes = json.loads((args.folder / "notes.json").read_text())
    total = Worst()
    for recording in sorted(args.folder.glob(f"*{SUFFIX}")):
        golden = load_file(recording)
        name = recording.name.removesuffix(SUFFIX)
        try:
            m3 = load(args.folder / "ckpt" / name, dtype=torch.float32)
        except M3Error as error:
            print(f"golden.py: {error}", file=sys.stderr)
            return 2
        worst = Worst()
        for image in tqdm(sorted((args.folder / "images").glob("*.png")), desc=name):
            one = compare(m3, golden, image, notes["input_ids"], notes["labels"])
            worst.cases += one.cases
            for kind, difference in one.found.items():
                worst.found[kind] = (
                    worst.found[kind] + difference
                    if kind == "greedy_mismatches"
                    else max(worst.found[kind], difference)
                )
        print(name, dict(worst.found))
        total.cases += worst.cases
        for kind, difference in worst.found.items():
            total.add(kind, difference)
    print(json.dumps({"cases": total.cases, **{kind: total.found[kind] for kind in TOLERANCE}}))
    return int(not total.cases or any(total.found[kind] > limit for kind, limit in TOLERANCE.items()))


if __name__ == "__main__":
    sys.exit(main())
