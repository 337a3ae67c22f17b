"""Tune a loaded M3 or LLaVA on conversations about pictures, with M3's loss and transformers' Trainer."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from complexity.errors import CheckpointError, InvalidInput, OffLadder
from serving.m3.anyres import Size
from serving.m3.checkpoint import read_config, save_tiny
from serving.m3.export import check_exportable, export
from serving.m3.images import Vision, cut, pixels_of
from serving.m3.loss import scale_losses
from serving.m3.m3 import M3, load
from serving.m3.model import Encoded, M3Model
from serving.m3.prompt import IGNORE, IMAGE, Prompt, TinyPrompt
from serving.m3.shards import find_folder


@dataclass(frozen=True)
class TuningRow:
    """A conversation: token ids with `IMAGE` for each picture, labels with IGNORE outside answers, the pictures."""

    ids: list[int]
    labels: list[int]
    pictures: tuple[Image.Image, ...]


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how."""

    scales: tuple[int, ...] = ()  # none: all of the ladder, as M3 is trained; one alone is its baseline
    lora_rank: int = 0  # 0 trains the language model's own weights
    tower_learns: bool = False


class Collate:
    """Rows -> the arguments of `Tuning.forward`."""

    def __init__(self, vision: Vision):
        self.vision = vision

    def __call__(self, rows: Sequence[TuningRow]) -> dict[str, Any]:
        cuts = [[(cut(picture, self.vision), picture.size) for picture in row.pictures] for row in rows]
        tiles = [tile for row in cuts for whole, _ in row for tile in whole.tiles]
        return {
            "pixels": pixels_of(tiles, self.vision) if tiles else torch.zeros(0),
            "rows": [(row.ids, row.labels) for row in rows],
            "layouts": [[(len(whole.tiles), whole.grid, size) for whole, size in row] for row in cuts],
        }


