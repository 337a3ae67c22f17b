"""Checkpoints in transformers' own formats, Llava and LlavaNext: vanilla LLaVAs and exported M3s."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig, LlavaConfig, LlavaNextConfig
from transformers.activations import ACT2FN

from complexity.errors import CheckpointError
from serving.m3.clip import SPARE, ClipTower, clip_vision, pixel_settings, tower_name
from serving.m3.images import Aspect, Merge
from serving.m3.model import M3Model
from serving.m3.prompt import LlavaPrompt, chat_template, load_tokenizer, vicuna
from serving.m3.shards import Shards, Source, fill, unfilled

MODEL_TYPES = ("llava", "llava_next")
_SELECTED = {"default": "patch", "full": "cls_patch"}  # transformers' names -> the original's
# Both of transformers' naming schemes: "model.vision_tower." since version 4.52, "vision_tower." before
_PARTS = (
    (re.compile(r"(model\.)?vision_tower\."), "tower"),
    (re.compile(r"(model\.)?multi_modal_projector\.linear_(?P<layer>[12])\."), "projector"),
    (re.compile(r"(model\.)?image_newline$"), "newline"),
    (re.compile(r"language_model\.(?=model\.|lm_head\.)|(?=lm_head\.)"), "language_model."),
    (re.compile(r"model\.language_model\."), "language_model.model."),
)


def load_hf(folder: Path, device: str, dtype: torch.dtype) -> tuple[M3Model, LlavaPrompt | None]:
    """Read a folder in transformers' format.

    Raises:
        CheckpointError: the folder is incomplete or of an unsupported kind; missing and unexpected weights are named.
    """
    config = AutoConfig.from_pretrained(folder)
    if not isinstance(config, LlavaConfig | LlavaNextConfig):
        raise CheckpointError(f"{folder}: {type(config).__name__} is not supported; {', '.join(MODEL_TYPES)} are")
    clip: Any = config.vision_config
    text: Any = config.text_config
    if not isinstance(clip, CLIPVisionConfig):
        raise CheckpointError(f"{folder}: the vision tower {clip.model_type!r} is not supported; CLIP's is")
    if not isinstance(config.vision_feature_layer, int):
        raise CheckpointError(f"{folder}: features of several layers {config.vision_feature_layer} are not supported")
    tiled = isinstance(config, LlavaNextConfig)
    grids = (
        [(wide, high) for high, wide in config.image_grid_pinpoints or ()] if tiled else []
    )  # transformers: height first
    merge: Merge = "spatial_unpad" if tiled else "flat"
    aspect: Aspect = "anyres" if tiled else "pad" if pixel_settings(folder).get("do_pad") else "square"
    vision = clip_vision(folder, clip, aspect, merge, grids)
    with unfilled(device, dtype):
        model = M3Model(
            ClipTower(clip, config.vision_feature_layer, _SELECTED[config.vision_feature_select_strategy]),
            nn.Sequential(
                nn.Linear(clip.hidden_size, text.hidden_size, bias=config.multimodal_projector_bias),
                ACT2FN[config.projector_hidden_act],
                nn.Linear(text.hidden_size, text.hidden_size, bias=config.multimodal_projector_bias),
            ),
            AutoModelForCausalLM.from_config(text, dtype=dtype),
            vision,
            torch.empty(text.hidden_size) if vision.newlines else None,
        )
    model.language_model.tie_weights()
    fill(model, [Source(Shards(folder), _new_name)], device, SPARE)
    tokenizer = load_tokenizer(folder)
    if tokenizer is None:
        return model.eval().requires_grad_(False), None
    wrap = chat_template(tokenizer) if tokenizer.chat_template else vicuna
    return model.eval().requires_grad_(False), LlavaPrompt(tokenizer, wrap)


def _new_name(name: str) -> str:
    """A weight in transformers' format -> its name in M3Model."""
    for pattern, part in _PARTS:
        found = pattern.match(name)
        if found is None:
            continue
        rest = name[found.end() :]
        if part == "tower":
            return tower_name(rest) or rest
        if part == "projector":
            return f"projector.{2 * (int(found['layer']) - 1)}.{rest}"
        return part + rest
    return name
