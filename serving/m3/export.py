"""The command `export-m3`: write a released M3 in transformers' Llava or LlavaNext format, for other engines."""

import argparse
import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from complexity.errors import CheckpointError, M3Error
from serving.m3.clip import ClipTower
from serving.m3.formats import PLACE, VICUNA
from serving.m3.m3 import M3, load
from serving.m3.model import M3Model

_ROWS = 64  # the vocabulary is filled up to a multiple of this, which matrix kernels like
_TEMPLATE = (
    "{% if messages[0].role == 'system' %}{{ messages[0].content[0].text }}"
    "{% else %}{{ '" + VICUNA.replace("'", "\\'") + "' }}{% endif %}"
    "{% for message in messages if message.role != 'system' %}"
    "{% if message.role == 'user' %}{{ ' ' if loop.first else '' }}{{ 'USER: ' }}"
    "{% for part in message.content if part.type == 'image' %}{{ '" + PLACE + "\n' }}{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{% else %}{{ ' ASSISTANT: ' }}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}{{ eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)


def export(m3: M3, out: Path) -> None:
    """Write the model, and its tokenizer if it has one, into the folder `out`.

    Without a tokenizer the id after the vocabulary stands for a picture.

    Raises:
        CheckpointError: transformers' formats have no place for the model's tower, projector or tiles.
    """
    tower, projector = check_exportable(m3)
    model = m3.model
    vision, language = model.vision, model.language_model
    tiled = vision.aspect == "anyres"
    tokenizer = deepcopy(m3.prompt.tokenizer) if m3.has_prompt else None
    place = _add_place(tokenizer) if tokenizer else language.config.vocab_size
    rows = -(-max(place + 1, language.config.vocab_size) // _ROWS) * _ROWS
    text = language.config.__class__.from_dict({**language.config.to_dict(), "vocab_size": rows})
    said = dict(
        vision_config=tower.clip.config.to_dict() | {"num_hidden_layers": len(tower.clip.encoder.layers)},
        text_config=text,
        image_token_index=place,
        projector_hidden_act="gelu",
        vision_feature_layer=-1,  # the layers beyond the one taken are left out
        vision_feature_select_strategy="default" if tower.skipped else "full",
        tie_word_embeddings=text.tie_word_embeddings,
    )
    grids = [[high, wide] for wide, high in vision.resolutions]  # transformers: height first
    whole: PreTrainedModel
    with torch.device("meta"):
        if tiled:
            whole = LlavaNextForConditionalGeneration(LlavaNextConfig(**said, image_grid_pinpoints=grids))
        else:
            whole = LlavaForConditionalGeneration(LlavaConfig(**said))
    whole.load_state_dict(_state(model, tower, projector, rows), assign=True)
    whole.tie_weights()
    whole.config.dtype = next(language.parameters()).dtype
    whole.generation_config = GenerationConfig.from_model_config(text)
    whole.save_pretrained(out)
    pixels: dict[str, Any] = {
        "image_processor_type": "LlavaNextImageProcessor" if tiled else "LlavaImageProcessor",
        "do_pad": vision.aspect != "square",
        "image_mean": vision.mean,
        "image_std": vision.std,
        "size": {"shortest_edge": vision.side_px},
        "crop_size": {"height": vision.side_px, "width": vision.side_px},
        "resample": 3,  # bicubic
    }
    if tiled:
        pixels["image_grid_pinpoints"] = grids
    (out / "preprocessor_config.json").write_text(json.dumps(pixels, indent=2) + "\n")
    if tokenizer is None:
        return
    tokenizer.save_pretrained(out)
    processor = {
        "processor_class": "LlavaNextProcessor" if tiled else "LlavaProcessor",
        "patch_size": tower.clip.config.patch_size,
        "vision_feature_select_strategy": said["vision_feature_select_strategy"],
        "num_additional_image_tokens": 1,
        "image_token": PLACE,
    }
    (out / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def export_language_model(m3: M3, out: Path) -> None:
    """Write the language model alone with the tokenizer, as engines read a plain causal language model."""
    m3.model.language_model.save_pretrained(out)
    if m3.has_prompt:
        m3.prompt.tokenizer.save_pretrained(out)


def check_exportable(m3: M3) -> tuple[ClipTower, nn.Sequential]:
    """The model's tower and projector, if transformers' formats have a place for them and for its tiles.

    Raises:
        CheckpointError: they don't.
    """
    model = m3.model
    vision, tower, projector = model.vision, model.tower, model.projector
    if not isinstance(tower, ClipTower) or not isinstance(projector, nn.Sequential) or len(projector) != 3:
        raise CheckpointError(f"{m3.model_id}: transformers' Llava has a CLIP tower and a projector of two layers")
    if vision.merge != ("spatial_unpad" if vision.aspect == "anyres" else "flat"):
        raise CheckpointError(f"{m3.model_id}: transformers has no {vision.aspect} pictures merged {vision.merge}")
    return tower, projector


def _add_place(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that stands for a picture; the tokenizer gets it, and the model's chat format."""
    tokenizer.add_special_tokens({"additional_special_tokens": [PLACE]})
    if not tokenizer.chat_template:
        tokenizer.chat_template = _TEMPLATE
    return tokenizer.get_vocab()[PLACE]


def _state(model: M3Model, tower: ClipTower, projector: nn.Sequential, rows: int) -> dict[str, Tensor]:
    """The weights by transformers' names; only the vocabulary's matrices are copied."""
    language = model.language_model
    state = {f"model.vision_tower.{name}": weight for name, weight in tower.clip.state_dict().items()}
    for layer, name in ((0, "linear_1"), (2, "linear_2")):
        for kind, weight in projector[layer].state_dict().items():
            state[f"model.multi_modal_projector.{name}.{kind}"] = weight
    for name, weight in language.state_dict().items():
        vocabulary = name.endswith(("embed_tokens.weight", "lm_head.weight"))
        new = name if name.startswith("lm_head.") else "model.language_model." + name.removeprefix("model.")
        state[new] = _with_rows(weight, rows) if vocabulary else weight
    if model.newline is not None:
        state["model.image_newline"] = model.newline.detach()
    return state


def _with_rows(weight: Tensor, rows: int) -> Tensor:
    """A vocabulary's matrix (V, D) with rows added; as the mean of all rows, they never get the highest logit."""
    return torch.cat([weight, weight.mean(0, keepdim=True).expand(rows - len(weight), -1)])


def main(argv: list[str] | None = None) -> int:
    """Entry point of `export-m3`."""
    parser = argparse.ArgumentParser(
        "export-m3", description="Write a released M3 in transformers' Llava or LlavaNext format."
    )
    parser.add_argument("source", help="folder or hub name of an M3 in the original format")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="bfloat16", help="(bfloat16)")
    parser.add_argument(
        "--language-model", action="store_true", help="write the language model alone, for engines that take embeddings"
    )
    args = parser.parse_args(argv)
    try:
        if args.out.exists() and any(args.out.iterdir()):
            raise M3Error(f"{args.out} isn't empty; export-m3 writes over nothing")
        m3 = load(args.source, dtype=getattr(torch, args.dtype))
        (export_language_model if args.language_model else export)(m3, args.out)
    except M3Error as error:
        print(f"export-m3: {error}", file=sys.stderr)
        return 2
    size = sum(file.stat().st_size for file in args.out.iterdir())
    print(json.dumps({"out": str(args.out), "model": m3.model_id, "bytes": size}))
    return 0
