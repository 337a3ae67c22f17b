"""Routers that the tests own: a predictor without trees, an artifact around it, and small samples."""

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from label_world import LADDER
from PIL import Image

from complexity.familiarity import Familiarity
from complexity.features import FEATURE_VERSIONS
from complexity.image_features import IMAGE_FEATURE_NAMES
from complexity.predictor import TREES_FILE
from complexity.sample import Sample
from router.artifact import ARTIFACT_FILE, MANIFEST_FILE, Artifact
from router.cache import DecisionCache
from router.certify import Certificate
from router.route import Router

FEATURES = len(IMAGE_FEATURE_NAMES)
ANYTHING = Familiarity(np.zeros(FEATURES), np.ones(FEATURES), np.eye(FEATURES), frozenset(), np.inf, np.inf)
COARSE, FINE = (0.9, 0.9, 0.9, 0.9, 0.9), (0.1, 0.2, 0.3, 0.4, 0.9)


@dataclass
class FakePredictor:
    """Sure of every scale when the question is about colour, else of the finest only; remembers its calls.

    It takes `slow_s` for a call, waits for `go` where there is one, and breaks at a question with the word "breaks".
    """

    slow_s: float = 0.0
    fails: Exception | None = None
    answer: Sequence[float] | None = None
    go: threading.Event | None = None
    threads: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)  # samples of each call

    def predict_proba(self, image_features: np.ndarray, questions: Sequence[str]) -> np.ndarray:
        self.threads.append(threading.get_ident())
        self.asked.append(len(questions))
        time.sleep(self.slow_s)
        if self.go is not None:
            self.go.wait()
        if self.fails:
            raise self.fails
        if any("breaks" in question for question in questions):
            raise RuntimeError("broken by a question")
        return np.array([self.answer or (COARSE if "color" in question else FINE) for question in questions])


def artifact_of(predictor: FakePredictor, digest: str = "digest") -> Artifact:
    return Artifact(
        predictor=predictor,  # type: ignore[arg-type]
        ladder=LADDER,
        price=0.0001,
        costs=LADDER,
        cost_unit="tokens",
        target="--max-loss 0.01",
        certificate=Certificate(0.05, 0.9, 0.0001, 100, 1, "0" * 64),
        familiarity=ANYTHING,
        second_look=None,
        place="light",
        feature_version=FEATURE_VERSIONS["light"],
        model="m3-made-up",
        sweep_version="made-up-1",
        labels_sha256="0" * 64,
        seed=0,
        created_at="2026-11-22T12:00:00+00:00",
        metrics={},
        curve=(),
        digest=digest,
    )


def rewritten(folder: Path, **changes: object) -> None:
    """Change artifact.json and the manifest with it, as another version of the code would have written them."""
    told = json.loads((folder / ARTIFACT_FILE).read_text()) | changes
    (folder / ARTIFACT_FILE).write_text(json.dumps(told))
    vouched(folder)


def vouched(folder: Path) -> None:
    """Have the manifest promise what the files are now."""
    names = json.loads((folder / MANIFEST_FILE).read_text())
    manifest = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


def corrupt(artifact: Path) -> None:
    """Change a bit of a file."""
    trees = (artifact / TREES_FILE).read_bytes()
    (artifact / TREES_FILE).write_bytes(trees[:-2] + bytes([trees[-2] ^ 1]) + trees[-1:])


def truncated(artifact: Path) -> None:
    """Cut a file in half; the manifest says that it was always so."""
    trees = (artifact / TREES_FILE).read_bytes()
    (artifact / TREES_FILE).write_bytes(trees[: len(trees) // 2])
    vouched(artifact)


# What makes an artifact one that isn't loaded, and what is said of it.
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "corrupt": (corrupt, "predictor.txt: its SHA-256 is not"),
    "truncated": (truncated, "predictor.txt can't be read"),
    "another ladder": (partial(rewritten, ladder=[1, 9, 36, 144]), "ladder of the artifact is [1, 9, 36, 144]"),
    "other features": (partial(rewritten, feature_version="0"), "feature version of the artifact is '0'"),
}


STRANGE = replace(ANYTHING, question_limit=-1.0)  # nothing is familiar


def router_of(predictor: FakePredictor, cache: DecisionCache | None = None, price: float | None = None) -> Router:
    return Router(artifact_of(predictor), cache or DecisionCache(None), price)


def sample(question: str = "What is written?", colour: str = "red") -> Sample:
    data = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(data, "PNG")
    return Sample(data.getvalue(), question)
