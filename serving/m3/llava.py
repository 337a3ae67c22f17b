"""M3 checkpoints as released: the original code's format (`model_type: llava_llama`).

The language model, the projector and perhaps the tower lie in one set of shards; the tower may also lie elsewhere.
Which tower counts is the original's rule: its own keys only under `unfreeze_mm_vision_tower`, else `mm_vision_tower`.
"""

import json
import re
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM

from complexity.errors import CheckpointError
from serving.m3.clip import SPARE, ClipTower, clip_vision, tower_name
from serving.m3.model import M3Model
from serving.m3.prompt import LlavaPrompt, load_tokenizer, vicuna
from serving.m3.shards import Shards, Source, fill, find_folder, unfilled

MODEL_TYPE = "llava_llama"
_NEEDED = ("hidden_size", "num_hidden_layers", "vocab_size", "mm_hidden_size", "mm_projector_type", "mm_vision_tower")
_TOWER, _PROJECTOR = "model.vision_tower.vision_tower.", "model.mm_projector."


def load_llava(folder: Path, device: str, dtype: torch.dtype) -> tuple[M3Model, LlavaPrompt | None]:
    """Read a folder of the original format; without a tokenizer in it, the model comes without a prompt.

    Raises:
        CheckpointError: the folder is incomplete or of an unsupported kind; missing and unexpected weights are named.
    """
    said = json.loads((folder / "config.json").read_text())
    lacking = [name for name in _NEEDED if name not in said]
    if lacking:
        raise CheckpointError(f"{folder}/config.json lacks {', '.join(lacking)}")
    place = find_folder(said["mm_vision_tower"], beside=folder)
    clip = CLIPVisionConfig.from_pretrained(place)
    grids = [(wide, high) for wide, high in said.get("image_grid_pinpoints") or ()]
    aspect, merge = said.get("image_aspect_ratio", "square"), said.get("mm_patch_merge_type", "flat")
    vision = clip_vision(place, clip, aspect, merge, grids)
    config = LlamaConfig.from_dict({name: value for name, value in said.items() if value is not None})
    with unfilled(device, dtype):
        model = M3Model(
            ClipTower(clip, said.get("mm_vision_select_layer", -2), said.get("mm_vision_select_feature", "patch")),
            _projector(said["mm_projector_type"], said["mm_hidden_size"], config.hidden_size),
            LlamaForCausalLM(config),
            vision,
            torch.empty(config.hidden_size) if vision.newlines else None,
        )
    model.language_model.tie_weights()
    own_tower = bool(said.get("unfreeze_mm_vision_tower"))
    sources = [Source(Shards(folder), partial(_new_name, own_tower=own_tower, newlines=vision.newlines))]
    if not own_tower:
        sources.append(Source(Shards(place), tower_name))
    fill(model, sources, device, SPARE)
    tokenizer = load_tokenizer(folder)
    return model.eval().requires_grad_(False), LlavaPrompt(tokenizer, vicuna) if tokenizer else None


def _new_name(name: str, own_tower: bool, newlines: bool) -> str | None:
    """A weight of the original format -> its name in M3Model; None for those that don't count."""
    if name.startswith(_TOWER):
        return tower_name(name.removeprefix(_TOWER)) if own_tower else None
    if name == "model.image_newline":
        return "newline" if newlines else None
    if name.startswith(_PROJECTOR):
        return "projector." + name.removeprefix(_PROJECTOR)
    return None if name.endswith("rotary_emb.inv_freq") else "language_model." + name


def _projector(kind: str, width_in: int, width: int) -> nn.Module:
    """LLaVA's `linear`, or `mlp{N}x_gelu`: N linear layers with GELU between."""
    if kind == "linear":
        return nn.Linear(width_in, width)
    found = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if found is None:
        raise CheckpointError(f"mm_projector_type {kind!r} is not supported; linear and mlp<N>x_gelu are")
    layers: list[nn.Module] = [nn.Linear(width_in, width)]
    for _ in range(int(found[1]) - 1):
        layers += [nn.GELU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)
