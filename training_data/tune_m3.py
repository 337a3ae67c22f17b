"""`train-m3 --model`: tune a checkpoint on conversations about pictures; all of Trainer's options apply."""

import argparse
import json
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from transformers import HfArgumentParser, TrainingArguments
from transformers.utils import is_accelerate_available

from complexity.errors import M3Error
from serving.m3.tune import tune
from serving.m3.tuning import Recipe
from training_data.readers.llava_json import Conversations, read_conversations

DEFAULTS = dict(  # LLaVA's, where Trainer's differ
    learning_rate=2e-5,
    lr_scheduler_type="cosine",
    warmup_steps=0.03,
    num_train_epochs=1.0,
    weight_decay=0.0,
    logging_steps=1,
    save_total_limit=1,
    report_to="none",
    ddp_find_unused_parameters=False,
    seed=0,
)
LORA_RATE = 2e-4


def main(argv: list[str]) -> int:
    """What `train-m3` does when it is given a model."""
    parser = argparse.ArgumentParser(
        "train-m3",
        description="Tune a checkpoint with M3's loss; goes on from the last of the checkpoints in OUT/checkpoints. "
        "Options of transformers' TrainingArguments are taken as they are, such as --per_device_train_batch_size 4 "
        "--gradient_accumulation_steps 8 --bf16 --activation_checkpointing --fsdp --deepspeed FILE; start it by "
        "'accelerate launch -m training_data.train_m3' for several GPUs.",
    )
    parser.add_argument("--model", required=True, help="folder or hub name of an M3, a LLaVA or m3-tiny")
    parser.add_argument("--data", type=Path, required=True, help="conversations in LLaVA's JSON")
    parser.add_argument("--images", type=Path, default=Path(), help="folder of the pictures (the current one)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tuned model")
    parser.add_argument("--scales", type=int, nargs="+", help="visual tokens per grid to train (all of the ladder)")
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="train adapters of this rank instead (0)")
    parser.add_argument("--train-tower", action="store_true", help="train the vision tower too")
    args, others = parser.parse_known_args(argv)
    options: Any = TrainingArguments  # a dataclass, typed as none
    trainers = HfArgumentParser(options, prog="train-m3 --model")
    trainers.set_defaults(**DEFAULTS, dataloader_pin_memory=torch.cuda.is_available())
    if args.lora:
        trainers.set_defaults(learning_rate=LORA_RATE)
    start = monotonic()
    try:
        if not is_accelerate_available():
            raise M3Error("tuning needs accelerate: pip install 'm3-router[tune]'")
        if args.lora < 0:
            raise M3Error(f"--lora {args.lora} must be at least 0")
        if (args.out / "config.json").exists():
            raise M3Error(f"{args.out} holds a model already; train-m3 writes over nothing")
        conversations = read_conversations(args.data, args.images)
        arguments, unknown = trainers.parse_args_into_dataclasses(
            [*others, "--output_dir", str(args.out / "checkpoints"), "--remove_unused_columns", "false"],
            return_remaining_strings=True,
        )
        if unknown:
            raise M3Error(f"neither train-m3 nor Trainer knows {' '.join(unknown)}")
        if arguments.n_gpu > 1:
            raise M3Error(f"{arguments.n_gpu} GPUs in one process; start with 'accelerate launch' or choose one")
        recipe = Recipe(tuple(sorted(set(args.scales or ()))), args.lora, args.train_tower)
        torch.manual_seed(arguments.seed)
        figures = tune(args.model, lambda prompt: Conversations(conversations, prompt), recipe, arguments, args.out)
    except (M3Error, ImportError, ValueError) as error:  # Trainer raises ValueError for options that don't fit
        print(f"train-m3: {error}", file=sys.stderr)
        return 2
    report = {"out": str(args.out), "rows": len(conversations), "loss": round(figures["train_loss"], 4)}
    if arguments.process_index == 0:
        print(json.dumps({**report, "seconds": round(monotonic() - start)}))
    return 0
