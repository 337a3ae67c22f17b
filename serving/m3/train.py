"""The training loop of m3-tiny: one stage at a time, checkpointed, resumable; takes batches and knows no corpus."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from tqdm import tqdm

from serving.m3.muon import Muon
from serving.m3.processor import computes_in_bfloat16

_OUTER = re.compile(r"embed_tokens|lm_head|^linear")  # what Muon is not for: embeddings and classifiers


@dataclass(frozen=True)
class Stage:
    """One stage of training: `loss` of a batch, for `steps` steps, on the weights of `module`."""

    name: str
    steps: int
    module: nn.Module
    optimizers: Sequence[Optimizer]
    loss: Callable[[Any], tuple[Tensor, dict[str, float]]]  # the loss, and figures for the progress bar
    middle: float = 1.0  # share of the peak learning rate that the middle of training has


def optimizers(parts: Sequence[tuple[nn.Module, float]]) -> list[Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings, classifiers, norms, biases.

    With AdamW alone the tower learnt colours and shapes five times slower.

    Args:
        parts: modules and their peak learning rates.
    """
    matrices, rest = [], []
    for module, peak in parts:
        hidden = [weight for name, weight in module.named_parameters() if weight.ndim == 2 and not _OUTER.search(name)]
        chosen = set(map(id, hidden))
        matrices.append({"params": hidden, "lr": peak})
        rest.append({"params": [weight for weight in module.parameters() if id(weight) not in chosen], "lr": peak})
    matrices = [group for group in matrices if group["params"]]
    return [Muon(matrices), AdamW(rest, betas=(0.9, 0.98), weight_decay=0.01, fused=True)]


def schedule(step: int, steps: int, middle: float = 1.0) -> float:
    """Share of the peak learning rate: linear warm-up, from 10% to 30% down to `middle`, from 40% by a cosine to 3%."""
    warmup = min(200, max(1, steps // 20))
    if step < warmup:
        return (step + 1) / warmup
    lowered = min(1.0, max(0.0, (step / steps - 0.1) / 0.2))
    done = max(0.0, (step / steps - 0.4) / 0.6)
    level = 1 - (1 - middle) * lowered
    return 0.03 + (level - 0.03) * (0.5 + 0.5 * math.cos(math.pi * done))


def run_stage(
    stage: Stage,
    batches: Callable[[int], Iterable[Any]],
    folder: Path,
    device: str,
    checkpoint_every_s: float = 120.0,
) -> None:
    """Train a stage to its end, from its last checkpoint in `folder` if there is one.

    Args:
        batches: the batches from a step on; the same step always gives the same batch.
        folder: `<name>.pt` in it is the checkpoint.
        device: "cpu" or "cuda"; trained in bfloat16 autocast where the processor computes with that.
    """
    checkpoint = folder / f"{stage.name}.pt"
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in stage.optimizers]
    step = _resume(stage, checkpoint, device)
    if step >= stage.steps:
        return
    autocast = computes_in_bfloat16(device)
    stage.module.train()
    saved = monotonic()
    figures: dict[str, float] = {}
    with tqdm(total=stage.steps, initial=step, desc=stage.name, unit="step", mininterval=5.0) as bar:
        for batch in batches(step):
            for optimizer, peak in zip(stage.optimizers, peaks, strict=True):
                for group, rate in zip(optimizer.param_groups, peak, strict=True):
                    group["lr"] = rate * schedule(step, stage.steps, stage.middle)
                optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                loss, each = stage.loss(batch)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"{stage.name}: the loss is {loss.item()} at step {step}")
            loss.backward()
            nn.utils.clip_grad_norm_(stage.module.parameters(), 1.0)
            for optimizer in stage.optimizers:
                optimizer.step()
            for name, value in each.items():
                figures[name] = 0.95 * figures.get(name, value) + 0.05 * value
            step += 1
            bar.update()
            bar.set_postfix_str(" ".join(f"{name} {value:.2f}" for name, value in figures.items()), refresh=False)
            if monotonic() - saved > checkpoint_every_s or step == stage.steps:
                _save(stage, checkpoint, step)
                saved = monotonic()


def _save(stage: Stage, checkpoint: Path, step: int) -> None:
    state = {
        "step": step,
        "module": stage.module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in stage.optimizers],
    }
    partial = checkpoint.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(checkpoint)


def _resume(stage: Stage, checkpoint: Path, device: str) -> int:
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, map_location=device, weights_only=True)
    stage.module.load_state_dict(state["module"])
    for optimizer, stored in zip(stage.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(stored)
    return state["step"]
