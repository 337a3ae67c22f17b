"""Tune a loaded M3 or LLaVA on conversations about pictures, with M3's loss and transformers' Trainer."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from complexity.errors import CheckpointError, OffLadder
from serving.m3.checkpoint import read_config, save_tiny
from serving.m3.export import check_exportable, export
from serving.m3.m3 import M3, load
from serving.m3.model import M3Model
from serving.m3.prompt import Prompt, TinyPrompt
from serving.m3.shards import find_folder
from serving.m3.tuning import Collate, Recipe, Tuning, TuningRow


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
        raise CheckpointError("LoRA needs peft: pip install 'm3-router[tune]'") from None
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
    trainer.accelerator.wait_for_everyone()  # a process that leaves early takes the writing one with it
    trainer.accelerator.end_training()
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
