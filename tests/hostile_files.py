"""Damaged files of every kind that this project reads, and what must come of them: the same content, or a refusal."""

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from feedback_world import verdict
from hostile import damaged, encoded, misspelt
from label_world import LADDER, META, made_up_rows
from PIL import Image

from complexity.errors import ArtifactError, InvalidInput, LabelTableError, M3Error
from complexity.familiarity import Familiarity
from complexity.features import FEATURE_VERSIONS
from complexity.feedback import read_feedback, to_line
from complexity.image_features import IMAGE_FEATURE_NAMES
from complexity.labels import LabelTable, done_samples, read_labels, read_meta, write_shard
from complexity.predictor import ComplexityPredictor, FitOptions
from router.artifact import MANIFEST_FILE, Artifact, load_artifact, save_artifact
from router.cache import decode, encode
from router.calibrate import CurvePoint
from router.cascade import SecondLook
from router.certify import Certificate
from router.costs import Costs
from training_data.readers.llava_json import read_conversations

QUESTIONS = ["What color is the background?", "How many objects are there?"]
TALK = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cup."}]
SHOWN_CHARS = 3000  # most of a refusal, the file's path included


class Wrong(AssertionError):
    """A damaged file was read as if it said something else, or refused otherwise than as it should be."""


class FileWorld:
    """A file of each kind in a folder; `cases` damage one of them and say whether it was read."""

    def __init__(self, folder: Path):
        self.folder = folder
        write_shard(folder / "labels.parquet", made_up_rows(4), META)
        write_shard(folder / "many.parquet", made_up_rows(40), META)
        self.labels = read_labels(folder / "labels.parquet")
        self.artifact = save_artifact(folder / "artifact", small_artifact(read_labels(folder / "many.parquet")))
        self.features = np.random.default_rng(0).normal(size=(2, len(IMAGE_FEATURE_NAMES))).astype(np.float32)
        (folder / "cup.png").write_bytes(encoded(Image.new("RGB", (8, 8))))
        rows = [{"id": str(i), "image": "cup.png", "conversations": TALK} for i in range(3)]
        (folder / "talks.json").write_text(json.dumps(rows))
        (folder / "feedback.jsonl").write_bytes(to_line(verdict("m3-0")) + to_line(verdict("m3-1")))
        costs = {"unit": "ms", "costs": {str(tokens): tokens / 10 for tokens in LADDER}}
        (folder / "costs.json").write_text(json.dumps(costs))
        self.cases: dict[str, Callable[[random.Random], bool]] = {
            "label table": self.label_table,
            "artifact": self.artifact_changed,
            "artifact with its manifest": self.artifact_vouched,
            "remembered decision": self.remembered,
            "conversations": lambda rng: self._read("talks.json", rng, InvalidInput, self._talks),
            "feedback": lambda rng: self._read("feedback.jsonl", rng, LabelTableError, read_feedback),
            "costs": lambda rng: self._read("costs.json", rng, InvalidInput, Costs.read),
        }

    def label_table(self, rng: random.Random) -> bool:
        """The table or its footer alone, which says where everything is, is damaged."""
        data = (self.folder / "labels.parquet").read_bytes()
        if rng.random() < 0.5:
            data = damaged(data, rng)
        else:
            start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
            footer = damaged(data[start:-8], rng)
            data = data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1"
        path = self.folder / "damaged.parquet"
        path.write_bytes(data)
        for reader in (read_meta, done_samples):
            _refused(path, LabelTableError, lambda reader=reader: reader(path))  # type: ignore[misc]
        table = _refused(path, LabelTableError, lambda: read_labels(path))
        if table is not None and not same_table(table, self.labels):
            raise Wrong("a damaged label table was read, with another content")
        return table is not None

    def artifact_changed(self, rng: random.Random) -> bool:
        """One file of an artifact is damaged, and the manifest doesn't know of it, or is it."""
        name, data = self._damaged_part(rng, [*self._parts(), MANIFEST_FILE])
        loaded = self._load({name: data})
        if loaded is not None and data != (self.folder / "artifact" / name).read_bytes() and name != MANIFEST_FILE:
            raise Wrong(f"{name} was changed, and read")
        return loaded is not None

    def artifact_vouched(self, rng: random.Random) -> bool:
        """One file is damaged and the manifest written anew, as by someone who wants it read."""
        name, data = self._damaged_part(rng, self._parts())
        manifest = json.loads((self.folder / "artifact" / MANIFEST_FILE).read_text())
        manifest[name] = hashlib.sha256(data).hexdigest()
        loaded = self._load({name: data, MANIFEST_FILE: json.dumps(manifest).encode()})
        if loaded is None:
            return False
        chances = loaded.predictor.predict_proba(self.features, QUESTIONS)
        loaded.familiarity.knows(self.features, QUESTIONS)
        loaded.predictor.contributions(self.features[0], QUESTIONS[0], LADDER[1])
        if chances.shape != (len(QUESTIONS), len(LADDER)) or not ((chances > 0) & (chances < 1)).all():
            raise Wrong(f"{name} was read, and predicts {chances}")
        return True

    def remembered(self, rng: random.Random) -> bool:
        """A value that Redis holds is damaged."""
        kept = np.array([rng.random() for _ in range(len(LADDER) + 1)], np.float32)
        found = decode(damaged(encode(kept), rng))
        if found is not None and not np.array_equal(found, kept):
            raise Wrong("a damaged value was read")
        return found is not None

    def _parts(self) -> list[str]:
        return sorted(json.loads((self.folder / "artifact" / MANIFEST_FILE).read_text()))

    def _damaged_part(self, rng: random.Random, names: list[str]) -> tuple[str, bytes]:
        name = rng.choice(names)
        data = (self.folder / "artifact" / name).read_bytes()
        return name, rng.choice((damaged, misspelt))(data, rng)

    def _load(self, changed: dict[str, bytes]) -> Artifact | None:
        folder = self.folder / "damaged"
        folder.mkdir(exist_ok=True)
        for path in (self.folder / "artifact").iterdir():
            (folder / path.name).write_bytes(changed.get(path.name, path.read_bytes()))
        return _refused(folder, ArtifactError, lambda: load_artifact(folder))

    def _read(self, name: str, rng: random.Random, refusal: type[M3Error], read: Callable[[Path], object]) -> bool:
        """A text that anyone may write: what is well-formed is read, whatever it says."""
        path = self.folder / f"damaged-{name}"
        path.write_bytes(rng.choice((damaged, misspelt))((self.folder / name).read_bytes(), rng))
        return _refused(path, refusal, lambda: read(path)) is not None

    def _talks(self, path: Path) -> object:
        return read_conversations(path, self.folder)


