"""The command `train-m3`: train m3-tiny on the procedural corpus, from nothing to a model folder."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from time import monotonic
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_model, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from complexity.errors import CheckpointError
from serving.m3.checkpoint import save_tiny
from serving.m3.dense import DenseHeads
from serving.m3.images import Vision, normalise
from serving.m3.loss import m3_losses
from serving.m3.model import M3Model
from serving.m3.packing import PackedText, flat_prefix, pack
from serving.m3.prompt import Prompt, TinyPrompt, train_tokenizer
from serving.m3.tiny import build_tiny, tiny_config
from serving.m3.tower import ConvTower
from serving.m3.train import Stage, optimizers, run_stage
from training_data import tune_m3
from training_data.drawn.captions import describe
from training_data.drawn.corpus import draw_item
from training_data.drawn.dense import HEADS, dense_targets
from training_data.drawn.picture import TRAINED, World
from training_data.drawn.questions import Question

TOWER_BATCH, TUNING_BATCH = 16, 16  # pictures
QUESTIONS = 12  # of a picture, packed into one sequence
DESCRIPTIONS, DESCRIBED = 0.5, 36  # share of pictures described beside, and from how many tokens on
TOWER_PEAK, PEAK, TUNED = 3e-3, 3e-3, 5e-4  # learning rates: the tower, tuning, the tower in tuning
MIDDLE = 0.4  # of the peak in the middle of tuning
SPELLING_FIRST, SPELLING = 0.1, 1.5  # weight of a letter: at 1 their noise kept shapes from being learnt at first
SPELLING_FROM = 0.19  # share of the tower's steps after which letters count in full
TEXTS = World(shares=(0.15, 0.30, 0.18, 0.15, 0.22), sparse=0.2)  # what the tower sees: a picture costs the same, full
FEW, FEW_SHARE = replace(TRAINED, most_things=4), 0.3  # tuning begins with few things, for this share of its steps,
# and with the tower as it is: at a rate that lets the language model learn, the tower forgets how to read
DRAWN = 20  # questions of a picture that those asked are chosen from, by these weights of their families:
EARLY = {"background": 0.25, "picture_kind": 0.25, "presence": 2.0, "object_place": 2.0}  # soon learnt; late to come
LATE = {
    **EARLY,
    **dict.fromkeys(("largest_colour", "largest_shape", "shape_by_colour", "colour_by_shape"), 0.5),
    **dict.fromkeys(("relation", "sign_place", "sign_colour", "line_below", "receipt_price"), 2.0),
}
DENSE_SHARE = 0.1  # of the tower's own loss in tuning: nearly free, and it goes on learning to read


@dataclass(frozen=True)
class TowerBatch:
    """Pictures with the dense labels of their cells; `spelling` weighs the labels of letters in the loss."""

    pixels: Tensor  # (B, side, side, 3) uint8
    targets: Tensor  # (B, N, H) int16
    spelling: float


@dataclass(frozen=True)
class TuningBatch:
    """Pictures with questions and answers, the scales of this step, and labels where the tower learns along."""

    pixels: Tensor  # (B, side, side, 3) uint8
    text: PackedText
    scales: tuple[int, ...]
    targets: Tensor  # (B, N, H) int16
    tower_learns: bool


class TowerBatches(Dataset[TowerBatch]):
    """Batch `i` of the tower's stage; follows from the seed and `i` alone."""

    def __init__(self, seed: int, grid: int, steps: int):
        self.seed, self.grid, self.steps = seed, grid, steps

    def __getitem__(self, step: int) -> TowerBatch:
        indices = range(step * TOWER_BATCH, (step + 1) * TOWER_BATCH)
        pictures = [draw_item("train", self.seed, index, 0, TEXTS).picture for index in indices]
        targets = np.stack([dense_targets(picture, self.grid) for picture in pictures])
        spelling = SPELLING_FIRST if step < SPELLING_FROM * self.steps else SPELLING
        return TowerBatch(_pixels([picture.image for picture in pictures]), torch.from_numpy(targets), spelling)


