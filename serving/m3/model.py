"""The M3 model: vision tower -> two-layer MLP projector -> average pooling -> causal language model."""

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from serving.m3.config import M3Config
from serving.m3.pool import pool
from serving.m3.tower import ConvTower


class Projector(nn.Sequential):
    """LLaVA's `mlp2x_gelu`: visual features (..., D_in) -> the language model's width (..., D)."""

    def __init__(self, width_in: int, width: int):
        super().__init__(nn.Linear(width_in, width), nn.GELU(), nn.Linear(width, width))


class M3Model(nn.Module):
    """The weights and the forward steps; batches of equal shapes only."""

    def __init__(self, config: M3Config):
        super().__init__()
        self.config = config
        self.tower = ConvTower(config.tower_widths, config.grid)
        language = LlamaConfig(**config.language_model, bos_token_id=1, eos_token_id=2, pad_token_id=0)
        self.language_model = LlamaForCausalLM(language)
        self.projector = Projector(self.tower.width, language.hidden_size)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, side, side) -> projected visual tokens of the finest grid (B, N, D), for every scale."""
        return self.projector(self.tower(pixels))

    def embed_text(self, input_ids: Tensor) -> Tensor:
        """Token ids (..., T) -> embeddings (..., T, D)."""
        return self.language_model.get_input_embeddings()(input_ids)

    def prefix(self, features: Tensor, tokens: int) -> Tensor:
        """What every prompt about a picture begins with: <s>, then the visual tokens.

        Args:
            features: (B, N, D) of `encode`.
            tokens: a rung of the ladder.

        Returns:
            (B, 1 + tokens, D).
        """
        pooled = pool(features, tokens)
        bos = self.embed_text(torch.full((pooled.shape[0], 1), 1, device=pooled.device))
        return torch.cat([bos.to(pooled.dtype), pooled], 1)
