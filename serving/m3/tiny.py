"""m3-tiny's boxes: a convolutional tower, a two-layer projector, a small Llama; sizes as in its config.json."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from serving.m3.images import Vision
from serving.m3.model import M3Model
from serving.m3.tower import ConvTower

MODEL_TYPE = "m3_conv_llama"


@dataclass(frozen=True)
class TinyConfig:
    """Sizes of the boxes.

    `language_model` holds the keyword arguments of transformers' LlamaConfig, so that any Llama engine can run it.
    """

    model_id: str
    grid: int  # cells on a side of the finest grid
    image_side_px: int
    tower_widths: tuple[int, int, int, int]
    language_model: dict[str, Any]


def tiny_config(vocab_size: int) -> TinyConfig:
    """The configuration of m3-tiny: at 576 tokens the language model costs about four times its tower's FLOPs."""
    return TinyConfig(
        model_id="m3-tiny",
        grid=24,
        image_side_px=192,
        tower_widths=(48, 128, 128, 192),
        language_model=dict(
            vocab_size=vocab_size,
            hidden_size=256,
            intermediate_size=896,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        ),
    )


def build_tiny(config: TinyConfig) -> M3Model:
    """A model of these sizes with fresh weights."""
    vision = Vision(config.image_side_px, config.grid, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    tower = ConvTower(config.tower_widths, config.grid)
    language = LlamaConfig(**config.language_model, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    width = language.hidden_size
    projector = nn.Sequential(nn.Linear(tower.width, width), nn.GELU(), nn.Linear(width, width))
    return M3Model(tower, projector, LlamaForCausalLM(language), vision)
