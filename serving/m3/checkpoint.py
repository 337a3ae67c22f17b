"""A model's folder: config.json, model.safetensors, the tokenizer's files."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from complexity.errors import CheckpointError
from serving.m3.model import M3Model
from serving.m3.prompt import TinyPrompt
from serving.m3.shards import Shards, Source, fill, unfilled
from serving.m3.tiny import MODEL_TYPE, TinyConfig, build_tiny

_TIED = "language_model.lm_head.weight"


def save_tiny(
    folder: Path, model: M3Model, config: TinyConfig, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype
) -> None:
    """Write the weights in `dtype`, the configuration and the tokenizer into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value for name, value in model.state_dict().items() if name != _TIED}
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in state.items()}
    partial = folder / "model.safetensors.partial"
    save_file(weights, partial)
    partial.chmod(0o644)  # safetensors makes it readable to its owner alone
    partial.replace(folder / "model.safetensors")
    said = {"model_type": MODEL_TYPE, **asdict(config)}
    (folder / "config.json").write_text(json.dumps(said, indent=2) + "\n")
    tokenizer.save_pretrained(folder)


def load_tiny(folder: Path, device: str, dtype: torch.dtype) -> tuple[M3Model, TinyPrompt]:
    """Read a folder that `save_tiny` wrote.

    Raises:
        CheckpointError: a file is missing, or weights are missing or unexpected, named.
    """
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder} is no M3 model folder: tokenizer.json is missing")
    said = json.loads((folder / "config.json").read_text())
    sizes = {name: value for name, value in said.items() if name != "model_type"}
    config = TinyConfig(**{**sizes, "tower_widths": tuple(sizes["tower_widths"])})
    with unfilled(device, dtype):
        model = build_tiny(config)
    model.language_model.tie_weights()
    fill(model, [Source(Shards(folder), lambda name: name)], device)
    return model.eval().requires_grad_(False), TinyPrompt.load(folder)