class TuningBatches(Dataset[TuningBatch]):
    """Batch `i` of the tuning stage; its pictures come after those of the tower's stage."""

    def __init__(self, seed: int, first: int, steps: int, prompt: Prompt, vision: Vision, all_scales: bool):
        self.seed, self.first, self.steps, self.prompt, self.all_scales = seed, first, steps, prompt, all_scales
        self.ladder, self.grid = vision.ladder, vision.grid

    def __getitem__(self, step: int) -> TuningBatch:
        start = self.first + step * TUNING_BATCH
        early = step < FEW_SHARE * self.steps
        world = FEW if early else TRAINED
        items = [draw_item("train", self.seed, start + i, DRAWN, world) for i in range(TUNING_BATCH)]
        rng = Random(f"tuning-{self.seed}-{step}")
        scales = self.ladder if self.all_scales else _scales(self.ladder, step, early)
        asked = [_chosen(item.questions, EARLY if early else LATE, rng) for item in items]
        pairs = [[(_casual(question.text, rng), question.answer) for question in each] for each in asked]
        if scales[-1] >= DESCRIBED:
            for item, row in zip(items, pairs, strict=True):
                if rng.random() < DESCRIPTIONS and (description := describe(item.picture, rng)):
                    row.append(description)
        text = pack([[(self.prompt.question_ids(q), self.prompt.answer_ids(a)) for q, a in row] for row in pairs])
        targets = torch.from_numpy(np.stack([dense_targets(item.picture, self.grid) for item in items]))
        tower_learns = not early
        return TuningBatch(_pixels([item.picture.image for item in items]), text, scales, targets, tower_learns)


def _scales(ladder: tuple[int, ...], step: int, early: bool) -> tuple[int, ...]:
    """The scale that a step trains, when it trains one.

    The paper's loss takes all scales of every picture. On a CPU the same time is better spent on fresh pictures: one
    scale a step costs a third. Tuning begins with the scales between the ends, which show all of a picture of few
    things at a fraction of the finest scale's cost; then all come in turn, the middle ones twice, so that over a round
    the loss is M3's mean with these weights.
    """
    between = ladder[1:-1]
    turn = between if early else (*between[1:], *ladder)
    return (turn[step % len(turn)],)


def _chosen(questions: Sequence[Question], weights: dict[str, float], rng: Random) -> list[Question]:
    """Some of the questions, drawn without replacement by their families' weights (1 where none is given)."""
    keys = [rng.random() ** (1 / weights.get(question.family, 1.0)) for question in questions]
    return [questions[i] for i in sorted(range(len(keys)), key=lambda i: -keys[i])[:QUESTIONS]]


def _casual(text: str, rng: Random) -> str:
    """Now and then a question without its capital or its mark, as people type."""
    if rng.random() < 0.1:
        text = text[0].lower() + text[1:]
    return text[:-1] if rng.random() < 0.1 else text


def _pixels(images: list) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(image) for image in images]))


def _loader(batches: Dataset, start: int, steps: int, workers: int) -> Iterable:
    return DataLoader(batches, batch_size=None, sampler=range(start, steps), num_workers=workers, prefetch_factor=4)


def _encode_input(pixels: Tensor, vision: Vision, device: str) -> Tensor:
    return normalise(pixels.to(device), vision).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Recipe:
    """What decides the weights of a run."""

    tower_pictures: int = 112_000  # of the tower's stage
    pictures: int = 78_400  # of the tuning stage
    seed: int = 0  # of the weights and the corpus
    all_scales: bool = False  # train every scale in every step
    tower: Path | None = None  # weights of a tower and its heads (safetensors): the first stage is left out


def train(out: Path, recipe: Recipe, device: str, workers: int) -> M3Model:
    """Run both stages, resuming what `out`/checkpoints holds, and write the model folder `out`."""
    torch.manual_seed(recipe.seed)
    tokenizer = _tokenizer(out / "tokenizer", recipe.seed)
    config = tiny_config(len(tokenizer))
    model = build_tiny(config).to(device)
    heads = DenseHeads(config.tower_widths[1], HEADS).to(device)
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    if recipe.tower is None:
        _train_tower(out, recipe, model, heads, device, workers)
    else:
        _load_tower(recipe.tower, model, heads)
    _tune(out, recipe, model, heads, TinyPrompt(tokenizer), device, workers)
    save_tiny(out, model, config, tokenizer, torch.float16)
    return model


def _tower_and_heads(model: M3Model, heads: DenseHeads) -> nn.ModuleDict:
    return nn.ModuleDict({"tower": model.tower, "heads": heads})


def _load_tower(path: Path, model: M3Model, heads: DenseHeads) -> None:
    try:
        load_model(_tower_and_heads(model, heads), path)
    except Exception as error:  # safetensors raises its own type, torch RuntimeError
        raise CheckpointError(f"{path} holds no tower of this recipe: {str(error).splitlines()[0]}") from error


def _train_tower(out: Path, recipe: Recipe, model: M3Model, heads: DenseHeads, device: str, workers: int) -> None:
    """First stage: the tower learns to name what lies under each cell; `out`/tower.safetensors."""

    tower = cast(ConvTower, model.tower)

    def loss(batch: TowerBatch) -> tuple[Tensor, dict[str, float]]:
        cells = tower.cells(_encode_input(batch.pixels, model.vision, device))
        return heads.loss(cells, batch.targets.to(device), batch.spelling)

    steps = recipe.tower_pictures // TOWER_BATCH
    batches = TowerBatches(recipe.seed, model.vision.grid, steps)
    both = _tower_and_heads(model, heads)
    stage = Stage("tower", steps, both, optimizers([(model.tower, TOWER_PEAK), (heads, TOWER_PEAK)]), loss)
    run_stage(stage, lambda start: _loader(batches, start, steps, workers), out / "checkpoints", device)
    half = {name: weight.to(torch.float16).contiguous() for name, weight in both.state_dict().items()}
    save_file(half, out / "tower.safetensors")