class Tuning(nn.Module):
    """A model with M3's loss as its forward pass, for Trainer."""

    def __init__(self, model: M3Model, recipe: Recipe):
        super().__init__()
        self.model = model
        self.recipe = recipe
        self._no_split_modules = getattr(model.language_model, "_no_split_modules", None)  # FSDP wraps these
        self.latest: dict[int, float] = {}
        """Each scale's loss in the last forward pass."""

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Trainer's switch, for the language model's layers."""
        self.model.language_model.activation_checkpointing_enable(**options)
        self.model.language_model.enable_input_require_grads()  # adapters get no gradients otherwise

    def forward(
        self,
        pixels: Tensor,
        rows: Sequence[tuple[list[int], list[int]]],
        layouts: Sequence[Sequence[tuple[int, Size | None, Size]]],
    ) -> dict[str, Tensor]:
        """M3's loss of a batch of conversations.

        Args:
            pixels: all pictures' tiles, (K, 3, side, side).
            rows: token ids and labels.
            layouts: of each row's pictures: tiles, their grid, the picture's size.

        A conversation longer than the model's context at the finest scale loses its end.

        Raises:
            InvalidInput: the pictures of a conversation don't fit into the model's context.
        """
        pictures, nothing = self._encode(pixels, layouts)
        fitting = [self._fit(*row, own) for row, own in zip(rows, pictures, strict=True)]
        told = torch.tensor([label for _, labels in fitting for label in labels if label != IGNORE])
        if not len(told):  # all answers lie beyond the context: nothing to learn, but every gradient is awaited
            return {"loss": sum((weight.sum() * 0.0 for weight in self.parameters() if weight.requires_grad), nothing)}
        losses = scale_losses(
            self.model,
            lambda tokens: self._states(fitting, pictures, tokens),
            told.to(nothing.device),
            self.recipe.scales,
        )
        self.latest = dict(zip(self.recipe.scales, losses.detach().tolist(), strict=True))
        return {"loss": losses.mean() + nothing}

    def _encode(
        self, pixels: Tensor, layouts: Sequence[Sequence[tuple[int, Size | None, Size]]]
    ) -> tuple[list[list[Encoded]], Tensor]:
        """Pictures of each row, and a zero that without any depends on what encodes them: DDP awaits its gradients."""
        model = self.model
        weight = next(model.projector.parameters())
        blank = not len(pixels)
        if blank:
            side = model.vision.side_px
            pixels = torch.zeros(1, 3, side, side, device=weight.device)
        with torch.set_grad_enabled(self.recipe.tower_learns and torch.is_grad_enabled()):
            features = model.tower(pixels.to(weight.device, next(model.tower.parameters()).dtype))
        tiles = model.projector(features)
        counts = [[count for count, _, _ in row] for row in layouts]
        each = iter(() if blank else tiles.split(sum(counts, [])))
        pictures = [[Encoded(next(each), grid, size) for _, grid, size in row] for row in layouts]
        if not blank:
            return pictures, tiles.new_zeros(())
        newline = tiles.new_zeros(()) if model.newline is None else model.newline.sum()
        return pictures, (tiles.sum() + newline) * 0.0

    def _fit(self, ids: list[int], labels: list[int], pictures: Sequence[Encoded]) -> tuple[list[int], list[int]]:
        """A conversation without what goes beyond the context at the finest scale."""
        context = self.model.language_model.config.max_position_embeddings
        finest = max(self.recipe.scales)
        visual = sum(len(self.model.visual(picture, finest)) for picture in pictures)
        room = context - visual + len(pictures)  # each picture's place among the ids is counted too
        if IMAGE in ids[max(0, room) :] or room < 1:
            raise InvalidInput(
                f"a conversation with {visual} visual tokens doesn't fit the model's context of {context}"
            )
        return ids[:room], labels[:room]

    def _states(
        self,
        rows: Sequence[tuple[list[int], list[int]]],
        pictures: Sequence[Sequence[Encoded]],
        tokens: int,
    ) -> Tensor:
        """The states (n, D) that foretell the answers' tokens, row by row."""
        embeds, foretells = [], []
        for (ids, labels), own in zip(rows, pictures, strict=True):
            embeds.append(self.model.embed(ids, own, tokens))
            visual = iter([len(self.model.visual(picture, tokens)) for picture in own])
            lengths = torch.tensor([next(visual) if token == IMAGE else 1 for token in ids])
            answer = torch.tensor([label != IGNORE for label in labels]).repeat_interleave(lengths)
            foretells.append(answer[1:])
        device = embeds[0].device
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in embeds], True).to(device)
        states = self.model.language_model.model(
            inputs_embeds=pad_sequence(embeds, True), attention_mask=mask, use_cache=False
        ).last_hidden_state
        return states[:, :-1][pad_sequence(foretells, True).to(device)]


class _Trainer(Trainer):
    """Trainer that logs each scale's loss and saves what is trained, nothing else."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._sums: defaultdict[int, float] = defaultdict(float)
        self._steps = 0

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        tuning: Any = self.model
        for tokens, value in tuning.latest.items():
            self._sums[tokens] += value
        self._steps += 1
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self._steps and "loss" in logs:
            logs |= {f"loss_{tokens}": round(total / self._steps, 4) for tokens, total in self._sums.items()}
            self._sums.clear()
            self._steps = 0
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        model: Any = self.accelerator.unwrap_model(self.model)
        whole = model.state_dict() if state_dict is None else state_dict
        learnt = {name for name, weight in model.named_parameters() if weight.requires_grad}
        kept = {name: weight for name, weight in whole.items() if name in learnt}
        super()._save(output_dir, kept)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Checkpoints lack what isn't trained; that is no reason to warn."""


