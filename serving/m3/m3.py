"""The M3 model as others use it: load a folder, encode pictures once, answer at any scale."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from serving.m3.checkpoint import load_checkpoint
from serving.m3.generate import GenerateRequest, Generation, answer_about_pictures, generate
from serving.m3.images import preprocess
from serving.m3.model import M3Model
from serving.m3.prompt import Prompt

M3_TINY = Path(__file__).parent / "weights" / "m3-tiny"


class M3:
    """A loaded M3 model with its prompt format. Calls may come from any thread, one at a time."""

    def __init__(self, model: M3Model, prompt: Prompt, model_id: str):
        self.model = model
        self.prompt = prompt
        self.model_id = model_id
        """The model's name with a digest of its weights: labels and artifacts of other weights don't fit."""
        self.ladder = model.config.ladder
        """Numbers of visual tokens that can be asked for, coarsest first."""

    @torch.inference_mode()
    def encode(self, pictures: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of any size -> projected visual tokens (B, N, D) that serve every scale and question."""
        pixels = preprocess(pictures, self.model.config.image_side_px)
        weight = next(self.model.tower.parameters())
        return self.model.encode(pixels.to(weight.device, weight.dtype, memory_format=torch.channels_last))

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Answer a batch of mixed scales greedily; equal to answering one by one.

        Raises:
            OffLadder: a request's `tokens` is not on `ladder`.
        """
        return generate(self.model, self.prompt, requests)

    def answer(
        self, features: Tensor, questions: Sequence[Sequence[str]], tokens: int, max_new_tokens: int = 32
    ) -> list[list[Generation]]:
        """Answer several questions about each of the encoded pictures (B, N, D) at one scale.

        Raises:
            OffLadder: `tokens` is not on `ladder`.
        """
        return answer_about_pictures(self.model, self.prompt, features, questions, tokens, max_new_tokens)


def load(path: str | Path = M3_TINY, device: str = "cpu", dtype: torch.dtype | None = None) -> M3:
    """Load a model folder; in float32 on a CPU and bfloat16 elsewhere, unless `dtype` says otherwise.

    Raises:
        CheckpointError: the folder is wrong or incomplete.
    """
    dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
    folder = Path(path)
    model, prompt = load_checkpoint(folder, device, dtype)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return M3(model, prompt, f"{model.config.model_id}@{digest[:12]}")