def _tune(
    out: Path, recipe: Recipe, model: M3Model, heads: DenseHeads, prompt: Prompt, device: str, workers: int
) -> None:
    """Second stage: M3's loss on the whole model."""

    tower = cast(ConvTower, model.tower)

    def loss(batch: TuningBatch) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():  # half the tower's gradient; what a cell shows by itself it has learnt
            seen = tower.seen(_encode_input(batch.pixels, model.vision, device))
        with torch.set_grad_enabled(batch.tower_learns):
            cells = tower.in_context(seen)
            dense, _ = heads.loss(cells, batch.targets.to(device), SPELLING)
        features = model.projector(tower.placed(cells))
        losses = m3_losses(
            model, lambda tokens: flat_prefix(model, features, tokens), batch.text.to(device), batch.scales
        )
        figures = {str(tokens): loss.item() for tokens, loss in zip(batch.scales, losses, strict=True)}
        return losses.mean() + DENSE_SHARE * dense, {**figures, "dense": dense.item()}

    steps = recipe.pictures // TUNING_BATCH
    batches = TuningBatches(recipe.seed, recipe.tower_pictures, steps, prompt, model.vision, recipe.all_scales)
    parts = [(model.language_model, PEAK), (model.projector, PEAK), (model.tower, TUNED), (heads, TUNED)]
    stage = Stage("tuning", steps, nn.ModuleDict({"model": model, "heads": heads}), optimizers(parts), loss, MIDDLE)
    run_stage(stage, lambda start: _loader(batches, start, steps, workers), out / "checkpoints", device)


def _tokenizer(folder: Path, seed: int) -> PreTrainedTokenizerFast:
    """The run's tokenizer: the one that it began with, or else a new one from the corpus's wordings."""
    if (folder / "tokenizer.json").is_file():
        return TinyPrompt.load(folder).tokenizer
    asked = [question for index in range(3000) for question in draw_item("train", seed, index, QUESTIONS).questions]
    tokenizer = train_tokenizer([text for question in asked for text in (question.text, question.answer)])
    tokenizer.save_pretrained(folder)
    return tokenizer


def main(argv: list[str] | None = None) -> int:
    """Entry point of `train-m3`."""
    argv = sys.argv[1:] if argv is None else argv
    if any(each.split("=")[0] == "--model" for each in argv):
        return tune_m3.main(argv)
    parser = argparse.ArgumentParser(
        "train-m3",
        description="Train m3-tiny; resumes a run that was stopped. With --model another checkpoint is tuned instead: "
        "see train-m3 --model MODEL --help.",
    )
    parser.add_argument("--out", type=Path, required=True, help="model folder; checkpoints go into a folder in it")
    parser.add_argument(
        "--tower-pictures", type=int, default=Recipe.tower_pictures, help="pictures of the first stage (%(default)s)"
    )
    parser.add_argument(
        "--tower", type=Path, help="start from the tower.safetensors of another run instead of training one"
    )
    parser.add_argument("--pictures", type=int, default=Recipe.pictures, help="pictures of the second (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the corpus (0)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument(
        "--all-scales",
        action="store_true",
        help="train every scale in every step, as the paper does, instead of in turn",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that draw pictures (1)")
    args = parser.parse_args(argv)
    if args.tower is not None and not args.tower.is_file():
        print(f"train-m3: there is no file {args.tower}", file=sys.stderr)
        return 2
    if min(args.tower_pictures, args.pictures) < max(TOWER_BATCH, TUNING_BATCH) or args.workers < 1:
        print(f"train-m3: needs at least {TUNING_BATCH} pictures in each stage and one worker", file=sys.stderr)
        return 2
    torch.set_flush_denormal(True)  # Adam's moments decay into denormals, which cost a CPU three times the step
    start = monotonic()
    recipe = Recipe(args.tower_pictures, args.pictures, args.seed, args.all_scales, args.tower)
    try:
        train(args.out, recipe, args.device, args.workers)
    except CheckpointError as error:
        print(f"train-m3: {error}", file=sys.stderr)
        return 2
    size = (args.out / "model.safetensors").stat().st_size
    print(json.dumps({"out": str(args.out), "bytes": size, "seconds": round(monotonic() - start)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
