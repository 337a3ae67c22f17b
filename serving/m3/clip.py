"""The released models' vision tower: CLIP up to the layer whose patches are taken."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from complexity.errors import CheckpointError
from serving.m3.anyres import Size
from serving.m3.images import Aspect, Merge, Vision

SPARE = r"tower\.clip\.(encoder\.layers\.|embeddings\.position_ids)"  # layers beyond the one taken, and a constant
_NOT_VISION = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")


class ClipTower(nn.Module):
    """CLIP's hidden state after a layer, with or without its class token; the layers beyond it are dropped."""

    def __init__(self, config: CLIPVisionConfig, select_layer: int, select_feature: str):
        """Build the part of CLIP that is needed.

        Args:
            select_layer: index into the hidden states (0 is the embeddings), from the end if negative.
            select_feature: "patch", or "cls_patch" to keep the class token.
        """
        super().__init__()
        self.clip = CLIPVisionModel(config)
        layers = self.clip.encoder.layers
        self.clip.encoder.layers = layers[: select_layer if select_layer >= 0 else len(layers) + 1 + select_layer]
        self.skipped = 1 if select_feature == "patch" else 0

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (K, 3, side, side) -> features (K, N, width)."""
        return self.clip(pixel_values=pixels).last_hidden_state[:, self.skipped :]


def tower_name(name: str) -> str | None:
    """A weight of a CLIP checkpoint -> its name in an M3 model with a ClipTower; None for the text's part."""
    if name.startswith(_NOT_VISION):
        return None
    return "tower.clip." + name.removeprefix("vision_model.")


def clip_vision(
    folder: Path, config: CLIPVisionConfig, aspect: Aspect, merge: Merge, resolutions: Sequence[Size]
) -> Vision:
    """How a model with this tower sees pictures; `folder` holds its picture processor's settings.

    Raises:
        CheckpointError: the aspect or merge is of another kind, or the file is missing.
    """
    for name, value, known in (("aspect ratio", aspect, get_args(Aspect)), ("merge type", merge, get_args(Merge))):
        if value not in known:
            raise CheckpointError(f"{folder}: the {name} {value!r} is not supported; {', '.join(known)} are")
    said = pixel_settings(folder)
    try:
        mean, std = tuple(said["image_mean"]), tuple(said["image_std"])
    except KeyError as error:
        raise CheckpointError(f"{folder}: the picture processor's settings lack {error}") from None
    sizes: Any = config  # transformers types them more widely than CLIP has them
    return Vision(sizes.image_size, sizes.image_size // sizes.patch_size, mean, std, aspect, merge, tuple(resolutions))


def pixel_settings(folder: Path) -> dict[str, Any]:
    """The settings of a folder's picture processor, from either of the files that transformers writes.

    Raises:
        CheckpointError: there is neither file.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            said = json.loads((folder / name).read_text())
            said = said.get("image_processor", said)
            if "image_mean" in said:
                return dict(said)
    raise CheckpointError(f"{folder} has no preprocessor_config.json that tells how pictures are normalised")