def prepare(m3: M3, recipe: Recipe) -> Tuning:
    """A model made ready: what the recipe trains takes gradients, the rest doesn't.

    Raises:
        CheckpointError: LoRA is asked for and peft isn't installed.
    """
    model = m3.model
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    model.tower.requires_grad_(recipe.tower_learns)
    if model.newline is not None:
        model.newline.requires_grad_(True)
    if not recipe.lora_rank:
        model.language_model.requires_grad_(True)
    else:
        _add_lora(model, recipe.lora_rank)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()  # what learns is kept in full precision
    return Tuning(model, recipe)


def _add_lora(model: M3Model, rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise CheckpointError("LoRA needs peft: install m3-router[tune]") from None
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=_linear(model.language_model))
    inject_adapter_in_model(config, model.language_model)
    for name, weight in model.language_model.named_parameters():
        weight.requires_grad_("lora_" in name)


def _linear(language_model: nn.Module) -> list[str]:
    """Names of the layers' linear maps; the vocabulary's are left alone."""
    found = {name.rsplit(".", 1)[-1] for name, part in language_model.named_modules() if isinstance(part, nn.Linear)}
    return sorted(found - {"lm_head"})


def tune(
    path: str | Path,
    rows_for: Callable[[Prompt], Dataset[TuningRow]],
    recipe: Recipe,
    arguments: TrainingArguments,
    out: Path,
) -> dict[str, Any]:
    """Tune a checkpoint, going on from the last one in the arguments' `output_dir`, and write the model into `out`.

    Args:
        path: folder or hub name of the model.
        rows_for: the model's prompt -> rows.

    Returns:
        Trainer's figures, "train_loss" among them.

    Raises:
        CheckpointError: the model can't be loaded, or can't be written when tuned.
    """
    m3 = load(path, dtype=_half(arguments) if recipe.lora_rank else torch.float32)  # what is frozen may be coarse
    if not isinstance(m3.prompt, TinyPrompt):
        check_exportable(m3)
    for tokens in recipe.scales:
        if tokens not in m3.ladder:
            raise OffLadder(tokens, m3.ladder)
    recipe = recipe if recipe.scales else replace(recipe, scales=m3.ladder)
    tuning = prepare(m3, recipe)
    trainer = _Trainer(tuning, arguments, data_collator=Collate(m3.model.vision), train_dataset=rows_for(m3.prompt))
    folder = Path(str(arguments.output_dir))
    folder.mkdir(parents=True, exist_ok=True)
    done = trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    last = folder / "last"
    trainer.save_model(str(last))
    if trainer.is_world_process_zero():
        write(path, recipe, last / "model.safetensors", out, arguments)
    return dict(done.metrics)


def write(path: str | Path, recipe: Recipe, trained: Path, out: Path, arguments: TrainingArguments) -> None:
    """Write the model at `path` with trained weights in their places: m3-tiny's format, else transformers'."""
    m3 = load(path, dtype=torch.float32)
    tuning = prepare(m3, recipe)
    state = load_file(trained)
    unknown = tuning.load_state_dict(state, strict=False).unexpected_keys
    if unknown:
        raise CheckpointError(f"{trained} holds unexpected weights: {', '.join(unknown[:5])}")
    if recipe.lora_rank:
        _merge_lora(m3.model.language_model)
    m3.model.requires_grad_(False)
    if isinstance(m3.prompt, TinyPrompt):
        save_tiny(out, m3.model, read_config(find_folder(path)), m3.prompt.tokenizer, torch.float16)
    else:
        export(M3(m3.model.to(_half(arguments)), m3.prompt, m3.model_id), out)


def _half(arguments: TrainingArguments) -> torch.dtype:
    """The precision that the arguments ask for."""
    return torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else torch.float32


def _merge_lora(language_model: nn.Module) -> None:
    """Put the adapters' products into the weights they adapt, and take the adapters out."""
    from peft.tuners.lora import LoraLayer

    for name, part in list(language_model.named_modules()):
        if isinstance(part, LoraLayer):
            part.merge()
            parent, _, own = name.rpartition(".")
            setattr(language_model.get_submodule(parent), own, part.get_base_layer())
