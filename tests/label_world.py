"""A made-up label table whose truth is known: how hard a sample is follows from its picture's features and its task."""

from pathlib import Path

import numpy as np

from complexity.image_features import IMAGE_FEATURE_NAMES, IMAGE_FEATURE_VERSION
from complexity.labels import LabelMeta, LabelRow, write_shard

LADDER = (1, 9, 36, 144, 576)
META = LabelMeta(ladder=LADDER, feature_version=IMAGE_FEATURE_VERSION, model="m3-made-up", sweep_version="made-up-1")
BLOBS = IMAGE_FEATURE_NAMES.index("figure_blobs")
# task -> (question, log tokens needed by an empty picture, more per unit of the feature figure_blobs)
TASKS = {
    "background": ("What color is the background?", -3.0, 0.0),
    "count": ("How many objects are there?", 0.0, 2.0),
    "reading": ("What is written below HORSE?", 1.0, 2.5),
}


def made_up_rows(pictures: int, seed: int = 0, split: str | None = None) -> list[LabelRow]:
    """One question of each task about each picture, at every scale; `split` None parts pictures 60/20/20."""
    rng = np.random.default_rng(seed)
    rows = []
    for picture in range(pictures):
        features = rng.normal(size=len(IMAGE_FEATURE_NAMES)).astype(np.float32)
        features[BLOBS] = rng.uniform(0, 2)
        part = split if split is not None else rng.choice(["train", "calibration", "test"], p=[0.6, 0.2, 0.2])
        for task, (question, base, slope) in TASKS.items():
            right = chance(base, slope, features[BLOBS])
            luck = rng.random()  # shared by the scales: who fails at 576 by bad luck fails at 9 too
            for tokens, p in zip(LADDER, right, strict=True):
                rows.append(
                    LabelRow(
                        sample_id=f"{split}-{seed}-{picture}-{task}",
                        dataset="made-up",
                        task=task,
                        split=str(part),
                        image_sha256=f"{seed}-{picture}",
                        question=question,
                        references=["yes"],
                        model=META.model,
                        tokens=tokens,
                        visual_tokens=tokens,
                        prediction="yes" if luck < p else "no",
                        score=float(luck < p),
                        mean_logprob=-0.5,
                        generated_tokens=1,
                        image_features=features,
                    )
                )
    return rows


def chance(base: float, slope: float, blobs: float) -> np.ndarray:
    """(S,) true P(right): rises from 0.05 to 0.95 around the tokens needed."""
    needed = base + slope * blobs
    return 0.05 + 0.9 / (1 + np.exp(-2.0 * (np.log(LADDER) - needed)))


def write_world(folder: Path, pictures: int, seed: int = 0, split: str | None = None) -> Path:
    """The made-up table in a folder of two shards."""
    rows = made_up_rows(pictures, seed, split)
    half = len(rows) // 2
    write_shard(folder / "0.parquet", rows[:half], META)
    write_shard(folder / "1.parquet", rows[half:], META)
    return folder
