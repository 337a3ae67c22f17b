"""A model's folder: config.json, model.safetensors, the tokenizer's files."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from complexity.errors import CheckpointError
from serving.m3.config import MODEL_TYPE, M3Config
from serving.m3.model import M3Model
from serving.m3.prompt import Prompt

_TIED = "language_model.lm_head.weight"


def save_checkpoint(folder: Path, model: M3Model, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype) -> None:
    """Write the weights in `dtype`, the configuration and the tokenizer into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value for name, value in model.state_dict().items() if name != _TIED}
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in state.items()}
    partial = folder / "model.safetensors.partial"
    save_file(weights, partial)
    partial.chmod(0o644)  # safetensors makes it readable to its owner alone
    partial.replace(folder / "model.safetensors")
    config = {"model_type": MODEL_TYPE, **asdict(model.config)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(folder)


def load_checkpoint(folder: Path, device: str, dtype: torch.dtype) -> tuple[M3Model, Prompt]:
    """Read a folder that `save_checkpoint` wrote.

    Raises:
        CheckpointError: a file is missing or of another kind, or weights are missing or unexpected, named.
    """
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is no M3 model folder: {name} is missing")
    try:
        stored = json.loads((folder / "config.json").read_text())
        kind = stored.pop("model_type", None)
        if kind != MODEL_TYPE:
            raise CheckpointError(f"{folder}/config.json has model_type {kind!r}; {MODEL_TYPE!r} is supported")
        config = M3Config(**{**stored, "tower_widths": tuple(stored["tower_widths"])})
        weights = load_file(folder / "model.safetensors")
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise CheckpointError(f"{folder} can't be read: {error}") from error
    except Exception as error:  # safetensors raises its own type, which derives from Exception alone
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder}/model.safetensors can't be read: {error}") from error
    model = M3Model(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    lacking = sorted(set(missing) - {_TIED})
    if lacking or unexpected:
        raise CheckpointError(f"{folder}: missing weights {lacking}, unexpected {sorted(unexpected)}")
    model.language_model.tie_weights()
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False), Prompt.load(folder)
