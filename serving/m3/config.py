"""What an M3 model is made of, as stored in its folder's config.json."""

from dataclasses import dataclass
from typing import Any

from serving.m3.pool import ladder_of

MODEL_TYPE = "m3_conv_llama"


@dataclass(frozen=True)
class M3Config:
    """Sizes of m3-tiny's three boxes.

    `language_model` holds the keyword arguments of transformers' LlamaConfig, so that any Llama engine can run it.
    """

    model_id: str
    grid: int  # cells on a side of the finest grid
    image_side_px: int
    tower_widths: tuple[int, int, int, int]
    language_model: dict[str, Any]

    @property
    def ladder(self) -> tuple[int, ...]:
        """Numbers of visual tokens that the model can be asked for, coarsest first."""
        return ladder_of(self.grid)


def tiny_config(vocab_size: int) -> M3Config:
    """The configuration of m3-tiny: at 576 tokens the language model costs about four times its tower's FLOPs."""
    return M3Config(
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