def same_table(one: LabelTable, other: LabelTable) -> bool:
    """Whether two tables hold the same."""
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(LabelTable) if f.name != "meta"]
    equal = (a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype != object) for a, b in pairs)
    return one.meta == other.meta and all(equal)


def small_artifact(table: LabelTable) -> Artifact:
    """An artifact of a few small trees."""
    options = FitOptions(rounds=4, threads=1, leaves=5, samples_per_leaf=5)
    learnt = table.image_features, table.question
    return Artifact(
        predictor=ComplexityPredictor.fit(*learnt, table.score, table.image_sha256, LADDER, options),
        ladder=LADDER,
        price=0.0005,
        costs=tuple(map(float, LADDER)),
        cost_unit="tokens",
        target="--max-loss 0.01",
        certificate=Certificate(0.05, 0.9, 0.0005, 100, 1, "0" * 64),
        familiarity=Familiarity.fit(*learnt, *learnt),
        second_look=SecondLook(np.ones((5, 5, 4))),
        place="light",
        feature_version=FEATURE_VERSIONS["light"],
        model="m3-made-up",
        sweep_version="made-up-1",
        labels_sha256="0" * 64,
        seed=0,
        created_at="2026-11-22T12:00:00+00:00",
        metrics={"test": {"pairs": 3}},
        curve=(CurvePoint(0.0, 0.9, 500.0, 500.0),),
        scale_shares=(0.2, 0.2, 0.2, 0.2, 0.2),
    )


def _refused(path: Path, refusal: type[M3Error], read: Callable[[], Any]) -> Any:
    """What is read; None where it is refused in the words of this project, naming the file."""
    try:
        return read()
    except refusal as error:
        if str(path) not in str(error) or len(str(error)) > SHOWN_CHARS:
            raise Wrong(f"{len(str(error))} characters refuse {path}: {str(error)[:500]}") from None
        return None
